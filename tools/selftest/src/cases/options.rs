// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Socket options.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx};
use crate::sock::{Sock, PATIENCE, SIOCINQ};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("so_type_domain_protocol", type_domain, idle),
    Case::records("so_type_domain_protocol", type_domain, idle),
    Case::stream("so_buffer_sizes", buffer_sizes, idle),
    Case::stream("so_sndbuf_bounds", sndbuf_client, keep_server).fgdp(),
    Case::stream("so_rcvlowat", rcvlowat_client, rcvlowat_server),
    Case::stream("so_rcvlowat_eof", rcvlowat_eof_client, rcvlowat_eof_server),
    Case::stream(
        "so_rcvlowat_large",
        rcvlowat_large_client,
        rcvlowat_large_server,
    )
    .within(60),
    Case::stream("so_rcvtimeo", rcvtimeo_client, keep_server),
    Case::records("so_rcvtimeo", rcvtimeo_client, keep_server),
    Case::stream(
        "so_rcvtimeo_partial",
        rcvtimeo_partial_client,
        rcvtimeo_partial_server,
    ),
    Case::stream("so_sndtimeo", sndtimeo_client, keep_server),
    Case::tcp("so_max_pacing_rate", pacing_client, pacing_server),
    Case::stream("so_linger_reads_back", linger, idle),
    Case::stream("so_unknown", unknown, idle),
    Case::stream("tcp_has_no_ulp", no_ulp_client, no_ulp_server),
];

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

/// Keeps a connection open until the client has seen enough.
fn keep_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("done")
}

fn type_domain(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    same!(sock.get(libc::SO_TYPE)?, ctx.kind.number());
    same!(sock.get(libc::SO_DOMAIN)?, ctx.net.domain());
    let protocol = if ctx.net.is_fgdp() {
        0
    } else {
        libc::IPPROTO_TCP
    };
    same!(sock.get(libc::SO_PROTOCOL)?, protocol);
    same!(sock.get(libc::SO_ACCEPTCONN)?, 0);
    same!(sock.get(libc::SO_ERROR)?, 0);
    let (listener, _) = ctx.bound()?;
    listener.listen(1)?;
    same!(listener.get(libc::SO_ACCEPTCONN)?, 1);
    Ok(())
}

fn buffer_sizes(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        ensure!(
            sock.get(option)? > 4096,
            "a default of {}",
            sock.get(option)?
        );
        sock.set(option, 40_000)?;
        // Twice, as for every family: the kernel counts its own overhead.
        same!(sock.get(option)?, 80_000);
    }
    Ok(())
}

fn sndbuf_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let small = ctx.socket()?;
    small.set(libc::SO_SNDBUF, 16 << 10)?;
    small.connect(&name)?;
    let sent = small.fill(ctx.pattern(0))?;
    // The ring is a power of two of 16 KiB and more.
    want!(sent, 16_000..=65_536);
    ctx.tell("done")
}

fn rcvlowat_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set(libc::SO_RCVLOWAT, 100)?;
    same!(sock.get(libc::SO_RCVLOWAT)?, 100);
    ctx.tell("first")?;
    ctx.wait("sent")?;
    while sock.ioctl(SIOCINQ)? < 60 {
        std::thread::sleep(Duration::from_millis(1));
    }
    same!(
        sock.poll(PollFlags::EPOLLIN, Duration::from_millis(100))?,
        PollFlags::empty()
    );
    want!(sock.recv_flags(&mut [0; 200], libc::MSG_DONTWAIT), Ok(60));
    ctx.tell("second")?;
    want!(sock.poll(PollFlags::EPOLLIN, PATIENCE)?, PollFlags::EPOLLIN);
    Ok(())
}

fn rcvlowat_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("first")?;
    want!(sock.send(&[1; 60]), Ok(60));
    ctx.tell("sent")?;
    ctx.wait("second")?;
    // Enough alone: the client took the first.
    want!(sock.send(&[2; 100]), Ok(100));
    sock.wait_for(PollFlags::EPOLLRDHUP | PollFlags::EPOLLIN)
        .map(drop)
}

fn rcvlowat_eof_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set(libc::SO_RCVLOWAT, 1000)?;
    ctx.tell("ready")?;
    // Less than asked for, but no more will come.
    want!(sock.poll(PollFlags::EPOLLIN, PATIENCE)?, PollFlags::EPOLLIN);
    want!(sock.recv(&mut [0; 2000]), Ok(10));
    sock.expect_eof()
}

