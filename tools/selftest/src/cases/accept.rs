// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Listening and accepting.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::epoll::EpollFlags as PollFlags;
use std::os::fd::AsFd;

use crate::case::{Case, Ctx};
use crate::sock::{Sock, PATIENCE};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("accept_nothing", nothing, idle),
    Case::stream("accept_not_listening", not_listening, idle),
    Case::stream("accept_flags", two_client, flags_server),
    Case::stream("accept_in_order", order_client, order_server),
    Case::stream("accept_after_close", after_close_client, after_close_server),
    Case::records("accept_after_close", after_close_client, after_close_server),
    Case::stream("accept_inherits_options", one_client, inherit_server),
    Case::stream("listen_backlog_full", backlog_client, backlog_server).fgdp(),
    Case::stream("listen_closed_with_waiting", closed_client, closed_server),
    Case::stream(
        "listen_closed_storm",
        closed_storm_client,
        closed_storm_server,
    ),
    Case::stream(
        "listen_shutdown",
        listen_shutdown_client,
        listen_shutdown_server,
    ),
    Case::stream("listen_connect", listen_connect, idle),
];

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn nothing(ctx: &mut Ctx) -> Result<()> {
    let (sock, _) = ctx.bound()?;
    sock.listen(1)?;
    sock.set_nonblocking(true)?;
    want!(sock.accept(), Err(Errno::EAGAIN));
    sock.set_nonblocking(false)?;
    sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(200))?;
    let start = Instant::now();
    want!(sock.accept(), Err(Errno::EAGAIN));
    want!(start.elapsed(), t if t >= Duration::from_millis(190) && t < PATIENCE);
    Ok(())
}

fn not_listening(ctx: &mut Ctx) -> Result<()> {
    want!(ctx.socket()?.accept(), Err(Errno::EINVAL));
    let (sock, _) = ctx.bound()?;
    want!(sock.accept(), Err(Errno::EINVAL));
    Ok(())
}

/// Connects twice and waits for the end.
fn two_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let _all = [ctx.dial_name(&name)?, ctx.dial_name(&name)?];
    ctx.wait("done")
}

fn one_client(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.dial()?;
    ctx.wait("done")
}

fn is_cloexec(sock: &Sock) -> Result<bool> {
    let flags = fcntl(sock.as_fd(), FcntlArg::F_GETFD)?;
    Ok(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
}

fn flags_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(4)?;
    listener.wait_for(PollFlags::EPOLLIN)?;
    listener.set_nonblocking(true)?;
    // O_NONBLOCK of the listener is not the accepted socket's.
    let (plain, _) = listener.accept_from(0)?;
    want!(
        (plain.is_nonblocking()?, is_cloexec(&plain)?),
        (false, false)
    );
    listener.wait_for(PollFlags::EPOLLIN)?;
    let (both, _) = listener.accept_from(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
    want!((both.is_nonblocking()?, is_cloexec(&both)?), (true, true));
    want!(both.recv(&mut [0; 4]), Err(Errno::EAGAIN));
    want!(listener.accept_from(0x40), Err(Errno::EINVAL));
    ctx.tell("done")
}

fn order_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut all = Vec::new();
    for index in 0..8u8 {
        let sock = ctx.dial_name(&name)?;
        want!(sock.send(&[index]), Ok(1));
        all.push(sock);
    }
    ctx.tell("connected")?;
    ctx.wait("done")
}

fn order_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(16)?;
    ctx.wait("connected")?;
    for index in 0..8u8 {
        same!(listener.accept()?.recv_exact(1)?, [index]);
    }
    ctx.tell("done")
}

fn after_close_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(b"hello"), Ok(5));
    drop(sock);
    ctx.tell("closed")
}

fn after_close_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(1)?;
    ctx.wait("closed")?;
    let sock = listener.accept()?;
    same!(sock.recv_exact(5)?, b"hello");
    sock.expect_eof()
}

