// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that cannot be accessed, or is not there yet.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::Result;

use super::count;

/// Two pages of memory of which the second cannot be accessed; the slice is the first page.
pub struct GuardedPage(*mut u8);

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Maps anonymous memory at an address of the kernel's choice.
fn map(len: usize) -> Result<*mut u8> {
    // SAFETY: A new mapping takes nobody's memory away.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    Ok(start.cast())
}

impl GuardedPage {
    /// Maps them.
    pub fn new() -> Result<Self> {
        let this = Self(map(2 * PAGE)?);
        // SAFETY: The second page of the mapping, which nobody uses yet.
        let res = unsafe { libc::mprotect(this.0.add(PAGE).cast(), PAGE, libc::PROT_NONE) };
        Errno::result(res).map(|_| this)
    }

    /// The page that can be accessed.
    pub fn page(&mut self) -> &mut [u8] {
        // SAFETY: The first page is mapped as long as `self` lives.
        unsafe { std::slice::from_raw_parts_mut(self.0, PAGE) }
    }

    /// `send(2)` of `before` bytes of the page and `after` bytes behind it.
    pub fn send(&self, fd: BorrowedFd, before: usize, after: usize) -> Result<usize> {
        let before = before.min(PAGE);
        // SAFETY: The pointer stays within the page; what lies behind faults in the kernel.
        unsafe {
            let start = self.0.add(PAGE - before);
            count(libc::send(
                fd.as_raw_fd(),
                start.cast(),
                before + after,
                libc::MSG_NOSIGNAL,
            ))
        }
    }

    /// `recv(2)` to `before` bytes of the page and `after` bytes behind it.
    pub fn recv(&mut self, fd: BorrowedFd, before: usize, after: usize) -> Result<usize> {
        let before = before.min(PAGE);
        // SAFETY: The pointer stays within the page; what lies behind faults in the kernel.
        unsafe {
            let start = self.0.add(PAGE - before);
            count(libc::recv(fd.as_raw_fd(), start.cast(), before + after, 0))
        }
    }
}

impl Drop for GuardedPage {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`, not used from now on.
        unsafe { libc::munmap(self.0.cast(), 2 * PAGE) };
    }
}

/// Fresh memory: its pages come one by one when they are used, and are zero.
pub struct Fresh {
    start: *mut u8,
    len: usize,
}

impl Fresh {
    pub fn new(len: usize) -> Result<Self> {
        let start = map(len)?;
        let this = Self { start, len };
        // SAFETY: Advice for the whole mapping.
        let res = unsafe { libc::madvise(start.cast(), len, libc::MADV_NOHUGEPAGE) };
        Errno::result(res).map(|_| this)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: Mapped as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As above, and `self` is borrowed for it.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`, not used from now on.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
