// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Flags of send and receive, and vectors of buffers.

use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx};
use crate::sock::SIOCINQ;
use crate::{same, sys, want};
use std::os::fd::AsFd;

pub const CASES: &[Case] = &[
    Case::stream("msg_peek", peek_client, hundred_server),
    Case::stream("msg_peek_big", peek_big_client, big_server),
    Case::stream("msg_waitall", waitall_client, waitall_server),
    Case::stream("msg_waitall_eof", waitall_eof_client, hundred_close_server),
    Case::stream("msg_dontwait", dontwait_client, hundred_server),
    Case::records("msg_dontwait", dontwait_client, hundred_server),
    Case::stream("msg_trunc_discards", trunc_client, hundred_server),
    Case::stream("msg_more", more_client, more_server),
    Case::stream("msg_oob", oob_client, hundred_server).fgdp(),
    Case::stream("msg_errqueue", errqueue_client, hundred_server),
    Case::stream("vectors", vectors_client, echo_server),
    Case::stream("zero_length", zero_client, hundred_server),
];

/// Sends the first 100 bytes of the pattern when the client is ready; stays until it is done.
fn hundred_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("ready")?;
    want!(sock.send(&ctx.pattern(0).bytes(0, 100)), Ok(100));
    ctx.tell("sent")?;
    ctx.wait("done")
}

fn hundred_close_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.send(&ctx.pattern(0).bytes(0, 100)), Ok(100));
    Ok(())
}

fn peek_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let content = ctx.pattern(0);
    let mut buf = [0; 200];
    want!(
        sock.recv_flags(&mut buf, libc::MSG_PEEK | libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("ready")?;
    // Waits, as a receive does.
    want!(sock.recv_flags(&mut buf[..10], libc::MSG_PEEK), Ok(10));
    content.check(0, &buf[..10])?;
    ctx.wait("sent")?;
    for _ in 0..3 {
        want!(sock.recv_flags(&mut buf, libc::MSG_PEEK), Ok(100));
        content.check(0, &buf[..100])?;
        same!(sock.ioctl(SIOCINQ)?, 100);
    }
    content.check(0, &sock.recv_exact(30)?)?;
    want!(sock.recv_flags(&mut buf, libc::MSG_PEEK), Ok(70));
    content.check(30, &buf[..70])?;
    content.check(30, &sock.recv_exact(70)?)?;
    want!(
        sock.recv_flags(&mut buf, libc::MSG_PEEK | libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("done")
}

const BIG: usize = 150_000;

fn big_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.send_all(&ctx.pattern(0).bytes(0, BIG))?;
    ctx.wait("done")
}

fn peek_big_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let content = ctx.pattern(0);
    let mut buf = vec![0; BIG];
    let mut at = 0;
    while at < BIG {
        let want = ctx.random.between(1, 40_000).min(BIG - at);
        // Not with MSG_WAITALL: how much may wait unread is the family's affair.
        let seen = sock.recv_flags(&mut buf[..want], libc::MSG_PEEK)?;
        want!(seen, n if (1..=want).contains(&n));
        content.check(at as u64, &buf[..seen])?;
        content.check(at as u64, &sock.recv_exact(want)?)?;
        at += want;
    }
    ctx.tell("done")
}

fn waitall_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut buf = [0; 1000];
    want!(sock.recv_flags(&mut buf, libc::MSG_WAITALL), Ok(1000));
    ctx.pattern(0).check(0, &buf)?;
    // What is there does without waiting for all.
    want!(
        sock.recv_flags(&mut buf, libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("done")
}

fn waitall_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    for part in 0..10 {
        want!(sock.send(&ctx.pattern(0).bytes(part * 100, 100)), Ok(100));
        std::thread::sleep(Duration::from_millis(5));
    }
    ctx.wait("done")
}

fn waitall_eof_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut buf = [0; 1000];
    want!(sock.recv_flags(&mut buf, libc::MSG_WAITALL), Ok(100));
    ctx.pattern(0).check(0, &buf[..100])?;
    want!(sock.recv_flags(&mut buf, libc::MSG_WAITALL), Ok(0));
    Ok(())
}

