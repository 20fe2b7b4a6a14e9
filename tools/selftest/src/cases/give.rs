// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Giving pages away: the sender has them no more, and zeroes where they were.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use super::window::{release, take};
use super::zerocopy::{
    completed, finish, idle_server, lent, reading_server, waiting_server, zerocopy, ZEROCOPY,
};
use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::sys::lent::{completion, Lent, FGDP_TRANSFER};
use crate::sys::memory::PAGE;
use crate::sys::window::Window;
use crate::sys::{ancillary, SOL_FGDP};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("give_errors", errors_client, idle_server).lending(),
    Case::stream("give", give_client, waiting_server).lending(),
    Case::stream("give_unaligned", unaligned_client, waiting_server).lending(),
    Case::stream("give_copied", copied_client, reading_server).lending(),
    Case::stream("give_munmap", munmap_client, waiting_server).lending(),
    Case::stream("give_lent_twice", twice_client, waiting_server).lending(),
    Case::stream("give_held", held_client, held_server).lending(),
    Case::stream("give_many", many_client, reading_server)
        .lending()
        .within(60),
    Case::stream("give_never_read", never_client, waiting_server)
        .lending()
        .within(60),
];

/// Gives the pages of `bytes` away that can be granted.
pub(super) fn give(sock: &Sock, bytes: &[u8]) -> nix::Result<usize> {
    let what = (SOL_FGDP, FGDP_TRANSFER);
    ancillary::send(sock.as_fd(), bytes, ZEROCOPY, what, &[])
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn errors_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 1)?;
    memory.bytes().fill(7);
    let page = memory.bytes();
    let send = |flags, kind, data: &[u8]| {
        ancillary::send(sock.as_fd(), page, flags, (SOL_FGDP, kind), data)
    };
    if ctx.net.is_fgdp() {
        // TCP leaves control messages of others alone.
        want!(send(0, FGDP_TRANSFER, &[]), Err(Errno::EINVAL));
    }
    want!(send(ZEROCOPY, FGDP_TRANSFER, &[0; 4]), Err(Errno::EINVAL));
    want!(send(ZEROCOPY, 99, &[]), Err(Errno::EINVAL));
    // Without the option MSG_ZEROCOPY means nothing, and so nothing is given.
    want!(sock.set(libc::SO_ZEROCOPY, 0), Ok(()));
    want!(send(ZEROCOPY, FGDP_TRANSFER, &[]), Ok(PAGE));
    ensure!(page.iter().all(|byte| *byte == 7), "it was given");
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("done")
}

fn give_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    let len = 8 * PAGE;
    for round in 0..3u32 {
        let at = u64::from(round) * len as u64;
        ctx.pattern(0).fill(at, memory.bytes());
        want!(give(&sock, memory.bytes()), Ok(n) if n == len);
        if round == 0 {
            // Read before it is written, and not.
            ensure!(is_zero(memory.bytes()), "not zero");
        }
    }
    memory.bytes()[0] = 1;
    ensure!(
        is_zero(&memory.bytes()[1..]),
        "not zero behind what was written"
    );
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("read")?;
    same!(completed(&sock, 0, 2)?, false);
    same!(memory.bytes()[0], 1);
    finish(ctx, &sock, 3 * len)
}

/// What is copied before and behind whole pages stays.
fn unaligned_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    let (from, to) = (100, 3 * PAGE + 50);
    ctx.pattern(0).fill(0, &mut memory.bytes()[from..to]);
    want!(give(&sock, &memory.bytes()[from..to]), Ok(n) if n == to - from);
    let bytes = memory.bytes();
    ctx.pattern(0).check(0, &bytes[from..PAGE])?;
    ensure!(is_zero(&bytes[PAGE..3 * PAGE]), "whole pages are not given");
    let tail = 3 * PAGE - from;
    ctx.pattern(0).check(tail as u64, &bytes[3 * PAGE..to])?;
    ctx.tell("read")?;
    same!(completed(&sock, 0, 0)?, false);
    finish(ctx, &sock, to - from)
}

fn copied_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let content = ctx.pattern(0).bytes(0, 4 * PAGE);
    let mut sent = 0;
    let mut calls = 0;
    while sent < content.len() {
        sent += give(&sock, &content[sent..]).context("send")?;
        calls += 1;
    }
    same!(completed(&sock, 0, calls - 1)?, true);
    ctx.pattern(0).check(0, &content)?;
    finish(ctx, &sock, content.len())
}

