// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What only TCP has, and others that hook into it.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use super::zerocopy::{completed, ZEROCOPY};
use crate::case::{Case, Ctx, Skipped};
use crate::sock::Sock;
use crate::sys::lent::{completion, TcpArea};
use crate::sys::{self, bpf};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::tcp("tcp_disconnect", disconnect_client, disconnect_server),
    Case::tcp("tcp_info", info_client, info_server),
    Case::tcp("tcp_reuseport", reuseport_client, reuseport_server),
    Case::tcp("tcp_mptcp", mptcp_client, mptcp_server),
    Case::tcp("tcp_sockmap", sockmap_client, echo_server),
    Case::tcp("tcp_zerocopy", zerocopy_client, echo_server),
    Case::tcp("tcp_zerocopy_receive", pages_client, pages_server),
];

/// Answers what comes until the end of the stream.
fn echo(sock: &Sock) -> Result<()> {
    let mut buf = vec![0; 65536];
    loop {
        match sock.recv(&mut buf).context("recv")? {
            0 => return Ok(()),
            n => sock.send_all(&buf[..n])?,
        }
    }
}

fn echo_server(ctx: &mut Ctx) -> Result<()> {
    echo(&ctx.accept_one()?)
}

/// Sends bytes and gets them back, so often that each direction is as the connection goes on with.
fn exchange(ctx: &Ctx, sock: &Sock, index: u64) -> Result<()> {
    for at in (0..40_000).step_by(4000) {
        let bytes = ctx.pattern(index).bytes(at, 4000);
        sock.send_all(&bytes)?;
        same!(sock.recv_exact(4000)?, bytes);
    }
    Ok(())
}

fn disconnect_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(2)?;
    let first = listener.accept()?;
    want!(echo(&first), Err(e) if e.downcast_ref() == Some(&Errno::ECONNRESET));
    echo(&listener.accept()?)
}

fn disconnect_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.dial_name(&name)?;
    exchange(ctx, &sock, 0)?;
    sock.connect(&[0; 16]).context("connect to AF_UNSPEC")?;
    want!(sock.peer_name(), Err(Errno::ENOTCONN));
    want!(sock.send(b"x"), Err(Errno::ECONNRESET));
    sock.connect(&name).context("connect again")?;
    exchange(ctx, &sock, 1)
}

const INFO_BYTES: usize = 300_000;

fn info_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let bytes = sock.recv_exact(INFO_BYTES)?;
    ctx.pattern(0).check(0, &bytes)?;
    let info = sys::tcp_info(sock.as_fd())?;
    same!(info.received, INFO_BYTES as u64);
    sock.send_all(b"all of it")?;
    ctx.wait("done")
}

fn info_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let before = sys::tcp_info(sock.as_fd())?;
    same!((before.state, before.sent, before.received), (1, 0, 0));
    sock.send_all(&ctx.pattern(0).bytes(0, INFO_BYTES))?;
    same!(sock.recv_exact(9)?, b"all of it");
    let info = sys::tcp_info(sock.as_fd())?;
    same!((info.state, info.received), (1, 9));
    // With what TCP has sent twice.
    ensure!(info.sent >= INFO_BYTES as u64, "{} bytes sent", info.sent);
    // TCP counts its SYN, too.
    same!(info.acked - before.acked, INFO_BYTES as u64);
    ctx.tell("done")
}

const DIALS: usize = 16;

fn reuseport_server(ctx: &mut Ctx) -> Result<()> {
    let first = ctx.socket()?;
    first.set(libc::SO_REUSEPORT, 1)?;
    first.bind(&ctx.net.any())?;
    let port = ctx.net.port_of(&first.name()?)?;
    let second = ctx.socket()?;
    second.set(libc::SO_REUSEPORT, 1)?;
    second.bind(&ctx.net.local(port))?;
    for listener in [&first, &second] {
        listener.listen(DIALS as i32)?;
        listener.set_nonblocking(true)?;
    }
    ctx.tell_value("port", port)?;
    ctx.wait("dialled")?;
    let mut served = 0;
    for listener in [&first, &second] {
        while let Ok(sock) = listener.accept() {
            echo(&sock)?;
            served += 1;
        }
    }
    same!(served, DIALS);
    Ok(())
}

fn reuseport_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut socks = Vec::new();
    for n in 0..DIALS {
        let sock = ctx.dial_name(&name)?;
        sock.send_all(&[n as u8; 100])?;
        sock.shutdown(libc::SHUT_WR)?;
        socks.push(sock);
    }
    ctx.tell("dialled")?;
    for (n, sock) in socks.iter().enumerate() {
        same!(sock.recv_to_end()?, vec![n as u8; 100]);
    }
    Ok(())
}

