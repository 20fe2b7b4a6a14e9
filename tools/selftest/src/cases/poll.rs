// SPDX-License-Identifier: Apache-2.0 OR MIT
//! poll and epoll: levels and edges.

use std::time::Duration;

use anyhow::{ensure, Result};
use nix::errno::Errno;
use nix::sys::epoll::{
    Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollFlags as PollFlags, EpollTimeout,
};

use crate::case::{Case, Ctx};
use crate::sock::{Sock, PATIENCE};
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("poll_masks", masks_client, masks_server),
    Case::records("poll_masks", masks_client, masks_server),
    Case::stream("poll_writable_again", writable_client, drain_server),
    Case::records("poll_writable_again", writable_client, drain_server),
    Case::stream("epoll_level", level_client, steps_server),
    Case::stream("epoll_edge_in", edge_client, steps_server),
    Case::records("epoll_edge_in", edge_client, steps_server),
    Case::stream("epoll_edge_go_on", go_on_client, go_on_server),
    Case::stream("epoll_edge_out", edge_out_client, drain_server),
    Case::stream("epoll_edge_unasked", edge_unasked_client, drain_server),
    Case::stream("epoll_edge_rdhup", rdhup_client, rdhup_server),
    Case::stream("epoll_oneshot", oneshot_client, steps_server),
    Case::stream("epoll_listener_edge", listener_client, listener_server),
];

/// No event within this is no event.
const QUIET: Duration = Duration::from_millis(300);

fn masks_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.dial_name(&name)?;
    same!(sock.events()?, PollFlags::EPOLLOUT);
    ctx.tell("connected")?;
    sock.wait_for(PollFlags::EPOLLIN)?;
    same!(sock.events()?, PollFlags::EPOLLIN | PollFlags::EPOLLOUT);
    want!(sock.recv(&mut [0; 16]), Ok(5));
    same!(sock.events()?, PollFlags::EPOLLOUT);
    ctx.tell("read")?;
    let ended = PollFlags::EPOLLIN | PollFlags::EPOLLRDHUP;
    sock.wait_for(ended)?;
    same!(sock.events()?, ended | PollFlags::EPOLLOUT);
    sock.shutdown(libc::SHUT_WR)?;
    same!(
        sock.events()?,
        ended | PollFlags::EPOLLOUT | PollFlags::EPOLLHUP
    );
    Ok(())
}

fn masks_server(ctx: &mut Ctx) -> Result<()> {
    let (listener, port) = ctx.bound()?;
    listener.listen(2)?;
    same!(listener.events()?, PollFlags::empty());
    ctx.tell_value("port", port)?;
    ctx.wait("connected")?;
    listener.wait_for(PollFlags::EPOLLIN)?;
    same!(listener.events()?, PollFlags::EPOLLIN);
    let sock = listener.accept()?;
    same!(listener.events()?, PollFlags::empty());
    want!(sock.send(b"hello"), Ok(5));
    ctx.wait("read")?;
    sock.shutdown(libc::SHUT_WR)?;
    sock.wait_for(PollFlags::EPOLLHUP)?;
    Ok(())
}

fn writable_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let sent = sock.fill(ctx.pattern(0))?;
    same!(
        sock.poll(PollFlags::EPOLLOUT, Duration::ZERO)?,
        PollFlags::empty()
    );
    ctx.tell_value("full", sent)?;
    want!(
        sock.poll(PollFlags::EPOLLOUT, PATIENCE)?,
        PollFlags::EPOLLOUT
    );
    want!(sock.send_flags(&[1; 512], libc::MSG_DONTWAIT), Ok(512));
    drop(sock);
    ctx.wait("drained")
}

/// Reads what the client has filled the connection with, once it says so.
fn drain_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let sent: usize = ctx.wait_value("full")?.parse()?;
    let all = sock.recv_to_end()?;
    same!(all.len(), sent + 512);
    ctx.pattern(0).check(0, &all[..sent])?;
    ctx.tell("drained")
}

struct Watch(Epoll);

impl Watch {
    fn new(sock: &Sock, events: EpollFlags) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(sock, EpollEvent::new(events, 1))?;
        Ok(Self(epoll))
    }

    fn next(&self, timeout: Duration) -> Result<EpollFlags> {
        let mut events = [EpollEvent::empty()];
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::NONE);
        let n = self.0.wait(&mut events, timeout)?;
        Ok(if n == 0 {
            EpollFlags::empty()
        } else {
            events[0].events()
        })
    }

    fn expect(&self, flags: EpollFlags) -> Result<()> {
        let events = self.next(PATIENCE)?;
        ensure!(events.contains(flags), "have {events:?}, not {flags:?}");
        Ok(())
    }

    fn quiet(&self) -> Result<()> {
        same!(self.next(QUIET)?, EpollFlags::empty());
        Ok(())
    }
}

/// Sends ten bytes whenever the client asks for them, until it closes.
fn steps_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    loop {
        let want = ctx.wait_value("next")?;
        if want == "end" {
            return Ok(());
        }
        want!(sock.send(b"0123456789"), Ok(10));
        ctx.tell("sent")?;
    }
}

fn step(ctx: &Ctx) -> Result<()> {
    ctx.tell("next")?;
    ctx.wait("sent")
}

fn level_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let watch = Watch::new(&sock, EpollFlags::EPOLLIN)?;
    watch.quiet()?;
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    same!(sock.recv_exact(4)?, b"0123");
    watch.expect(EpollFlags::EPOLLIN)?;
    same!(sock.recv_exact(6)?, b"456789");
    watch.quiet()?;
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    ctx.tell_value("next", "end")
}

