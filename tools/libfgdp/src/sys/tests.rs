// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The compiler for C compares what the headers and this crate say.

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

use super::c::{Completion, FGDP_COPIED, FGDP_GRANTED, FGDP_NOTHING};
use super::socket::Name;
use super::{Receive, Release};

/// A C program that compiles if all is as this crate has it.
fn claims() -> String {
    let mut text = String::from("#include <fgdp.h>\n#include <linux/errqueue.h>\n");
    let mut claim =
        |what: &str, is: i64| text += &format!("_Static_assert({what} == {is}, \"{what}\");\n");
    for (name, value) in [
        ("FGDP_PAGE_SIZE", crate::PAGE as i64),
        ("FGDP_NOTHING", FGDP_NOTHING.into()),
        ("FGDP_GRANTED", FGDP_GRANTED.into()),
        ("FGDP_COPIED", FGDP_COPIED.into()),
        ("SOL_FGDP", super::SOL_FGDP.into()),
        ("FGDP_RECVERR", super::FGDP_RECVERR.into()),
        ("FGDP_WINDOW", super::FGDP_WINDOW.into()),
        ("FGDP_ZEROCOPY_RECEIVE", super::FGDP_ZEROCOPY_RECEIVE.into()),
        ("FGDP_ZEROCOPY_RELEASE", super::FGDP_ZEROCOPY_RELEASE.into()),
        ("FGDP_MMAP_WINDOW", super::FGDP_MMAP_WINDOW),
        ("SO_EE_ORIGIN_ZEROCOPY", super::SO_EE_ORIGIN_ZEROCOPY.into()),
        (
            "SO_EE_CODE_ZEROCOPY_COPIED",
            super::SO_EE_CODE_ZEROCOPY_COPIED.into(),
        ),
    ] {
        claim(name, value);
    }
    macro_rules! same {
        ($c:literal, $rust:ty, $($field:ident = $member:literal),*) => {
            claim(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as i64);
            $(claim(
                concat!("offsetof(struct ", $c, ", ", $member, ")"),
                offset_of!($rust, $field) as i64,
            );)*
        };
    }
    same!(
        "fgdp_completion",
        Completion,
        first = "first",
        last = "last",
        copied = "copied"
    );
    same!(
        "fgdp_zerocopy_receive",
        Receive,
        offset = "offset",
        length = "length",
        recv_skip_hint = "recv_skip_hint"
    );
    same!(
        "fgdp_zerocopy_release",
        Release,
        offset = "offset",
        length = "length"
    );
    same!(
        "sockaddr_fgdp",
        Name,
        family = "sfg_family",
        reserved = "sfg_reserved",
        port = "sfg_port",
        guest = "sfg_guest"
    );
    // A header of another version may not have it.
    text += &format!(
        "#ifdef FGDP_TRANSFER\n_Static_assert(FGDP_TRANSFER == {}, \"\");\n#endif\n",
        super::FGDP_TRANSFER
    );
    text
}

fn compiles(text: &str, errors: Stdio) -> bool {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut cc = Command::new("cc")
        .args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-x", "c"])
        .arg(format!("-I{root}/include"))
        .arg(format!("-I{root}/../../include/uapi"))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(errors)
        .spawn()
        .expect("a compiler for C");
    let mut input = cc.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    cc.wait().unwrap().success()
}

#[test]
fn constants_and_structs_are_those_of_the_headers() {
    assert!(compiles(&claims(), Stdio::inherit()));
}

#[test]
fn a_wrong_claim_does_not_compile() {
    let wrong = "#include <fgdp.h>\n_Static_assert(FGDP_COPIED == 1, \"wrong\");\n";
    assert!(!compiles(wrong, Stdio::null()));
}