fn dontwait_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut buf = [0; 200];
    want!(
        sock.recv_flags(&mut buf, libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("ready")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    want!(sock.recv_flags(&mut buf, libc::MSG_DONTWAIT), Ok(100));
    want!(
        sock.recv_flags(&mut buf, libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.wait("sent")?;
    ctx.tell("done")
}

fn trunc_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    ctx.tell("ready")?;
    ctx.wait("sent")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    // As TCP: the bytes are thrown away, the buffer is not touched.
    want!(sys::recv_null(sock.as_fd(), 40, libc::MSG_TRUNC), Ok(40));
    let mut buf = [0xaa; 10];
    want!(sock.recv_flags(&mut buf, libc::MSG_TRUNC), Ok(10));
    same!(buf, [0xaa; 10]);
    ctx.pattern(0).check(50, &sock.recv_exact(50)?)?;
    ctx.tell("done")
}

fn more_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    for part in 0..10 {
        let bytes = ctx.pattern(0).bytes(part * 10, 10);
        want!(sock.send_flags(&bytes, libc::MSG_MORE), Ok(10));
    }
    // Nothing may be held back for ever.
    ctx.wait("read")
}

fn more_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.pattern(0).check(0, &sock.recv_exact(100)?)?;
    ctx.tell("read")
}

fn oob_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send_flags(b"!", libc::MSG_OOB), Err(Errno::EOPNOTSUPP));
    want!(
        sock.recv_flags(&mut [0; 1], libc::MSG_OOB),
        Err(Errno::EOPNOTSUPP | Errno::EINVAL)
    );
    ctx.tell("ready")?;
    ctx.wait("sent")?;
    ctx.tell("done")
}

fn errqueue_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(
        sock.recv_flags(&mut [0; 1], libc::MSG_ERRQUEUE),
        Err(Errno::EAGAIN)
    );
    ctx.tell("ready")?;
    ctx.wait("sent")?;
    ctx.tell("done")
}

fn echo_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = vec![0; 65536];
    loop {
        match sock.recv(&mut buf)? {
            0 => return Ok(()),
            n => sock.send_all(&buf[..n])?,
        }
    }
}

fn vectors_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let content = ctx.pattern(0);
    let sizes = [1usize, 0, 7, 4096, 64, 0, 511, 3000, 1];
    let total: usize = sizes.iter().sum();
    let mut at = 0;
    let parts: Vec<Vec<u8>> = sizes
        .iter()
        .map(|size| {
            at += size;
            content.bytes((at - size) as u64, *size)
        })
        .collect();
    let slices: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
    want!(sock.sendmsg(&slices, 0), Ok(n) if n == total);
    let mut first = vec![0; 100];
    let mut second = vec![0; 0];
    let mut third = vec![0; total - 100 + 50];
    let mut into = [
        IoSliceMut::new(&mut first),
        IoSliceMut::new(&mut second),
        IoSliceMut::new(&mut third),
    ];
    // Not more than there is, so waiting for all would be for ever.
    let mut got = 0;
    while sock.ioctl(SIOCINQ)? < total as i32 {
        std::thread::sleep(Duration::from_millis(1));
    }
    got += want_some(sock.recvmsg(&mut into, 0)?)?;
    same!(got, total);
    content.check(0, &first)?;
    content.check(100, &third[..total - 100])
}

fn want_some((n, flags): (usize, i32)) -> Result<usize> {
    same!(flags & libc::MSG_TRUNC, 0);
    Ok(n)
}

fn zero_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(&[]), Ok(0));
    want!(sock.sendmsg(&[], 0), Ok(0));
    ctx.tell("ready")?;
    ctx.wait("sent")?;
    want!(sock.recv(&mut []), Ok(0));
    // Nothing of that was seen or lost.
    ctx.pattern(0).check(0, &sock.recv_exact(100)?)?;
    ctx.tell("done")
}
