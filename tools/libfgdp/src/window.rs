// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiver's side.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, Map, Receive, Release};

/// A mapping of the peer's slot, in which granted pages are read. One for a socket.
#[derive(Debug)]
pub struct Window<'a> {
    socket: BorrowedFd<'a>,
    map: Map,
}

/// What is next in the stream.
#[derive(Debug)]
pub enum Next<'w> {
    /// Bytes that are read where they are.
    Granted(Granted<'w>),
    /// So many bytes are for `recv(2)`.
    Copied(usize),
    /// Nothing yet, or nothing more: `poll(2)` waits, `recv(2)` says how the stream ends.
    Nothing,
}

/// Bytes of the peer's. Given back when dropped.
pub struct Granted<'w> {
    window: &'w Window<'w>,
    offset: u64,
    bytes: &'w [u8],
}

impl<'a> Window<'a> {
    /// Maps all of the window of `socket`.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`; `EBUSY` if there is one; `EOPNOTSUPP` for sockets of another kind.
    pub fn new<S: AsFd>(socket: &'a S) -> io::Result<Self> {
        let socket = socket.as_fd();
        let len: u64 = sys::option(socket, sys::FGDP_WINDOW)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = Map::new(socket, len, false, sys::FGDP_MMAP_WINDOW)?;
        Ok(Self { socket, map })
    }

    /// Takes what is next in the stream, without waiting.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn next(&self) -> io::Result<Next<'_>> {
        let got: Receive = sys::option(self.socket, sys::FGDP_ZEROCOPY_RECEIVE)?;
        if got.length == 0 {
            return Ok(match got.recv_skip_hint {
                0 => Next::Nothing,
                n => Next::Copied(n as usize),
            });
        }
        let part = self.map.part(got.offset, got.length as usize);
        let bytes = part.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Next::Granted(Granted {
            window: self,
            offset: got.offset,
            bytes,
        }))
    }
}

impl Deref for Granted<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for Granted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, len) = (self.offset, self.bytes.len());
        write!(f, "Granted({len} bytes at {from:#x})")
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        let what = Release {
            offset: self.offset,
            length: self.bytes.len() as u64,
        };
        let option = sys::FGDP_ZEROCOPY_RELEASE;
        // It was taken, and fails only when the connection is over: then it is nobody's.
        let _over = sys::set_option(self.window.socket, sys::SOL_FGDP, option, &what);
    }
}
