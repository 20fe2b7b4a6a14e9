// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that no library offers for a family that it does not know. All unsafe code of this program.

pub mod ancillary;
pub mod bpf;
pub mod lent;
pub mod memory;
pub mod uring;
pub mod window;

use std::io::{IoSlice, IoSliceMut};
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Pid};
use nix::Result;

const NAME_MAX: usize = 128;

/// `socket(2)`.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: No pointers; a descriptor that is returned is new and nobody else's.
    unsafe {
        let fd = Errno::result(libc::socket(domain, kind, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// `socketpair(2)`.
pub fn socketpair(domain: i32, kind: i32) -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: The kernel writes two descriptors into the array; both are new.
    unsafe {
        Errno::result(libc::socketpair(domain, kind, 0, fds.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// `bind(2)`.
pub fn bind(fd: BorrowedFd, name: &[u8]) -> Result<()> {
    // SAFETY: The kernel reads as many bytes as the slice has.
    let res = unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr().cast(), name.len() as u32) };
    Errno::result(res).map(drop)
}

/// `connect(2)`.
pub fn connect(fd: BorrowedFd, name: &[u8]) -> Result<()> {
    // SAFETY: The kernel reads as many bytes as the slice has.
    let res = unsafe { libc::connect(fd.as_raw_fd(), name.as_ptr().cast(), name.len() as u32) };
    Errno::result(res).map(drop)
}

/// Has the caller run before all others that are ready, or as usual again.
pub fn run_first(on: bool) -> Result<()> {
    let (policy, sched_priority) = if on {
        (libc::SCHED_FIFO, 1)
    } else {
        (libc::SCHED_OTHER, 0)
    };
    let param = libc::sched_param { sched_priority };
    // SAFETY: The kernel reads the parameter; 0 is the caller.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &param) }).map(drop)
}

/// `listen(2)`.
pub fn listen(fd: BorrowedFd, backlog: i32) -> Result<()> {
    // SAFETY: No pointers.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// `shutdown(2)`.
pub fn shutdown(fd: BorrowedFd, how: i32) -> Result<()> {
    // SAFETY: No pointers.
    Errno::result(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

fn name_of(call: impl FnOnce(*mut libc::sockaddr, *mut u32) -> i32) -> Result<(i32, Vec<u8>)> {
    let mut name = vec![0u8; NAME_MAX];
    let mut len = NAME_MAX as u32;
    let res = Errno::result(call(name.as_mut_ptr().cast(), &mut len))?;
    name.truncate(len as usize);
    Ok((res, name))
}

/// `accept4(2)`: the socket and the peer's name.
pub fn accept4(fd: BorrowedFd, flags: i32) -> Result<(OwnedFd, Vec<u8>)> {
    // SAFETY: The kernel writes at most `NAME_MAX` bytes of the name; the descriptor is new.
    unsafe {
        let (new, name) = name_of(|name, len| libc::accept4(fd.as_raw_fd(), name, len, flags))?;
        Ok((OwnedFd::from_raw_fd(new), name))
    }
}

/// `getsockname(2)`.
pub fn getsockname(fd: BorrowedFd) -> Result<Vec<u8>> {
    // SAFETY: The kernel writes at most `NAME_MAX` bytes of the name.
    name_of(|name, len| unsafe { libc::getsockname(fd.as_raw_fd(), name, len) }).map(|r| r.1)
}

/// `getpeername(2)`.
pub fn getpeername(fd: BorrowedFd) -> Result<Vec<u8>> {
    // SAFETY: The kernel writes at most `NAME_MAX` bytes of the name.
    name_of(|name, len| unsafe { libc::getpeername(fd.as_raw_fd(), name, len) }).map(|r| r.1)
}

fn set<T>(fd: BorrowedFd, option: i32, value: &T) -> Result<()> {
    set_at(fd, libc::SOL_SOCKET, option, value)
}

fn set_at<T>(fd: BorrowedFd, level: i32, option: i32, value: &T) -> Result<()> {
    let len = size_of::<T>() as u32;
    let ptr = std::ptr::from_ref(value).cast();
    // SAFETY: The kernel reads as many bytes as the value has.
    let res = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, ptr, len) };
    Errno::result(res).map(drop)
}

/// Sets an option of level `SOL_SOCKET` that is an int.
pub fn set_option(fd: BorrowedFd, option: i32, value: i32) -> Result<()> {
    set(fd, option, &value)
}

/// Sets an option that is a time.
pub fn set_timeout(fd: BorrowedFd, option: i32, value: Duration) -> Result<()> {
    let value = libc::timeval {
        tv_sec: value.as_secs() as i64,
        tv_usec: i64::from(value.subsec_micros()),
    };
    set(fd, option, &value)
}

/// Sets `SO_LINGER`.
pub fn set_linger(fd: BorrowedFd, seconds: i32) -> Result<()> {
    let value = libc::linger {
        l_onoff: 1,
        l_linger: seconds,
    };
    set(fd, libc::SO_LINGER, &value)
}

/// Sets an option of level `SOL_TCP` that is an int.
pub fn set_tcp_option(fd: BorrowedFd, option: i32, value: i32) -> Result<()> {
    set_at(fd, libc::SOL_TCP, option, &value)
}

/// Reads an option of `level` that is an int.
pub fn get_option(fd: BorrowedFd, level: i32, option: i32) -> Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as u32;
    let ptr = std::ptr::from_mut(&mut value).cast();
    // SAFETY: The kernel writes at most the four bytes of the value.
    let res = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, ptr, &mut len) };
    Errno::result(res).map(|_| value)
}

/// What `TCP_INFO` says.
pub struct TcpInfo {
    /// The state's number.
    pub state: u8,
    /// Bytes that the peer has acknowledged.
    pub acked: u64,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went, those that went twice included.
    pub sent: u64,
}

/// Reads `TCP_INFO`.
pub fn tcp_info(fd: BorrowedFd) -> Result<TcpInfo> {
    // Longer than the structure of any kernel so far; what the kernel does not write stays zero.
    let mut words = [0u64; 64];
    let mut len = size_of_val(&words) as u32;
    let ptr = words.as_mut_ptr().cast();
    // SAFETY: The kernel writes at most as many bytes as the array has.
    let res =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_TCP, libc::TCP_INFO, ptr, &mut len) };
    Errno::result(res)?;
    // By the offsets of struct tcp_info in <linux/tcp.h>.
    Ok(TcpInfo {
        state: words[0].to_ne_bytes()[0],
        acked: words[120 / 8],
        received: words[128 / 8],
        sent: words[200 / 8],
    })
}

