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
    /// `ENOTCONN`; `ENOMEM` when the slot has no more frames for the peer; `EOPNOTSUPP` for a TCP connection that is not carried;
    /// `EOPNOTSUPP` or `ENODEV` for sockets of another kind. Other memory serves instead, which is copied.
    pub fn new(socket: impl AsFd, len: usize) -> io::Result<Self> {
        Map::lent(socket.as_fd(), len).map(Self)
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

/// Lets `socket` send without a copy: before the first [`send`]. A TCP socket has to be connected.
///
/// # Errors
///
/// `EOPNOTSUPP` for a TCP connection that is not carried, which stays as it was: what [`send`] is given is copied, and
/// [`completion`] tells nothing. Else those of `setsockopt(2)` with `SO_ZEROCOPY`.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    // TCP alone would do something else by that option.
    sys::carried(socket)?;
    sys::set_option(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1i32)
}

/// Grants the whole pages of `bytes` that are in a [`Memory`] and copies the rest; how many bytes are on their way. Calls that
/// sent something have numbers, from 0. By a TCP socket only calls with bytes of one [`Memory`] do, the socket's own: others are
/// `send(2)`, whether or not the connection is carried. So all memory may be written at once, which TCP alone does not allow.
///
/// # Errors
///
/// Those of `send(2)`; `ENOBUFS` when too many calls are not complete, or not told to be.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    sys::grant(socket.as_fd(), bytes)
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
    /// Nothing of them was granted. TCP tells of neighbours together, and then says what is true of the first.
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
