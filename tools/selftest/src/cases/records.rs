// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SOCK_SEQPACKET: records keep their borders.

use std::io::{IoSlice, IoSliceMut};
use std::thread;

use anyhow::{anyhow, ensure, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx};
use crate::pattern::Random;
use crate::sock::SIOCINQ;
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::records("record_borders", borders_client, borders_server),
    Case::records("record_truncation", truncation_client, truncation_server),
    Case::records("record_peek", peek_client, peek_server),
    Case::records("record_too_long", too_long_client, too_long_server),
    Case::records("record_vectors", vectors_client, vectors_server),
    Case::records("record_full_ring", full_client, full_server),
    Case::records("record_random_sizes", random_client, random_server).within(120),
    Case::records("record_many_writers", writers_client, writers_server),
    Case::records("record_end", end_client, end_server),
];

fn receive(sock: &crate::sock::Sock, buf: &mut [u8], flags: i32) -> Result<(usize, i32)> {
    Ok(sock.recvmsg(&mut [IoSliceMut::new(buf)], flags)?)
}

fn borders_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    for size in [1usize, 2, 3, 100, 4096, 5000, 1] {
        want!(sock.send(&ctx.pattern(size as u64).bytes(0, size)), Ok(n) if n == size);
    }
    ctx.tell("sent")?;
    ctx.wait("read")
}

fn borders_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    let mut buf = vec![0; 10_000];
    for size in [1usize, 2, 3, 100, 4096, 5000, 1] {
        let (n, flags) = receive(&sock, &mut buf, 0)?;
        same!(n, size);
        same!(flags & (libc::MSG_EOR | libc::MSG_TRUNC), libc::MSG_EOR);
        ctx.pattern(size as u64).check(0, &buf[..n])?;
    }
    want!(
        sock.recv_flags(&mut buf, libc::MSG_DONTWAIT),
        Err(Errno::EAGAIN)
    );
    ctx.tell("read")
}

fn truncation_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    for index in 0..4 {
        want!(sock.send(&ctx.pattern(index).bytes(0, 1000)), Ok(1000));
    }
    ctx.wait("read")
}

fn truncation_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = vec![0; 2000];
    // What does not fit is lost, and said to be.
    let (n, flags) = receive(&sock, &mut buf[..10], 0)?;
    same!(n, 10);
    want!(flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
    ctx.pattern(0).check(0, &buf[..10])?;
    // Asked for, the real length is returned.
    let (n, flags) = receive(&sock, &mut buf[..10], libc::MSG_TRUNC)?;
    same!(n, 1000);
    want!(flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
    ctx.pattern(1).check(0, &buf[..10])?;
    // A read of no bytes takes a record, too.
    let (n, flags) = receive(&sock, &mut [], libc::MSG_TRUNC)?;
    same!(n, 1000);
    want!(flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
    let (n, flags) = receive(&sock, &mut buf, libc::MSG_TRUNC)?;
    same!(n, 1000);
    same!(flags & libc::MSG_TRUNC, 0);
    ctx.pattern(3).check(0, &buf[..1000])?;
    ctx.tell("read")
}

fn peek_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(&ctx.pattern(0).bytes(0, 500)), Ok(500));
    want!(sock.send(&ctx.pattern(1).bytes(0, 20)), Ok(20));
    ctx.wait("read")
}

fn peek_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = vec![0; 2000];
    let (n, flags) = receive(&sock, &mut buf[..5], libc::MSG_PEEK | libc::MSG_TRUNC)?;
    same!(n, 500);
    want!(flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
    let (n, _) = receive(&sock, &mut buf, libc::MSG_PEEK)?;
    same!(n, 500);
    ctx.pattern(0).check(0, &buf[..500])?;
    same!(receive(&sock, &mut buf, 0)?.0, 500);
    ctx.pattern(0).check(0, &buf[..500])?;
    // MSG_WAITALL does not glue records.
    same!(receive(&sock, &mut buf, libc::MSG_WAITALL)?.0, 20);
    ctx.pattern(1).check(0, &buf[..20])?;
    ctx.tell("read")
}

fn too_long_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    // Never fits into any ring.
    want!(sock.send(&vec![0; 64 << 20]), Err(Errno::EMSGSIZE));
    sock.set(libc::SO_SNDBUF, 16 << 10)?;
    want!(sock.send(&vec![0; 200_000]), Err(Errno::EMSGSIZE));
    same!(sock.take_error()?, 0);
    want!(sock.send(b"fits"), Ok(4));
    ctx.wait("read")
}

