// SPDX-License-Identifier: Apache-2.0 OR MIT
//! io_uring.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use io_uring::IoUring;
use nix::errno::Errno;

use crate::case::{Case, Ctx, Skipped};
use crate::sock::Sock;
use crate::sys::uring;
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("io_uring", client, server),
    Case::records("io_uring", client, server),
    Case::stream("io_uring_multishot", multishot_client, multishot_server),
    Case::tcp("io_uring_send_zc", zc_client, zc_server),
];

fn ring() -> Result<IoUring> {
    IoUring::new(8).map_err(|e| Skipped(format!("io_uring is not available: {e}")).into())
}

fn server(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let listener = ctx.serve(1)?;
    // Waits in the kernel without a thread of ours, as the receives do.
    let sock = Sock(uring::accept(&mut ring, listener.as_fd()).context("accept")?);
    let mut buf = vec![0; 5000];
    for round in 0..20 {
        let mut got = 0;
        while got < 5000 {
            let n = uring::recv(&mut ring, sock.as_fd(), &mut buf[got..]).context("recv")?;
            want!(n, 1..);
            got += n;
        }
        ctx.pattern(round).check(0, &buf)?;
        want!(uring::send(&mut ring, sock.as_fd(), &buf[..100]), Ok(100));
    }
    want!(uring::recv(&mut ring, sock.as_fd(), &mut buf), Ok(0));
    Ok(())
}

fn client(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    uring::connect(&mut ring, sock.as_fd(), &name).context("connect")?;
    let mut buf = [0; 200];
    for round in 0..20 {
        let bytes = ctx.pattern(round).bytes(0, 5000);
        want!(uring::send(&mut ring, sock.as_fd(), &bytes), Ok(5000));
        want!(uring::recv(&mut ring, sock.as_fd(), &mut buf), Ok(100));
        same!(&buf[..100], &bytes[..100]);
    }
    let refused = ctx.socket()?;
    let nobody = ctx.net.remote(1);
    want!(
        uring::connect(&mut ring, refused.as_fd(), &nobody),
        Err(Errno::ECONNREFUSED)
    );
    Ok(())
}

const CONNECTIONS: usize = 6;
/// More than the buffers of a multishot receive hold.
const BYTES: usize = 12_000;

fn multishot_server(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let listener = ctx.serve(CONNECTIONS as i32)?;
    let socks = uring::accept_many(&mut ring, listener.as_fd(), CONNECTIONS)?;
    let mut seen = [false; CONNECTIONS];
    for sock in socks {
        let bytes = uring::recv_many(&mut ring, sock.as_fd()).context("recv")?;
        same!(bytes.len(), BYTES);
        let found = (0..CONNECTIONS).find(|n| ctx.pattern(*n as u64).check(0, &bytes).is_ok());
        let n = found.context("bytes that nobody has sent")?;
        same!(seen[n], false);
        seen[n] = true;
    }
    Ok(())
}

fn multishot_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut socks = Vec::new();
    for _ in 0..CONNECTIONS {
        socks.push(ctx.dial_name(&name)?);
    }
    let all: Vec<_> = (0..CONNECTIONS)
        .map(|n| ctx.pattern(n as u64).bytes(0, BYTES))
        .collect();
    // In pieces, so that the operations see some now and some later.
    for at in (0..BYTES).step_by(3000) {
        for (sock, bytes) in socks.iter().zip(&all) {
            sock.send_all(&bytes[at..at + 3000])?;
        }
    }
    Ok(())
}

fn zc_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut at = 0;
    for round in 0..10 {
        let bytes = sock.recv_exact(zc_len(round))?;
        ctx.pattern(0).check(at, &bytes)?;
        at += bytes.len() as u64;
        sock.send_all(b"go on")?;
    }
    sock.expect_eof()
}

fn zc_len(round: usize) -> usize {
    [100, 4096, 70_000][round % 3]
}

fn zc_client(ctx: &mut Ctx) -> Result<()> {
    let mut ring = ring()?;
    let sock = ctx.dial()?;
    let mut at = 0;
    for round in 0..10 {
        let bytes = ctx.pattern(0).bytes(at, zc_len(round));
        // By turns with copies: what is on its way stays in order.
        if round % 2 == 0 {
            sock.send_all(&bytes)?;
        } else {
            let mut left = &bytes[..];
            while !left.is_empty() {
                let n = uring::send_zc(&mut ring, sock.as_fd(), left).context("send")?;
                want!(n, 1..);
                left = &left[n..];
            }
        }
        at += bytes.len() as u64;
        same!(sock.recv_exact(5)?, b"go on");
    }
    Ok(())
}
