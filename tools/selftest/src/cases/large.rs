// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that page tables map by entries of the next level, where frames follow each other, and what splits them.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

use super::give::give;
use super::window::{release, take};
use super::zerocopy::{completed, lent, zerocopy, ZEROCOPY};
use crate::case::{Case, Ctx};
use crate::sys::memory::PAGE;
use crate::sys::window::{Received, Window};
use crate::{same, want};

pub const CASES: &[Case] = &[Case::stream("large_pages", client, server).fgdp()];

/// Pages of 2 MiB.
const HUGE: usize = 512;
const LEN: usize = HUGE * PAGE;

fn client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 2 * HUGE)?;
    // Its first half as it is, of the second one a page is another frame when it is sent again, then all is given.
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(&memory.bytes()[..LEN], ZEROCOPY), Ok(LEN));
    want!(sock.send_flags(&memory.bytes()[LEN..], ZEROCOPY), Ok(LEN));
    ctx.wait("first")?;
    ctx.pattern(0).check(0, memory.bytes())?;
    memory.bytes()[LEN + 7 * PAGE] ^= 1;
    ctx.tell("written")?;
    ctx.wait("again")?;
    memory.bytes()[LEN + 7 * PAGE] ^= 1;
    let mut calls = 2;
    let mut sent = 0;
    while sent < LEN {
        sent += sock.send_flags(&memory.bytes()[LEN + sent..], ZEROCOPY)?;
        calls += 1;
    }
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

fn server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let content = ctx.pattern(0);
    let all = [take(&sock, HUGE)?, take(&sock, HUGE)?];
    content.check(0, window.bytes(all[0]))?;
    content.check(LEN as u64, window.bytes(all[1]))?;
    ctx.tell("first")?;
    ctx.wait("written")?;
    content.check(LEN as u64, window.bytes(all[1]))?;
    // A page of one's own, the others are the peer's still.
    window.bytes_mut(all[0])[3 * PAGE + 1] ^= 1;
    let mut expected = content.bytes(0, LEN);
    expected[3 * PAGE + 1] ^= 1;
    ensure!(
        window.bytes(all[0]) == expected,
        "something else was written"
    );
    // A part of it goes.
    window.cut(all[1].offset + (100 * PAGE) as u64, 10)?;
    let probe = window.probe(all[1].offset + (105 * PAGE) as u64);
    want!(probe, Err(Errno::EFAULT));
    let head = Received {
        length: (100 * PAGE) as u32,
        ..all[1]
    };
    content.check(LEN as u64, window.bytes(head))?;
    for got in all {
        release(&sock, got)?;
        want!(window.probe(got.offset), Err(Errno::EFAULT));
    }
    ctx.tell("again")?;
    content.check(LEN as u64, &sock.recv_exact(LEN)?)?;
    ctx.tell("read")?;
    for _ in 0..2 {
        // One grant, or as many as there are runs; not into what was cut.
        content.check(0, &sock.recv_exact(LEN)?)?;
    }
    ctx.tell("done")
}