fn munmap_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(give(&sock, memory.bytes()), Ok(n) if n == 8 * PAGE);
    // One page of it is touched, seven are not.
    memory.bytes()[3 * PAGE] = 1;
    memory.cut(2)?;
    drop(memory);
    // The frames are nobody else's yet.
    let mut other = lent(&sock, 64)?;
    other.bytes().fill(0x55);
    ctx.tell("read")?;
    same!(completed(&sock, 0, 0)?, false);
    finish(ctx, &sock, 8 * PAGE)
}

/// A page that is granted already can be given as well.
fn twice_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 2)?;
    let bytes = ctx.pattern(0).bytes(0, 4 * PAGE);
    memory.bytes().copy_from_slice(&bytes[..2 * PAGE]);
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 2 * PAGE);
    // The second one is a copy by now.
    memory.bytes()[PAGE] ^= 1;
    memory.bytes()[PAGE] ^= 1;
    memory.bytes()[..PAGE].copy_from_slice(&bytes[2 * PAGE..3 * PAGE]);
    want!(give(&sock, &memory.bytes()[..PAGE]), Ok(PAGE));
    memory.bytes()[..PAGE].copy_from_slice(&bytes[3 * PAGE..]);
    want!(sock.send_flags(&memory.bytes()[..PAGE], ZEROCOPY), Ok(PAGE));
    want!(give(&sock, &memory.bytes()[..0]), Ok(0));
    ctx.tell("read")?;
    same!(completed(&sock, 0, 2)?, false);
    ctx.pattern(0)
        .check(3 * PAGE as u64, &memory.bytes()[..PAGE])?;
    finish(ctx, &sock, 4 * PAGE)
}

fn held_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(give(&sock, memory.bytes()), Ok(n) if n == 4 * PAGE);
    ctx.wait("taken")?;
    memory.bytes().fill(1);
    drop(memory);
    ctx.tell("gone")?;
    same!(completed(&sock, 0, 0)?, false);
    ctx.wait("done")
}

/// What was given is the receiver's until it gives it back, whatever the sender does.
fn held_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 4)?;
    ctx.pattern(0).check(0, &window.bytes(got)[..PAGE])?;
    ctx.tell("taken")?;
    ctx.wait("gone")?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    window.bytes_mut(got)[PAGE] ^= 1;
    let rest = &window.bytes(got)[2 * PAGE..];
    ctx.pattern(0).check(2 * PAGE as u64, rest)?;
    release(&sock, got)?;
    ctx.tell("done")
}

/// More than the slot has, so frames must come back.
fn many_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let len = 1 << 20;
    let mut memory = lent(&sock, len / PAGE)?;
    let rounds = 100u32;
    let mut granted = 0;
    for round in 0..rounds {
        ctx.pattern(0)
            .fill(u64::from(round) * len as u64, memory.bytes());
        want!(give(&sock, memory.bytes()), Ok(n) if n == len);
        sock.wait_for(PollFlags::EPOLLERR)?;
        while let Ok(done) = completion(sock.as_fd()) {
            granted += if done.copied {
                0
            } else {
                done.last - done.first + 1
            };
        }
    }
    // When frames are short for a moment some are copied.
    ensure!(
        granted > rounds / 2,
        "only {granted} of {rounds} were granted"
    );
    finish(ctx, &sock, rounds as usize * len)
}

/// A peer that gives nothing back makes the sender copy, and others go on.
fn never_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory: Lent = lent(&sock, 256)?;
    let mut sent = 0;
    let full = loop {
        ctx.pattern(0).fill(sent as u64, memory.bytes());
        let flags = ZEROCOPY | libc::MSG_DONTWAIT;
        let what = (SOL_FGDP, FGDP_TRANSFER);
        match ancillary::send(sock.as_fd(), memory.bytes(), flags, what, &[]) {
            Ok(n) => sent += n,
            Err(why) => break why,
        }
        ensure!(sent < 1 << 30, "there is no limit");
    };
    // No space in the ring, or too many calls that are not complete.
    ensure!(
        matches!(full, Errno::EAGAIN | Errno::ENOBUFS),
        "send ended with {full}"
    );
    // The memory is there, to be written as before.
    memory.bytes().fill(3);
    ensure!(
        memory.bytes().iter().all(|byte| *byte == 3),
        "memory changed"
    );
    ctx.tell("read")?;
    sock.shutdown(libc::SHUT_WR)?;
    same!(ctx.wait_value("read")?, sent.to_string());
    ctx.tell("done")
}
