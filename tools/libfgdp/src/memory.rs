// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sender's side.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, Map};

/// Memory that a socket lends to its peer, zeroed. It may be written at any time: a page that the peer has not given back is
/// copied then, and the peer keeps it as it was sent.
#[derive(Debug)]
pub struct Memory(Map);

impl Memory {
    /// Maps `len` bytes, in whole pages.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`; `ENOMEM` when the slot has no more frames for the peer; `EOPNOTSUPP` for sockets of another kind.
    pub fn new(socket: impl AsFd, len: usize) -> io::Result<Self> {
        Map::new(socket.as_fd(), len, true, 0).map(Self)
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

/// Lets `socket` send without a copy: before the first [`send`].
///
/// # Errors
///
/// Those of `setsockopt(2)` with `SO_ZEROCOPY`.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1i32)
}

/// Grants the whole pages of `bytes` that are in a [`Memory`] and copies the rest; how many bytes are on their way. Calls that
/// sent something have numbers, from 0.
///
/// # Errors
///
/// Those of `send(2)`; `ENOBUFS` when too many calls are not complete, or not told to be.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    sys::send(socket.as_fd(), bytes, sys::SEND_FLAGS)
}

/// As [`send`], and the pages that it grants are the peer's until that gives them back: who looks at them here finds fresh ones,
/// of zeros. That saves the copy that [`send`] makes of a page that is written again. What was copied stays as it is, and so
/// does everything with a module that does not know of giving: after the call the bytes are for writing only.
///
/// # Errors
///
/// As those of [`send`]; `EINVAL` when the module refuses to give.
pub fn give(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    sys::give(socket.as_fd(), bytes)
}

/// Calls of [`send`] and [`give`] whose memory the peer has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The first of them.
    pub first: u32,
    /// The last of them.
    pub last: u32,
    /// Nothing of them was granted.
    pub copied: bool,
}

/// What is complete and was not told before, if anything is. `poll(2)` says `POLLERR` when there is.
///
/// # Errors
///
/// Those of `recvmsg(2)`.
pub fn completion(socket: impl AsFd) -> io::Result<Option<Completion>> {
    let socket: BorrowedFd<'_> = socket.as_fd();
    match sys::error_queue(socket) {
        Ok(error) => Ok(Some(Completion {
            first: error.ee_info,
            last: error.ee_data,
            copied: error.ee_code == sys::SO_EE_CODE_ZEROCOPY_COPIED,
        })),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
