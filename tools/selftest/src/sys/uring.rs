// SPDX-License-Identifier: Apache-2.0 OR MIT
//! io_uring operations, each to its end.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, squeue, types, IoUring};
use nix::errno::Errno;
use nix::Result;

/// Hands an operation to the kernel.
///
/// # Safety
///
/// The entry's buffers live until its last completion.
unsafe fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<()> {
    // SAFETY: By this function's contract.
    unsafe { ring.submission().push(entry) }.map_err(|_| Errno::EBUSY)
}

/// Waits for the next completion: the result, or the error that it gave, and its flags.
fn complete(ring: &mut IoUring) -> Result<(i32, u32)> {
    loop {
        if let Some(completion) = ring.completion().next() {
            return match completion.result() {
                res if res < 0 => Err(Errno::from_raw(-res)),
                res => Ok((res, completion.flags())),
            };
        }
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            Err(e) => return Err(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

/// Runs an operation with one completion.
///
/// # Safety
///
/// The entry's buffers live until this returns.
unsafe fn run(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i32> {
    // SAFETY: By this function's contract; it returns after the completion.
    unsafe { submit(ring, entry)? };
    complete(ring).map(|(res, _)| res)
}

/// Accepts.
pub fn accept(ring: &mut IoUring, fd: BorrowedFd) -> Result<OwnedFd> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
    // SAFETY: The entry has no buffers; the descriptor that it returns is new.
    unsafe { run(ring, &entry).map(|new| OwnedFd::from_raw_fd(new)) }
}

/// Accepts `count` connections by one operation.
pub fn accept_many(ring: &mut IoUring, fd: BorrowedFd, count: usize) -> Result<Vec<OwnedFd>> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::AcceptMulti::new(fd).build().user_data(1);
    // SAFETY: The entry has no buffers.
    unsafe { submit(ring, &entry)? };
    let mut all = Vec::new();
    while all.len() < count {
        let (new, flags) = complete(ring)?;
        // SAFETY: The descriptor is new.
        all.push(unsafe { OwnedFd::from_raw_fd(new) });
        if !cqueue::more(flags) && all.len() < count {
            return Err(Errno::EPROTO);
        }
    }
    let cancel = opcode::AsyncCancel::new(1).build();
    // SAFETY: The entry has no buffers. Of its completion and that of the accept either may come first.
    unsafe { submit(ring, &cancel)? };
    for _ in 0..2 {
        match complete(ring) {
            Ok(_) | Err(Errno::ECANCELED) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Connects.
pub fn connect(ring: &mut IoUring, fd: BorrowedFd, name: &[u8]) -> Result<()> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::Connect::new(fd, name.as_ptr().cast(), name.len() as u32).build();
    // SAFETY: The name lives until this returns.
    unsafe { run(ring, &entry).map(drop) }
}

/// Sends.
pub fn send(ring: &mut IoUring, fd: BorrowedFd, buf: &[u8]) -> Result<usize> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::Send::new(fd, buf.as_ptr(), buf.len() as u32).build();
    // SAFETY: The buffer lives until this returns.
    unsafe { run(ring, &entry).map(|n| n as usize) }
}

/// Sends without copying, and waits until the kernel does not need the buffer any more.
pub fn send_zc(ring: &mut IoUring, fd: BorrowedFd, buf: &[u8]) -> Result<usize> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::SendZc::new(fd, buf.as_ptr(), buf.len() as u32).build();
    // SAFETY: The buffer lives until this returns, which is after the notification.
    unsafe { submit(ring, &entry)? };
    let (sent, flags) = complete(ring)?;
    if cqueue::more(flags) {
        let (_, flags) = complete(ring)?;
        if !cqueue::notif(flags) {
            return Err(Errno::EPROTO);
        }
    }
    Ok(sent as usize)
}

/// Receives.
pub fn recv(ring: &mut IoUring, fd: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    let fd = types::Fd(fd.as_raw_fd());
    let entry = opcode::Recv::new(fd, buf.as_mut_ptr(), buf.len() as u32).build();
    // SAFETY: The buffer lives until this returns.
    unsafe { run(ring, &entry).map(|n| n as usize) }
}

/// Buffers that the kernel chooses from, and how long each is.
const BUFFERS: usize = 4;
const BUFFER: usize = 1000;

/// The group that they are in.
const GROUP: u16 = 7;

/// Receives to the end of the stream by one operation after the other, each of which completes many times and takes
/// buffers from a group.
pub fn recv_many(ring: &mut IoUring, fd: BorrowedFd) -> Result<Vec<u8>> {
    let mut memory = vec![0u8; BUFFERS * BUFFER];
    // SAFETY: The memory lives until the buffers have been taken back.
    let received = unsafe { recv_into(ring, types::Fd(fd.as_raw_fd()), memory.as_mut_ptr()) };
    let remove = opcode::RemoveBuffers::new(BUFFERS as u16, GROUP).build();
    // SAFETY: The entry has no buffers.
    match unsafe { run(ring, &remove) } {
        Ok(_) | Err(Errno::ENOENT) => received,
        Err(e) => Err(e),
    }
}

/// Gives `count` buffers, `from` on, to the kernel.
///
/// # Safety
///
/// `start` is where [`BUFFERS`] buffers are, which live until they are taken back.
unsafe fn provide(ring: &mut IoUring, start: *mut u8, from: u16, count: u16) -> Result<()> {
    // SAFETY: Within the memory.
    let first = unsafe { start.add(usize::from(from) * BUFFER) };
    let entry = opcode::ProvideBuffers::new(first, BUFFER as i32, count, GROUP, from).build();
    // SAFETY: By this function's contract.
    unsafe { run(ring, &entry).map(drop) }
}

/// # Safety
///
/// As for [`provide`].
unsafe fn recv_into(ring: &mut IoUring, fd: types::Fd, start: *mut u8) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    // SAFETY: By this function's contract.
    unsafe { provide(ring, start, 0, BUFFERS as u16)? };
    loop {
        let entry = opcode::RecvMulti::new(fd, GROUP).build();
        // SAFETY: As above.
        unsafe { submit(ring, &entry)? };
        let mut used = Vec::new();
        let end = loop {
            let (n, flags) = match complete(ring) {
                // No buffer is left: the last completion of this operation.
                Err(Errno::ENOBUFS) => break false,
                other => other?,
            };
            if let Some(id) = cqueue::buffer_select(flags).filter(|id| usize::from(*id) < BUFFERS) {
                let (at, n) = (usize::from(id) * BUFFER, (n as usize).min(BUFFER));
                // SAFETY: The buffer is the kernel's no more, and has as many bytes as it says.
                all.extend_from_slice(unsafe { std::slice::from_raw_parts(start.add(at), n) });
                used.push(id);
            }
            if !cqueue::more(flags) {
                break n == 0;
            }
        };
        if end {
            return Ok(all);
        }
        for id in used {
            // SAFETY: As above.
            unsafe { provide(ring, start, id, 1)? };
        }
    }
}
