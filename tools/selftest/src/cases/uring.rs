// SPDX-License-Identifier: Apache-2.0 OR MIT
//! io_uring.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use io_uring::IoUring;
use nix::errno::Errno;

use crate::case::{Case, Ctx, Skipped};
use crate::sock::Sock;
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("io_uring", client, server),
    Case::records("io_uring", client, server),
];

fn ring() -> Result<IoUring> {
    IoUring::new(8).map_err(|e| Skipped(format!("io_uring is not available: {e}")).into())
}

fn server(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let listener = ctx.serve(1)?;
    // Waits in the kernel without a thread of ours, as the receives do.
    let sock = Sock(sys::uring_accept(&mut ring, listener.as_fd()).context("accept")?);
    let mut buf = vec![0; 5000];
    for round in 0..20 {
        let mut got = 0;
        while got < 5000 {
            let n = sys::uring_recv(&mut ring, sock.as_fd(), &mut buf[got..]).context("recv")?;
            want!(n, 1..);
            got += n;
        }
        ctx.pattern(round).check(0, &buf)?;
        want!(
            sys::uring_send(&mut ring, sock.as_fd(), &buf[..100]),
            Ok(100)
        );
    }
    want!(sys::uring_recv(&mut ring, sock.as_fd(), &mut buf), Ok(0));
    Ok(())
}

fn client(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    sys::uring_connect(&mut ring, sock.as_fd(), &name).context("connect")?;
    let mut buf = [0; 200];
    for round in 0..20 {
        let bytes = ctx.pattern(round).bytes(0, 5000);
        want!(sys::uring_send(&mut ring, sock.as_fd(), &bytes), Ok(5000));
        want!(sys::uring_recv(&mut ring, sock.as_fd(), &mut buf), Ok(100));
        same!(&buf[..100], &bytes[..100]);
    }
    let refused = ctx.socket()?;
    let nobody = ctx.net.remote(1);
    want!(
        sys::uring_connect(&mut ring, refused.as_fd(), &nobody),
        Err(Errno::ECONNREFUSED)
    );
    Ok(())
}
