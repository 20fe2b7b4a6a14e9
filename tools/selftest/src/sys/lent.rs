// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that a socket lends, and what the error queue tells of it.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::Result;

use super::memory::PAGE;
use super::SOL_FGDP;

/// A mapping of a socket.
pub struct Lent {
    start: *mut u8,
    pages: usize,
}

/// What the kernel can map by one entry of the next level of page tables, if it begins at a multiple of that.
const HUGE: usize = 2 << 20;

/// Maps pages of a socket, such that as many as possible can be mapped together.
pub(super) fn mmap(
    fd: BorrowedFd,
    pages: usize,
    prot: i32,
    flags: i32,
    offset: usize,
) -> Result<*mut u8> {
    let len = pages * PAGE;
    // SAFETY: A new mapping at an address of the kernel's choice, or one where nothing is.
    let map = |at: *mut libc::c_void, flags| unsafe {
        let start = libc::mmap(at, len, prot, flags, fd.as_raw_fd(), offset as i64);
        match start {
            libc::MAP_FAILED => Err(Errno::last()),
            start => Ok(start.cast()),
        }
    };
    if len >= HUGE {
        // Other threads map, too: the place may be taken when it is given back. Never is something of theirs replaced.
        for _ in 0..8 {
            let at = aligned(len)?;
            match map(at, flags | libc::MAP_FIXED_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                result => return result,
            }
        }
    }
    map(std::ptr::null_mut(), flags)
}

/// An address at a multiple of [`HUGE`] from which on `len` bytes are free, as far as other threads do not map.
fn aligned(len: usize) -> Result<*mut libc::c_void> {
    let (prot, flags) = (
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    let room = len + HUGE;
    // SAFETY: A new mapping at an address of the kernel's choice, which nobody uses before it goes again.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), room, prot, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        libc::munmap(start, room);
        Ok(start.byte_add(start.align_offset(HUGE)))
    }
}

impl Lent {
    /// Maps so many pages of the socket.
    pub fn new(fd: BorrowedFd, pages: usize) -> Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let start = mmap(fd, pages, prot, libc::MAP_SHARED, 0)?;
        Ok(Self { start, pages })
    }

    /// How mapping one page ends with other protection, flags or offset.
    pub fn try_page(fd: BorrowedFd, prot: i32, flags: i32, offset: usize) -> Result<()> {
        let start = mmap(fd, 1, prot, flags, offset)?;
        drop(Self { start, pages: 1 });
        Ok(())
    }

    /// All bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: Mapped as long as `self`; the kernel changes nothing in it behind the program's back.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.pages * PAGE) }
    }

    /// Unmaps the last `pages` pages.
    pub fn cut(&mut self, pages: usize) -> Result<()> {
        let pages = pages.min(self.pages);
        self.pages -= pages;
        // SAFETY: The pages are behind the new end: nobody refers to them.
        let res = unsafe {
            let end = self.start.add(self.pages * PAGE);
            libc::munmap(end.cast(), pages * PAGE)
        };
        Errno::result(res).map(drop)
    }

    /// `madvise(2)` of all pages.
    pub fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: The mapping is the caller's own; the advice that is asked for takes no pages away from it.
        Errno::result(unsafe { libc::madvise(self.start.cast(), self.pages * PAGE, advice) })
            .map(drop)
    }

    /// Moves the mapping elsewhere, to be `pages` long.
    pub fn move_to(&mut self, pages: usize) -> Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: The place is reserved first, and nobody refers to the old one, which `&mut self` shows.
        unsafe {
            let prot = libc::PROT_NONE;
            let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let null = std::ptr::null_mut();
            let to = libc::mmap(null, pages * PAGE, prot, anonymous, -1, 0);
            if to == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            let (from, len) = (self.start.cast(), self.pages * PAGE);
            let moved = libc::mremap(from, len, pages * PAGE, flags, to);
            if moved == libc::MAP_FAILED {
                let why = Errno::last();
                libc::munmap(to, pages * PAGE);
                return Err(why);
            }
            (self.start, self.pages) = (moved.cast(), pages);
        }
        Ok(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.pages > 0 {
            // SAFETY: Mapped, and not used from now on.
            unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
        }
    }
}

