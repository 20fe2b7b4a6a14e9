// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Much data, checked byte by byte.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};

use crate::case::{Case, Ctx};
use crate::pattern::{Pattern, Random};
use crate::sock::Sock;
use crate::sys::memory::Fresh;
use crate::sys::window;
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("stream_one_way", one_way_client, one_way_server).within(180),
    Case::stream("stream_both_ways", both_client, both_server).within(240),
    Case::stream("stream_small_writes", small_client, small_server).within(120),
    Case::stream("stream_whole_messages", whole_client, whole_server).within(120),
    Case::stream("stream_slow_reader", slow_client, slow_server).within(120),
    Case::stream("stream_ping_pong", ping_client, pong_server).within(120),
    Case::stream(
        "stream_small_buffers",
        small_buffers_client,
        small_buffers_server,
    )
    .within(120),
    Case::stream("stream_stop_and_go", stop_client, stop_server).within(120),
];

/// Bytes of a large stream: `FGDP_SELFTEST_MIB` (32) MiB and a little.
fn large() -> Result<u64> {
    let mib: u64 = match std::env::var("FGDP_SELFTEST_MIB") {
        Ok(text) => text.parse()?,
        Err(_) => 32,
    };
    Ok((mib << 20) + 4321)
}

fn size(random: &mut Random) -> usize {
    let most = [1, 100, 4096, 65_536, 300_000][random.between(0, 4)];
    random.between(1, most)
}

/// Sends `total` bytes in parts of random sizes.
fn pour(sock: &Sock, content: Pattern, total: u64, mut random: Random) -> Result<()> {
    let mut at = 0;
    while at < total {
        let want = (size(&mut random) as u64).min(total - at) as usize;
        sock.send_all(&content.bytes(at, want))?;
        at += want as u64;
    }
    Ok(())
}

/// Receives until the end in parts of random sizes, and checks each byte.
fn drain(sock: &Sock, content: Pattern, total: u64, mut random: Random) -> Result<()> {
    let mut buf = vec![0; 300_000];
    let mut at = 0;
    loop {
        let want = size(&mut random);
        let n = sock.recv(&mut buf[..want])?;
        if n == 0 {
            break;
        }
        content.check(at, &buf[..n])?;
        at += n as u64;
    }
    ensure!(at == total, "{at} of {total} bytes came");
    Ok(())
}

fn one_way_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    pour(&sock, ctx.pattern(0), large()?, Random(1))
}

fn one_way_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    drain(&sock, ctx.pattern(0), large()?, Random(2))
}

/// Sends one content and receives another at the same time.
fn both(sock: &Sock, out: Pattern, into: Pattern, seed: u64) -> Result<()> {
    let total = large()?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pour(sock, out, total, Random(seed))?;
            sock.shutdown(libc::SHUT_WR)?;
            anyhow::Ok(())
        });
        drain(sock, into, total, Random(seed + 1))?;
        writer.join().map_err(|_| anyhow!("the writer panicked"))?
    })
}

fn both_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    both(&sock, ctx.pattern(0), ctx.pattern(1), 10)
}

fn both_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    both(&sock, ctx.pattern(1), ctx.pattern(0), 20)
}

const SMALL: u64 = 20_000;

fn small_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut at = 0;
    let mut random = Random(3);
    for _ in 0..SMALL {
        let want = random.between(1, 64);
        want!(sock.send(&ctx.pattern(0).bytes(at, want)), Ok(n) if n == want);
        at += want as u64;
    }
    ctx.tell_value("sent", at)
}

fn small_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let all = sock.recv_to_end()?;
    same!(all.len().to_string(), ctx.wait_value("sent")?);
    ctx.pattern(0).check(0, &all)
}

const WHOLE: u64 = 300;

/// How long a message is, and how much of it is not zero: the memory behind that was never used.
fn whole_message(random: &mut Random) -> (usize, usize) {
    let len = random.between(1, 16_000);
    (len, random.between(0, len))
}

/// A message that there is room for comes as a whole: no reader sees how it is copied.
fn whole_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    if ctx.net.is_carried() {
        // TCP, which goes on until both guests have agreed, cuts messages into segments.
        window::size(sock.as_fd()).context("not carried")?;
    }
    let mut random = Random(8);
    for round in 0..WHOLE {
        let (len, full) = whole_message(&mut random);
        let mut memory = Fresh::new(len)?;
        ctx.pattern(round).fill(0, &mut memory.bytes_mut()[..full]);
        want!(sock.send(memory.bytes()), Ok(n) if n == len);
        want!(sock.recv(&mut [0]), Ok(1));
    }
    Ok(())
}

fn whole_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut random = Random(8);
    let mut buf = vec![0; 32_000];
    // Whatever is sent wakes it at once.
    sys::run_first(true)?;
    for round in 0..WHOLE {
        let (len, full) = whole_message(&mut random);
        want!((round, sock.recv(&mut buf)), (_, Ok(n)) if n == len);
        ctx.pattern(round).check(0, &buf[..full])?;
        ensure!(buf[full..len].iter().all(|byte| *byte == 0), "not zero");
        want!(sock.send(&[1]), Ok(1));
    }
    sys::run_first(false)?;
    sock.expect_eof()
}

const SLOW: u64 = 3 << 20;

fn slow_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    pour(&sock, ctx.pattern(0), SLOW, Random(4))
}

fn slow_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = vec![0; 100_000];
    let mut at = 0;
    loop {
        match sock.recv(&mut buf)? {
            0 => break,
            n => {
                ctx.pattern(0).check(at, &buf[..n])?;
                at += n as u64;
            }
        }
        // The writer finds a full ring again and again.
        thread::sleep(Duration::from_millis(5));
    }
    same!(at, SLOW);
    Ok(())
}

fn ping_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut random = Random(5);
    for round in 0..1000u64 {
        let want = random.between(1, 2000);
        let bytes = ctx.pattern(round).bytes(0, want);
        sock.send_all(&bytes)?;
        same!(sock.recv_exact(want)?, bytes);
    }
    Ok(())
}

fn pong_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut random = Random(5);
    for _ in 0..1000 {
        let want = random.between(1, 2000);
        let bytes = sock.recv_exact(want)?;
        sock.send_all(&bytes)?;
    }
    sock.expect_eof()
}

const MODERATE: u64 = 4 << 20;

fn small_buffers_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    sock.set(libc::SO_SNDBUF, 4096)?;
    sock.set(libc::SO_RCVBUF, 4096)?;
    sock.connect(&name)?;
    pour(&sock, ctx.pattern(0), MODERATE, Random(6))
}

fn small_buffers_server(ctx: &mut Ctx) -> Result<()> {
    let (listener, port) = ctx.bound()?;
    listener.set(libc::SO_RCVBUF, 4096)?;
    listener.listen(1)?;
    ctx.tell_value("port", port)?;
    let sock = listener.accept()?;
    drain(&sock, ctx.pattern(0), MODERATE, Random(7))
}

/// The stream is idle between bursts, so that rings go back and come again.
fn stop_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut at = 0u64;
    for burst in 1..=20usize {
        let want = burst * 17_001;
        sock.send_all(&ctx.pattern(0).bytes(at, want))?;
        at += want as u64;
        ctx.wait("read")?;
    }
    Ok(())
}

fn stop_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut at = 0u64;
    for burst in 1..=20usize {
        let want = burst * 17_001;
        ctx.pattern(0).check(at, &sock.recv_exact(want)?)?;
        at += want as u64;
        ctx.tell("read")?;
    }
    sock.expect_eof()
}
