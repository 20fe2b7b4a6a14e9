// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls: all unsafe code of the crate.

use std::io::{Error, ErrorKind, Result};
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null_mut, NonNull};

use crate::PAGE;

/// The numbers of `<linux/fgdp.h>`.
pub(crate) const SOL_FGDP: i32 = 0x4647;
const FGDP_RECVERR: i32 = 2;
pub(crate) const FGDP_WINDOW: i32 = 3;
pub(crate) const FGDP_ZEROCOPY_RECEIVE: i32 = 4;
pub(crate) const FGDP_ZEROCOPY_RELEASE: i32 = 5;
pub(crate) const FGDP_MMAP_WINDOW: i64 = 1 << 40;

/// The numbers of `<linux/errqueue.h>`.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
pub(crate) const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// A value of any bits and without padding, as options have it.
///
/// # Safety
///
/// That is so.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: A number.
unsafe impl Plain for i32 {}
// SAFETY: A number.
unsafe impl Plain for u64 {}

/// `struct fgdp_zerocopy_receive`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Receive {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) recv_skip_hint: u32,
}

// SAFETY: Numbers, of 8, 4 and 4 bytes.
unsafe impl Plain for Receive {}

/// `struct fgdp_zerocopy_release`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Release {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

// SAFETY: Numbers of 8 bytes.
unsafe impl Plain for Release {}

fn checked(result: i32) -> Result<()> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Asks for an option of level `SOL_FGDP`.
pub(crate) fn option<T: Plain>(fd: BorrowedFd<'_>, name: i32) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as u32;
    let to = value.as_mut_ptr().cast();
    // SAFETY: The kernel writes at most as many bytes as the value has.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), SOL_FGDP, name, to, &mut len) })?;
    // SAFETY: Zero, or what the kernel wrote: any bits are a value.
    Ok(unsafe { value.assume_init() })
}

/// Sets an option.
pub(crate) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &T,
) -> Result<()> {
    let (from, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as u32);
    // SAFETY: The kernel reads as many bytes as the value has, of which none is padding.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, from, len) })
}

/// `send(2)`.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], flags: i32) -> Result<usize> {
    // SAFETY: The kernel reads the slice.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// Room for one `struct sock_extended_err`, aligned as the kernel wants it.
#[repr(align(8))]
struct Room([u8; 64]);

/// The next entry of the error queue, which must be of zero copy.
pub(crate) fn error_queue(fd: BorrowedFd<'_>) -> Result<libc::sock_extended_err> {
    let mut room = Room([0; 64]);
    // SAFETY: All-zero is a valid message header; the control buffer is the local above, and what is read of it is what the
    // kernel says that it wrote.
    let (kind, error) = unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_control = room.0.as_mut_ptr().cast();
        msg.msg_controllen = room.0.len() as _;
        if libc::recvmsg(fd.as_raw_fd(), &mut msg, libc::MSG_ERRQUEUE) < 0 {
            return Err(Error::last_os_error());
        }
        let head = libc::CMSG_FIRSTHDR(&msg);
        let least = libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32);
        if head.is_null() || ((*head).cmsg_len as usize) < least as usize {
            return Err(ErrorKind::InvalidData.into());
        }
        let data = libc::CMSG_DATA(head).cast::<libc::sock_extended_err>();
        (
            ((*head).cmsg_level, (*head).cmsg_type),
            data.read_unaligned(),
        )
    };
    if kind != (SOL_FGDP, FGDP_RECVERR) || error.ee_origin != SO_EE_ORIGIN_ZEROCOPY {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(error)
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
    /// Maps `len` bytes, in whole pages.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool, offset: i64) -> Result<Self> {
        let len = len.next_multiple_of(PAGE);
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: A new mapping at a place of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            // INVARIANT: Mapped, until `drop`.
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self {
                start,
                len,
                writable,
            }),
            _ => Err(Error::last_os_error()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type's invariant.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The `len` bytes at `at`, where the others may not be there.
    pub(crate) fn part(&self, at: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: By the type's invariant; inside. What a peer granted it does not write to: its kernel sees to that.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), len) })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = if self.writable { self.len } else { 0 };
        // SAFETY: By the type's invariant, and nobody else refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant mapped; not used from now on.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
