// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls for a family that no library knows, and shared memory. All unsafe code of this program.

use std::ffi::c_int;
use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

const NAME_MAX: usize = 128;

/// A socket address of any family.
#[derive(Clone, Debug)]
pub struct Name {
    bytes: Vec<u8>,
}

impl Name {
    /// Of `AF_INET` or `AF_INET6`.
    pub fn inet(addr: SocketAddr) -> Self {
        let mut bytes = Vec::with_capacity(28);
        match addr {
            SocketAddr::V4(v4) => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend(v6.flowinfo().to_be_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        Self { bytes }
    }

    /// Of `AF_UNIX`: a path, or `@NAME` for an abstract one.
    pub fn unix(text: &str) -> Result<Self> {
        let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        match text.strip_prefix('@') {
            Some(name) => {
                bytes.push(0);
                bytes.extend(name.bytes());
            }
            None => {
                bytes.extend(text.bytes());
                bytes.push(0);
            }
        }
        if text.is_empty() || bytes.len() > size_of::<libc::sockaddr_un>() {
            bail!("'{text}' is no name for a socket: 1 to 107 bytes");
        }
        Ok(Self { bytes })
    }

    /// Of `AF_FGDP`: `struct sockaddr_fgdp`.
    pub fn fgdp(family: u16, guest: [u8; 16], port: u32) -> Self {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(family.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(port.to_ne_bytes());
        bytes.extend(guest);
        Self { bytes }
    }

    fn family(&self) -> c_int {
        c_int::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
    }

    fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (
            self.bytes.as_ptr().cast(),
            self.bytes.len() as libc::socklen_t,
        )
    }
}

/// A stream socket of the family of `name`.
pub fn socket(name: &Name) -> nix::Result<OwnedFd> {
    // SAFETY: No pointers; a descriptor that is returned is new and nobody else's.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let fd = Errno::result(libc::socket(name.family(), kind, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// `bind(2)` and `listen(2)`.
pub fn listen(fd: BorrowedFd<'_>, name: &Name) -> nix::Result<()> {
    let (addr, len) = name.parts();
    // SAFETY: `addr` has `len` bytes, which the kernel reads.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), addr, len) })?;
    // SAFETY: No pointers.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), 128) }).map(drop)
}

/// `connect(2)`.
pub fn connect(fd: BorrowedFd<'_>, name: &Name) -> nix::Result<()> {
    let (addr, len) = name.parts();
    // SAFETY: `addr` has `len` bytes, which the kernel reads.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), addr, len) }).map(drop)
}

/// `accept4(2)`.
pub fn accept(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let mut name = [0u8; NAME_MAX];
    let mut len = NAME_MAX as libc::socklen_t;
    // SAFETY: The kernel writes at most `len` bytes of the name; the descriptor is new.
    unsafe {
        let name = name.as_mut_ptr().cast();
        let new = libc::accept4(fd.as_raw_fd(), name, &mut len, libc::SOCK_CLOEXEC);
        Ok(OwnedFd::from_raw_fd(Errno::result(new)?))
    }
}

/// `send(2)`, without SIGPIPE.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let ptr = bytes.as_ptr().cast();
    // SAFETY: The kernel reads at most the bytes of the slice.
    let n = unsafe { libc::send(fd.as_raw_fd(), ptr, bytes.len(), libc::MSG_NOSIGNAL) };
    Errno::result(n).map(|n| n as usize)
}

/// `recv(2)`.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> nix::Result<usize> {
    let ptr = buf.as_mut_ptr().cast();
    // SAFETY: The kernel writes at most the bytes of the slice.
    let n = unsafe { libc::recv(fd.as_raw_fd(), ptr, buf.len(), 0) };
    Errno::result(n).map(|n| n as usize)
}

/// How many bytes `recv(2)` would give now, of one.
pub fn peek(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut byte = [0u8];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: The kernel writes at most one byte.
    let n = unsafe { libc::recv(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) };
    Errno::result(n).map(|n| n as usize)
}

/// Sets an option that is an int.
pub fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> nix::Result<()> {
    let len = size_of::<c_int>() as libc::socklen_t;
    let ptr = std::ptr::from_ref(&value).cast();
    // SAFETY: The kernel reads the four bytes of `value`.
    Errno::result(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr, len) }).map(drop)
}

/// Ends sending: the peer reads the end of the stream.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: No pointers.
    Errno::result(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// A shared mapping of a file.
///
/// # Invariants
///
/// `base` is the page-aligned start of `len` mapped bytes, writable if `writable`, until the value is dropped.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: The mapping is the whole process's; bytes change through atomics and raw copies only.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps all of `file`.
    pub fn new(file: &File, len: usize, writable: bool) -> Result<Self> {
        let size = NonZeroUsize::new(len).context("there is nothing to map")?;
        let prot = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // SAFETY: A new mapping at an address of the kernel's choice disturbs no other.
        let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, file, 0)? };
        // INVARIANT: `mmap` mapped `len` bytes so; `drop` unmaps them.
        Ok(Self {
            base: base.cast(),
            len,
            writable,
        })
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, off: usize, len: usize, write: bool) -> *mut u8 {
        let inside = off.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside && (self.writable || !write),
            "{off}+{len} of {}",
            self.len
        );
        // SAFETY: Inside the mapping by the check.
        unsafe { self.base.as_ptr().add(off) }
    }

    fn word(&self, off: usize, write: bool) -> &AtomicU32 {
        assert!(off % 4 == 0);
        // SAFETY: Four mapped bytes, aligned as the base is; everybody accesses them as an atomic.
        unsafe { AtomicU32::from_ptr(self.at(off, 4, write).cast()) }
    }

    /// The word at `off`; what the writer wrote before it is seen after.
    pub fn load(&self, off: usize) -> u32 {
        self.word(off, false).load(Ordering::Acquire)
    }

    /// Sets the word at `off`, behind what was written before.
    pub fn store(&self, off: usize, value: u32) {
        self.word(off, true).store(value, Ordering::Release);
    }

    /// Copies `from` to `off`.
    pub fn write(&self, off: usize, from: &[u8]) {
        let to = self.at(off, from.len(), true);
        // SAFETY: `to` has as many mapped, writable bytes; `from` is private memory.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    /// Copies from `off`.
    pub fn read(&self, off: usize, to: &mut [u8]) {
        let from = self.at(off, to.len(), false);
        // SAFETY: `from` has as many mapped bytes; `to` is private memory.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's by the type invariant, and nobody refers to it any more.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            eprintln!("fgdp-perf: munmap: {error}");
        }
    }
}

/// New memory of this process alone, zeroed. Unlike a vector's it was never used before, whatever was freed.
///
/// # Invariants
///
/// `base` is the start of `len` mapped bytes that nobody else refers to, until the value is dropped.
pub struct Private {
    base: NonNull<u8>,
    len: usize,
}

impl Private {
    /// Maps `len` bytes.
    pub fn new(len: usize) -> Result<Self> {
        let size = NonZeroUsize::new(len).context("there is nothing to map")?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice disturbs no other.
        let base = unsafe { mmap_anonymous(None, size, prot, MapFlags::MAP_PRIVATE) };
        // INVARIANT: Mapped now, and unmapped by `drop`.
        Ok(Self {
            base: base.context("mmap")?.cast(),
            len,
        })
    }
}

impl Deref for Private {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type's invariant.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Private {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type's invariant.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's by the type's invariant; nobody refers to it any more.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            eprintln!("fgdp-perf: munmap: {error}");
        }
    }
}
