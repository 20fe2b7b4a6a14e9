// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that grants memory, and one that holds what it was granted, until something ends one of them.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::net::Net;
use crate::sock::Sock;
use crate::sys::lent::{completion, Lent};
use crate::sys::memory::PAGE;
use crate::sys::window::{self, Window};

/// Bytes in one grant, and how many grants there are.
const PIECE: usize = 256 << 10;
const PIECES: usize = 16;

const MINUTE: Duration = Duration::from_secs(60);

/// Grants memory to `port` of the peer and says when all of it is back, and how the connection ended.
pub fn lend(net: &Net, port: u32) -> Result<()> {
    let sock = Sock::new(net.domain(), libc::SOCK_STREAM).context("socket")?;
    sock.connect(&net.remote(port)).context("connect")?;
    sock.set(libc::SO_ZEROCOPY, 1).context("SO_ZEROCOPY")?;
    let mut memory = Lent::new(sock.as_fd(), PIECES * PIECE / PAGE).context("mmap")?;
    for (n, piece) in memory.bytes().chunks_mut(PIECE).enumerate() {
        piece.fill(n as u8);
        let sent = sock.send_flags(piece, libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL)?;
        ensure!(sent == PIECE, "sent {sent} bytes of {PIECE}");
    }
    println!("granted {PIECES} times {PIECE} bytes");
    let mut back = 0;
    while back < PIECES {
        match completion(sock.as_fd()) {
            Ok(done) => {
                ensure!(!done.copied, "copied: {done:?}");
                back += (done.last - done.first) as usize + 1;
            }
            // A connection that is over has events all the time.
            Err(Errno::EAGAIN) => {
                let events = PollFlags::EPOLLERR;
                sock.poll(events, Duration::from_millis(20))?;
            }
            Err(e) => return Err(e).context("error queue"),
        }
    }
    // The memory is as it was, and the program's to write.
    for (n, piece) in memory.bytes().chunks_mut(PIECE).enumerate() {
        ensure!(piece.iter().all(|b| *b == n as u8), "memory changed");
        piece.fill(0xee);
    }
    println!("all is back: {}", Errno::from_raw(sock.take_error()?));
    Ok(())
}

/// Takes what a peer that comes to `port` grants, holds it, and says what is left of it when the connection is over.
pub fn hold(net: &Net, port: u32) -> Result<()> {
    let listener = Sock::new(net.domain(), libc::SOCK_STREAM).context("socket")?;
    listener.bind(&net.local(port)).context("bind")?;
    listener.listen(1)?;
    println!("listens");
    let sock = listener.accept().context("accept")?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let mut all = Vec::new();
    let mut bytes = 0;
    while bytes < PIECES * PIECE {
        let got = window::receive(sock.as_fd()).context("receive")?;
        if got.length == 0 {
            ensure!(got.skip == 0, "{} bytes were copied", got.skip);
            sock.wait_for(PollFlags::EPOLLIN)?;
            continue;
        }
        let piece = (bytes / PIECE) as u8;
        ensure!(
            window.bytes(got).iter().all(|b| *b == piece),
            "wrong bytes at {bytes}"
        );
        bytes += got.length as usize;
        all.push(got);
    }
    println!("holds {bytes} bytes");
    let events = sock.poll(PollFlags::EPOLLHUP, MINUTE)?;
    ensure!(events.contains(PollFlags::EPOLLHUP), "nothing happened");
    let gone = |offset| window.probe(offset) == Err(Errno::EFAULT);
    let shown = all.iter().filter(|got| !gone(got.offset)).count();
    ensure!(shown == 0, "{shown} pieces are still shown");
    println!("shown no more");
    Ok(())
}