fn edge_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let watch = Watch::new(&sock, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
    watch.quiet()?;
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    // Nothing new, so no edge, although there is something to read.
    watch.quiet()?;
    want!(sock.recv(&mut [0; 4]), Ok(4));
    watch.quiet()?;
    // More bytes are an edge, although some were left.
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    let mut buf = [0; 64];
    while sock.recv_flags(&mut buf, libc::MSG_DONTWAIT) != Err(Errno::EAGAIN) {}
    watch.quiet()?;
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    for _ in 0..20 {
        step(ctx)?;
        watch.expect(EpollFlags::EPOLLIN)?;
    }
    ctx.tell_value("next", "end")
}

/// Connections one after the other, and words on the control connection while one of them is new.
const ROUNDS: usize = 5;
const WORDS: usize = 20;

/// Reads until there is no more; how many bytes that were.
fn drain(sock: &Sock) -> Result<usize> {
    let (mut all, mut buf) = (0, [0; 4096]);
    loop {
        match sock.recv(&mut buf) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(all),
            n => all += n?,
        }
    }
}

/// What comes behind the bytes that a connection begins with is an edge, too, whichever way they came.
fn go_on_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    for _ in 0..ROUNDS {
        // Before anything that the connection has set going: these go by TCP.
        sys::run_first(true)?;
        let sock = ctx.dial_name(&name)?;
        want!(sock.send(b"first"), Ok(5));
        sys::run_first(false)?;
        for _ in 0..WORDS {
            ctx.tell("tick")?;
            ctx.wait("tock")?;
        }
        want!(sock.send(b"later"), Ok(5));
        ctx.tell("sent")?;
        ctx.wait("drained")?;
        want!(sock.send(b"again"), Ok(5));
        ctx.wait("got")?;
    }
    Ok(())
}

fn go_on_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(1)?;
    for _ in 0..ROUNDS {
        let sock = listener.accept()?;
        sock.set_nonblocking(true)?;
        let watch = Watch::new(&sock, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
        for _ in 0..WORDS {
            ctx.wait("tick")?;
            ctx.tell("tock")?;
        }
        ctx.wait("sent")?;
        watch.expect(EpollFlags::EPOLLIN)?;
        same!(drain(&sock)?, 10);
        ctx.tell("drained")?;
        watch.expect(EpollFlags::EPOLLIN)?;
        same!(drain(&sock)?, 5);
        ctx.tell("got")?;
    }
    Ok(())
}

fn edge_out_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let watch = Watch::new(&sock, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)?;
    watch.expect(EpollFlags::EPOLLOUT)?;
    watch.quiet()?;
    let sent = sock.fill(ctx.pattern(0))?;
    // Filling may have seen space come; that is over now.
    while !watch.next(QUIET)?.is_empty() {}
    ctx.tell_value("full", sent)?;
    watch.expect(EpollFlags::EPOLLOUT)?;
    sock.set_nonblocking(false)?;
    want!(sock.send(&[1; 512]), Ok(512));
    drop(sock);
    ctx.wait("drained")
}

/// Who has seen EAGAIN gets an edge without asking again: that is how servers wait.
fn edge_unasked_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let watch = Watch::new(&sock, EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)?;
    watch.expect(EpollFlags::EPOLLOUT)?;
    let mut sent = 0;
    let mut buf = vec![0; 8192];
    loop {
        ctx.pattern(0).fill(sent as u64, &mut buf);
        match sock.send_flags(&buf, libc::MSG_DONTWAIT) {
            Ok(n) => sent += n,
            Err(Errno::EAGAIN) => break,
            Err(e) => return Err(e.into()),
        }
    }
    ctx.tell_value("full", sent)?;
    watch.expect(EpollFlags::EPOLLOUT)?;
    want!(sock.send(&[1; 512]), Ok(512));
    drop(sock);
    ctx.wait("drained")
}

fn rdhup_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    let watch = Watch::new(&sock, flags)?;
    watch.quiet()?;
    ctx.tell("watching")?;
    watch.expect(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP)?;
    watch.quiet()?;
    ctx.tell("seen")?;
    // The peer's close is nothing new for who knows that no more comes.
    sock.expect_eof()
}

fn rdhup_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    ctx.wait("watching")?;
    sock.shutdown(libc::SHUT_WR)?;
    ctx.wait("seen")
}

fn oneshot_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    let watch = Watch::new(&sock, flags)?;
    step(ctx)?;
    watch.expect(EpollFlags::EPOLLIN)?;
    step(ctx)?;
    watch.quiet()?;
    watch.0.modify(&sock, &mut EpollEvent::new(flags, 1))?;
    watch.expect(EpollFlags::EPOLLIN)?;
    ctx.tell_value("next", "end")
}

fn listener_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    ctx.wait("first")?;
    let _first = ctx.dial_name(&name)?;
    ctx.wait("second")?;
    let _second = ctx.dial_name(&name)?;
    ctx.wait("done")
}

fn listener_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(4)?;
    let watch = Watch::new(&listener, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
    watch.quiet()?;
    ctx.tell("first")?;
    watch.expect(EpollFlags::EPOLLIN)?;
    // Not accepted yet: the second is an edge of its own.
    watch.quiet()?;
    ctx.tell("second")?;
    watch.expect(EpollFlags::EPOLLIN)?;
    listener.accept()?;
    listener.accept()?;
    listener.set_nonblocking(true)?;
    want!(listener.accept(), Err(Errno::EAGAIN));
    ctx.tell("done")
}
