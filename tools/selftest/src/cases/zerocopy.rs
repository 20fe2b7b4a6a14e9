// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sending without a copy: memory that a socket lends, and when it is the sender's again.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};

use crate::case::{Case, Ctx};
use crate::sock::{Sock, SIOCINQ, SIOCOUTQ};
use crate::sys::lent::{completion, Complete, Lent};
use crate::sys::memory::PAGE;
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("zerocopy_mmap", mmap_client, idle_server).lending(),
    Case::stream("zerocopy_option", option_client, idle_server).lending(),
    Case::records("zerocopy_option", records_client, idle_server),
    Case::stream("zerocopy_send", send_client, reading_server).lending(),
    Case::stream("zerocopy_large", large_client, reading_server).lending(),
    Case::stream("zerocopy_copied", copied_client, reading_server).lending(),
    Case::stream("zerocopy_unaligned", unaligned_client, reading_server).lending(),
    Case::stream("zerocopy_write_after", write_client, waiting_server).lending(),
    Case::stream("zerocopy_same_page_twice", twice_client, twice_server).lending(),
    Case::stream("zerocopy_peek", peek_client, peek_server).lending(),
    Case::stream("zerocopy_munmap", munmap_client, waiting_server).lending(),
    Case::stream("zerocopy_fork", fork_client, waiting_server).lending(),
    Case::stream("zerocopy_mremap", mremap_client, waiting_server).lending(),
    Case::stream("zerocopy_exit", exit_client, waiting_server).lending(),
    Case::stream("zerocopy_enobufs", enobufs_client, waiting_server).lending(),
    Case::stream("zerocopy_never_read", never_client, never_server).lending(),
    Case::stream("zerocopy_frames_return", return_client, reading_server)
        .lending()
        .within(60),
    Case::stream("zerocopy_random", random_client, random_server)
        .lending()
        .within(60),
];

pub(super) const ZEROCOPY: i32 = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL;

pub(super) fn zerocopy(ctx: &mut Ctx) -> Result<Sock> {
    let sock = ctx.dial()?;
    sock.set(libc::SO_ZEROCOPY, 1).context("SO_ZEROCOPY")?;
    Ok(sock)
}

pub(super) fn lent(sock: &Sock, pages: usize) -> Result<Lent> {
    Lent::new(sock.as_fd(), pages).with_context(|| format!("mmap of {pages} pages"))
}

/// Sends all of `buf`; how many calls that took.
pub(super) fn send_all(sock: &Sock, mut buf: &[u8]) -> Result<u32> {
    let mut calls = 0;
    while !buf.is_empty() {
        let n = sock.send_flags(buf, ZEROCOPY).context("send")?;
        ensure!(n > 0, "send returned 0");
        buf = &buf[n..];
        calls += 1;
    }
    Ok(calls)
}

/// Waits until all calls up to `last` are complete, from `first` on; whether all were copied.
pub(super) fn completed(sock: &Sock, first: u32, last: u32) -> Result<bool> {
    let mut missing: Vec<u32> = (first..=last).collect();
    let mut copied = true;
    while !missing.is_empty() {
        sock.wait_for(PollFlags::EPOLLERR)?;
        let done = completion(sock.as_fd()).context("error queue")?;
        for call in done.first..=done.last {
            let at = missing.iter().position(|m| *m == call);
            ensure!(
                at.is_some(),
                "call {call} is told twice, or was none: {done:?}"
            );
            missing.remove(at.unwrap_or(0));
        }
        copied &= done.copied;
    }
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ensure!(
        !sock.events()?.contains(PollFlags::EPOLLERR),
        "EPOLLERR with an empty queue"
    );
    Ok(copied)
}

pub(super) fn idle_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("done")
}

/// Reads the pattern to the end of the stream; says how much that was.
pub(super) fn read_pattern(ctx: &Ctx, sock: &Sock) -> Result<usize> {
    read_pattern_from(ctx, sock, 0)
}

