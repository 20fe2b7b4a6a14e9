// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Receiving without a copy: what the peer granted, read where it is.

use std::os::fd::AsFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;
use nix::sys::wait::{waitpid, WaitStatus};

use super::zerocopy::{completed, lent, zerocopy, ZEROCOPY};
use crate::case::{Case, Ctx};
use crate::sock::{Sock, SIOCINQ};
use crate::sys::memory::PAGE;
use crate::sys::window::{self, Received, Window};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("window_errors", errors_client, errors_server).lending(),
    Case::stream("window_receive", receive_client, receive_server).lending(),
    Case::stream("window_mixed", mixed_client, mixed_server).lending(),
    Case::stream("window_private_copy", copy_client, copy_server).lending(),
    Case::stream("window_sender_writes", writes_client, writes_server).lending(),
    Case::stream("window_same_page_twice", twice_client, twice_server).lending(),
    Case::stream("window_key", key_client, key_server).lending(),
    Case::stream("window_fork", fork_client, fork_server).lending(),
    Case::stream("window_munmap", munmap_client, munmap_server).lending(),
    Case::stream("window_part", part_client, part_server).lending(),
    Case::stream("window_exit", exit_client, exit_server).lending(),
    Case::stream("window_many", many_client, many_server)
        .lending()
        .within(60),
    Case::stream("window_random", random_client, random_server)
        .lending()
        .within(60),
];

/// Takes the next grant, waiting for it; it must have so many pages.
pub(super) fn take(sock: &Sock, pages: usize) -> Result<Received> {
    loop {
        let got = window::receive(sock.as_fd()).context("receive")?;
        same!(got.skip, 0);
        if got.length > 0 {
            same!(got.length as usize, pages * PAGE);
            return Ok(got);
        }
        sock.wait_for(PollFlags::EPOLLIN)?;
    }
}

pub(super) fn release(sock: &Sock, got: Received) -> Result<()> {
    window::release(sock.as_fd(), got.offset, got.length.into()).context("release")
}

/// A client that sends the pattern in grants of so many pages, each of memory of its own, and waits until all are back.
pub(super) fn send_pattern(ctx: &mut Ctx, grants: &[usize]) -> Result<()> {
    let sock = zerocopy(ctx)?;
    // Each of its own, as powers of two are whole.
    let mut all = Vec::new();
    let mut at = 0;
    for pages in grants {
        let mut memory = lent(&sock, *pages)?;
        let len = pages * PAGE;
        ctx.pattern(0).fill(at, memory.bytes());
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == len);
        at += len as u64;
        all.push(memory);
    }
    ctx.tell("sent")?;
    same!(completed(&sock, 0, grants.len() as u32 - 1)?, false);
    at = 0;
    for memory in &mut all {
        ctx.pattern(0).check(at, memory.bytes())?;
        at += memory.bytes().len() as u64;
    }
    ctx.tell("complete")?;
    ctx.wait("done")
}

fn errors_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[1])
}

fn errors_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let fd = sock.as_fd();
    ctx.wait("sent")?;
    let size = window::size(fd)?;
    ensure!(size > 0 && size as usize % PAGE == 0, "a window of {size}");
    want!(window::get_int(fd, window::FGDP_WINDOW), Err(Errno::EINVAL));
    want!(window::get_int(fd, 99), Err(Errno::ENOPROTOOPT));
    want!(window::receive(fd), Err(Errno::EINVAL));
    want!(window::release(fd, 0, PAGE as u64), Err(Errno::EINVAL));
    let map = |pages, prot, flags| Window::map(fd, pages, prot, flags).map(drop);
    let (read, pages) = (libc::PROT_READ, size as usize / PAGE);
    want!(map(1, read, libc::MAP_PRIVATE), Err(Errno::EINVAL));
    want!(
        map(1, read | libc::PROT_EXEC, libc::MAP_SHARED),
        Err(Errno::EPERM)
    );
    want!(map(pages + 1, read, libc::MAP_SHARED), Err(Errno::EINVAL));
    let window = Window::map(fd, pages, read, libc::MAP_SHARED)?;
    want!(map(pages, read, libc::MAP_SHARED), Err(Errno::EBUSY));
    // Nothing is there before it was taken.
    want!(window.probe(0), Err(Errno::EFAULT));
    let got = take(&sock, 1)?;
    want!(window.probe(got.offset), Ok(()));
    want!(
        window::release(fd, got.offset + 1, PAGE as u64),
        Err(Errno::EINVAL)
    );
    want!(
        window::release(fd, got.offset, u64::MAX),
        Err(Errno::EINVAL)
    );
    want!(
        window::release(fd, got.offset + PAGE as u64, PAGE as u64),
        Err(Errno::EINVAL)
    );
    release(&sock, got)?;
    want!(window.probe(got.offset), Err(Errno::EFAULT));
    want!(
        window::release(fd, got.offset, PAGE as u64),
        Err(Errno::EINVAL)
    );
    drop(window);
    want!(map(pages, read, libc::MAP_SHARED), Ok(()));
    let idle = ctx.socket()?;
    let why = if ctx.net.is_fgdp() {
        Errno::ENOTCONN
    } else {
        // TCP knows nothing of it before it is connected.
        Errno::EOPNOTSUPP
    };
    want!(window::size(idle.as_fd()), Err(e) if e == why);
    want!(window::receive(idle.as_fd()), Err(e) if e == why);
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn receive_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[4, 1, 16])
}

