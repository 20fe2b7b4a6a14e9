// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A mapping of what the peer of a socket granted.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::Result;

use super::lent::mmap;
use super::memory::PAGE;
use super::{count, set_at, SOL_FGDP};

pub const FGDP_WINDOW: i32 = 3;
const FGDP_ZEROCOPY_RECEIVE: i32 = 4;
const FGDP_ZEROCOPY_RELEASE: i32 = 5;

/// The offset of the window in the socket's mappings.
pub const FGDP_MMAP_WINDOW: usize = 1 << 40;

/// Bytes that were taken, or how many come before that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub offset: u64,
    pub length: u32,
    pub skip: u32,
}

/// The mapping.
pub struct Window {
    start: *mut u8,
    pages: usize,
}

fn get<T: Default>(fd: BorrowedFd, option: i32) -> Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as u32;
    let ptr = std::ptr::from_mut(&mut value).cast();
    // SAFETY: The kernel writes at most as many bytes as the value has, of which any are valid for these options.
    let res = unsafe { libc::getsockopt(fd.as_raw_fd(), SOL_FGDP, option, ptr, &mut len) };
    Errno::result(res)?;
    if len as usize != size_of::<T>() {
        return Err(Errno::EPROTO);
    }
    Ok(value)
}

/// Bytes that the window can have.
pub fn size(fd: BorrowedFd) -> Result<u64> {
    get(fd, FGDP_WINDOW)
}

/// How an option of the family with a small value ends.
pub fn get_int(fd: BorrowedFd, option: i32) -> Result<i32> {
    get(fd, option)
}

/// Takes what is next in the stream.
pub fn receive(fd: BorrowedFd) -> Result<Received> {
    get(fd, FGDP_ZEROCOPY_RECEIVE)
}

/// Gives back what was taken between two offsets.
pub fn release(fd: BorrowedFd, offset: u64, length: u64) -> Result<()> {
    set_at(fd, SOL_FGDP, FGDP_ZEROCOPY_RELEASE, &[offset, length])
}

impl Window {
    /// Maps all of it.
    pub fn new(fd: BorrowedFd) -> Result<Self> {
        let pages = size(fd)? as usize / PAGE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Self::map(fd, pages, prot, libc::MAP_SHARED)
    }

    /// Maps `pages` pages.
    pub fn map(fd: BorrowedFd, pages: usize, prot: i32, flags: i32) -> Result<Self> {
        let start = mmap(fd, pages, prot, flags, FGDP_MMAP_WINDOW)?;
        Ok(Self { start, pages })
    }

    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        assert!(offset as usize + len <= self.pages * PAGE, "outside");
        // SAFETY: Inside the mapping.
        unsafe { self.start.add(offset as usize) }
    }

    /// The bytes of what was taken.
    pub fn bytes(&self, got: Received) -> &[u8] {
        let len = got.length as usize;
        // SAFETY: Mapped as long as `self`; what was taken stays as it is until it is given back, by the cases' order.
        unsafe { std::slice::from_raw_parts(self.at(got.offset, len), len) }
    }

    /// As [`Window::bytes`], to write.
    pub fn bytes_mut(&mut self, got: Received) -> &mut [u8] {
        let len = got.length as usize;
        // SAFETY: As above, and `self` is borrowed for it.
        unsafe { std::slice::from_raw_parts_mut(self.at(got.offset, len), len) }
    }

    /// How the kernel's reading a byte of the window ends.
    pub fn probe(&self, offset: u64) -> Result<()> {
        let (_read, write) = nix::unistd::pipe()?;
        // SAFETY: The kernel reads one byte, or finds that it cannot.
        count(unsafe {
            libc::write(
                write.as_fd().as_raw_fd(),
                self.at(offset, 1).cast_const().cast(),
                1,
            )
        })
        .map(drop)
    }

    /// Unmaps the pages from byte `offset` on, `pages` of them.
    pub fn cut(&mut self, offset: u64, pages: usize) -> Result<()> {
        let at = self.at(offset, pages * PAGE);
        // SAFETY: Nobody refers to them, which `&mut self` shows; the rest of the mapping stays.
        Errno::result(unsafe { libc::munmap(at.cast(), pages * PAGE) }).map(drop)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: Mapped, but for what was cut out, and not used from now on.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}