/// As [`read_pattern`], when so much of it was read before.
pub(super) fn read_pattern_from(ctx: &Ctx, sock: &Sock, before: usize) -> Result<usize> {
    let mut buf = vec![0; 100_000];
    let mut got = before;
    loop {
        match sock.recv(&mut buf).context("recv")? {
            0 => return Ok(got),
            n => {
                ctx.pattern(0).check(got as u64, &buf[..n])?;
                got += n;
            }
        }
    }
}

pub(super) fn reading_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let got = read_pattern(ctx, &sock)?;
    ctx.tell_value("read", got)?;
    ctx.wait("done")
}

/// Reads nothing before the client says so.
pub(super) fn waiting_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("read")?;
    let got = read_pattern(ctx, &sock)?;
    ctx.tell_value("read", got)?;
    ctx.wait("done")
}

/// Ends the stream; the server must have read `bytes`.
pub(super) fn finish(ctx: &Ctx, sock: &Sock, bytes: usize) -> Result<()> {
    sock.shutdown(libc::SHUT_WR)?;
    same!(ctx.wait_value("read")?, bytes.to_string());
    ctx.tell("done")
}

fn mmap_client(ctx: &mut Ctx) -> Result<()> {
    let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
    let shared = libc::MAP_SHARED;
    let idle = ctx.socket()?;
    want!(
        Lent::try_page(idle.as_fd(), read | write, shared, 0),
        Err(e) if e == if ctx.net.is_fgdp() { Errno::ENOTCONN } else { Errno::EPERM }
    );
    let sock = ctx.dial()?;
    let fd = sock.as_fd();
    // TCP has private mappings, which nobody writes to.
    want!(
        Lent::try_page(fd, read | write, libc::MAP_PRIVATE, 0),
        Err(e) if e == if ctx.net.is_fgdp() { Errno::EINVAL } else { Errno::EPERM }
    );
    want!(
        Lent::try_page(fd, read | write, shared, PAGE),
        Err(Errno::EINVAL)
    );
    want!(
        Lent::try_page(fd, read | libc::PROT_EXEC, shared, 0),
        Err(Errno::EPERM)
    );
    want!(Lent::try_page(fd, read, shared, 0), Ok(()));
    want!(Lent::new(fd, 1 << 30).map(drop), Err(Errno::ENOMEM));
    // Zero, also where somebody else wrote before.
    for round in 0..3u8 {
        let mut memory = lent(&sock, 33)?;
        let mut other = lent(&sock, 1)?;
        ensure!(
            memory.bytes().iter().all(|b| *b == 0),
            "round {round}: not zero"
        );
        memory.bytes().fill(round + 1);
        ensure!(
            other.bytes().iter().all(|b| *b == 0),
            "round {round}: mapped twice"
        );
        ensure!(
            memory.bytes().iter().all(|b| *b == round + 1),
            "round {round}: not kept"
        );
    }
    ctx.tell("done")
}

fn option_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    same!(sock.get(libc::SO_ZEROCOPY)?, 0);
    want!(sock.set(libc::SO_ZEROCOPY, 2), Err(Errno::EINVAL));
    want!(sock.set(libc::SO_ZEROCOPY, 1), Ok(()));
    same!(sock.get(libc::SO_ZEROCOPY)?, 1);
    // Other options are as before.
    want!(sock.set(libc::SO_RCVLOWAT, 7), Ok(()));
    same!(sock.get(libc::SO_RCVLOWAT)?, 7);
    want!(sock.set(libc::SO_ZEROCOPY, 0), Ok(()));
    // Without the option the flag means nothing.
    want!(sock.send_flags(&[1; 10], ZEROCOPY), Ok(10));
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("done")
}

fn records_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.set(libc::SO_ZEROCOPY, 1), Err(Errno::EOPNOTSUPP));
    want!(Lent::new(sock.as_fd(), 1).map(drop), Err(Errno::EOPNOTSUPP));
    ctx.tell("done")
}

fn send_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 16)?;
    let len = 16 * PAGE;
    for round in 0..5 {
        ctx.pattern(0).fill((round * len) as u64, memory.bytes());
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == len);
        let call = round as u32;
        same!(completed(&sock, call, call)?, false);
    }
    finish(ctx, &sock, 5 * len)
}

