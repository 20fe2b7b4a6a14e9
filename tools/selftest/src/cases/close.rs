// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Closing, and what the other side sees of it.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;
use nix::sys::signal::Signal;

use crate::case::{Case, Ctx};
use crate::sock::{Sock, PATIENCE};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream(
        "close_delivers_what_was_sent",
        delivers_client,
        delivers_server,
    ),
    Case::records(
        "close_delivers_what_was_sent",
        delivers_client,
        delivers_server,
    ),
    Case::stream("close_with_unread_resets", unread_client, unread_server),
    Case::stream("close_wakes_reader", wakes_client, wakes_server),
    Case::stream("close_wakes_poll", wakes_poll_client, wakes_server),
    Case::stream("close_peer_epipe", epipe_client, close_server),
    Case::stream("close_peer_sigpipe", sigpipe_client, close_server),
    Case::stream(
        "close_blocked_writer",
        blocked_writer_client,
        blocked_writer_server,
    ),
    Case::stream("linger_zero_resets", linger_zero_client, reset_server),
    Case::stream(
        "reset_behind_data",
        reset_behind_client,
        reset_behind_server,
    ),
    Case::stream("linger_waits", linger_client, linger_server),
    Case::stream(
        "linger_gives_up",
        linger_gives_up_client,
        linger_late_server,
    ),
    Case::stream(
        "close_while_connecting",
        connecting_client,
        connecting_server,
    ),
];

const BYTES: usize = 12_000;

fn delivers_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.send_all(&ctx.pattern(0).bytes(0, BYTES))?;
    drop(sock);
    ctx.tell("closed")
}

fn delivers_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("closed")?;
    let all = sock.recv_to_end()?;
    same!(all.len(), BYTES);
    ctx.pattern(0).check(0, &all)
}

fn unread_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.send_all(&[0; 1000])?;
    ctx.tell("sent")?;
    ctx.wait("closed")?;
    let events = sock.wait_for(PollFlags::EPOLLHUP)?;
    want!(events, e if e.contains(PollFlags::EPOLLERR | PollFlags::EPOLLIN));
    want!(sock.recv(&mut [0; 16]), Err(Errno::ECONNRESET));
    // Once.
    want!(sock.recv(&mut [0; 16]), Ok(0));
    want!(sock.send(b"x"), Err(Errno::EPIPE));
    same!(sock.take_error()?, 0);
    Ok(())
}

fn unread_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    drop(sock);
    ctx.tell("closed")
}

fn wakes_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.tell("reading")?;
    sock.expect_eof()
}

fn wakes_poll_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.tell("reading")?;
    let events = sock.poll(PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP, PATIENCE)?;
    same!(events, PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP);
    Ok(())
}

fn wakes_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("reading")?;
    // The peer is about to sleep; whether it does already makes no difference to what it sees.
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

fn close_server(ctx: &mut Ctx) -> Result<()> {
    drop(ctx.accept_one()?);
    ctx.tell("closed")
}

fn send_until_error(sock: &Sock, flags: i32) -> Result<Errno> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Err(e) = sock.send_flags(b"x", flags) {
            return Ok(e);
        }
        // TCP learns from the answer to the first bytes.
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("sending to a closed peer goes on");
}

fn epipe_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.wait("closed")?;
    sock.wait_for(PollFlags::EPOLLRDHUP)?;
    sys::catch(Signal::SIGPIPE, false)?;
    same!(send_until_error(&sock, libc::MSG_NOSIGNAL)?, Errno::EPIPE);
    same!(sys::signals(), 0);
    Ok(())
}

fn sigpipe_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.wait("closed")?;
    sock.wait_for(PollFlags::EPOLLRDHUP)?;
    sys::catch(Signal::SIGPIPE, false)?;
    same!(send_until_error(&sock, 0)?, Errno::EPIPE);
    same!(sys::signals(), 1);
    want!(sock.send_flags(b"x", 0), Err(Errno::EPIPE));
    same!(sys::signals(), 2);
    Ok(())
}