fn too_long_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.recv(&mut [0; 100]), Ok(4));
    ctx.tell("read")
}

fn vectors_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let bytes = ctx.pattern(0).bytes(0, 3000);
    let parts = [
        IoSlice::new(&bytes[..1]),
        IoSlice::new(&[]),
        IoSlice::new(&bytes[1..2000]),
        IoSlice::new(&bytes[2000..]),
    ];
    want!(sock.sendmsg(&parts, libc::MSG_EOR), Ok(3000));
    ctx.wait("read")
}

fn vectors_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let (mut first, mut second) = (vec![0; 1234], vec![0; 5000]);
    let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    let (n, flags) = sock.recvmsg(&mut into, 0)?;
    same!(n, 3000);
    want!(flags & libc::MSG_EOR, libc::MSG_EOR);
    ctx.pattern(0).check(0, &first)?;
    ctx.pattern(0).check(1234, &second[..3000 - 1234])?;
    ctx.tell("read")
}

fn full_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut sent = 0u64;
    loop {
        let bytes = ctx.pattern(sent).bytes(0, 1000);
        match sock.send_flags(&bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            // A record goes whole or not at all.
            Ok(n) => same!(n, 1000),
            Err(e) => {
                same!(e, Errno::EAGAIN);
                break;
            }
        }
        sent += 1;
        ensure!(sent < 100_000, "never full");
    }
    ctx.tell_value("sent", sent)?;
    want!(
        sock.poll(PollFlags::EPOLLOUT, crate::sock::PATIENCE)?,
        PollFlags::EPOLLOUT
    );
    want!(sock.send(b"last"), Ok(4));
    Ok(())
}

fn full_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let sent: u64 = ctx.wait_value("sent")?.parse()?;
    let mut buf = [0; 2000];
    for index in 0..sent {
        want!(sock.recv(&mut buf), Ok(1000));
        ctx.pattern(index).check(0, &buf[..1000])?;
    }
    want!(sock.recv(&mut buf), Ok(4));
    sock.expect_eof()
}

const COUNT: u64 = 3000;

fn size_of_record(random: &mut Random) -> usize {
    let most = [10, 300, 5000, 40_000][random.between(0, 3)];
    random.between(1, most)
}

fn random_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let mut random = Random(77);
    for index in 0..COUNT {
        let bytes = ctx.pattern(index).bytes(0, size_of_record(&mut random));
        want!(sock.send(&bytes), Ok(n) if n == bytes.len());
    }
    Ok(())
}

fn random_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut random = Random(77);
    let mut buf = vec![0; 40_000];
    for index in 0..COUNT {
        let n = sock.recv(&mut buf)?;
        same!(n, size_of_record(&mut random));
        ctx.pattern(index).check(0, &buf[..n])?;
    }
    sock.expect_eof()
}

fn writers_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4u8)
            .map(|id| {
                let sock = &sock;
                scope.spawn(move || {
                    let mut random = Random(id.into());
                    for _ in 0..500 {
                        let size = random.between(1, 3000);
                        want!(sock.send(&vec![id; size]), Ok(n) if n == size);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        anyhow::Ok(())
    })
}

fn writers_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut randoms = [Random(0), Random(1), Random(2), Random(3)];
    let mut buf = vec![0; 4000];
    for _ in 0..2000 {
        let n = sock.recv(&mut buf)?;
        ensure!(n > 0, "the end came early");
        let id = buf[0];
        ensure!(id < 4, "a record of nobody");
        same!(n, randoms[usize::from(id)].between(1, 3000));
        same!(buf[..n].iter().position(|byte| *byte != id), None);
    }
    sock.expect_eof()
}

fn end_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(&[1; 700]), Ok(700));
    want!(sock.send(&[2; 30]), Ok(30));
    sock.shutdown(libc::SHUT_WR)?;
    sock.expect_eof()
}

fn end_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    sock.wait_for(PollFlags::EPOLLRDHUP)?;
    want!(sock.ioctl(SIOCINQ)?, 700..);
    want!(sock.recv(&mut [0; 1000]), Ok(700));
    want!(sock.recv(&mut [0; 1000]), Ok(30));
    sock.expect_eof()?;
    sock.expect_eof()
}