fn large_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let len = 2 << 20;
    let mut memory = lent(&sock, len / PAGE)?;
    for round in 0..4 {
        ctx.pattern(0).fill((round * len) as u64, memory.bytes());
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == len);
        same!(completed(&sock, round as u32, round as u32)?, false);
    }
    finish(ctx, &sock, 4 * len)
}

fn copied_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let content = ctx.pattern(0).bytes(0, 300_000);
    let calls = send_all(&sock, &content)?;
    same!(completed(&sock, 0, calls - 1)?, true);
    finish(ctx, &sock, 300_000)
}

fn unaligned_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    let (mut sent, mut calls) = (0, 0);
    for (from, len) in [
        (1, 3 * PAGE),
        (PAGE, PAGE),
        (PAGE - 1, PAGE + 2),
        (0, 8 * PAGE),
        (100, 100),
        (0, 5 * PAGE + 17),
        (PAGE / 2, 7 * PAGE),
        (7 * PAGE, PAGE),
    ] {
        let part = &mut memory.bytes()[from..from + len];
        ctx.pattern(0).fill(sent as u64, part);
        want!(sock.send_flags(part, ZEROCOPY), Ok(n) if n == len);
        completed(&sock, calls, calls)?;
        calls += 1;
        sent += len;
        // Bytes of other memory between them keep their place.
        let plain = ctx.pattern(0).bytes(sent as u64, 1000 + from);
        sock.send_all(&plain)?;
        sent += plain.len();
    }
    finish(ctx, &sock, sent)
}

fn write_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 8 * PAGE);
    same!(sock.ioctl(SIOCOUTQ)?, (8 * PAGE) as i32);
    // The first write to a page copies it; reading does not.
    ctx.pattern(0).check(0, memory.bytes())?;
    memory.bytes()[0] ^= 1;
    memory.bytes()[3 * PAGE + 5] ^= 1;
    memory.bytes()[5 * PAGE..7 * PAGE].fill(9);
    let mut expected = ctx.pattern(0).bytes(0, 8 * PAGE);
    expected[0] ^= 1;
    expected[3 * PAGE + 5] ^= 1;
    expected[5 * PAGE..7 * PAGE].fill(9);
    ensure!(
        memory.bytes() == expected,
        "the copy differs from what was written"
    );
    // What was written since goes as what it is.
    ctx.pattern(0)
        .fill((8 * PAGE) as u64, &mut memory.bytes()[..4 * PAGE]);
    want!(sock.send_flags(&memory.bytes()[..4 * PAGE], ZEROCOPY), Ok(n) if n == 4 * PAGE);
    memory.bytes()[..4 * PAGE].fill(0xaa);
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("read")?;
    same!(completed(&sock, 0, 1)?, false);
    ensure!(
        memory.bytes()[5 * PAGE..7 * PAGE].iter().all(|b| *b == 9),
        "memory changed"
    );
    finish(ctx, &sock, 12 * PAGE)
}

fn twice_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 1)?;
    // A page whose content repeats in the stream: it is granted as often as it is sent.
    ctx.pattern(0).fill(0, memory.bytes());
    for _ in 0..3 {
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(PAGE));
    }
    memory.bytes().fill(1);
    ctx.tell("sent")?;
    ctx.wait("once")?;
    ctx.tell("on")?;
    same!(completed(&sock, 0, 2)?, false);
    ensure!(memory.bytes().iter().all(|b| *b == 1), "memory changed");
    ctx.tell("done")
}

fn twice_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    ctx.pattern(0).check(0, &sock.recv_exact(PAGE)?)?;
    ctx.tell("once")?;
    ctx.wait("on")?;
    for _ in 0..2 {
        ctx.pattern(0).check(0, &sock.recv_exact(PAGE)?)?;
    }
    ctx.wait("done")
}

fn peek_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    ctx.pattern(0).fill(50, memory.bytes());
    sock.send_all(&ctx.pattern(0).bytes(0, 50))?;
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 4 * PAGE);
    sock.send_all(&ctx.pattern(0).bytes(50 + 4 * PAGE as u64, 70))?;
    ctx.tell("sent")?;
    ctx.wait("peeked")?;
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("read")?;
    ctx.wait("most")?;
    // All but the last byte of the last page: it is not released.
    want!(completion(sock.as_fd()), Err(Errno::EAGAIN));
    ctx.tell("rest")?;
    same!(completed(&sock, 0, 0)?, false);
    ctx.tell("done")
}