fn receive_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let mut all = Vec::new();
    let mut at = 0;
    for pages in [4, 1, 16] {
        let got = take(&sock, pages)?;
        ctx.pattern(0).check(at, window.bytes(got))?;
        at += got.length as u64;
        all.push(got);
    }
    same!(sock.ioctl(SIOCINQ)?, 0);
    want!(
        window::receive(sock.as_fd()),
        Ok(Received {
            length: 0,
            skip: 0,
            ..
        })
    );
    // In whatever order they go back, the others stay.
    release(&sock, all[1])?;
    ctx.pattern(0).check(0, window.bytes(all[0]))?;
    release(&sock, all[0])?;
    ctx.pattern(0)
        .check(5 * PAGE as u64, window.bytes(all[2]))?;
    release(&sock, all[2])?;
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn mixed_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    let (lead, tail) = (1000, 500);
    sock.send_all(&ctx.pattern(0).bytes(0, lead))?;
    ctx.pattern(0).fill(lead as u64, memory.bytes());
    for page in 0..4 {
        let part = &memory.bytes()[page * PAGE..][..PAGE];
        want!(sock.send_flags(part, ZEROCOPY), Ok(PAGE));
    }
    sock.send_all(&ctx.pattern(0).bytes((lead + 4 * PAGE) as u64, tail))?;
    ctx.tell("sent")?;
    same!(completed(&sock, 0, 3)?, false);
    ctx.wait("done")
}

fn mixed_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let fd = sock.as_fd();
    let window = Window::new(fd).context("mmap")?;
    let content = ctx.pattern(0);
    ctx.wait("sent")?;
    // Bytes of the ring come first.
    want!(
        window::receive(fd),
        Ok(Received {
            length: 0,
            skip: 1000,
            ..
        })
    );
    content.check(0, &sock.recv_exact(1000)?)?;
    let got = take(&sock, 1)?;
    content.check(1000, window.bytes(got))?;
    // Of what was read in part the rest is read, too.
    let mut at = (1000 + PAGE) as u64;
    content.check(at, &sock.recv_exact(100)?)?;
    let rest = PAGE as u32 - 100;
    want!(window::receive(fd), Ok(Received { length: 0, skip, .. }) if skip == rest);
    content.check(at + 100, &sock.recv_exact(rest as usize)?)?;
    at += PAGE as u64;
    let other = take(&sock, 1)?;
    content.check(at, window.bytes(other))?;
    at += PAGE as u64;
    // Who reads all does not need the window.
    content.check(at, &sock.recv_exact(PAGE)?)?;
    at += PAGE as u64;
    want!(
        window::receive(fd),
        Ok(Received {
            length: 0,
            skip: 500,
            ..
        })
    );
    content.check(at, &sock.recv_exact(500)?)?;
    window::release(fd, 0, window::size(fd)?)?;
    ctx.tell("done")
}

fn copy_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[4])
}

