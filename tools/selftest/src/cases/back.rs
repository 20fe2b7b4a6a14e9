// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TCP connections that are carried and go back to TCP while pages of them are granted: nothing is lost, and what a
//! program has in its window stays there.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use super::give::give;
use super::window::{pour_random, release, take, STEPS};
use super::zerocopy::{completed, lent, read_pattern, read_pattern_from, zerocopy, ZEROCOPY};
use crate::case::{Case, Ctx};
use crate::sock::{Sock, SIOCINQ, SIOCOUTQ};
use crate::sys;
use crate::sys::lent::{completion, Lent};
use crate::sys::memory::PAGE;
use crate::sys::window::{self, Received, Window};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("back_unread", unread_client, unread_server).carried(),
    Case::stream("back_read_in_part", part_client, part_server).carried(),
    Case::stream("back_held", held_client, held_server).carried(),
    Case::stream("back_given", given_client, given_server).carried(),
    Case::stream("back_then_closed", closed_client, closed_server).carried(),
    Case::stream("back_memory", memory_client, memory_server).carried(),
    Case::stream("back_random", random_client, random_server)
        .carried()
        .within(60),
];

/// Plain TCP from here on.
fn back(sock: &Sock) -> Result<()> {
    sys::set_carry(sock.as_fd(), false).context("FGDP_CARRY")?;
    // A socket without mappings knows of it no more.
    same!(sys::carry(sock.as_fd()).unwrap_or(false), false);
    Ok(())
}

/// The pattern from `at` on: some pages that are granted, `bytes` that are copied, and some more pages; where it ends.
fn send_mixed(ctx: &Ctx, sock: &Sock, memory: &mut Lent, at: usize, bytes: usize) -> Result<usize> {
    let half = memory.bytes().len() / 2;
    let copied = ctx.pattern(0).bytes((at + half) as u64, bytes);
    ctx.pattern(0).fill(at as u64, &mut memory.bytes()[..half]);
    want!(sock.send_flags(&memory.bytes()[..half], ZEROCOPY), Ok(n) if n == half);
    sock.send_all(&copied)?;
    let end = at + half + bytes;
    ctx.pattern(0).fill(end as u64, &mut memory.bytes()[half..]);
    want!(sock.send_flags(&memory.bytes()[half..], ZEROCOPY), Ok(n) if n == half);
    Ok(end + half)
}

fn unread_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    same!(sys::carry(sock.as_fd())?, true);
    let sent = send_mixed(ctx, &sock, &mut memory, 0, 1000)?;
    same!(sock.ioctl(SIOCOUTQ)?, sent as i32);
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    back(&sock)?;
    // TCP has them, so they are the program's again, and told to have been granted.
    same!(completed(&sock, 0, 1)?, false);
    memory.bytes().fill(0xcc);
    // What follows keeps its place.
    sock.send_all(&ctx.pattern(0).bytes(sent as u64, 10_000))?;
    ctx.tell("back")?;
    sock.shutdown(libc::SHUT_WR)?;
    same!(ctx.wait_value("read")?, (sent + 10_000).to_string());
    ctx.tell("done")
}

fn unread_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("back")?;
    let got = read_pattern(ctx, &sock)?;
    ctx.tell_value("read", got)?;
    ctx.wait("done")
}

fn part_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    let sent = send_mixed(ctx, &sock, &mut memory, 0, 1000)?;
    ctx.tell("sent")?;
    same!(completed(&sock, 0, 1)?, false);
    sock.shutdown(libc::SHUT_WR)?;
    same!(ctx.wait_value("read")?, sent.to_string());
    ctx.tell("done")
}

/// The reader goes back in the middle of a page.
fn part_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    let head = 2 * PAGE + 77;
    ctx.pattern(0).check(0, &sock.recv_exact(head)?)?;
    back(&sock)?;
    let got = read_pattern_from(ctx, &sock, head)?;
    ctx.tell_value("read", got)?;
    ctx.wait("done")
}

fn held_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    let sent = send_mixed(ctx, &sock, &mut memory, 0, 1000)?;
    ctx.wait("taken")?;
    back(&sock)?;
    // The peer has half of it: who writes there gets a copy.
    memory.bytes().fill(0xcc);
    ctx.tell("written")?;
    same!(completed(&sock, 0, 1)?, false);
    sock.send_all(&ctx.pattern(0).bytes(sent as u64, 5000))?;
    ensure!(
        memory.bytes().iter().all(|byte| *byte == 0xcc),
        "memory changed"
    );
    ctx.wait("done")
}