fn peek_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    let len = 120 + 4 * PAGE;
    same!(sock.ioctl(SIOCINQ)?, len as i32);
    let mut buf = vec![0; len + 10];
    for _ in 0..2 {
        want!(sock.recv_flags(&mut buf, libc::MSG_PEEK), Ok(n) if n == len);
        ctx.pattern(0).check(0, &buf[..len])?;
    }
    ctx.tell("peeked")?;
    ctx.wait("read")?;
    let most = 50 + 4 * PAGE - 1;
    ctx.pattern(0).check(0, &sock.recv_exact(most)?)?;
    same!(sock.ioctl(SIOCINQ)?, 71);
    ctx.tell("most")?;
    ctx.wait("rest")?;
    ctx.pattern(0).check(most as u64, &sock.recv_exact(71)?)?;
    ctx.wait("done")
}

fn munmap_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 8 * PAGE);
    memory.cut(3)?;
    memory.bytes()[PAGE] ^= 1;
    drop(memory);
    // The frames are not anybody else's yet.
    let mut other = lent(&sock, 64)?;
    other.bytes().fill(0x55);
    ctx.tell("read")?;
    same!(completed(&sock, 0, 0)?, false);
    drop(other);
    finish(ctx, &sock, 8 * PAGE)
}

fn fork_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 2)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(memory.advise(libc::MADV_DOFORK), Err(Errno::EINVAL));
    let child = sys::fork(|| {
        memory.bytes()[0] = 1;
        0
    })?;
    want!(
        waitpid(child, None),
        Ok(WaitStatus::Signaled(_, Signal::SIGSEGV, _))
    );
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 2 * PAGE);
    ctx.tell("read")?;
    same!(completed(&sock, 0, 0)?, false);
    finish(ctx, &sock, 2 * PAGE)
}

fn mremap_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 8)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(&memory.bytes()[..4 * PAGE], ZEROCOPY), Ok(n) if n == 4 * PAGE);
    want!(memory.move_to(9), Err(Errno::EFAULT));
    want!(memory.move_to(8), Ok(()));
    ctx.pattern(0).check(0, memory.bytes())?;
    memory.bytes()[0] ^= 1;
    want!(memory.move_to(6), Ok(()));
    want!(memory.advise(libc::MADV_DONTNEED), Err(Errno::EINVAL));
    ctx.pattern(0).check(PAGE as u64, &memory.bytes()[PAGE..])?;
    want!(sock.send_flags(&memory.bytes()[4 * PAGE..], ZEROCOPY), Ok(n) if n == 2 * PAGE);
    memory.bytes().fill(3);
    ctx.tell("read")?;
    same!(completed(&sock, 0, 1)?, false);
    finish(ctx, &sock, 6 * PAGE)
}

fn exit_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    // The sender ends with everything mapped and on its way.
    let child = sys::fork(|| {
        let sent = lent(&sock, 8).and_then(|mut memory| {
            ctx.pattern(0).fill(0, memory.bytes());
            let n = sock.send_flags(memory.bytes(), ZEROCOPY)?;
            memory.bytes()[0] ^= 1;
            std::mem::forget(memory);
            Ok(n)
        });
        i32::from(!matches!(sent, Ok(n) if n == 8 * PAGE))
    })?;
    want!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)));
    ctx.tell("read")?;
    same!(completed(&sock, 0, 0)?, false);
    finish(ctx, &sock, 8 * PAGE)
}

fn enobufs_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 1)?;
    let mut calls = 0u32;
    let why = loop {
        ctx.pattern(0)
            .fill(u64::from(calls) * PAGE as u64, memory.bytes());
        match sock.send_flags(memory.bytes(), ZEROCOPY) {
            Ok(n) => same!(n, PAGE),
            Err(e) => break e,
        }
        calls += 1;
        ensure!(calls < 10_000, "there is no limit");
    };
    same!(why, Errno::ENOBUFS);
    ctx.tell("read")?;
    completed(&sock, 0, calls - 1)?;
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(PAGE));
    calls += 1;
    completed(&sock, calls - 1, calls - 1)?;
    finish(ctx, &sock, calls as usize * PAGE)
}

