// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shutting down one direction or both.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("shut_wr_half_close", half_close_client, half_close_server),
    Case::records("shut_wr_half_close", half_close_client, half_close_server),
    Case::stream("shut_rd", shut_rd_client, shut_rd_server),
    Case::stream("shut_rdwr", shut_rdwr_client, eof_server),
    Case::stream(
        "shut_client_first",
        client_first_client,
        client_first_server,
    ),
    Case::stream(
        "shut_server_first",
        server_first_client,
        server_first_server,
    ),
    Case::stream("shut_at_once", at_once_client, at_once_server),
    Case::stream("shut_bad_how", bad_how_client, eof_server),
    Case::stream("shut_wakes_reader", wakes_reader_client, wait_server),
    Case::stream("shut_wakes_writer", wakes_writer_client, wait_server),
    Case::stream("shut_wr_after_full_ring", full_client, full_server),
];

fn half_close_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(b"request"), Ok(7));
    sock.shutdown(libc::SHUT_WR)?;
    want!(sock.send(b"more"), Err(Errno::EPIPE));
    // Twice is as once.
    sock.shutdown(libc::SHUT_WR)?;
    want!(sock.recv(&mut [0; 16]), Ok(6));
    ctx.tell("read")?;
    want!(sock.recv(&mut [0; 16]), Ok(5));
    sock.expect_eof()?;
    sock.expect_eof()?;
    want!(sock.events()?, e if e.contains(PollFlags::EPOLLHUP | PollFlags::EPOLLRDHUP));
    Ok(())
}

fn half_close_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.recv(&mut [0; 16]), Ok(7));
    sock.expect_eof()?;
    let events = sock.wait_for(PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP)?;
    want!(events, e if e.contains(PollFlags::EPOLLOUT) && !e.contains(PollFlags::EPOLLHUP));
    want!(sock.send(b"answer"), Ok(6));
    // A stream keeps no borders: the second comes when the first was read.
    ctx.wait("read")?;
    want!(sock.send(b"again"), Ok(5));
    sock.shutdown(libc::SHUT_WR)?;
    Ok(())
}

fn shut_rd_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.wait("sent")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    sock.shutdown(libc::SHUT_RD)?;
    want!(sock.events()?, e if e.contains(PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP));
    // What was there can still be read; then comes the end, without waiting.
    same!(sock.recv_exact(4)?, b"left");
    sock.expect_eof()?;
    // The other direction goes on.
    want!(sock.send(b"out"), Ok(3));
    ctx.wait("done")
}

fn shut_rd_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.send(b"left"), Ok(4));
    ctx.tell("sent")?;
    same!(sock.recv_exact(3)?, b"out");
    ctx.tell("done")
}

fn shut_rdwr_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.shutdown(libc::SHUT_RDWR)?;
    sock.expect_eof()?;
    want!(sock.send(b"x"), Err(Errno::EPIPE));
    want!(sock.events()?, e if e.contains(PollFlags::EPOLLIN | PollFlags::EPOLLHUP | PollFlags::EPOLLRDHUP));
    ctx.wait("eof")
}

fn eof_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.expect_eof()?;
    ctx.tell("eof")
}

fn client_first_client(ctx: &mut Ctx) -> Result<()> {
    first(&ctx.dial()?)
}

fn client_first_server(ctx: &mut Ctx) -> Result<()> {
    second(&ctx.accept_one()?)
}

fn server_first_client(ctx: &mut Ctx) -> Result<()> {
    second(&ctx.dial()?)
}

fn server_first_server(ctx: &mut Ctx) -> Result<()> {
    first(&ctx.accept_one()?)
}

fn first(sock: &Sock) -> Result<()> {
    sock.shutdown(libc::SHUT_WR)?;
    sock.expect_eof()?;
    let events = sock.wait_for(PollFlags::EPOLLHUP)?;
    want!(events, e if e.contains(PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP));
    same!(sock.take_error()?, 0);
    Ok(())
}

fn second(sock: &Sock) -> Result<()> {
    sock.expect_eof()?;
    want!(sock.events()?, e if !e.contains(PollFlags::EPOLLHUP));
    sock.shutdown(libc::SHUT_WR)?;
    sock.wait_for(PollFlags::EPOLLHUP)?;
    same!(sock.take_error()?, 0);
    Ok(())
}

fn at_once_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    for _ in 0..10 {
        want!(sock.send(b"0123456789"), Ok(10));
    }
    ctx.tell("ready")?;
    ctx.wait("ready")?;
    sock.shutdown(libc::SHUT_WR)?;
    same!(sock.recv_to_end()?.len(), 100);
    Ok(())
}

fn at_once_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    for _ in 0..10 {
        want!(sock.send(b"0123456789"), Ok(10));
    }
    ctx.tell("ready")?;
    ctx.wait("ready")?;
    sock.shutdown(libc::SHUT_WR)?;
    same!(sock.recv_to_end()?.len(), 100);
    Ok(())
}

fn bad_how_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.shutdown(3), Err(Errno::EINVAL));
    want!(sock.shutdown(-1), Err(Errno::EINVAL));
    want!(sock.send(b""), Ok(0));
    drop(sock);
    ctx.wait("eof")
}

/// Keeps a connection open, without reading or writing, until the client has seen enough.
fn wait_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("done")
}

fn wakes_reader_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let got = thread::scope(|scope| {
        let reader = scope.spawn(|| sock.recv(&mut [0; 16]));
        // Most often the reader sleeps by then; when not, it finds the end at once.
        thread::sleep(Duration::from_millis(200));
        sock.shutdown(libc::SHUT_RD)?;
        anyhow::Ok(reader.join().map_err(|_| anyhow!("the reader panicked"))?)
    })?;
    want!(got, Ok(0));
    ctx.tell("done")
}

fn wakes_writer_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.fill(ctx.pattern(0))?;
    let got = thread::scope(|scope| {
        let writer = scope.spawn(|| sock.send(&[0; 1 << 20]));
        thread::sleep(Duration::from_millis(200));
        sock.shutdown(libc::SHUT_WR)?;
        anyhow::Ok(writer.join().map_err(|_| anyhow!("the writer panicked"))?)
    })?;
    // A part may have been taken before.
    want!(got, Err(Errno::EPIPE) | Ok(1..0x10_0000));
    want!(sock.send(b"x"), Err(Errno::EPIPE));
    ctx.tell("done")
}

fn full_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let sent = sock.fill(ctx.pattern(0))?;
    sock.shutdown(libc::SHUT_WR)?;
    ctx.tell_value("sent", sent)?;
    sock.expect_eof()
}

fn full_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let sent: usize = ctx.wait_value("sent")?.parse()?;
    let all = sock.recv_to_end()?;
    ensure!(
        all.len() == sent,
        "{} of {sent} bytes came before the end",
        all.len()
    );
    ctx.pattern(0).check(0, &all)
}
