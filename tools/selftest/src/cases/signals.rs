// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals during calls that wait.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};

use crate::case::{Case, Ctx};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("eintr_recv", eintr_client, keep_server),
    Case::records("eintr_recv", eintr_client, keep_server),
    Case::stream("eintr_recv_timeout", eintr_timeout_client, keep_server),
    Case::stream("restart_recv", restart_client, restart_server),
    Case::stream("eintr_send", eintr_send_client, keep_server),
    Case::stream("eintr_accept", eintr_accept, idle),
    Case::stream("signal_returns_part", part_client, part_server),
    Case::stream("killed_reader", killed_client, killed_server),
    Case::stream("killed_writer", killed_writer_client, killed_writer_server),
];

const TICK: Duration = Duration::from_millis(100);

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn keep_server(ctx: &mut Ctx) -> Result<()> {
    let _sock = ctx.accept_one()?;
    ctx.wait("done")
}

fn eintr_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sys::catch(Signal::SIGALRM, false)?;
    sys::alarm(TICK)?;
    want!(sock.recv(&mut [0; 16]), Err(Errno::EINTR));
    sys::alarm(Duration::ZERO)?;
    want!(sys::signals(), 1..);
    want!(sock.send(b"x"), Ok(1));
    ctx.tell("done")
}

/// With a timeout a call is not restarted: the time would start again.
fn eintr_timeout_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(20))?;
    sys::catch(Signal::SIGALRM, true)?;
    sys::alarm(TICK)?;
    want!(sock.recv(&mut [0; 16]), Err(Errno::EINTR));
    sys::alarm(Duration::ZERO)?;
    ctx.tell("done")
}

fn restart_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sys::catch(Signal::SIGALRM, true)?;
    ctx.tell("reading")?;
    sys::alarm(TICK)?;
    // Interrupted several times and nobody notices.
    same!(sock.recv_exact(4)?, b"late");
    sys::alarm(Duration::ZERO)?;
    want!(sys::signals(), 2..);
    Ok(())
}

fn restart_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("reading")?;
    std::thread::sleep(10 * TICK);
    want!(sock.send(b"late"), Ok(4));
    Ok(())
}

fn eintr_send_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.fill(ctx.pattern(0))?;
    sys::catch(Signal::SIGALRM, false)?;
    sys::alarm(TICK)?;
    let err = loop {
        match sock.send(&[0; 1 << 20]) {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    sys::alarm(Duration::ZERO)?;
    same!(err, Errno::EINTR);
    ctx.tell("done")
}

fn eintr_accept(ctx: &mut Ctx) -> Result<()> {
    let (sock, _) = ctx.bound()?;
    sock.listen(1)?;
    sys::catch(Signal::SIGALRM, false)?;
    sys::alarm(TICK)?;
    want!(sock.accept(), Err(Errno::EINTR));
    sys::alarm(Duration::ZERO)?;
    Ok(())
}

/// A receive that waits for more than came returns what came.
fn part_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    sys::catch(Signal::SIGALRM, false)?;
    sys::alarm(TICK)?;
    want!(sock.recv_flags(&mut [0; 100], libc::MSG_WAITALL), Ok(10));
    sys::alarm(Duration::ZERO)?;
    ctx.tell("done")
}

fn part_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    want!(sock.send(&[1; 10]), Ok(10));
    ctx.wait("done")
}

/// A process that is killed while it waits closes its connection.
fn killed_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let child = sys::fork(|| match sock.recv(&mut [0; 16]) {
        Ok(_) => 1,
        Err(_) => 2,
    })?;
    drop(sock);
    ctx.wait("accepted")?;
    std::thread::sleep(TICK);
    kill(child, Signal::SIGKILL)?;
    want!(
        waitpid(child, None)?,
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    );
    Ok(())
}

fn killed_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.tell("accepted")?;
    sock.expect_eof()
}

fn killed_writer_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let sent = sock.fill(ctx.pattern(0))?;
    let child = sys::fork(|| loop {
        if sys::send(sock.as_fd(), &[0xff; 4096], libc::MSG_NOSIGNAL).is_err() {
            return 1;
        }
    })?;
    drop(sock);
    std::thread::sleep(TICK);
    kill(child, Signal::SIGKILL)?;
    want!(
        waitpid(child, None)?,
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    );
    ctx.tell_value("killed", sent)
}

fn killed_writer_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let sent: usize = ctx.wait_value("killed")?.parse()?;
    let all = sock.recv_to_end()?;
    want!(all.len(), n if n >= sent);
    ctx.pattern(0).check(0, &all[..sent])?;
    same!(all[sent..].iter().position(|byte| *byte != 0xff), None);
    Ok(())
}
