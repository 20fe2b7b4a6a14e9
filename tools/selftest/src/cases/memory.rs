// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Buffers that cannot be accessed.

use std::os::fd::AsFd;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx, Kind};
use crate::sys::memory::{GuardedPage, PAGE};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("efault_send", send_client, hundred_server),
    Case::records("efault_send", send_client, hundred_server),
    Case::stream("efault_recv", recv_client, sending_server),
    Case::records("efault_recv", recv_client, sending_server),
    Case::stream("efault_in_the_middle", middle_client, echo_server),
];

fn hundred_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    // Nothing of what faulted came.
    ctx.pattern(0).check(0, &sock.recv_exact(100)?)?;
    ctx.tell("read")
}

fn send_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(
        sys::send_null(sock.as_fd(), 100, libc::MSG_NOSIGNAL),
        Err(Errno::EFAULT)
    );
    if ctx.kind == Kind::SeqPacket {
        // Of a record not even the part that could be read.
        let page = GuardedPage::new()?;
        want!(page.send(sock.as_fd(), 50, 50), Err(Errno::EFAULT));
    }
    want!(sock.send(&ctx.pattern(0).bytes(0, 100)), Ok(100));
    ctx.wait("read")
}

fn sending_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.send(&ctx.pattern(0).bytes(0, 100)), Ok(100));
    ctx.wait("done")
}

fn recv_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    want!(sys::recv_null(sock.as_fd(), 100, 0), Err(Errno::EFAULT));
    // Nothing was lost by that.
    ctx.pattern(0).check(0, &sock.recv_exact(100)?)?;
    ctx.tell("done")
}

fn echo_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = [0; 8192];
    loop {
        match sock.recv(&mut buf)? {
            0 => return Ok(()),
            n => sock.send_all(&buf[..n])?,
        }
    }
}

fn middle_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let content = ctx.pattern(0);
    let mut page = GuardedPage::new()?;
    let half = PAGE - 1000;
    content.fill(0, &mut page.page()[half..]);
    // The part that can be read is sent, or nothing at all.
    let sent = match page.send(sock.as_fd(), 1000, 1000) {
        Ok(n) => n,
        Err(e) => {
            same!(e, Errno::EFAULT);
            0
        }
    };
    want!(sent, 0..=1000);
    sock.send_all(&content.bytes(sent as u64, 2000 - sent))?;
    while sock.ioctl(crate::sock::SIOCINQ)? < 2000 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    page.page().fill(0);
    let got = match page.recv(sock.as_fd(), 1000, 1000) {
        Ok(n) => n,
        Err(e) => {
            same!(e, Errno::EFAULT);
            0
        }
    };
    want!(got, 0..=1000);
    content.check(0, &page.page()[half..half + got])?;
    content.check(got as u64, &sock.recv_exact(2000 - got)?)
}
