// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Granted pages are for who has a socket of the connection: what others try.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{getpid, setgid, setuid, Gid, Pid, Uid};

use super::window::{release, send_pattern, take};
use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::sys::window::{self, Received, Window};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[Case::stream("window_strangers", client, server).lending()];

fn client(ctx: &mut Ctx) -> Result<()> {
    let _other = ctx.dial()?;
    send_pattern(ctx, &[2])
}

fn server(ctx: &mut Ctx) -> Result<()> {
    let other = ctx.accept_one()?;
    let sock = ctx.accept_one()?;
    let window = Window::new(sock.as_fd()).context("mmap")?;
    let got = take(&sock, 2)?;
    ctx.pattern(0).check(0, window.bytes(got))?;
    let owner = getpid();
    for user in [None, Some(65534)] {
        let child = sys::fork(
            || match stranger(user, owner, &other, &sock, &window, got) {
                Ok(()) => 0,
                Err(why) => {
                    eprintln!("user {user:?}: {why:#}");
                    1
                }
            },
        )?;
        same!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
    }
    ctx.pattern(0).check(0, window.bytes(got))?;
    release(&sock, got)?;
    ctx.wait("sent")?;
    ctx.wait("complete")?;
    ctx.tell("done")
}

/// Another process, with a socket of its own that is connected to the same peer.
fn stranger(
    user: Option<u32>,
    owner: Pid,
    other: &Sock,
    sock: &Sock,
    window: &Window,
    got: Received,
) -> Result<()> {
    let number = sock.as_fd().as_raw_fd();
    if let Some(id) = user {
        // As somebody who cannot ask the owner for its descriptors.
        setgid(Gid::from_raw(id))?;
        setuid(Uid::from_raw(id))?;
        want!(
            sys::descriptor_of(owner, number).map(drop),
            Err(Errno::EPERM)
        );
    }
    sys::close(number)?;
    // A socket cannot be opened by its name in /proc, whoever asks.
    let opened = File::open(format!("/proc/{owner}/fd/{number}"));
    let why = opened.map(drop).map_err(|e| e.raw_os_error());
    let expected = if user.is_some() {
        libc::EACCES
    } else {
        libc::ENXIO
    };
    same!(why, Err(Some(expected)));
    // The memory of who has it cannot be read from outside, not even by root.
    let mut byte = [0];
    let from = RemoteIoVec {
        base: window.bytes(got).as_ptr() as usize,
        len: 1,
    };
    let read = process_vm_readv(owner, &mut [IoSliceMut::new(&mut byte)], &[from]);
    let expected = if user.is_some() {
        Errno::EPERM
    } else {
        Errno::EFAULT
    };
    // Some kernels have no such call.
    ensure!(
        read == Err(expected) || read == Err(Errno::ENOSYS),
        "process_vm_readv: {read:?}"
    );
    // The window of another connection shows nothing of it.
    let own = Window::new(other.as_fd()).context("mmap of the own window")?;
    want!(own.probe(got.offset), Err(Errno::EFAULT));
    want!(
        window::release(other.as_fd(), got.offset, got.length.into()),
        Err(Errno::EINVAL)
    );
    Ok(())
}
