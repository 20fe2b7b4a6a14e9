// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Server and client over a pair of sockets that can grant nothing: everything is copied.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use fgdp::Stream;

use crate::client::block;
use crate::common::Incoming;
use crate::server::answer;
use crate::wire::{Request, BLOCK};

fn directory(name: &str) -> PathBuf {
    let dir = env::temp_dir().join(format!("fgdp-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn content(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Runs a client beside a server of the files of `dir`, whose last word is returned.
fn connected(dir: &Path, client: impl FnOnce(&Stream)) -> String {
    let (one, other) = UnixStream::pair().unwrap();
    let (one, other) = (
        Stream::from(OwnedFd::from(one)),
        Stream::from(OwnedFd::from(other)),
    );
    thread::scope(|scope| {
        let server = scope.spawn(move || match answer(&other, dir, 1 << 20) {
            Ok(what) => what,
            Err(error) => format!("{error:#}"),
        });
        client(&one);
        drop(one);
        server.join().unwrap()
    })
}

fn request(name: &str, offset: u64, length: u32) -> Request {
    Request {
        name: name.to_owned(),
        offset,
        length,
    }
}

#[test]
fn a_file_comes_in_blocks_and_parts() {
    let dir = directory("blocks");
    let all = content(2 * BLOCK as usize + 5000);
    fs::write(dir.join("a file"), &all).unwrap();
    let path = dir.join("out");
    let mut out = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    let said = connected(&dir, |stream| {
        let mut incoming = Incoming::new(stream, false);
        let mut ask = |offset, length| {
            let n = block(
                stream,
                &mut incoming,
                &request("a file", offset, length),
                &mut out,
            );
            n.unwrap()
        };
        assert_eq!(ask(0, BLOCK), BLOCK);
        // No more than to the end of the block.
        assert_eq!(ask(u64::from(BLOCK), u32::MAX), BLOCK);
        assert_eq!(ask(2 * u64::from(BLOCK), 1000), 1000);
        assert_eq!(ask(2 * u64::from(BLOCK) + 1000, BLOCK), 4000);
        for end in [all.len() as u64, 100 << 30] {
            assert_eq!(ask(end, BLOCK), 0);
        }
    });
    let mut got = Vec::new();
    out.seek(SeekFrom::Start(0)).unwrap();
    out.read_to_end(&mut got).unwrap();
    assert!(got == all);
    assert!(said.starts_with("6 requests, 2 from memory, "), "{said}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_file_that_changes_is_read_again() {
    let dir = directory("changes");
    let path = dir.join("file");
    let out = dir.join("out");
    connected(&dir, |stream| {
        let mut incoming = Incoming::new(stream, false);
        for text in ["first", "and second"] {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
            // The file system's clock may be too coarse to see it.
            let later =
                std::time::SystemTime::now() + std::time::Duration::from_secs(text.len() as u64);
            file.set_modified(later).unwrap();
            let mut to = File::create(&out).unwrap();
            block(stream, &mut incoming, &request("file", 0, BLOCK), &mut to).unwrap();
            assert_eq!(fs::read_to_string(&out).unwrap(), text);
        }
    });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_file_is_an_error_and_the_next_is_served() {
    let dir = directory("none");
    fs::create_dir_all(dir.join("directory")).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    let mut out = File::create(dir.join("out")).unwrap();
    connected(&dir, |stream| {
        let mut incoming = Incoming::new(stream, false);
        for (name, why) in [("absent", "No such file"), ("directory", "Is a directory")] {
            let error = block(stream, &mut incoming, &request(name, 0, 1), &mut out);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let n = block(stream, &mut incoming, &request("file", 0, 1), &mut out);
        assert_eq!(n.unwrap(), 1);
    });
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn other_requests_end_the_connection() {
    let dir = directory("requests");
    let long = format!("GET {} 0 1\n", "n".repeat(1000));
    for line in [
        "\n",
        "GET\n",
        "GET file\n",
        "GET file 1\n",
        "GET file x 1\n",
        "GET file 0 -1\n",
        "GET file 0 4294967296\n",
        "GET ../file 0 1\n",
        "GET .. 0 1\n",
        "GET /etc/passwd 0 1\n",
        "GET  0 1\n",
        "PUT file 0 1\n",
        &long,
    ] {
        let said = connected(&dir, |mut stream| {
            stream.write_all(line.as_bytes()).unwrap();
            // It is over, with or without a complaint about what was not read.
            assert!(
                !matches!(stream.read(&mut [0; 1]), Ok(n) if n > 0),
                "{line}"
            );
        });
        assert!(!said.contains("requests, "), "{line}: {said}");
    }
    fs::remove_dir_all(dir).unwrap();
}