/// Sends that the error queue says are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    pub first: u32,
    pub last: u32,
    pub copied: bool,
}

const FGDP_RECVERR: i32 = 2;
pub const FGDP_TRANSFER: i32 = 6;
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// Room for one `struct sock_extended_err`, aligned as the kernel wants it.
#[repr(align(8))]
struct Room([u8; 64]);

/// The next entry of the error queue.
pub fn completion(fd: BorrowedFd) -> Result<Complete> {
    let mut room = Room([0; 64]);
    // SAFETY: All-zero is a valid message header; the control buffer is the local above, and what is read of it is
    // what the kernel says that it wrote.
    unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_control = room.0.as_mut_ptr().cast();
        msg.msg_controllen = room.0.len() as _;
        Errno::result(libc::recvmsg(fd.as_raw_fd(), &mut msg, libc::MSG_ERRQUEUE))?;
        let cmsg = libc::CMSG_FIRSTHDR(&msg);
        let kinds = [
            (SOL_FGDP, FGDP_RECVERR),
            (libc::SOL_IP, libc::IP_RECVERR),
            (libc::SOL_IPV6, libc::IPV6_RECVERR),
        ];
        if cmsg.is_null()
            || !kinds.contains(&((*cmsg).cmsg_level, (*cmsg).cmsg_type))
            || msg.msg_flags & libc::MSG_ERRQUEUE == 0
        {
            return Err(Errno::EPROTO);
        }
        let data = libc::CMSG_DATA(cmsg).cast::<libc::sock_extended_err>();
        let err = data.read_unaligned();
        if err.ee_errno != 0 || err.ee_origin != SO_EE_ORIGIN_ZEROCOPY {
            return Err(Errno::EPROTO);
        }
        Ok(Complete {
            first: err.ee_info,
            last: err.ee_data,
            copied: err.ee_code == SO_EE_CODE_ZEROCOPY_COPIED,
        })
    }
}

/// A mapping of a TCP socket in which TCP shows pages that it has received.
pub struct TcpArea<'a> {
    fd: BorrowedFd<'a>,
    start: *mut u8,
    pages: usize,
}

const TCP_ZEROCOPY_RECEIVE: i32 = 35;

impl<'a> TcpArea<'a> {
    /// Maps so many pages.
    pub fn new(fd: BorrowedFd<'a>, pages: usize) -> Result<Self> {
        let start = mmap(fd, pages, libc::PROT_READ, libc::MAP_SHARED, 0)?;
        Ok(Self { fd, start, pages })
    }

    /// `TCP_ZEROCOPY_RECEIVE` for all pages, from byte `at` on: how many bytes are shown, and how many are for
    /// `recv(2)` instead.
    pub fn receive(&self, at: u64) -> Result<(u32, u32)> {
        #[repr(C)]
        struct Receive {
            address: u64,
            length: u32,
            recv_skip_hint: u32,
        }
        let mut value = Receive {
            address: self.start as u64 + at,
            length: (self.pages * PAGE) as u32,
            recv_skip_hint: 0,
        };
        let mut len = size_of::<Receive>() as u32;
        // SAFETY: The kernel reads and writes the value, and shows pages in a mapping to which nobody refers.
        let res = unsafe {
            let ptr = std::ptr::from_mut(&mut value).cast();
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_ZEROCOPY_RECEIVE,
                ptr,
                &mut len,
            )
        };
        Errno::result(res)?;
        Ok((value.length, value.recv_skip_hint))
    }
}

impl Drop for TcpArea<'_> {
    fn drop(&mut self) {
        // SAFETY: Mapped, and nobody refers to it.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}