fn mptcp(ctx: &Ctx) -> Result<Sock> {
    let made = sys::socket(ctx.net.domain(), libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
    match made {
        Err(e @ (Errno::EPROTONOSUPPORT | Errno::ENOPROTOOPT)) => {
            Err(Skipped(format!("MPTCP is not available: {e}")).into())
        }
        made => Ok(Sock(made?)),
    }
}

fn mptcp_server(ctx: &mut Ctx) -> Result<()> {
    let listener = mptcp(ctx)?;
    listener.bind(&ctx.net.any())?;
    listener.listen(2)?;
    ctx.tell_value("port", ctx.net.port_of(&listener.name()?)?)?;
    // One of MPTCP, one that falls back to TCP.
    echo(&listener.accept()?)?;
    echo(&listener.accept()?)
}

fn mptcp_client(ctx: &mut Ctx) -> Result<()> {
    let sock = mptcp(ctx)?;
    let name = ctx.server_name()?;
    sock.connect(&name)?;
    exchange(ctx, &sock, 0)?;
    drop(sock);
    exchange(ctx, &ctx.dial_name(&name)?, 1)
}

fn sockmap_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let map = match bpf::sockmap() {
        Err(e @ (Errno::EPERM | Errno::EINVAL | Errno::ENOSYS)) => {
            return Err(Skipped(format!("no BPF map of sockets: {e}")).into());
        }
        map => map?,
    };
    exchange(ctx, &sock, 0)?;
    let mut put = bpf::put(map.as_fd(), sock.as_fd());
    if put.is_err() && sys::carry(sock.as_fd()).is_ok() {
        // A socket that has been taken has to be given back first.
        sys::set_carry(sock.as_fd(), false)?;
        put = bpf::put(map.as_fd(), sock.as_fd());
    }
    put.context("BPF_MAP_UPDATE_ELEM")?;
    exchange(ctx, &sock, 1)?;
    sock.shutdown(libc::SHUT_WR)?;
    sock.wait_for(PollFlags::EPOLLRDHUP)?;
    sock.expect_eof()
}

/// Each send with MSG_ZEROCOPY is told once, and the connection is carried as before.
fn zerocopy_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    exchange(ctx, &sock, 0)?;
    let carried = sys::carry(sock.as_fd()).unwrap_or(false);
    let mut bytes = ctx.pattern(1).bytes(0, 100_000);
    // Without the option the flag means nothing.
    want!(sock.send_flags(&bytes[..10], ZEROCOPY), Ok(10));
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    same!(sock.recv_exact(10)?, &bytes[..10]);
    sock.set(libc::SO_ZEROCOPY, 1).context("SO_ZEROCOPY")?;
    want!(sock.send_flags(&[], ZEROCOPY), Ok(0));
    let mut calls = 0;
    for round in 0..3u8 {
        bytes.fill(round);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n = sock.send_flags(rest, ZEROCOPY).context("send")?;
            let back = sock.recv_exact(n)?;
            ensure!(back.iter().all(|byte| *byte == round), "other bytes came");
            rest = &rest[n..];
            calls += 1;
        }
    }
    let copied = completed(&sock, 0, calls - 1)?;
    ensure!(copied || !carried, "what a ring carries was not copied");
    same!(sys::carry(sock.as_fd()).unwrap_or(false), carried);
    exchange(ctx, &sock, 2)
}

/// Of less than a page TCP maps nothing, and of what comes by a ring nothing ever.
fn pages_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let area = TcpArea::new(sock.as_fd(), 4).context("mmap")?;
    want!(area.receive(1), Err(Errno::EINVAL));
    for (at, len) in [(0, 100), (100, 1000), (1100, 1)] {
        ctx.tell("more")?;
        sock.wait_for(PollFlags::EPOLLIN)?;
        want!(area.receive(0), Ok((0, hint)) if hint == len as u32);
        same!(sock.recv_exact(len)?, ctx.pattern(0).bytes(at, len));
        want!(area.receive(0), Ok((0, 0)));
    }
    ctx.tell("more")?;
    sock.wait_for(PollFlags::EPOLLRDHUP)?;
    want!(area.receive(0), Err(Errno::EIO));
    sock.expect_eof()?;
    ctx.tell("done")
}

fn pages_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    for (at, len) in [(0, 100), (100, 1000), (1100, 1)] {
        ctx.wait("more")?;
        sock.send_all(&ctx.pattern(0).bytes(at, len))?;
    }
    ctx.wait("more")?;
    sock.shutdown(libc::SHUT_WR)?;
    ctx.wait("done")
}