fn never_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    memory.bytes().fill(7);
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 4 * PAGE);
    memory.bytes()[0] = 8;
    ctx.tell("sent")?;
    // The peer closed with the pages unread: they are the sender's again.
    same!(
        completed_after_reset(&sock)?,
        Complete {
            first: 0,
            last: 0,
            copied: false
        }
    );
    memory.bytes().fill(9);
    ctx.tell("done")
}

fn completed_after_reset(sock: &Sock) -> Result<Complete> {
    let deadline = std::time::Instant::now() + crate::sock::PATIENCE;
    loop {
        match completion(sock.as_fd()) {
            Ok(done) => return Ok(done),
            Err(Errno::EAGAIN) => {
                ensure!(std::time::Instant::now() < deadline, "never complete");
                sock.poll(PollFlags::EPOLLERR, std::time::Duration::from_millis(20))?;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn never_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    drop(sock);
    ctx.wait("done")
}

/// More than the slot has, in turns: frames that did not come back would be missed.
fn return_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let pages = 256;
    let (mut sent, mut calls) = (0, 0);
    for _ in 0..40 {
        let mut memory = lent(&sock, pages)?;
        ctx.pattern(0).fill(sent as u64, memory.bytes());
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == pages * PAGE);
        // Each page splits from its frame.
        memory.bytes().fill(1);
        drop(memory);
        same!(completed(&sock, calls, calls)?, false);
        calls += 1;
        sent += pages * PAGE;
    }
    finish(ctx, &sock, sent)
}

const RANDOM_ROUNDS: usize = 300;

fn random_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let pages = 48;
    let mut memory = lent(&sock, pages)?;
    let (mut sent, mut calls, mut told) = (0usize, 0u32, 0u32);
    for _ in 0..RANDOM_ROUNDS {
        let from = ctx.random.between(0, pages * PAGE - 1);
        let most = (pages * PAGE - from).min(9 * PAGE);
        let mut len = ctx.random.between(1, most);
        let from = match ctx.random.between(0, 2) {
            0 => from,
            _ => from / PAGE * PAGE,
        };
        if ctx.random.between(0, 3) == 0 {
            len = (len / PAGE * PAGE).max(1);
        }
        // Writes to pages that are on their way.
        let part = &mut memory.bytes()[from..from + len];
        ctx.pattern(0).fill(sent as u64, part);
        if ctx.random.between(0, 4) == 0 {
            sock.send_all(part)?;
            sent += len;
            continue;
        }
        match sock.send_flags(part, ZEROCOPY) {
            Ok(n) => {
                sent += n;
                calls += 1;
            }
            Err(Errno::ENOBUFS) => {
                sock.wait_for(PollFlags::EPOLLERR)?;
            }
            Err(e) => return Err(e).context("send"),
        }
        while let Ok(done) = completion(sock.as_fd()) {
            told += done.last - done.first + 1;
        }
    }
    sock.shutdown(libc::SHUT_WR)?;
    while told < calls {
        sock.wait_for(PollFlags::EPOLLERR)?;
        let done = completion(sock.as_fd())?;
        told += done.last - done.first + 1;
    }
    same!(told, calls);
    same!(ctx.wait_value("read")?, sent.to_string());
    ctx.tell("done")
}

fn random_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = vec![0; 200_000];
    let mut got = 0;
    loop {
        let want = match ctx.random.between(0, 2) {
            0 => ctx.random.between(1, 100),
            1 => ctx.random.between(1, 10_000),
            _ => ctx.random.between(1, buf.len()),
        };
        if ctx.random.between(0, 5) == 0 {
            let seen = sock.recv_flags(&mut buf[..want], libc::MSG_PEEK)?;
            ctx.pattern(0).check(got as u64, &buf[..seen])?;
        }
        match sock.recv(&mut buf[..want])? {
            0 => break,
            n => {
                ctx.pattern(0).check(got as u64, &buf[..n])?;
                got += n;
            }
        }
    }
    ctx.tell_value("read", got)?;
    ctx.wait("done")
}