fn copy_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 4)?;
    let mut expected = ctx.pattern(0).bytes(0, 4 * PAGE);
    // A page that was read before, and one that was not.
    ctx.pattern(0).check(0, &window.bytes(got)[..PAGE])?;
    for at in [7, 2 * PAGE + 9] {
        window.bytes_mut(got)[at] ^= 0xff;
        expected[at] ^= 0xff;
    }
    ensure!(window.bytes(got) == expected, "something else was written");
    // It can be sent, and read into.
    sock.send_all(window.bytes(got))?;
    let (read, write) = nix::unistd::pipe()?;
    nix::unistd::write(&write, b"word")?;
    nix::unistd::read(&read, &mut window.bytes_mut(got)[PAGE..PAGE + 4])?;
    same!(&window.bytes(got)[PAGE..PAGE + 4], b"word");
    release(&sock, got)?;
    want!(window.probe(got.offset), Err(Errno::EFAULT));
    // The client's memory is as it was.
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn writes_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 4)?;
    ctx.pattern(0).fill(0, memory.bytes());
    want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 4 * PAGE);
    ctx.wait("taken")?;
    memory.bytes().fill(1);
    ctx.tell("written")?;
    same!(completed(&sock, 0, 0)?, false);
    ensure!(memory.bytes().iter().all(|b| *b == 1), "memory changed");
    ctx.wait("done")
}

fn writes_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 4)?;
    // Half of it is looked at before, all of it after the client wrote.
    ctx.pattern(0).check(0, &window.bytes(got)[..2 * PAGE])?;
    ctx.tell("taken")?;
    ctx.wait("written")?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    release(&sock, got)?;
    ctx.tell("done")
}

fn twice_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 1)?;
    ctx.pattern(0).fill(0, memory.bytes());
    for _ in 0..2 {
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(PAGE));
    }
    ctx.tell("sent")?;
    same!(completed(&sock, 0, 1)?, false);
    ctx.wait("done")
}

fn twice_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    ctx.wait("sent")?;
    let got = take(&sock, 1)?;
    window.bytes_mut(got)[0] ^= 1;
    // The place is taken, and not as it was sent any more.
    want!(window::receive(sock.as_fd()), Ok(Received { length: 0, skip, .. }) if skip as usize == PAGE);
    ctx.pattern(0).check(0, &sock.recv_exact(PAGE)?)?;
    release(&sock, got)?;
    ctx.tell("done")
}

fn key_client(ctx: &mut Ctx) -> Result<()> {
    let _other = ctx.dial()?;
    send_pattern(ctx, &[2])
}

fn key_server(ctx: &mut Ctx) -> Result<()> {
    let other = ctx.accept_one()?;
    let sock = ctx.accept_one()?;
    let strange = Window::new(other.as_fd()).context("mmap of the other")?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 2)?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    // Another connection of the same peer shows nothing of it, and cannot give it back.
    want!(strange.probe(got.offset), Err(Errno::EFAULT));
    want!(
        window::release(other.as_fd(), got.offset, got.length.into()),
        Err(Errno::EINVAL)
    );
    ctx.pattern(0).check(0, window.bytes(got))?;
    release(&sock, got)?;
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn fork_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[1])
}

fn fork_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 1)?;
    // A child has the socket, and not the mapping.
    let child = sys::fork(|| match window.probe(got.offset) {
        Err(Errno::EFAULT) => 0,
        _ => 1,
    })?;
    same!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
    ctx.pattern(0).check(0, window.bytes(got))?;
    release(&sock, got)?;
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn munmap_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[1, 4])
}

fn munmap_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let all = [take(&sock, 1)?, take(&sock, 4)?];
    ctx.pattern(0).check(0, window.bytes(all[0]))?;
    // All goes back with the last mapping.
    drop(window);
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    want!(window::receive(sock.as_fd()), Err(Errno::EINVAL));
    ctx.tell("done")
}

fn part_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[8])
}

fn part_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 8)?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    window.cut(got.offset + 2 * PAGE as u64, 3)?;
    want!(
        window.probe(got.offset + 2 * PAGE as u64),
        Err(Errno::EFAULT)
    );
    // What is left stays, and can be given back.
    let head = Received {
        length: 2 * PAGE as u32,
        ..got
    };
    ctx.pattern(0).check(0, window.bytes(head))?;
    window.bytes_mut(head)[PAGE] ^= 1;
    release(&sock, got)?;
    want!(window.probe(got.offset), Err(Errno::EFAULT));
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

fn exit_client(ctx: &mut Ctx) -> Result<()> {
    send_pattern(ctx, &[4, 4])
}

/// A process that dies with what it took gives it back.
fn exit_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    let child = sys::fork(|| {
        let took = || -> Result<()> {
            let mut window = Window::new(sock.as_fd())?;
            take(&sock, 4)?;
            let got = take(&sock, 4)?;
            window.bytes_mut(got)[0] = 1;
            std::mem::forget(window);
            Ok(())
        };
        i32::from(took().is_err())
    })?;
    same!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
    ctx.wait("complete")?;
    ctx.tell("done")
}

