// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many connections at once, and one after another.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollFlags as PollFlags, EpollTimeout,
};
use nix::sys::resource::{setrlimit, Resource};

use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("many_connections", many_client, many_server).within(240),
    Case::stream("connect_close_storm", storm_client, storm_server).within(180),
    Case::stream("connect_reset_storm", reset_storm_client, storm_server).within(180),
    Case::stream("many_blocked_writers", blocked_client, blocked_server).within(180),
];

const MANY: usize = 1000;
const STORM: usize = 2000;

fn many_client(ctx: &mut Ctx) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).context("setrlimit")?;
    let name = ctx.server_name()?;
    let mut all: Vec<Sock> = Vec::with_capacity(MANY);
    for index in 0..MANY {
        all.push(
            ctx.dial_name(&name)
                .with_context(|| format!("connection {index}"))?,
        );
    }
    for round in 0..3u64 {
        for (index, sock) in (0u64..).zip(&all) {
            let bytes = ctx.pattern(index * 4 + round).bytes(0, 500);
            want!(sock.send(&bytes), Ok(500));
        }
        for (index, sock) in (0u64..).zip(&all) {
            let bytes = sock
                .recv_exact(500)
                .with_context(|| format!("connection {index}"))?;
            ctx.pattern(index * 4 + round).check(0, &bytes)?;
        }
    }
    Ok(())
}

/// Echoes on all connections until each is closed.
fn many_server(ctx: &mut Ctx) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).context("setrlimit")?;
    let listener = ctx.serve(1024)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listening = u64::MAX;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, listening))?;
    let mut all: Vec<Option<Sock>> = Vec::new();
    let mut open = 0;
    let mut buf = [0; 4096];
    let mut events = [EpollEvent::empty(); 64];
    while open > 0 || all.len() < MANY {
        let n = epoll.wait(&mut events, EpollTimeout::from(60_000u16))?;
        want!(n, 1..);
        for event in &events[..n] {
            if event.data() == listening {
                let sock = listener.accept()?;
                epoll.add(
                    &sock,
                    EpollEvent::new(EpollFlags::EPOLLIN, all.len() as u64),
                )?;
                all.push(Some(sock));
                open += 1;
                continue;
            }
            let slot = all
                .get_mut(event.data() as usize)
                .context("an unknown event")?;
            let sock = slot.as_ref().context("an event for a closed socket")?;
            match sock.recv_flags(&mut buf, libc::MSG_DONTWAIT) {
                Ok(0) => {
                    *slot = None;
                    open -= 1;
                }
                Ok(n) => sock.send_all(&buf[..n])?,
                Err(Errno::EAGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    same!(all.len(), MANY);
    Ok(())
}

fn storm_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    for index in 0..STORM {
        let sock = ctx
            .dial_name(&name)
            .with_context(|| format!("connection {index}"))?;
        match index % 4 {
            // Closed at once, shut down, with a byte, and with an answer.
            0 => {}
            1 => sock.shutdown(libc::SHUT_RDWR)?,
            2 => want!(sock.send(b"x"), Ok(1)),
            _ => {
                want!(sock.send(b"?"), Ok(1));
                same!(
                    sock.recv_exact(1)
                        .with_context(|| format!("connection {index}"))?,
                    b"!"
                );
            }
        }
    }
    Ok(())
}

/// As a storm, but every connection ends by a reset.
fn reset_storm_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    for index in 0..STORM {
        let sock = ctx
            .dial_name(&name)
            .with_context(|| format!("connection {index}"))?;
        if index % 2 == 0 {
            want!(sock.send(b"?"), Ok(1));
            sock.wait_for(PollFlags::EPOLLIN)?;
        }
        sock.set_linger(0)?;
    }
    Ok(())
}

fn storm_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(128)?;
    for index in 0..STORM {
        let sock = listener
            .accept()
            .with_context(|| format!("connection {index}"))?;
        let mut buf = [0; 8];
        match sock.recv(&mut buf) {
            Ok(1) if buf[0] == b'?' => want!(
                sock.send(b"!"),
                Ok(1) | Err(Errno::EPIPE | Errno::ECONNRESET)
            ),
            Ok(0 | 1) | Err(Errno::ECONNRESET) => {}
            other => want!(other, Ok(0)),
        }
    }
    Ok(())
}

const BLOCKED: u64 = 40;

/// Forty writers that all wait for space; none starves.
fn blocked_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut all = Vec::new();
    for _ in 0..BLOCKED {
        all.push(ctx.dial_name(&name)?);
    }
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0u64..)
            .zip(&all)
            .map(|(index, sock)| {
                let content = ctx.pattern(index);
                scope.spawn(move || {
                    for part in 0..16u64 {
                        sock.send_all(&content.bytes(part << 16, 1 << 16))?;
                    }
                    sock.shutdown(libc::SHUT_WR)?;
                    anyhow::Ok(())
                })
            })
            .collect();
        ctx.tell("writing")?;
        for writer in writers {
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        anyhow::Ok(())
    })
}

fn blocked_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(64)?;
    let all: Vec<Sock> = (0..BLOCKED)
        .map(|_| listener.accept())
        .collect::<nix::Result<_>>()?;
    ctx.wait("writing")?;
    let mut buf = vec![0; 30_000];
    let mut at = vec![0u64; all.len()];
    let mut open = all.len();
    while open > 0 {
        for (index, sock) in all.iter().enumerate() {
            if at[index] == u64::MAX {
                continue;
            }
            match sock.recv(&mut buf)? {
                0 => {
                    same!(at[index], 16 << 16);
                    at[index] = u64::MAX;
                    open -= 1;
                }
                n => {
                    ctx.pattern(index as u64).check(at[index], &buf[..n])?;
                    at[index] += n as u64;
                }
            }
        }
    }
    Ok(())
}
