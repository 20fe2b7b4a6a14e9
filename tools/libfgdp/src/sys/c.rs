// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The interface for programs in C: `include/fgdp.h` says what each function does.
//!
//! What comes from such a program is checked as far as it can be: descriptors and memory by the kernel, the rest here. Nothing
//! panics.

use std::ffi::{c_int, c_void};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;

use super::{flags, give_raw, lent, Map};
use crate::window::{self, Taken};
use crate::PAGE;

/// What `fgdp_window_next` returns.
pub(super) const FGDP_NOTHING: c_int = 0;
pub(super) const FGDP_GRANTED: c_int = 1;
pub(super) const FGDP_COPIED: c_int = 2;

/// `struct fgdp_completion`.
#[repr(C)]
pub struct Completion {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) copied: u32,
}

/// `struct fgdp_window`, which the program does not look into. It has a descriptor of its own: the program's may be closed.
pub struct Window {
    socket: OwnedFd,
    map: Map,
}

fn errno_of(error: &Error) -> c_int {
    match (error.raw_os_error(), error.kind()) {
        (Some(errno), _) => errno,
        (None, ErrorKind::OutOfMemory) => libc::ENOMEM,
        (None, ErrorKind::NotFound) => libc::ENOENT,
        // An answer that makes no sense.
        (None, _) => libc::EPROTO,
    }
}

fn errno(number: c_int) -> Error {
    Error::from_raw_os_error(number)
}

/// Leaves the error in errno; what stands for it is returned.
fn told<T>(result: Result<T>, failure: T) -> T {
    result.unwrap_or_else(|error| {
        // SAFETY: The thread's own.
        unsafe { *libc::__errno_location() = errno_of(&error) };
        failure
    })
}

fn count(result: Result<usize>) -> isize {
    // No call sends more bytes than its type can count.
    told(result.map(|n| isize::try_from(n).unwrap_or(isize::MAX)), -1)
}

/// The socket that the program names.
///
/// # Safety
///
/// The program does not close it before the call ends.
unsafe fn socket<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(errno(libc::EBADF));
    }
    // SAFETY: Not -1; by the function's contract. If it is none, the kernel says so.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The window that the program names.
///
/// # Safety
///
/// Null, or of `fgdp_window_open` and not closed before the call ends.
unsafe fn window<'a>(window: *const Window) -> Result<&'a Window> {
    // SAFETY: By the function's contract.
    unsafe { window.as_ref() }.ok_or_else(|| errno(libc::EINVAL))
}

/// The number of the socket family.
#[no_mangle]
pub extern "C" fn fgdp_family() -> c_int {
    told(crate::family().map(c_int::from), -1)
}

/// Lets a socket grant.
///
/// # Safety
///
/// That of [`socket`].
#[no_mangle]
pub unsafe extern "C" fn fgdp_enable(fd: c_int) -> c_int {
    // SAFETY: By the function's contract.
    let socket = unsafe { socket(fd) };
    told(socket.and_then(crate::enable).map(|()| 0), -1)
}

/// Maps memory that a socket lends.
///
/// # Safety
///
/// That of [`socket`].
#[no_mangle]
pub unsafe extern "C" fn fgdp_memory_map(fd: c_int, len: usize) -> *mut c_void {
    // SAFETY: By the function's contract.
    let socket = unsafe { socket(fd) };
    let map = socket.and_then(|socket| Map::lent(socket, len));
    told(map.map(|map| map.into_raw().cast()), null_mut())
}

/// Unmaps such memory.
///
/// # Safety
///
/// The program does not use it any more.
#[no_mangle]
pub unsafe extern "C" fn fgdp_memory_unmap(memory: *mut c_void, len: usize) -> c_int {
    let end = len.checked_next_multiple_of(PAGE);
    let Some(end) = end.filter(|end| !memory.is_null() && memory.addr() % PAGE == 0 && *end > 0)
    else {
        return told(Err(errno(libc::EINVAL)), -1);
    };
    lent::remove(memory.cast(), end);
    // SAFETY: By the function's contract.
    unsafe { libc::munmap(memory, len) }
}

/// Grants.
///
/// # Safety
///
/// That of [`socket`]. The kernel looks whether the memory is there.
#[no_mangle]
pub unsafe extern "C" fn fgdp_send(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    // SAFETY: By the function's contract.
    let flags = unsafe { socket(fd) }.map(|socket| flags(socket, bytes.cast(), len));
    match flags {
        // SAFETY: The kernel reads memory of the program, or says that it cannot.
        Ok(flags) => unsafe { libc::send(fd, bytes, len, flags) },
        Err(error) => told(Err(error), -1),
    }
}

