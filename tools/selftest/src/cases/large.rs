// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that page tables map by entries of the next level, where frames follow each other, and what splits them.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use super::give::give;
use super::window::release;
use super::zerocopy::{completed, lent, send_all, zerocopy};
use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::sys::memory::PAGE;
use crate::sys::window::{self, Received, Window};
use crate::{same, want};

pub const CASES: &[Case] = &[Case::stream("large_pages", client, server).lending()];

/// Pages of 2 MiB.
const HUGE: usize = 512;
const LEN: usize = HUGE * PAGE;

fn client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 2 * HUGE)?;
    // Its first half as it is, of the second one a page is another frame when it is sent again, then all is given.
    ctx.pattern(0).fill(0, memory.bytes());
    let mut calls = send_all(&sock, &memory.bytes()[..LEN])?;
    calls += send_all(&sock, &memory.bytes()[LEN..])?;
    ctx.wait("first")?;
    ctx.pattern(0).check(0, memory.bytes())?;
    memory.bytes()[LEN + 7 * PAGE] ^= 1;
    ctx.tell("written")?;
    ctx.wait("again")?;
    memory.bytes()[LEN + 7 * PAGE] ^= 1;
    calls += send_all(&sock, &memory.bytes()[LEN..])?;
    ctx.wait("read")?;
    same!(completed(&sock, 0, calls - 1)?, false);
    want!(give(&sock, &memory.bytes()[..LEN]), Ok(LEN));
    ensure!(memory.bytes()[..LEN].iter().all(|b| *b == 0), "not zero");
    ctx.pattern(0).check(LEN as u64, &memory.bytes()[LEN..])?;
    // Elsewhere it need not begin where large pages do.
    want!(memory.move_to(2 * HUGE), Ok(()));
    ctx.pattern(0).check(LEN as u64, &memory.bytes()[LEN..])?;
    // The new frames follow each other again.
    ctx.pattern(0).fill(0, &mut memory.bytes()[..LEN]);
    want!(give(&sock, &memory.bytes()[..LEN]), Ok(LEN));
    same!(completed(&sock, calls, calls + 1)?, false);
    ctx.wait("done")
}

/// Takes grants of `LEN` bytes: one, or more where frames did not follow each other.
fn take_all(sock: &Sock) -> Result<Vec<Received>> {
    let mut all = Vec::new();
    let mut len = 0;
    while len < LEN {
        let got = window::receive(sock.as_fd()).context("receive")?;
        if got.length == 0 {
            same!(got.skip, 0);
            sock.wait_for(PollFlags::EPOLLIN)?;
            continue;
        }
        len += got.length as usize;
        all.push(got);
    }
    same!(len, LEN);
    Ok(all)
}

/// The content from `at` on is in `grants`.
fn check(ctx: &Ctx, window: &Window, grants: &[Received], mut at: u64) -> Result<()> {
    for got in grants {
        ctx.pattern(0).check(at, window.bytes(*got))?;
        at += u64::from(got.length);
    }
    Ok(())
}

fn server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let content = ctx.pattern(0);
    let (first, second) = (take_all(&sock)?, take_all(&sock)?);
    check(ctx, &window, &first, 0)?;
    check(ctx, &window, &second, LEN as u64)?;
    ctx.tell("first")?;
    ctx.wait("written")?;
    check(ctx, &window, &second, LEN as u64)?;
    // A page of one's own, the others are the peer's still.
    let got = first[0];
    window.bytes_mut(got)[3 * PAGE + 1] ^= 1;
    let mut expected = content.bytes(0, got.length as usize);
    expected[3 * PAGE + 1] ^= 1;
    ensure!(window.bytes(got) == expected, "something else was written");
    // A part of it goes.
    window.cut(second[0].offset + PAGE as u64, 2)?;
    let probe = window.probe(second[0].offset + (2 * PAGE) as u64);
    want!(probe, Err(Errno::EFAULT));
    let head = Received {
        length: PAGE as u32,
        ..second[0]
    };
    check(ctx, &window, &[head], LEN as u64)?;
    for got in first.into_iter().chain(second) {
        release(&sock, got)?;
        want!(window.probe(got.offset), Err(Errno::EFAULT));
    }
    ctx.tell("again")?;
    content.check(LEN as u64, &sock.recv_exact(LEN)?)?;
    ctx.tell("read")?;
    for _ in 0..2 {
        // Not into what was cut.
        content.check(0, &sock.recv_exact(LEN)?)?;
    }
    ctx.tell("done")
}