fn rcvlowat_eof_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("ready")?;
    want!(sock.send(&[1; 10]), Ok(10));
    Ok(())
}

/// More than buffers may hold: what there is room for is enough then.
fn rcvlowat_large_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set(libc::SO_RCVLOWAT, 3 << 20)?;
    ctx.tell("ready")?;
    let mut all = 0;
    let mut buf = vec![0; 8 << 20];
    loop {
        want!(sock.poll(PollFlags::EPOLLIN, PATIENCE)?, events if events.contains(PollFlags::EPOLLIN));
        match sock.recv_flags(&mut buf, libc::MSG_DONTWAIT)? {
            0 => break,
            n => {
                ctx.pattern(0).check(all, &buf[..n])?;
                all += n as u64;
            }
        }
    }
    same!(all, LARGE as u64);
    Ok(())
}

const LARGE: usize = 12 << 20;

fn rcvlowat_large_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("ready")?;
    sock.send_all(&ctx.pattern(0).bytes(0, LARGE))
}

fn rcvtimeo_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(200))?;
    let start = Instant::now();
    want!(sock.recv(&mut [0; 16]), Err(Errno::EAGAIN));
    want!(start.elapsed(), t if t >= Duration::from_millis(190) && t < PATIENCE);
    // Nothing broke.
    want!(sock.send(b"x"), Ok(1));
    same!(sock.take_error()?, 0);
    ctx.tell("done")
}

fn rcvtimeo_partial_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(300))?;
    ctx.tell("ready")?;
    ctx.wait("sent")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    // The time is over with a part: that is what is returned.
    want!(sock.recv_flags(&mut [0; 100], libc::MSG_WAITALL), Ok(10));
    ctx.tell("done")
}

fn rcvtimeo_partial_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("ready")?;
    want!(sock.send(&[1; 10]), Ok(10));
    ctx.tell("sent")?;
    ctx.wait("done")
}

fn sndtimeo_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.fill(ctx.pattern(0))?;
    sock.set_timeout(libc::SO_SNDTIMEO, Duration::from_millis(200))?;
    let start = Instant::now();
    let big = vec![0; 8 << 20];
    let sent = loop {
        match sock.send(&big) {
            Ok(n) => want!((n, start.elapsed()), (n, t) if n < big.len() && t < PATIENCE),
            Err(e) => break e,
        }
    };
    same!(sent, Errno::EAGAIN);
    want!(start.elapsed(), t if t >= Duration::from_millis(190));
    ctx.tell("done")
}

/// Bytes per second, and bytes.
const PACE: (i32, usize) = (1_000_000, 1_000_000);

fn pacing_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    same!(sock.recv_exact(4)?, b"word".to_vec());
    sock.set(libc::SO_MAX_PACING_RATE, PACE.0)?;
    sock.send_all(&ctx.pattern(0).bytes(0, PACE.1))?;
    ctx.wait("done")
}

fn pacing_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.send_all(b"word")?;
    let start = Instant::now();
    ctx.pattern(0).check(0, &sock.recv_exact(PACE.1)?)?;
    // TCP begins with some bytes at once.
    want!(start.elapsed(), t if t >= Duration::from_millis(300));
    ctx.tell("done")
}

fn linger(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    // The first word of `struct linger`: whether it is on.
    same!(sock.get(libc::SO_LINGER)?, 0);
    sock.set_linger(3)?;
    same!(sock.get(libc::SO_LINGER)?, 1);
    Ok(())
}

fn unknown(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    want!(sock.set(0x7fff, 1), Err(Errno::ENOPROTOOPT));
    want!(sock.get(0x7fff), Err(Errno::ENOPROTOOPT));
    Ok(())
}

/// What carries a connection is not to be seen: programs look for kTLS and MPTCP here.
fn no_ulp(ctx: &Ctx, sock: &Sock) -> Result<()> {
    if !ctx.net.is_fgdp() {
        same!(sock.get_tcp(libc::TCP_ULP)?, 0);
    }
    Ok(())
}

fn no_ulp_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    // It is carried for certain when something has come back.
    same!(sock.recv_exact(4)?, b"word".to_vec());
    no_ulp(ctx, &sock)?;
    ctx.tell("done")
}

fn no_ulp_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.send_all(b"word")?;
    ctx.wait("done")?;
    no_ulp(ctx, &sock)
}
