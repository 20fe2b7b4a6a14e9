// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A socket of any family, with the calls that the cases make.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::pattern::Pattern;
use crate::sys;

/// `ioctl(2)`: bytes that can be read.
pub const SIOCINQ: u64 = 0x541b;
/// `ioctl(2)`: bytes that the peer has not taken.
pub const SIOCOUTQ: u64 = 0x5411;

/// A socket.
#[derive(Debug)]
pub struct Sock(pub OwnedFd);

impl AsFd for Sock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Sock {
    pub fn new(domain: i32, kind: i32) -> nix::Result<Self> {
        sys::socket(domain, kind | libc::SOCK_CLOEXEC, 0).map(Self)
    }

    pub fn bind(&self, name: &[u8]) -> nix::Result<()> {
        sys::bind(self.as_fd(), name)
    }

    pub fn connect(&self, name: &[u8]) -> nix::Result<()> {
        sys::connect(self.as_fd(), name)
    }

    pub fn listen(&self, backlog: i32) -> nix::Result<()> {
        sys::listen(self.as_fd(), backlog)
    }

    pub fn accept(&self) -> nix::Result<Self> {
        sys::accept4(self.as_fd(), libc::SOCK_CLOEXEC).map(|(fd, _)| Self(fd))
    }

    pub fn accept_from(&self, flags: i32) -> nix::Result<(Self, Vec<u8>)> {
        sys::accept4(self.as_fd(), flags).map(|(fd, name)| (Self(fd), name))
    }

    pub fn name(&self) -> nix::Result<Vec<u8>> {
        sys::getsockname(self.as_fd())
    }

    pub fn peer_name(&self) -> nix::Result<Vec<u8>> {
        sys::getpeername(self.as_fd())
    }

    pub fn shutdown(&self, how: i32) -> nix::Result<()> {
        sys::shutdown(self.as_fd(), how)
    }

    pub fn send(&self, buf: &[u8]) -> nix::Result<usize> {
        sys::send(self.as_fd(), buf, libc::MSG_NOSIGNAL)
    }

    pub fn send_flags(&self, buf: &[u8], flags: i32) -> nix::Result<usize> {
        sys::send(self.as_fd(), buf, flags)
    }

    pub fn recv(&self, buf: &mut [u8]) -> nix::Result<usize> {
        sys::recv(self.as_fd(), buf, 0)
    }

    pub fn recv_flags(&self, buf: &mut [u8], flags: i32) -> nix::Result<usize> {
        sys::recv(self.as_fd(), buf, flags)
    }

    pub fn sendmsg(&self, parts: &[IoSlice], flags: i32) -> nix::Result<usize> {
        sys::sendmsg(self.as_fd(), parts, flags | libc::MSG_NOSIGNAL)
    }

    pub fn recvmsg(&self, parts: &mut [IoSliceMut], flags: i32) -> nix::Result<(usize, i32)> {
        sys::recvmsg(self.as_fd(), parts, flags)
    }

    pub fn set(&self, option: i32, value: i32) -> nix::Result<()> {
        sys::set_option(self.as_fd(), option, value)
    }

    pub fn get(&self, option: i32) -> nix::Result<i32> {
        sys::get_option(self.as_fd(), libc::SOL_SOCKET, option)
    }

    pub fn get_tcp(&self, option: i32) -> nix::Result<i32> {
        sys::get_option(self.as_fd(), libc::SOL_TCP, option)
    }

    pub fn set_tcp(&self, option: i32, value: i32) -> nix::Result<()> {
        sys::set_tcp_option(self.as_fd(), option, value)
    }

    pub fn set_timeout(&self, option: i32, value: Duration) -> nix::Result<()> {
        sys::set_timeout(self.as_fd(), option, value)
    }

    pub fn set_linger(&self, seconds: i32) -> nix::Result<()> {
        sys::set_linger(self.as_fd(), seconds)
    }

    /// Reads and clears the pending error, 0 if none.
    pub fn take_error(&self) -> nix::Result<i32> {
        self.get(libc::SO_ERROR)
    }

    pub fn ioctl(&self, request: u64) -> nix::Result<i32> {
        sys::ioctl_int(self.as_fd(), request)
    }