/// Frames that grants use must come back, or the sender runs out of them.
fn many_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    let mut memory = lent(&sock, 64)?;
    for round in 0..200u32 {
        let at = u64::from(round) * (64 * PAGE) as u64;
        // Written while the peer may have it: the page is another one then.
        ctx.pattern(0).fill(at, memory.bytes());
        want!(sock.send_flags(memory.bytes(), ZEROCOPY), Ok(n) if n == 64 * PAGE);
        completed(&sock, round, round)?;
    }
    ctx.wait("done")
}

fn many_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let mut at = 0;
    while at < 200 * (64 * PAGE) as u64 {
        let got = window::receive(sock.as_fd())?;
        if got.length == 0 {
            sock.wait_for(PollFlags::EPOLLIN)?;
            let data = sock.recv_exact(got.skip as usize)?;
            ctx.pattern(0).check(at, &data)?;
            at += data.len() as u64;
            continue;
        }
        ctx.pattern(0).check(at, window.bytes(got))?;
        at += u64::from(got.length);
        release(&sock, got)?;
    }
    ctx.tell("done")
}

pub(super) const STEPS: usize = 600;
const MEMORY: usize = 48;

/// Sends this and that of some memory, granted or not, and writes to pages of it that are on their way; `each` runs before
/// each step. How much that was.
pub(super) fn pour_random(
    ctx: &mut Ctx,
    sock: &Sock,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<u64> {
    let mut memory = lent(sock, MEMORY)?;
    let mut sent = 0u64;
    for step in 0..STEPS {
        each(step)?;
        let pages = ctx.random.between(1, 8);
        let first = ctx.random.between(0, MEMORY - pages);
        let cut = ctx.random.between(0, 2) * 100;
        let part = &mut memory.bytes()[first * PAGE..(first + pages) * PAGE - cut];
        ctx.pattern(0).fill(sent, part);
        let flags = match ctx.random.between(0, 3) {
            0 => libc::MSG_NOSIGNAL,
            _ => ZEROCOPY,
        };
        let mut left = &*part;
        while !left.is_empty() {
            match sock.send_flags(left, flags) {
                Ok(n) => left = &left[n..],
                // Completions are not read: some are in the way.
                Err(Errno::ENOBUFS) => {
                    sock.wait_for(PollFlags::EPOLLERR)?;
                    while crate::sys::lent::completion(sock.as_fd()).is_ok() {}
                }
                Err(e) => return Err(e).context("send"),
            }
        }
        sent += part.len() as u64;
        if ctx.random.between(0, 2) == 0 {
            let page = ctx.random.between(0, MEMORY - 1);
            memory.bytes()[page * PAGE..][..PAGE].fill(0xcc);
        }
    }
    sock.shutdown(libc::SHUT_WR)?;
    Ok(sent)
}

fn random_client(ctx: &mut Ctx) -> Result<()> {
    let sock = zerocopy(ctx)?;
    pour_random(ctx, &sock, |_| Ok(()))?;
    ctx.wait("done")
}

fn random_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let fd = sock.as_fd();
    let mut window = Window::new(fd).context("mmap")?;
    // What is held, and what has to be there.
    let mut held: Vec<(Received, Vec<u8>)> = Vec::new();
    let mut at = 0u64;
    loop {
        let got = window::receive(fd)?;
        if got.length > 0 {
            ctx.pattern(0).check(at, window.bytes(got))?;
            held.push((got, ctx.pattern(0).bytes(at, got.length as usize)));
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
        while held.len() > 5 || (!held.is_empty() && ctx.random.between(0, 2) == 0) {
            let n = ctx.random.between(0, held.len() - 1);
            let byte = ctx.random.between(0, held[n].1.len() - 1);
            held[n].1[byte] ^= 0x55;
            let taken = held[n].0;
            window.bytes_mut(taken)[byte] ^= 0x55;
            if ctx.random.between(0, 1) == 0 {
                let (taken, expected) = held.swap_remove(n);
                ensure!(window.bytes(taken) == expected, "held bytes changed");
                release(&sock, taken)?;
            }
        }
    }
    for (taken, expected) in &held {
        ensure!(window.bytes(*taken) == *expected, "held bytes changed");
    }
    ctx.tell("done")
}
