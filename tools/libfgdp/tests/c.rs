// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The libraries that programs in C are linked with.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SONAME: &str = "libfgdp.so.0";

/// Where cargo leaves the library that a test is built with.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let path = test.parent().unwrap().join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{command:?}: {}: {errors}",
        done.status
    );
    String::from_utf8(done.stdout).unwrap()
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(format!("{ROOT}/include/fgdp.h")).unwrap();
    let declarations = header
        .lines()
        .filter(|line| line.ends_with(");") && !line.starts_with([' ', '\t']));
    declarations
        .map(|line| {
            let name = line.split('(').next().unwrap();
            let at = name.rfind([' ', '*']).unwrap() + 1;
            name[at..].to_owned()
        })
        .collect()
}

fn exported(library: &Path, options: &[&str]) -> BTreeSet<String> {
    let symbols = output(Command::new("nm").args(options).arg(library));
    let functions = symbols.lines().filter_map(|line| line.split_once(" T "));
    functions.map(|(_, name)| name.to_owned()).collect()
}

/// Compiles a program of `tests/c` in a directory of its own and runs it.
fn run(name: &str, libraries: &[String], dir: &Path) -> String {
    let program = dir.join(name);
    let headers = ["include", "../../include/uapi"].map(|dir| format!("-I{ROOT}/{dir}"));
    output(
        Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .args(headers)
            .arg(format!("{ROOT}/tests/c/{name}.c"))
            .args(libraries),
    );
    output(&mut Command::new(program))
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn what_is_declared_is_exported_and_nothing_else() {
    let declared = declared();
    assert!(declared.len() > 10, "{declared:?}");
    assert_eq!(
        exported(&built("libfgdp.so"), &["-D", "--defined-only"]),
        declared
    );
    let all = exported(&built("libfgdp.a"), &["--defined-only", "--quiet"]);
    let missing: Vec<_> = declared.difference(&all).collect();
    assert!(missing.is_empty(), "not in libfgdp.a: {missing:?}");
}

#[test]
fn the_shared_library_has_its_name() {
    let dynamic = output(Command::new("readelf").arg("-d").arg(built("libfgdp.so")));
    assert!(dynamic.contains(&format!("Library soname: [{SONAME}]")));
}

#[test]
fn misuse_is_an_error_with_the_shared_library() {
    let dir = scratch("shared");
    let library = built("libfgdp.so");
    for name in ["libfgdp.so", SONAME] {
        let link = dir.join(name);
        let _none = fs::remove_file(&link);
        symlink(&library, link).unwrap();
    }
    let place = dir.display();
    let libraries = [
        format!("-L{place}"),
        format!("-Wl,-rpath,{place}"),
        "-lfgdp".into(),
    ];
    assert_eq!(run("misuse", &libraries, &dir), "all as the header says\n");
}

#[test]
fn misuse_is_an_error_with_the_static_library() {
    let library = built("libfgdp.a").display().to_string();
    let libraries = [library, "-lgcc_s".into()];
    let said = run("misuse", &libraries, &scratch("static"));
    assert_eq!(said, "all as the header says\n");
}