    pub fn set_nonblocking(&self, on: bool) -> nix::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self.as_fd(), FcntlArg::F_GETFL)?);
        let mut flags = flags;
        flags.set(OFlag::O_NONBLOCK, on);
        fcntl(self.as_fd(), FcntlArg::F_SETFL(flags)).map(drop)
    }

    pub fn is_nonblocking(&self) -> nix::Result<bool> {
        let flags = OFlag::from_bits_retain(fcntl(self.as_fd(), FcntlArg::F_GETFL)?);
        Ok(flags.contains(OFlag::O_NONBLOCK))
    }

    /// The events that hold now.
    pub fn events(&self) -> nix::Result<PollFlags> {
        self.poll(ALL_EVENTS, Duration::ZERO)
    }

    /// Waits for one of `events`; what holds then, empty after `timeout`.
    pub fn poll(&self, events: PollFlags, timeout: Duration) -> nix::Result<PollFlags> {
        // The events of poll and epoll have the same numbers.
        let seen = sys::poll(self.as_fd(), events.bits() as i16, timeout)?;
        Ok(PollFlags::from_bits_retain(seen.into()))
    }

    /// Waits until all of `events` hold, 20 seconds at most.
    pub fn wait_for(&self, events: PollFlags) -> Result<PollFlags> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = PollFlags::empty();
        while Instant::now() < deadline {
            // Level-triggered, and one of several may hold already: look again at short intervals.
            seen = self.poll(events, Duration::from_millis(20))?;
            if seen.contains(events) {
                return Ok(self.events()?);
            }
        }
        bail!("waited {PATIENCE:?} for {events:?}, have {seen:?}");
    }

    /// Sends all of `buf`.
    pub fn send_all(&self, mut buf: &[u8]) -> Result<()> {
        while !buf.is_empty() {
            match self.send(buf) {
                Ok(0) => bail!("send returned 0 for {} bytes", buf.len()),
                Ok(n) => buf = buf.get(n..).unwrap_or_default(),
                Err(e) => bail!("send: {e}, {} bytes left", buf.len()),
            }
        }
        Ok(())
    }

    /// Receives exactly `len` bytes.
    pub fn recv_exact(&self, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        let mut got = 0;
        while got < len {
            match self.recv(&mut buf[got..]) {
                Ok(0) => bail!("end of stream after {got} of {len} bytes"),
                Ok(n) => got += n,
                Err(e) => bail!("recv: {e} after {got} of {len} bytes"),
            }
        }
        Ok(buf)
    }

    /// Receives until the end of the stream.
    pub fn recv_to_end(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buf = vec![0; 65536];
        loop {
            match self.recv(&mut buf) {
                Ok(0) => return Ok(all),
                Ok(n) => all.extend_from_slice(&buf[..n]),
                Err(e) => bail!("recv: {e} after {} bytes", all.len()),
            }
        }
    }

    /// The next receive says end of stream.
    pub fn expect_eof(&self) -> Result<()> {
        let mut buf = [0; 64];
        match self.recv(&mut buf) {
            Ok(0) => Ok(()),
            other => bail!("recv gives {other:?}, not the end of the stream"),
        }
    }

    /// Sends without blocking until nothing more is taken; how many bytes that were.
    pub fn fill(&self, pattern: Pattern) -> Result<u64> {
        let mut sent = 0u64;
        let mut buf = vec![0; 8192];
        let deadline = Instant::now() + PATIENCE;
        loop {
            pattern.fill(sent, &mut buf);
            match self.send_flags(&buf, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
                Ok(n) => sent += n as u64,
                Err(Errno::EAGAIN) => {
                    // TCP goes on taking bytes while the peer's window opens.
                    if self
                        .poll(PollFlags::EPOLLOUT, Duration::from_millis(200))?
                        .is_empty()
                    {
                        return Ok(sent);
                    }
                }
                Err(e) => bail!("send: {e} after {sent} bytes"),
            }
            ensure!(Instant::now() < deadline, "never full: {sent} bytes");
        }
    }
}

/// How long events may take, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// All events that a socket may have.
pub const ALL_EVENTS: PollFlags = PollFlags::EPOLLIN
    .union(PollFlags::EPOLLOUT)
    .union(PollFlags::EPOLLRDHUP)
    .union(PollFlags::EPOLLPRI)
    .union(PollFlags::EPOLLERR)
    .union(PollFlags::EPOLLHUP);