fn held_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 4)?;
    ctx.tell("taken")?;
    ctx.wait("written")?;
    // It is TCP's, and what was taken before still here, and this program's own.
    ctx.pattern(0).check(0, window.bytes(got))?;
    window.bytes_mut(got)[PAGE] ^= 1;
    let rest = 1000 + 4 * PAGE;
    ctx.pattern(0)
        .check((4 * PAGE) as u64, &sock.recv_exact(rest)?)?;
    same!(sys::carry(sock.as_fd())?, false);
    want!(
        window::receive(sock.as_fd()),
        Ok(Received {
            length: 0,
            skip: 0,
            ..
        })
    );
    release(&sock, got)?;
    let at = (1000 + 8 * PAGE) as u64;
    ctx.pattern(0).check(at, &sock.recv_exact(5000)?)?;
    ctx.tell("done")
}

fn given_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 16)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(give(&sock, memory.bytes()), Ok(n) if n == 16 * PAGE);
    ctx.wait("some")?;
    back(&sock)?;
    ensure!(memory.bytes().iter().all(|byte| *byte == 0), "not zero");
    sock.shutdown(libc::SHUT_WR)?;
    same!(completed(&sock, 0, 0)?, false);
    ctx.wait("done")
}

fn given_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.pattern(0).check(0, &sock.recv_exact(5000)?)?;
    ctx.tell("some")?;
    let rest = 16 * PAGE - 5000;
    ctx.pattern(0).check(5000, &sock.recv_exact(rest)?)?;
    sock.expect_eof()?;
    ctx.tell("done")
}

fn closed_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    send_mixed(ctx, &sock, &mut memory, 0, 1000)?;
    ctx.wait("taken")?;
    // The end comes behind what was granted, however that goes.
    drop(memory);
    drop(sock);
    ctx.tell("closed")?;
    ctx.wait("done")
}

fn closed_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 4)?;
    ctx.tell("taken")?;
    ctx.wait("closed")?;
    back(&sock)?;
    let rest = 1000 + 4 * PAGE;
    ctx.pattern(0)
        .check((4 * PAGE) as u64, &sock.recv_exact(rest)?)?;
    sock.expect_eof()?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    drop(window);
    ctx.tell("done")
}

/// Memory of a connection that is TCP's again: it is copied, which is told.
fn memory_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    back(&sock)?;
    want!(Lent::new(sock.as_fd(), 1).map(drop), Err(Errno::EPERM));
    want!(window::size(sock.as_fd()), Err(Errno::EOPNOTSUPP));
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 4 * PAGE);
    same!(completed(&sock, 0, 0)?, true);
    sock.shutdown(libc::SHUT_WR)?;
    ctx.wait("done")
}

fn memory_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(read_pattern(ctx, &sock)?, 4 * PAGE);
    ctx.tell("done")
}

/// Goes back somewhere in the middle, or leaves that to the other side.
fn random_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let last = ctx.random.between(0, 2 * STEPS);
    let sent = pour_random(ctx, &sock, |step| match step == last {
        true => back(&sock),
        false => Ok(()),
    })?;
    same!(ctx.wait_value("read")?, sent.to_string());
    ctx.tell("done")
}

fn random_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let fd = sock.as_fd();
    let window = Window::new(fd).context("mmap")?;
    let last = ctx.random.between(0, 2 * STEPS);
    let mut held: Vec<(Received, u64)> = Vec::new();
    let mut at = 0u64;
    for step in 0.. {
        if step == last {
            back(&sock)?;
        }
        let got = window::receive(fd)?;
        if got.length > 0 && ctx.random.between(0, 3) != 0 {
            held.push((got, at));
            at += u64::from(got.length);
        } else if got.length > 0 {
            ctx.pattern(0).check(at, window.bytes(got))?;
            release(&sock, got)?;
            at += u64::from(got.length);
        } else if got.skip > 0 {
            let data = sock.recv_exact(ctx.random.between(1, got.skip as usize))?;
            ctx.pattern(0).check(at, &data)?;
            at += data.len() as u64;
        } else {
            let events = sock.wait_for(PollFlags::EPOLLIN)?;
            if events.contains(PollFlags::EPOLLRDHUP) && sock.ioctl(SIOCINQ)? == 0 {
                break;
            }
        }
        while held.len() > ctx.random.between(0, 5) {
            let n = ctx.random.between(0, held.len() - 1);
            let (taken, from) = held.swap_remove(n);
            ctx.pattern(0).check(from, window.bytes(taken))?;
            release(&sock, taken)?;
        }
    }
    ctx.tell_value("read", at)?;
    ctx.wait("done")
}