pub const SOL_FGDP: i32 = 0x4647;
const FGDP_CARRY: i32 = 1;

/// Whether FGDP carries the TCP socket.
pub fn carry(fd: BorrowedFd) -> Result<bool> {
    get_option(fd, SOL_FGDP, FGDP_CARRY).map(|value| value != 0)
}

/// Gives the TCP socket back to TCP.
pub fn set_carry(fd: BorrowedFd, on: bool) -> Result<()> {
    set_at(fd, SOL_FGDP, FGDP_CARRY, &i32::from(on))
}

/// `poll(2)` of one descriptor: the events that it has, none after `timeout`.
pub fn poll(fd: BorrowedFd, events: i16, timeout: Duration) -> Result<i16> {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: The kernel writes the one entry.
    Errno::result(unsafe { libc::poll(&mut entry, 1, ms) }).map(|_| entry.revents)
}

/// `ioctl(2)` with a request that writes an int.
pub fn ioctl_int(fd: BorrowedFd, request: u64) -> Result<i32> {
    let mut value = 0i32;
    // SAFETY: The callers' requests (SIOCINQ, SIOCOUTQ) write one int.
    let res = unsafe { libc::ioctl(fd.as_raw_fd(), request, &mut value) };
    Errno::result(res).map(|_| value)
}