fn blocked_writer_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.fill(ctx.pattern(0))?;
    ctx.tell("full")?;
    let start = Instant::now();
    // Sleeps until the peer closes with our bytes unread. A part may be taken before.
    let err = loop {
        match sock.send(&[0; 65536]) {
            Ok(_) => want!(start.elapsed(), t if t < PATIENCE),
            Err(e) => break e,
        }
    };
    want!(err, Errno::ECONNRESET | Errno::EPIPE);
    Ok(())
}

fn blocked_writer_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("full")?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn linger_zero_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_linger(0)?;
    drop(sock);
    ctx.tell("closed")
}

fn reset_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("closed")?;
    want!(sock.wait_for(PollFlags::EPOLLHUP)?, e if e.contains(PollFlags::EPOLLERR));
    same!(Errno::from_raw(sock.take_error()?), Errno::ECONNRESET);
    want!(sock.recv(&mut [0; 16]), Ok(0));
    Ok(())
}

fn reset_behind_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_linger(0)?;
    want!(sock.send(b"a"), Ok(1));
    ctx.wait("first")?;
    want!(sock.send(b"behind"), Ok(6));
    ctx.wait("seen")?;
    drop(sock);
    ctx.tell("closed")
}

/// TCP keeps what came before a reset; AF_FGDP does not.
fn reset_behind_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_exact(1)?, b"a");
    ctx.tell("first")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    ctx.tell("seen")?;
    ctx.wait("closed")?;
    want!(sock.wait_for(PollFlags::EPOLLHUP)?, e if e.contains(PollFlags::EPOLLERR));
    if !ctx.net.is_fgdp() {
        same!(sock.recv_exact(2)?, b"be");
        same!(sock.recv_exact(4)?, b"hind");
    }
    want!(sock.recv(&mut [0; 16]), Err(Errno::ECONNRESET));
    want!(sock.recv(&mut [0; 16]), Ok(0));
    Ok(())
}

fn linger_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_linger(20)?;
    sock.send_all(&[7; 1000])?;
    ctx.tell("sent")?;
    let start = Instant::now();
    drop(sock);
    want!(start.elapsed(), t if t < Duration::from_secs(15));
    Ok(())
}

fn linger_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    same!(sock.recv_to_end()?, [7; 1000]);
    Ok(())
}

fn linger_gives_up_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_linger(1)?;
    sock.send_all(&[7; 1000])?;
    let start = Instant::now();
    drop(sock);
    // TCP need not wait: the peer's kernel has the bytes already.
    want!(start.elapsed(), t if t < Duration::from_secs(10));
    if ctx.net.is_fgdp() {
        want!(start.elapsed(), t if t > Duration::from_millis(900));
    }
    ctx.tell("closed")
}

fn linger_late_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("closed")?;
    same!(sock.recv_to_end()?, [7; 1000]);
    Ok(())
}

fn connecting_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    for _ in 0..20 {
        let sock = ctx.socket()?;
        sock.set_nonblocking(true)?;
        want!(sock.connect(&name), Ok(()) | Err(Errno::EINPROGRESS));
        drop(sock);
    }
    ctx.tell("closed")?;
    // The listener is still of use.
    let sock = ctx.dial_name(&name)?;
    want!(sock.send(b"last"), Ok(4));
    ctx.wait("done")
}

fn connecting_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(64)?;
    ctx.wait("closed")?;
    let mut buf = [0; 8];
    for _ in 0..21 {
        let sock = listener.accept()?;
        match sock.recv(&mut buf) {
            Ok(4) => {
                same!(&buf[..4], b"last");
                return ctx.tell("done");
            }
            Ok(0) | Err(Errno::ECONNRESET) => {}
            other => bail!("recv gives {other:?}"),
        }
    }
    bail!("the last connection did not come");
}
