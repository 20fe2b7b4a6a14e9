// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ancillary data: what TCP says beside the bytes.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx};
use crate::sock::{Sock, SIOCINQ};
use crate::sys::ancillary;
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::tcp("tcp_inq", inq_client, inq_server),
    Case::tcp("tcp_inq_from_the_start", inq_start_client, inq_start_server),
    Case::tcp("so_timestamp", timestamp_client, timestamp_server),
    Case::tcp("so_peek_off", peek_off_client, peek_off_server),
    Case::tcp("ancillary_to_send", send_client, send_server),
];

/// A connection that has carried bytes both ways: if rings may, they do.
fn settled_client(ctx: &mut Ctx) -> Result<Sock> {
    let sock = ctx.dial()?;
    sock.send_all(b"ask")?;
    same!(sock.recv_exact(4)?, b"word".to_vec());
    Ok(sock)
}

fn settled_server(ctx: &mut Ctx) -> Result<Sock> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_exact(3)?, b"ask".to_vec());
    sock.send_all(b"word")?;
    Ok(sock)
}

fn until_unread(sock: &Sock, bytes: i32) -> Result<()> {
    while sock.ioctl(SIOCINQ)? != bytes {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Receives; the bytes that are left, as the control message says.
fn recv_inq(sock: &Sock, len: usize, flags: i32) -> Result<(usize, Option<i32>)> {
    let (n, all) = ancillary::recv(sock.as_fd(), &mut vec![0; len], flags)?;
    let mut inq = None;
    for (level, kind, content) in all {
        same!((level, kind, inq), (libc::SOL_TCP, libc::TCP_CM_INQ, None));
        inq = Some(i32::from_ne_bytes(
            content.try_into().ok().context("an int")?,
        ));
    }
    Ok((n, inq))
}

fn inq_client(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_client(ctx)?;
    ctx.tell("ready")?;
    until_unread(&sock, 10_000)?;
    same!(recv_inq(&sock, 1000, 0)?, (1000, None));
    sock.set_tcp(libc::TCP_INQ, 1)?;
    same!(sock.get_tcp(libc::TCP_INQ)?, 1);
    same!(recv_inq(&sock, 2500, 0)?, (2500, Some(6500)));
    same!(recv_inq(&sock, 500, libc::MSG_PEEK)?, (500, Some(6500)));
    same!(recv_inq(&sock, 6500, libc::MSG_WAITALL)?, (6500, Some(0)));
    want!(
        ancillary::recv(sock.as_fd(), &mut [0; 10], libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("read")?;
    sock.wait_for(PollFlags::EPOLLRDHUP | PollFlags::EPOLLIN)?;
    // What is left is the end.
    same!(recv_inq(&sock, 10, 0)?, (3, Some(1)));
    same!(recv_inq(&sock, 10, 0)?, (0, Some(1)));
    sock.set_tcp(libc::TCP_INQ, 0)?;
    same!(recv_inq(&sock, 10, 0)?, (0, None));
    ctx.tell("done")
}

fn inq_server(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_server(ctx)?;
    ctx.wait("ready")?;
    sock.send_all(&ctx.pattern(0).bytes(0, 10_000))?;
    ctx.wait("read")?;
    sock.send_all(b"end")?;
    sock.shutdown(libc::SHUT_WR)?;
    ctx.wait("done")
}

/// Some bytes may come by TCP and the next ones by a ring: that is not to be seen.
fn inq_start_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_tcp(libc::TCP_INQ, 1)?;
    until_unread(&sock, 2000)?;
    ctx.tell("ready")?;
    until_unread(&sock, 6000)?;
    same!(recv_inq(&sock, 1000, 0)?, (1000, Some(5000)));
    same!(recv_inq(&sock, 1500, 0)?, (1500, Some(3500)));
    same!(recv_inq(&sock, 10_000, 0)?, (3500, Some(0)));
    ctx.tell("done")
}

fn inq_start_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.send_all(&ctx.pattern(0).bytes(0, 2000))?;
    ctx.wait("ready")?;
    sock.send_all(&ctx.pattern(0).bytes(2000, 4000))?;
    ctx.wait("done")
}

/// The kind of ancillary data that came with the next bytes.
fn kinds(sock: &Sock) -> Result<Vec<(i32, i32)>> {
    let (_, all) = ancillary::recv(sock.as_fd(), &mut [0; 100], 0)?;
    Ok(all.iter().map(|(level, kind, _)| (*level, *kind)).collect())
}

fn timestamp_client(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_client(ctx)?;
    same!(kinds(&sock)?, vec![]);
    sock.set(libc::SO_TIMESTAMP, 1)?;
    // The kernel begins to stamp packets a little after somebody has asked for it.
    let mut came = Vec::new();
    for _ in 0..200 {
        ctx.tell_value("next", "with")?;
        came = kinds(&sock)?;
        if !came.is_empty() {
            break;
        }
    }
    same!(came, vec![(libc::SOL_SOCKET, libc::SO_TIMESTAMP)]);
    sock.set(libc::SO_TIMESTAMP, 0)?;
    ctx.tell_value("next", "without")?;
    same!(kinds(&sock)?, vec![]);
    ctx.tell("done")
}

fn timestamp_server(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_server(ctx)?;
    sock.send_all(b"without")?;
    while ctx.wait_value("next")? == "with" {
        sock.send_all(b"with")?;
    }
    sock.send_all(b"without")?;
    ctx.wait("done")
}

fn peek_off_client(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_client(ctx)?;
    let content = ctx.pattern(0);
    let mut buf = [0; 1000];
    sock.set(libc::SO_PEEK_OFF, 50)?;
    ctx.tell("ready")?;
    until_unread(&sock, 1000)?;
    // Each look begins where the last one has ended.
    for at in [50, 150] {
        want!(sock.recv_flags(&mut buf[..100], libc::MSG_PEEK), Ok(100));
        content.check(at, &buf[..100])?;
    }
    // And that moves with what is read.
    want!(sock.recv(&mut buf[..200]), Ok(200));
    content.check(0, &buf[..200])?;
    same!(sock.get(libc::SO_PEEK_OFF)?, 50);
    want!(sock.recv_flags(&mut buf, libc::MSG_PEEK), Ok(750));
    content.check(250, &buf[..750])?;
    want!(
        sock.recv_flags(&mut buf, libc::MSG_PEEK | libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    sock.set(libc::SO_PEEK_OFF, -1)?;
    content.check(200, &sock.recv_exact(800)?)?;
    ctx.tell("done")
}

fn peek_off_server(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_server(ctx)?;
    ctx.wait("ready")?;
    sock.send_all(&ctx.pattern(0).bytes(0, 1000))?;
    ctx.wait("done")
}

fn send_client(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_client(ctx)?;
    let send = |level, kind| ancillary::send(sock.as_fd(), b"word", 0, (level, kind), &[0; 4]);
    want!(send(libc::SOL_SOCKET, 0x7fff), Err(Errno::EINVAL));
    // Others' levels do not matter, and a priority may be given to each message.
    want!(send(libc::SOL_UDP, 0x7fff), Ok(4));
    want!(send(libc::SOL_SOCKET, libc::SO_PRIORITY), Ok(4));
    ctx.tell("done")
}

fn send_server(ctx: &mut Ctx) -> Result<()> {
    let sock = settled_server(ctx)?;
    same!(sock.recv_exact(8)?, b"wordword".to_vec());
    sock.expect_eof()?;
    ctx.wait("done")
}