fn count(res: isize) -> Result<usize> {
    Errno::result(res).map(|n| n as usize)
}

/// `send(2)`.
pub fn send(fd: BorrowedFd, buf: &[u8], flags: i32) -> Result<usize> {
    // SAFETY: The kernel reads as many bytes as the slice has.
    count(unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) })
}

/// `recv(2)`.
pub fn recv(fd: BorrowedFd, buf: &mut [u8], flags: i32) -> Result<usize> {
    // SAFETY: The kernel writes at most as many bytes as the slice has.
    count(unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) })
}

/// `send(2)` of `len` bytes at the null pointer.
pub fn send_null(fd: BorrowedFd, len: usize, flags: i32) -> Result<usize> {
    // SAFETY: The kernel checks user pointers: this is EFAULT, not an access.
    count(unsafe { libc::send(fd.as_raw_fd(), std::ptr::null(), len, flags) })
}

/// `recv(2)` of `len` bytes to the null pointer.
pub fn recv_null(fd: BorrowedFd, len: usize, flags: i32) -> Result<usize> {
    // SAFETY: The kernel checks user pointers: this is EFAULT, or with MSG_TRUNC no access.
    count(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), len, flags) })
}

/// `sendmsg(2)`.
pub fn sendmsg(fd: BorrowedFd, parts: &[IoSlice], flags: i32) -> Result<usize> {
    // SAFETY: All-zero is a valid message header. `IoSlice` has the layout of `iovec`; the kernel
    // reads the slices only.
    unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_iov = parts.as_ptr().cast_mut().cast();
        msg.msg_iovlen = parts.len() as _;
        count(libc::sendmsg(fd.as_raw_fd(), &msg, flags))
    }
}

/// `recvmsg(2)`: bytes and the flags that the kernel gave.
pub fn recvmsg(fd: BorrowedFd, parts: &mut [IoSliceMut], flags: i32) -> Result<(usize, i32)> {
    // SAFETY: All-zero is a valid message header. `IoSliceMut` has the layout of `iovec`; the
    // kernel writes within the slices.
    unsafe {
        let mut msg: libc::msghdr = MaybeUninit::zeroed().assume_init();
        msg.msg_iov = parts.as_mut_ptr().cast();
        msg.msg_iovlen = parts.len() as _;
        let n = count(libc::recvmsg(fd.as_raw_fd(), &mut msg, flags))?;
        Ok((n, msg.msg_flags))
    }
}

/// Sends a descriptor over the Unix socket `fd`.
pub fn send_fd(fd: BorrowedFd, what: BorrowedFd) -> Result<()> {
    let what = what.as_raw_fd();
    let kind = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    ancillary::send(fd, &[0], 0, kind, &what.to_ne_bytes()).map(drop)
}

/// Receives a descriptor from the Unix socket `fd`.
pub fn recv_fd(fd: BorrowedFd) -> Result<OwnedFd> {
    let (_, all) = ancillary::recv(fd, &mut [0], 0)?;
    match all.first() {
        Some((libc::SOL_SOCKET, libc::SCM_RIGHTS, content)) => {
            let content = content.first_chunk().ok_or(Errno::EPROTO)?;
            // SAFETY: A descriptor in an SCM_RIGHTS message is new and ours.
            Ok(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(*content)) })
        }
        _ => Err(Errno::EPROTO),
    }
}

/// A child that runs `body` and exits with what it returns. The caller has one thread only.
pub fn fork(body: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: The caller is single-threaded, so the child may do anything; it never returns.
    unsafe {
        match nix::unistd::fork()? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => libc::_exit(body()),
        }
    }
}

