// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiver's side.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, Map, Part, Receive, Release};

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
    part: Part<'w>,
}

impl<'a> Window<'a> {
    /// Maps all of the window of `socket`.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`; `EBUSY` if there is one; `EOPNOTSUPP` for a TCP connection that is not carried, of which `recv(2)` reads all;
    /// `EOPNOTSUPP` or `ENOPROTOOPT` for sockets of another kind.
    pub fn new<S: AsFd>(socket: &'a S) -> io::Result<Self> {
        let socket = socket.as_fd();
        let map = map(socket, false)?;
        Ok(Self { socket, map })
    }

    /// As [`Window::new`]; what is granted can be written, too ([`Granted::bytes_mut`]).
    ///
    /// # Errors
    ///
    /// Those of [`Window::new`].
    pub fn new_writable<S: AsFd>(socket: &'a S) -> io::Result<Self> {
        let socket = socket.as_fd();
        let map = map(socket, true)?;
        Ok(Self { socket, map })
    }

    /// Takes what is next in the stream, without waiting.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn next(&self) -> io::Result<Next<'_>> {
        Ok(match take(self.socket, &self.map)? {
            Taken::Granted(offset, part) => Next::Granted(Granted {
                window: self,
                offset,
                part,
            }),
            Taken::Copied(n) => Next::Copied(n),
            Taken::Nothing => Next::Nothing,
        })
    }
}

/// What is next in the stream: granted bytes are at an offset of the mapping, and to be given back by [`release`].
pub(crate) enum Taken<'m> {
    Granted(u64, Part<'m>),
    Copied(usize),
    Nothing,
}

/// Maps all of the window of `socket`.
pub(crate) fn map(socket: BorrowedFd<'_>, writable: bool) -> io::Result<Map> {
    let len = sys::window_size(socket)?;
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let map = Map::new(socket, len, writable, sys::FGDP_MMAP_WINDOW)?;
    // TCP alone maps something else there.
    sys::carried(socket)?;
    Ok(map)
}

/// Takes what is next in the stream.
pub(crate) fn take<'m>(socket: BorrowedFd<'_>, map: &'m Map) -> io::Result<Taken<'m>> {
    let got: Receive = sys::option(socket, sys::FGDP_ZEROCOPY_RECEIVE)?;
    if got.length == 0 {
        return Ok(match got.recv_skip_hint {
            0 => Taken::Nothing,
            n => Taken::Copied(n as usize),
        });
    }
    // What the kernel shows it gives once, until it is given back.
    let part = map.part(got.offset, got.length as usize);
    let part = part.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Taken::Granted(got.offset, part))
}

/// Gives back what was taken between `offset` and `length` bytes on.
pub(crate) fn release(socket: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    let what = Release { offset, length };
    sys::set_option(socket, sys::SOL_FGDP, sys::FGDP_ZEROCOPY_RELEASE, &what)
}

impl Deref for Granted<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.part.bytes()
    }
}

impl Granted<'_> {
    /// The bytes, to be written: what was written is this program's alone, and gone when it is given back. `None` without
    /// [`Window::new_writable`].
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        self.part.bytes_mut()
    }
}

impl fmt::Debug for Granted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, len) = (self.offset, self.len());
        write!(f, "Granted({len} bytes at {from:#x})")
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        // It was taken, and fails only when the connection is over: then it is nobody's.
        let _over = release(self.window.socket, self.offset, self.len() as u64);
    }
}
