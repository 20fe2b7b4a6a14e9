// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that several processes or threads hold, and other network namespaces.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{anyhow, ensure, Context, Result};
use nix::errno::Errno;
use nix::sched::{unshare, CloneFlags};
use nix::sys::wait::{waitpid, WaitStatus};

use crate::case::{Case, Ctx};
use crate::sock::Sock;
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("fork_shares_socket", fork_client, fork_server),
    Case::stream("fork_accepts", fork_accept_client, fork_accept_server),
    Case::stream("scm_rights", rights_client, rights_server),
    Case::stream("scm_rights_in_flight", in_flight_client, in_flight_server),
    Case::stream("dup_keeps_open", dup_client, dup_server),
    Case::stream("inherited_by_program", program_client, program_server),
    Case::stream("threads_both_ways", threads_client, threads_server),
    Case::stream("netns", netns, idle).fgdp(),
];

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn succeed(child: nix::unistd::Pid) -> Result<()> {
    want!(waitpid(child, None)?, WaitStatus::Exited(_, 0));
    Ok(())
}

fn fork_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let child = sys::fork(|| i32::from(sock.send(b"from the child") != Ok(14)))?;
    succeed(child)?;
    // The child's exit has closed its copy only.
    ctx.wait("read")?;
    want!(sock.send(b"from the parent"), Ok(15));
    Ok(())
}

fn fork_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_exact(14)?, b"from the child");
    ctx.tell("read")?;
    same!(sock.recv_exact(15)?, b"from the parent");
    sock.expect_eof()
}

/// Several processes accept from one listener; each connection goes to one of them.
fn fork_accept_server(ctx: &mut Ctx) -> Result<()> {
    let (listener, port) = ctx.bound()?;
    listener.listen(16)?;
    let serve_two = |listener: &Sock| -> Result<()> {
        for _ in 0..2 {
            let sock = listener.accept()?;
            let byte = sock.recv_exact(1)?;
            sock.send_all(&byte)?;
        }
        Ok(())
    };
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(sys::fork(|| i32::from(serve_two(&listener).is_err()))?);
    }
    drop(listener);
    ctx.tell_value("port", port)?;
    for child in children {
        succeed(child)?;
    }
    Ok(())
}

fn fork_accept_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let mut all = Vec::new();
    for index in 0..8u8 {
        let sock = ctx.dial_name(&name)?;
        want!(sock.send(&[index]), Ok(1));
        all.push(sock);
    }
    for (index, sock) in (0u8..).zip(&all) {
        same!(sock.recv_exact(1)?, [index]);
    }
    Ok(())
}

fn rights_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let (ours, theirs) = sys::socketpair(libc::AF_UNIX, libc::SOCK_STREAM)?;
    let child = sys::fork(|| {
        let passed = sys::recv_fd(theirs.as_fd()).map(Sock);
        match passed {
            Ok(sock) => i32::from(sock.send(b"passed on") != Ok(9)),
            Err(_) => 2,
        }
    })?;
    sys::send_fd(ours.as_fd(), sock.as_fd())?;
    drop(sock);
    succeed(child)
}

fn rights_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_to_end()?, b"passed on");
    Ok(())
}

/// The only reference is inside a Unix socket's queue, which then goes away.
fn in_flight_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let (ours, theirs) = sys::socketpair(libc::AF_UNIX, libc::SOCK_STREAM)?;
    sys::send_fd(ours.as_fd(), sock.as_fd())?;
    drop(sock);
    ctx.tell("sent")?;
    ctx.wait("written")?;
    drop(theirs);
    drop(ours);
    ctx.wait("reset")
}

fn in_flight_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("sent")?;
    want!(sock.send(b"for nobody"), Ok(10));
    ctx.tell("written")?;
    // Nobody has read it: that is a reset.
    want!(sock.recv(&mut [0; 16]), Err(Errno::ECONNRESET));
    ctx.tell("reset")
}

fn dup_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let second = Sock(sock.0.try_clone()?);
    drop(sock);
    want!(second.send(b"still open"), Ok(10));
    Ok(())
}

fn dup_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_to_end()?, b"still open");
    Ok(())
}

/// A program that knows nothing of the family has the socket as its standard streams.
fn program_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let status = Command::new("cat")
        .stdin(Stdio::from(sock.0.try_clone()?))
        .stdout(Stdio::from(sock.0))
        .status()
        .context("cannot run cat")?;
    ensure!(status.success(), "cat ended with {status}");
    Ok(())
}

fn program_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let content = ctx.pattern(0).bytes(0, 300_000);
    let back = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            sock.send_all(&content)?;
            sock.shutdown(libc::SHUT_WR)?;
            anyhow::Ok(())
        });
        let back = sock.recv_to_end()?;
        writer
            .join()
            .map_err(|_| anyhow!("the writer panicked"))??;
        anyhow::Ok(back)
    })?;
    same!(back.len(), content.len());
    ctx.pattern(0).check(0, &back)
}

const LINES: u64 = 2000;

/// Four threads write whole lines; two read whole lines; none is torn as long as each call is one.
fn threads_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|id| {
                let sock = &sock;
                scope.spawn(move || {
                    for line in 0..LINES {
                        let text = format!("{id} {line:07}\n");
                        want!(sock.send(text.as_bytes()), Ok(10));
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        anyhow::Ok(())
    })?;
    sock.shutdown(libc::SHUT_WR)?;
    sock.expect_eof()
}

fn threads_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let all = String::from_utf8(sock.recv_to_end()?)?;
    let mut next = [0u64; 4];
    for line in all.lines() {
        let (id, number) = line.split_once(' ').context("a torn line")?;
        let slot = next.get_mut(id.parse::<usize>()?).context("a torn line")?;
        same!(number.parse::<u64>()?, *slot);
        *slot += 1;
    }
    same!(next, [LINES; 4]);
    Ok(())
}

fn netns(ctx: &mut Ctx) -> Result<()> {
    let before = ctx.socket()?;
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    want!(
        Sock::new(ctx.net.domain(), libc::SOCK_STREAM),
        Err(Errno::EAFNOSUPPORT)
    );
    // A socket stays in the namespace that it was made in.
    before
        .bind(&ctx.net.any())
        .context("a socket of the first namespace")?;
    Ok(())
}
