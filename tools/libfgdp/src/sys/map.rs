// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mappings of a socket.

use std::io::{Error, ErrorKind, Result};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null_mut, NonNull};

use libc::c_void;

use super::{lent, refused};
use crate::PAGE;

/// What one entry of the next level of page tables maps.
const HUGE: usize = 2 << 20;

/// How often another thread may be faster to map where there was room.
const TRIES: usize = 8;

/// Where `len` bytes are free from a multiple of [`HUGE`] on, which one entry of the next level of page tables can map. Another
/// thread may map there before the caller does.
fn aligned(len: usize) -> Result<*mut c_void> {
    let room = len.checked_add(HUGE).ok_or(ErrorKind::OutOfMemory)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: A new mapping at a place of the kernel's choice, which goes before anybody uses it.
    let start = unsafe { libc::mmap(null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: As above.
    unsafe { libc::munmap(start, room) };
    Ok(start.wrapping_byte_add(start.cast::<u8>().align_offset(HUGE)))
}

/// A mapping of a socket.
///
/// # Invariants
///
/// `start` is the start of `len` mapped bytes until the value is dropped.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: Memory is the same for all threads; it is written through `&mut` only.
unsafe impl Send for Map {}
// SAFETY: As above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps memory that the socket lends.
    pub(crate) fn lent(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let map = Self::new(fd, len, true, 0)?;
        lent::add(map.start.as_ptr(), map.len);
        Ok(map)
    }

    /// Maps `len` bytes, in whole pages.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool, offset: i64) -> Result<Self> {
        let len = len
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| Error::from_raw_os_error(libc::ENOMEM))?;
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let map = |at: *mut c_void, flags| {
            let flags = libc::MAP_SHARED | flags;
            // SAFETY: A new mapping at a place of the kernel's choice, or where nothing is.
            let start = unsafe { libc::mmap(at, len, prot, flags, fd.as_raw_fd(), offset) };
            if start == libc::MAP_FAILED {
                return Err(refused(fd, Error::last_os_error()));
            }
            let start = NonNull::new(start.cast::<u8>()).ok_or(ErrorKind::OutOfMemory)?;
            // INVARIANT: Mapped, until `drop`.
            Ok(Self {
                start,
                len,
                writable,
            })
        };
        if len >= HUGE {
            for _ in 0..TRIES {
                match map(aligned(len)?, libc::MAP_FIXED_NOREPLACE) {
                    Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                    result => return result,
                }
            }
        }
        map(null_mut(), 0)
    }

    /// Leaves the mapping, and its end, to who has the pointer.
    pub(super) fn into_raw(self) -> *mut u8 {
        ManuallyDrop::new(self).start.as_ptr()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type's invariant.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The `len` bytes at `at`, where the others may not be there. Nobody has a part of them already: the caller sees to that.
    pub(crate) fn part(&self, at: u64, len: usize) -> Option<Part<'_>> {
        let at = usize::try_from(at).ok()?;
        if at.checked_add(len)? > self.len {
            return None;
        }
        Some(Part {
            // SAFETY: Inside the mapping.
            start: unsafe { self.start.add(at) },
            len,
            map: self,
        })
    }

    /// Where `len` bytes at `bytes` are, if all of them are inside.
    pub(super) fn offset_of(&self, bytes: *const u8, len: usize) -> Option<u64> {
        let at = bytes.addr().checked_sub(self.start.as_ptr().addr())?;
        (at.checked_add(len)? <= self.len).then_some(at as u64)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = if self.writable { self.len } else { 0 };
        // SAFETY: By the type's invariant, and nobody else refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }
}

/// A part of a mapping that is one owner's.
///
/// # Invariants
///
/// `start` is the start of `len` bytes of the mapping, and no other part has any of them.
pub(crate) struct Part<'m> {
    start: NonNull<u8>,
    len: usize,
    map: &'m Map,
}

// SAFETY: As for `Map`.
unsafe impl Send for Part<'_> {}
// SAFETY: As for `Map`.
unsafe impl Sync for Part<'_> {}

impl Part<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type's invariant. What a peer granted it does not write to: its kernel sees to that.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// `None` if the mapping is to be read only.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        if !self.map.writable {
            return None;
        }
        // SAFETY: As above, and by the type's invariant nobody else refers to them.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        lent::remove(self.start.as_ptr(), self.len);
        // SAFETY: By the type's invariant mapped; not used from now on.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