fn inherit_server(ctx: &mut Ctx) -> Result<()> {
    let (listener, port) = ctx.bound()?;
    listener.set(libc::SO_SNDBUF, 50_000)?;
    listener.set(libc::SO_RCVBUF, 60_000)?;
    listener.set(libc::SO_RCVLOWAT, 7)?;
    listener.listen(4)?;
    ctx.tell_value("port", port)?;
    let sock = listener.accept()?;
    for option in [
        libc::SO_SNDBUF,
        libc::SO_RCVBUF,
        libc::SO_RCVLOWAT,
        libc::SO_TYPE,
    ] {
        same!(sock.get(option)?, listener.get(option)?);
    }
    want!(listener.get(libc::SO_ACCEPTCONN), Ok(1));
    want!(sock.get(libc::SO_ACCEPTCONN), Ok(0));
    ctx.tell("done")
}

fn backlog_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut open = Vec::new();
    let refused = loop {
        let sock = ctx.socket()?;
        match sock.connect(&name) {
            Ok(()) => open.push(sock),
            Err(e) => break e,
        }
        // TCP lets one more wait than was asked for.
        want!(open.len(), 0..=3);
    };
    same!(refused, Errno::ECONNREFUSED);
    want!(open.len(), 2..=3);
    ctx.tell("full")?;
    ctx.wait("room")?;
    let late = ctx.dial_name(&name).context("after accept made room")?;
    want!(late.send(b"x"), Ok(1));
    ctx.wait("done")
}

fn backlog_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(2)?;
    ctx.wait("full")?;
    listener.set_nonblocking(true)?;
    let mut all = Vec::new();
    while let Ok(sock) = listener.accept() {
        all.push(sock);
    }
    ctx.tell("room")?;
    listener.set_nonblocking(false)?;
    same!(listener.accept()?.recv_exact(1)?, b"x");
    ctx.tell("done")
}

fn closed_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.dial_name(&name)?;
    ctx.tell("connected")?;
    want!(sock.recv(&mut [0; 4]), Err(Errno::ECONNRESET));
    want!(sock.recv(&mut [0; 4]), Ok(0));
    want!(ctx.socket()?.connect(&name), Err(Errno::ECONNREFUSED));
    Ok(())
}

/// Listeners that go while their connections have just come up.
const CLOSED_ROUNDS: usize = 25;

fn closed_storm_client(ctx: &mut Ctx) -> Result<()> {
    for _ in 0..CLOSED_ROUNDS {
        let name = ctx.server_name()?;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(ctx.dial_name(&name)?);
        }
        ctx.tell("connected")?;
        for sock in all {
            want!(sock.recv(&mut [0; 4]), Err(Errno::ECONNRESET));
            want!(sock.recv(&mut [0; 4]), Ok(0));
        }
    }
    Ok(())
}

fn closed_storm_server(ctx: &mut Ctx) -> Result<()> {
    for _ in 0..CLOSED_ROUNDS {
        closed_server(ctx)?;
    }
    Ok(())
}

fn closed_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(4)?;
    ctx.wait("connected")?;
    drop(listener);
    Ok(())
}

fn listen_shutdown_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    ctx.wait("shut")?;
    want!(ctx.socket()?.connect(&name), Err(Errno::ECONNREFUSED));
    ctx.tell("refused")
}

fn listen_shutdown_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(4)?;
    // Shutting down writing changes nothing for a listener, shutting down reading ends it.
    listener.shutdown(libc::SHUT_RD)?;
    want!(listener.accept(), Err(Errno::EINVAL));
    want!(listener.get(libc::SO_ACCEPTCONN), Ok(0));
    ctx.tell("shut")?;
    ctx.wait("refused")
}

fn listen_connect(ctx: &mut Ctx) -> Result<()> {
    let (sock, port) = ctx.bound()?;
    sock.listen(1)?;
    // Listening again changes the backlog only.
    sock.listen(5)?;
    want!(sock.connect(&ctx.net.remote(port)), Err(Errno::EISCONN));
    want!(sock.recv(&mut [0; 4]), Err(Errno::ENOTCONN));
    want!(sock.send(b"x"), Err(Errno::EPIPE | Errno::ENOTCONN));
    want!(sock.ioctl(crate::sock::SIOCINQ), Err(Errno::EINVAL));
    want!(sock.bind(&ctx.net.any()), Err(Errno::EINVAL));
    Ok(())
}