/// A copy of descriptor `number` of another process.
pub fn descriptor_of(process: Pid, number: i32) -> Result<OwnedFd> {
    // SAFETY: Both calls take numbers; what they give is a new descriptor.
    unsafe {
        let open = |result: libc::c_long| {
            let fd = Errno::result(result)?;
            Ok::<_, Errno>(OwnedFd::from_raw_fd(fd as i32))
        };
        let process = open(libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0))?;
        open(libc::syscall(
            libc::SYS_pidfd_getfd,
            process.as_raw_fd(),
            number,
            0,
        ))
    }
}

/// Closes descriptor `number` in a child, whose other values may still name it.
pub fn close(number: i32) -> Result<()> {
    // SAFETY: The child does not use it any more.
    Errno::result(unsafe { libc::close(number) }).map(drop)
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Counts the signals of one kind from now on instead of what they would do.
pub fn catch(signal: Signal, restart: bool) -> Result<()> {
    SIGNALS.store(0, Ordering::SeqCst);
    let flags = if restart {
        SaFlags::SA_RESTART
    } else {
        SaFlags::empty()
    };
    let action = SigAction::new(SigHandler::Handler(count_signal), flags, SigSet::empty());
    // SAFETY: The handler only adds to an atomic.
    unsafe { nix::sys::signal::sigaction(signal, &action) }.map(drop)
}

/// How many signals came since [`catch`].
pub fn signals() -> u32 {
    SIGNALS.load(Ordering::SeqCst)
}

/// Sends SIGALRM to this process every `every`, starting after it; zero ends that.
pub fn alarm(every: Duration) -> Result<()> {
    let time = libc::timeval {
        tv_sec: every.as_secs() as i64,
        tv_usec: i64::from(every.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: The kernel reads `timer` and writes nothing.
    Errno::result(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) })
        .map(drop)
}

/// A shared mapping of a part of a file.
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `path` from `offset` on, for writing too if `write` says so.
    pub fn new(
        path: &std::path::Path,
        offset: u64,
        len: usize,
        write: bool,
    ) -> std::io::Result<Self> {
        let file = std::fs::File::options()
            .read(true)
            .write(write)
            .open(path)?;
        let mut prot = libc::PROT_READ;
        if write {
            prot |= libc::PROT_WRITE;
        }
        let (flags, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: A new mapping at an address of the kernel's choice.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset as i64) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let start = start.cast();
        Ok(Self { start, len })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies from offset `at` on, as much as there is; the number of bytes.
    pub fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let n = to.len().min(self.len.saturating_sub(at));
        // SAFETY: `at + n` is within the mapping. Others may write meanwhile: the bytes are data only.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.add(at.min(self.len)), to.as_mut_ptr(), n)
        };
        n
    }

    /// Whether the `len` bytes from `at` on, or as many as there are, are zero. Both are multiples of 8.
    pub fn is_zero(&self, at: usize, len: usize) -> bool {
        let end = at.saturating_add(len).min(self.len);
        (at..end).step_by(8).all(|at| {
            // SAFETY: Within the mapping, whose length is a multiple of a page, and aligned. Others may write meanwhile.
            unsafe { self.start.add(at).cast::<u64>().read_volatile() == 0 }
        })
    }

    /// The word at offset `at`, which is aligned; beyond the end, 0.
    pub fn word(&self, at: usize) -> u32 {
        if at % 4 != 0 || self.len < 4 || at > self.len - 4 {
            return 0;
        }
        // SAFETY: Within the mapping and aligned. Others may write meanwhile.
        unsafe { self.start.add(at).cast::<u32>().read_volatile() }
    }

    /// Writes a word at offset `at`, which is aligned; beyond the end, nothing.
    pub fn write(&self, at: usize, value: u32) {
        if at % 4 == 0 && at + 4 <= self.len {
            // SAFETY: Within the mapping and aligned; made writable by `new` or the process faults.
            unsafe { self.start.add(at).cast::<u32>().write_volatile(value) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Mapped by `new`, not used from now on.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
