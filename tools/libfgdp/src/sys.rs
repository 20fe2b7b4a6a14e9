// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls: all unsafe code of the crate.

use std::io::{Error, ErrorKind, Result};
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};

mod c;
mod lent;
mod map;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

pub(crate) use map::{Map, Part};

/// The numbers of `<linux/fgdp.h>`.
pub(crate) const SOL_FGDP: i32 = 0x4647;
const FGDP_RECVERR: i32 = 2;
pub(crate) const FGDP_WINDOW: i32 = 3;
pub(crate) const FGDP_ZEROCOPY_RECEIVE: i32 = 4;
pub(crate) const FGDP_ZEROCOPY_RELEASE: i32 = 5;
const FGDP_TRANSFER: i32 = 6;
pub(crate) const FGDP_MMAP_WINDOW: i64 = 1 << 40;

/// The numbers of `<linux/errqueue.h>`.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
/// What a control message of the error queue is called: TCP has two names for it.
const RECVERR: [(i32, i32); 3] = [
    (SOL_FGDP, FGDP_RECVERR),
    (libc::SOL_IP, libc::IP_RECVERR),
    (libc::SOL_IPV6, libc::IPV6_RECVERR),
];
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
    get(fd, SOL_FGDP, name)
}

fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as u32;
    let to = value.as_mut_ptr().cast();
    // SAFETY: The kernel writes at most as many bytes as the value has.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, to, &mut len) })?;
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

/// Whether a socket is of the internet's families.
fn is_inet(fd: BorrowedFd<'_>) -> bool {
    let family = get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
    matches!(family, Ok(libc::AF_INET | libc::AF_INET6))
}

/// What a call says that failed: TCP itself refuses in words of its own.
fn refused(fd: BorrowedFd<'_>, error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOPROTOOPT) if is_inet(fd) => {
            Error::from_raw_os_error(libc::EOPNOTSUPP)
        }
        _ => error,
    }
}

/// How long a window can be. TCP waits until it is known whether the connection is carried.
pub(crate) fn window_size(fd: BorrowedFd<'_>) -> Result<u64> {
    option(fd, FGDP_WINDOW).map_err(|error| refused(fd, error))
}

/// Fails if it is a connection of TCP's that is not carried.
pub(crate) fn carried(fd: BorrowedFd<'_>) -> Result<()> {
    if is_inet(fd) {
        window_size(fd)?;
    }
    Ok(())
}

/// The flags of a send that grants.
const GRANT: i32 = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL;

/// The flags of a send of those bytes: by TCP, only lent memory can be granted.
fn flags(fd: BorrowedFd<'_>, bytes: *const u8, len: usize) -> i32 {
    if lent::has(bytes, len) || !is_inet(fd) {
        GRANT
    } else {
        libc::MSG_NOSIGNAL
    }
}

/// `send(2)` of what may be granted.
pub(crate) fn grant(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    send(fd, bytes, flags(fd, bytes.as_ptr(), bytes.len()))
}

/// `send(2)`.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], flags: i32) -> Result<usize> {
    // SAFETY: The kernel reads the slice.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// `sendmsg(2)` of what may be given away.
pub(crate) fn give(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize> {
    // SAFETY: The slice is the caller's alone: the kernel may change it.
    unsafe { give_raw(fd, bytes.as_mut_ptr(), bytes.len()) }
}

/// As [`give`].
///
/// # Safety
///
/// The program lets go of the content of the `len` bytes at `bytes` if they are mapped: the kernel looks whether they are.
unsafe fn give_raw(fd: BorrowedFd<'_>, bytes: *mut u8, len: usize) -> Result<usize> {
    let flags = flags(fd, bytes, len);
    let mut room = Room([0; 256]);
    let mut iov = libc::iovec {
        iov_base: bytes.cast(),
        iov_len: len,
    };
    // SAFETY: All-zero is a valid message header; the control buffer is the local above, which has room for more than one
    // header. The bytes are the caller's business.
    let sent = unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        if flags == GRANT {
            msg.msg_control = room.0.as_mut_ptr().cast();
            msg.msg_controllen = libc::CMSG_SPACE(0) as _;
            let head = libc::CMSG_FIRSTHDR(&msg);
            (*head).cmsg_level = SOL_FGDP;
            (*head).cmsg_type = FGDP_TRANSFER;
            (*head).cmsg_len = libc::CMSG_LEN(0) as _;
        }
        libc::sendmsg(fd.as_raw_fd(), &msg, flags)
    };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// Room for control messages, aligned as the kernel wants it: what TCP says of an error has an address with it, and there may
/// be timestamps.
#[repr(align(8))]
struct Room([u8; 256]);

/// The next entry of the error queue, which must be of zero copy.
pub(crate) fn error_queue(fd: BorrowedFd<'_>) -> Result<libc::sock_extended_err> {
    let mut room = Room([0; 256]);
    // SAFETY: All-zero is a valid message header; the control buffer is the local above, and what is read of it is what the
    // kernel says that it wrote.
    let error = unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_control = room.0.as_mut_ptr().cast();
        msg.msg_controllen = room.0.len() as _;
        // Sockets that do not know the first flag would wait for bytes.
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        if libc::recvmsg(fd.as_raw_fd(), &mut msg, flags) < 0 {
            return Err(Error::last_os_error());
        }
        let least = libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32) as usize;
        let mut head = libc::CMSG_FIRSTHDR(&msg);
        while !head.is_null() && !RECVERR.contains(&((*head).cmsg_level, (*head).cmsg_type)) {
            head = libc::CMSG_NXTHDR(&msg, head);
        }
        if head.is_null() || ((*head).cmsg_len as usize) < least {
            return Err(ErrorKind::InvalidData.into());
        }
        let data = libc::CMSG_DATA(head).cast::<libc::sock_extended_err>();
        data.read_unaligned()
    };
    if error.ee_origin != SO_EE_ORIGIN_ZEROCOPY {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(error)
}
