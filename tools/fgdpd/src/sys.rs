// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors: sending and receiving them over sockets, sealed memory files, an epoll wrapper.
//!
//! The crate's only `unsafe` is here: taking ownership of descriptors that `recvmsg` has just made.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{fallocate, fcntl, FallocateFlags, FcntlArg, OFlag, SealFlag};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::socket::{
    recvmsg, sendmsg, sockopt, ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr,
};
use nix::sys::stat::{fstat, Mode};

/// A descriptor with several owners. What waits to be sent holds it without a duplicate, so that a daemon that has no
/// descriptors left can still send what it has, and start a worker with it.
pub type SharedFd = Arc<OwnedFd>;

/// The most descriptors one message may carry.
pub const MAX_FDS: usize = 32;

/// What a receive brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes read; 0 at the end of the stream.
    pub len: usize,
    /// The descriptors that came with them.
    pub fds: Vec<OwnedFd>,
    /// The message did not fit (bytes or descriptors were lost).
    pub truncated: bool,
}

/// Receives at most `buf.len()` bytes with their descriptors, without blocking.
pub fn recv_fds(sock: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Received> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut iov = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let msg = loop {
        match recvmsg::<UnixAddr>(sock.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => (),
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    let mut truncated = msg
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    match msg.cmsgs() {
        Ok(cmsgs) => {
            for cmsg in cmsgs {
                if let ControlMessageOwned::ScmRights(raw) = cmsg {
                    for fd in raw {
                        // SAFETY: the kernel has just installed this descriptor for this call; nothing else knows it.
                        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
            }
        }
        Err(_) => truncated = true,
    }
    Ok(Received {
        len: msg.bytes,
        fds,
        truncated,
    })
}

/// Sends `bytes` with `fds`, without blocking; returns the bytes taken.
pub fn send_fds(sock: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let cmsgs: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<UnixAddr>(sock.as_raw_fd(), &[IoSlice::new(bytes)], cmsgs, flags, None) {
            Err(Errno::EINTR) => (),
            other => return Ok(other?),
        }
    }
}

/// A memory file of `size` bytes, sealed against any change of its size.
pub fn sealed_memfd(name: &str, size: u64, huge: bool) -> io::Result<OwnedFd> {
    let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if huge {
        flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    }
    let fd = memfd_create(name, flags)?;
    let len = i64::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    nix::unistd::ftruncate(&fd, len)?;
    if huge {
        // Huge pages are taken now: running out later would be a SIGBUS in QEMU.
        fallocate(&fd, FallocateFlags::empty(), 0, len)?;
    }
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

/// The same memory file, opened so that it can only be mapped for reading.
pub fn reopen_read_only(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(nix::fcntl::open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// Gives the range's pages back; it reads as zero afterwards, in every mapping.
pub fn punch_hole(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, len) = (
        i64::try_from(offset).map_err(bad)?,
        i64::try_from(len).map_err(bad)?,
    );
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(fd, mode, offset, len)?)
}

/// The size of the file behind a descriptor.
pub fn file_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(fstat(fd)?.st_size).unwrap_or(0))
}

/// The process at the other end of a connected unix socket; 0 when the kernel cannot name it.
pub fn peer_pid(sock: BorrowedFd<'_>) -> i32 {
    nix::sys::socket::getsockopt(&sock, sockopt::PeerCredentials)
        .map(|c| c.pid())
        .unwrap_or(0)
}

/// An epoll set whose entries are named by a number.
#[derive(Debug)]
pub struct Poller(Epoll);

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches `fd` for input, and for room to write if `out`.
    pub fn add(&self, fd: impl AsFd, token: u64, out: bool) -> io::Result<()> {
        Ok(self
            .0
            .add(fd, EpollEvent::new(Self::flags(true, out), token))?)
    }

    /// Changes what `fd` is watched for.
    pub fn modify(&self, fd: impl AsFd, token: u64, input: bool, out: bool) -> io::Result<()> {
        Ok(self
            .0
            .modify(fd, &mut EpollEvent::new(Self::flags(input, out), token))?)
    }

    /// Forgets `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits; fills `tokens` with (token, writable) of what is ready.
    pub fn wait(&self, tokens: &mut Vec<(u64, bool)>, timeout_ms: Option<u16>) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = timeout_ms.map_or(EpollTimeout::NONE, EpollTimeout::from);
        tokens.clear();
        match self.0.wait(&mut events, timeout) {
            Ok(n) => {
                let ready = events.iter().take(n);
                tokens.extend(ready.map(|e| (e.data(), e.events().contains(EpollFlags::EPOLLOUT))));
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn flags(input: bool, out: bool) -> EpollFlags {
        let mut flags = EpollFlags::EPOLLRDHUP;
        if input {
            flags |= EpollFlags::EPOLLIN;
        }
        if out {
            flags |= EpollFlags::EPOLLOUT;
        }
        flags
    }
}
