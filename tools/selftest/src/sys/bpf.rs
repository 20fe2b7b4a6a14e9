// SPDX-License-Identifier: Apache-2.0 OR MIT
//! BPF maps of sockets.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::Result;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;

/// What `bpf(2)` takes to make a map.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// What `bpf(2)` takes to set an element.
#[repr(C)]
struct Update {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, what: &T) -> Result<i64> {
    let (what, len) = (std::ptr::from_ref(what), size_of::<T>());
    // SAFETY: The kernel reads as many bytes as the structure has, and what its pointers name as long as this runs.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, what, len) })
}

/// A new map for one socket.
pub fn sockmap() -> Result<OwnedFd> {
    let fd = bpf(
        BPF_MAP_CREATE,
        &Create {
            map_type: BPF_MAP_TYPE_SOCKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
        },
    )?;
    // SAFETY: The descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts a socket into the map.
pub fn put(map: BorrowedFd, sock: BorrowedFd) -> Result<()> {
    let key = 0u32;
    let value = sock.as_raw_fd() as u32;
    bpf(
        BPF_MAP_UPDATE_ELEM,
        &Update {
            map: map.as_raw_fd() as u32,
            pad: 0,
            key: &raw const key as u64,
            value: &raw const value as u64,
            flags: 0,
        },
    )
    .map(drop)
}
