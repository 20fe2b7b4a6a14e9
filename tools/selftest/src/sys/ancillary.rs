// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages with ancillary data.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::Result;

use super::count;

/// Ancillary data of a message: level, type and content.
pub type Ancillary = (i32, i32, Vec<u8>);

/// Room for ancillary data, aligned as the kernel wants it.
#[repr(align(8))]
struct Room([u8; 256]);

/// `recvmsg(2)` to one buffer, with what comes beside the bytes.
pub fn recv(fd: BorrowedFd, buf: &mut [u8], flags: i32) -> Result<(usize, Vec<Ancillary>)> {
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    let mut room = Room([0; 256]);
    let mut all = Vec::new();
    // SAFETY: The header's pointers are to the locals above. The kernel has filled the room with whole messages, as
    // far as it says, and the macros stay within that.
    unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = room.0.as_mut_ptr().cast();
        msg.msg_controllen = room.0.len() as _;
        let n = count(libc::recvmsg(fd.as_raw_fd(), &mut msg, flags))?;
        let mut at = libc::CMSG_FIRSTHDR(&msg);
        while !at.is_null() {
            let len = (*at).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let content = std::slice::from_raw_parts(libc::CMSG_DATA(at), len).to_vec();
            all.push(((*at).cmsg_level, (*at).cmsg_type, content));
            at = libc::CMSG_NXTHDR(&msg, at);
        }
        Ok((n, all))
    }
}

/// `sendmsg(2)` of one buffer with `flags`, with data of `level` and `kind` beside it.
pub fn send(
    fd: BorrowedFd,
    buf: &[u8],
    flags: i32,
    (level, kind): (i32, i32),
    data: &[u8],
) -> Result<usize> {
    let mut iov = libc::iovec {
        iov_base: buf.as_ptr().cast_mut().cast(),
        iov_len: buf.len(),
    };
    let mut room = Room([0; 256]);
    if data.len() > 64 {
        return Err(Errno::EMSGSIZE);
    }
    let len = data.len() as u32;
    // SAFETY: The header's pointers are to the locals above, which the kernel reads; the room has space for one header
    // and the data, of which there is not more than 64 bytes.
    unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = room.0.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(len) as _;
        let head = libc::CMSG_FIRSTHDR(&msg);
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        (*head).cmsg_len = libc::CMSG_LEN(len) as _;
        libc::CMSG_DATA(head).copy_from_nonoverlapping(data.as_ptr(), data.len());
        count(libc::sendmsg(
            fd.as_raw_fd(),
            &msg,
            flags | libc::MSG_NOSIGNAL,
        ))
    }
}