/// Gives away.
///
/// # Safety
///
/// That of [`socket`], and the program lets go of the content of the memory. The kernel looks whether it is there.
#[no_mangle]
pub unsafe extern "C" fn fgdp_give(fd: c_int, bytes: *mut c_void, len: usize) -> isize {
    // SAFETY: By the function's contract.
    count(unsafe { socket(fd).and_then(|socket| give_raw(socket, bytes.cast(), len)) })
}

/// Which sends are complete.
///
/// # Safety
///
/// That of [`socket`]; `out` is null or has room for a `struct fgdp_completion`.
#[no_mangle]
pub unsafe extern "C" fn fgdp_completion(fd: c_int, out: *mut Completion) -> c_int {
    if out.is_null() {
        // Before one is taken from the queue.
        return told(Err(errno(libc::EFAULT)), -1);
    }
    // SAFETY: By the function's contract.
    let socket = unsafe { socket(fd) };
    let next = socket.and_then(crate::completion).map(|next| match next {
        Some(done) => {
            let done = Completion {
                first: done.first,
                last: done.last,
                copied: done.copied.into(),
            };
            // SAFETY: By the function's contract there is room.
            unsafe { out.write_unaligned(done) };
            1
        }
        None => 0,
    });
    told(next, -1)
}

/// Maps a socket's window.
///
/// # Safety
///
/// That of [`socket`].
#[no_mangle]
pub unsafe extern "C" fn fgdp_window_open(fd: c_int) -> *mut Window {
    // SAFETY: By the function's contract.
    let socket = unsafe { socket(fd) };
    let window = socket.and_then(|socket| {
        let socket = socket.try_clone_to_owned()?;
        let map = window::map(socket.as_fd(), false)?;
        Ok(Box::into_raw(Box::new(Window { socket, map })))
    });
    told(window, null_mut())
}

/// Unmaps it.
///
/// # Safety
///
/// `window` is null or of `fgdp_window_open`, and nobody uses it, or what it shows, any more.
#[no_mangle]
pub unsafe extern "C" fn fgdp_window_close(window: *mut Window) -> c_int {
    if window.is_null() {
        return told(Err(errno(libc::EINVAL)), -1);
    }
    // SAFETY: Of `Box::into_raw`, by the function's contract.
    drop(unsafe { Box::from_raw(window) });
    0
}

/// Takes what is next in the stream.
///
/// # Safety
///
/// That of [`window()`]; `bytes` and `len` are null or have room for a pointer and a size.
#[no_mangle]
pub unsafe extern "C" fn fgdp_window_next(
    window: *const Window,
    bytes: *mut *const c_void,
    len: *mut usize,
) -> c_int {
    if bytes.is_null() || len.is_null() {
        return told(Err(errno(libc::EFAULT)), -1);
    }
    // SAFETY: By the function's contract.
    let next = unsafe { self::window(window) };
    let next = next.and_then(|window| window::take(window.socket.as_fd(), &window.map));
    let next = next.map(|taken| {
        let (what, from, n) = match taken {
            Taken::Granted(_, part) => {
                let bytes = part.bytes();
                (FGDP_GRANTED, bytes.as_ptr().cast(), bytes.len())
            }
            Taken::Copied(n) => (FGDP_COPIED, std::ptr::null(), n),
            Taken::Nothing => (FGDP_NOTHING, std::ptr::null(), 0),
        };
        // SAFETY: By the function's contract there is room.
        unsafe {
            bytes.write_unaligned(from);
            len.write_unaligned(n);
        }
        what
    });
    told(next, -1)
}

/// Gives back what was taken.
///
/// # Safety
///
/// That of [`window()`]; the program does not look at the bytes any more.
#[no_mangle]
pub unsafe extern "C" fn fgdp_window_release(
    window: *const Window,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: By the function's contract.
    let window = unsafe { self::window(window) };
    let released = window.and_then(|window| {
        let at = window.map.offset_of(bytes.cast(), len);
        let at = at.ok_or_else(|| errno(libc::EINVAL))?;
        window::release(window.socket.as_fd(), at, len as u64)
    });
    told(released.map(|()| 0), -1)
}
