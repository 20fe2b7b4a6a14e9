// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket as a file: sendfile, splice, read and write, queue sizes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::fcntl::{splice, SpliceFFlags};
use nix::sys::sendfile::sendfile;

use crate::case::{Case, Ctx};
use crate::sock::{Sock, SIOCINQ, SIOCOUTQ};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("sendfile", sendfile_client, sum_server),
    Case::stream("splice_to_socket", splice_in_client, sum_server),
    Case::stream("splice_from_socket", splice_out_client, source_server),
    Case::stream("splice_behind_close", splice_behind_client, closing_server),
    Case::stream(
        "splice_behind_shutdown",
        splice_behind_client,
        shutting_server,
    ),
    Case::stream("splice_wakes_reader", splicing_client, late_server),
    Case::stream("splice_nonblock", splice_nonblock_client, source_server),
    Case::stream("read_write", read_write_client, read_write_server),
    Case::stream("siocinq_siocoutq", queues_client, queues_server),
    Case::stream("not_seekable", not_a_file_client, keep_server),
];

const BYTES: usize = 1_000_003;

fn content_file(ctx: &Ctx) -> Result<File> {
    let path = format!("/tmp/fgdp-selftest-{}", std::process::id());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("cannot make {path}"))?;
    std::fs::remove_file(&path)?;
    file.write_all(&ctx.pattern(0).bytes(0, BYTES))?;
    file.rewind()?;
    Ok(file)
}

fn sum_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let all = sock.recv_to_end()?;
    same!(all.len(), BYTES);
    ctx.pattern(0).check(0, &all)
}

fn sendfile_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let file = content_file(ctx)?;
    let mut offset = 0;
    while offset < BYTES as i64 {
        let n = sendfile(&sock, &file, Some(&mut offset), BYTES).context("sendfile")?;
        ensure!(n > 0, "sendfile returns 0 at {offset}");
    }
    same!(offset, BYTES as i64);
    Ok(())
}

fn splice_in_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let file = content_file(ctx)?;
    let (read, write) = nix::unistd::pipe()?;
    let mut left = BYTES;
    while left > 0 {
        let n = splice(&file, None, &write, None, left, SpliceFFlags::empty())?;
        ensure!(n > 0, "splice from the file returns 0, {left} left");
        let mut here = n;
        while here > 0 {
            let n = splice(&read, None, &sock, None, here, SpliceFFlags::SPLICE_F_MORE)
                .context("splice to the socket")?;
            ensure!(n > 0, "splice to the socket returns 0");
            here -= n;
        }
        left -= n;
    }
    Ok(())
}

/// Sends the content and closes.
fn source_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.send_all(&ctx.pattern(0).bytes(0, BYTES))
}

fn splice_out_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    splice_all(ctx, &sock, BYTES)
}

/// Splices `bytes` bytes and the end from the socket.
fn splice_all(ctx: &Ctx, sock: &Sock, bytes: usize) -> Result<()> {
    let (mut read, write) = {
        let (read, write) = nix::unistd::pipe()?;
        (File::from(read), write)
    };
    let mut all = Vec::new();
    let mut buf = vec![0; 65536];
    loop {
        let n = splice(sock, None, &write, None, 65536, SpliceFFlags::empty())
            .with_context(|| format!("splice from the socket, after {} bytes", all.len()))?;
        if n == 0 {
            break;
        }
        read.read_exact(&mut buf[..n])?;
        all.extend_from_slice(&buf[..n]);
    }
    same!(all.len(), bytes);
    ctx.pattern(0).check(0, &all)
}

/// Fits any buffer: who sends it does not wait for the reader.
const FEW: usize = 10_000;

/// Words that go to and fro first: a connection that may be carried is, behind them.
const WORDS: usize = 20;

fn ask_words(sock: &Sock) -> Result<()> {
    for _ in 0..WORDS {
        want!(sock.send(b"word"), Ok(4));
        sock.recv_exact(4)?;
    }
    Ok(())
}

fn answer_words(sock: &Sock, words: usize) -> Result<()> {
    for _ in 0..words {
        let word = sock.recv_exact(4)?;
        sock.send_all(&word)?;
    }
    Ok(())
}

fn splice_behind_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ask_words(&sock)?;
    ctx.wait("ended")?;
    splice_all(ctx, &sock, FEW)
}

