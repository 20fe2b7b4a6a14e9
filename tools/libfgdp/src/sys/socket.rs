// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets of a family that no library knows.

use std::io::{Error, Result};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::checked;

/// `struct sockaddr_fgdp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Name {
    pub(crate) family: u16,
    pub(crate) reserved: u16,
    pub(crate) port: u32,
    pub(crate) guest: [u8; 16],
}

const NAME_LEN: libc::socklen_t = size_of::<Name>() as libc::socklen_t;

fn new(fd: i32) -> Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: The descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A stream socket.
pub(crate) fn stream(family: u16) -> Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: No pointers.
    new(unsafe { libc::socket(family.into(), kind, 0) })
}

/// `connect(2)`.
pub(crate) fn connect(fd: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let from = std::ptr::from_ref(name).cast();
    // SAFETY: The kernel reads the name, which has no padding.
    checked(unsafe { libc::connect(fd.as_raw_fd(), from, NAME_LEN) })
}

/// `bind(2)` and `listen(2)`.
pub(crate) fn listen(fd: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let from = std::ptr::from_ref(name).cast();
    // SAFETY: The kernel reads the name, which has no padding.
    checked(unsafe { libc::bind(fd.as_raw_fd(), from, NAME_LEN) })?;
    // SAFETY: No pointers.
    checked(unsafe { libc::listen(fd.as_raw_fd(), 128) })
}

/// `accept(2)`.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Name)> {
    let mut name = Name::default();
    let mut len = NAME_LEN;
    let to = std::ptr::from_mut(&mut name).cast();
    // SAFETY: The kernel writes at most as many bytes as the name has, of which any are valid.
    let fd = unsafe { libc::accept4(fd.as_raw_fd(), to, &mut len, libc::SOCK_CLOEXEC) };
    Ok((new(fd)?, name))
}

/// `recv(2)`.
pub(crate) fn recv(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize> {
    // SAFETY: The kernel writes at most the bytes of the slice.
    let got = unsafe { libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(got).map_err(|_| Error::last_os_error())
}

/// `shutdown(2)` of the way out.
pub(crate) fn finish(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: No pointers.
    checked(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })
}