/// Sends the content behind the words.
fn words_and_content(ctx: &mut Ctx) -> Result<Sock> {
    let sock = ctx.accept_one()?;
    answer_words(&sock, WORDS)?;
    sock.send_all(&ctx.pattern(0).bytes(0, FEW))?;
    Ok(sock)
}

fn closing_server(ctx: &mut Ctx) -> Result<()> {
    drop(words_and_content(ctx)?);
    ctx.tell("ended")
}

fn shutting_server(ctx: &mut Ctx) -> Result<()> {
    let sock = words_and_content(ctx)?;
    sock.shutdown(libc::SHUT_WR)?;
    ctx.tell("ended")?;
    sock.expect_eof()
}

/// Connections one after the other: whose reader sleeps when the sender splices.
const READERS: usize = 20;

fn splicing_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    for _ in 0..READERS {
        let sock = ctx.dial_name(&name)?;
        ask_words(&sock)?;
        let (_read, write) = nix::unistd::pipe()?;
        sock.set_nonblocking(true)?;
        let none = splice(&sock, None, &write, None, 4, SpliceFFlags::empty());
        want!(none, Err(Errno::EAGAIN));
        sock.set_nonblocking(false)?;
        sock.send_all(b"late")?;
        same!(sock.recv_exact(4)?, b"late".to_vec());
    }
    Ok(())
}

fn late_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(1)?;
    for _ in 0..READERS {
        let sock = listener.accept()?;
        answer_words(&sock, WORDS + 1)?;
        sock.expect_eof()?;
    }
    Ok(())
}

fn splice_nonblock_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut got = sock.recv_exact(BYTES)?.len();
    sock.expect_eof()?;
    let (_read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe()?;
    // At the end of the stream there is nothing to wait for.
    got += splice(
        &sock,
        None,
        &write,
        None,
        100,
        SpliceFFlags::SPLICE_F_NONBLOCK,
    )?;
    same!(got, BYTES);
    Ok(())
}

fn read_write_client(ctx: &mut Ctx) -> Result<()> {
    let mut file = File::from(ctx.dial()?.0);
    file.write_all(&ctx.pattern(0).bytes(0, 10_000))?;
    let mut buf = vec![0; 10_000];
    file.read_exact(&mut buf)?;
    ctx.pattern(1).check(0, &buf)
}

fn read_write_server(ctx: &mut Ctx) -> Result<()> {
    let mut file = File::from(ctx.accept_one()?.0);
    let mut buf = vec![0; 10_000];
    file.read_exact(&mut buf)?;
    ctx.pattern(0).check(0, &buf)?;
    file.write_all(&ctx.pattern(1).bytes(0, 10_000))?;
    want!(file.read(&mut buf).map_err(|e| e.kind()), Ok(0));
    Ok(())
}

fn queues_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    same!(sock.ioctl(SIOCINQ)?, 0);
    same!(sock.ioctl(SIOCOUTQ)?, 0);
    want!(sock.send(&[1; 5000]), Ok(5000));
    if ctx.net.is_fgdp() {
        // TCP's are acknowledged by the peer's kernel; ours when they were read.
        same!(sock.ioctl(SIOCOUTQ)?, 5000);
    }
    ctx.tell("sent")?;
    ctx.wait("half")?;
    if ctx.net.is_fgdp() {
        same!(sock.ioctl(SIOCOUTQ)?, 3000);
    }
    ctx.tell("seen")?;
    ctx.wait("all")?;
    while sock.ioctl(SIOCOUTQ)? != 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

fn queues_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    while sock.ioctl(SIOCINQ)? < 5000 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    same!(sock.ioctl(SIOCINQ)?, 5000);
    sock.recv_exact(2000)?;
    same!(sock.ioctl(SIOCINQ)?, 3000);
    ctx.tell("half")?;
    ctx.wait("seen")?;
    sock.recv_exact(3000)?;
    same!(sock.ioctl(SIOCINQ)?, 0);
    ctx.tell("all")
}

fn keep_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("done")
}

fn not_a_file_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let seek = nix::unistd::lseek(sock.as_fd(), 0, nix::unistd::Whence::SeekCur);
    want!(seek, Err(Errno::ESPIPE));
    want!(sock.ioctl(0x0000_7fff), Err(Errno::ENOTTY));
    ctx.tell("done")
}
