// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connecting.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::case::{Case, Ctx, Kind};
use crate::net::{fgdp_name, Net};
use crate::sock::Sock;
use crate::{same, sys, want};

pub const CASES: &[Case] = &[
    Case::stream("hello", hello_client, hello_server),
    Case::records("hello", hello_client, hello_server),
    Case::stream("connect_nonblock", nonblock_client, nonblock_server),
    Case::stream("connect_refused", refused_client, refused_server),
    Case::records("connect_refused", refused_client, refused_server),
    Case::stream(
        "connect_refused_nonblock",
        refused_nonblock_client,
        no_listener,
    ),
    Case::stream("connect_unknown_guest", unknown_guest, idle).fgdp(),
    Case::stream("connect_bad_name", bad_name_client, listen_until_done),
    Case::stream("connect_wrong_type", wrong_type_client, listen_until_done).fgdp(),
    Case::stream("connect_twice", twice_client, twice_server),
    Case::stream("socket_types", socket_types, idle),
    Case::stream("unconnected_calls", unconnected, idle),
    Case::records("unconnected_calls", unconnected, idle),
];

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn hello_client(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.dial()?;
    want!(sock.send(b"ping"), Ok(4));
    let mut buf = [0; 16];
    want!(sock.recv(&mut buf), Ok(4));
    same!(&buf[..4], b"pong");
    sock.expect_eof()
}

fn hello_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    let mut buf = [0; 16];
    want!(sock.recv(&mut buf), Ok(4));
    same!(&buf[..4], b"ping");
    want!(sock.send(b"pong"), Ok(4));
    Ok(())
}

fn nonblock_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    sock.set_nonblocking(true)?;
    match sock.connect(&name) {
        Ok(()) => {}
        Err(e) => {
            same!(e, Errno::EINPROGRESS);
            sock.wait_for(PollFlags::EPOLLOUT)?;
        }
    }
    same!(sock.take_error()?, 0);
    // Asking again says so once for TCP, then as for every connected socket.
    want!(sock.connect(&name), Ok(()) | Err(Errno::EISCONN));
    want!(sock.connect(&name), Err(Errno::EISCONN));
    want!(sock.send(b"x"), Ok(1));
    ctx.wait("read")
}

fn nonblock_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_exact(1)?, b"x");
    ctx.tell("read")
}

/// A port that is bound but not listened on, then listened on.
fn refused_server(ctx: &mut Ctx) -> Result<()> {
    let (sock, port) = ctx.bound()?;
    ctx.tell_value("port", port)?;
    ctx.wait("refused")?;
    sock.listen(1)?;
    ctx.tell("listening")?;
    let conn = sock.accept().context("accept")?;
    same!(conn.recv_exact(2)?, b"ok");
    Ok(())
}

fn refused_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    want!(sock.connect(&name), Err(Errno::ECONNREFUSED));
    // Reported, so not pending any more.
    same!(sock.take_error()?, 0);
    want!(sock.connect(&name), Err(Errno::ECONNREFUSED));
    ctx.tell("refused")?;
    ctx.wait("listening")?;
    sock.connect(&name)
        .context("the same socket, now that somebody listens")?;
    want!(sock.send(b"ok"), Ok(2));
    Ok(())
}

fn no_listener(ctx: &mut Ctx) -> Result<()> {
    let (_sock, port) = ctx.bound()?;
    ctx.tell_value("port", port)?;
    ctx.wait("done")
}

fn refused_nonblock_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    sock.set_nonblocking(true)?;
    match sock.connect(&name) {
        Err(Errno::EINPROGRESS) => {
            // TCP sets the error a moment before it ends the connection.
            sock.wait_for(PollFlags::EPOLLERR | PollFlags::EPOLLHUP)?;
            same!(Errno::from_raw(sock.take_error()?), Errno::ECONNREFUSED);
            same!(sock.take_error()?, 0);
        }
        other => want!(other, Err(Errno::ECONNREFUSED)),
    }
    ctx.tell("done")
}

fn unknown_guest(ctx: &mut Ctx) -> Result<()> {
    let nobody = Net::Fgdp {
        family: ctx.net.domain() as u8,
        peer: [0xee; 16],
    };
    let sock = ctx.socket()?;
    want!(sock.connect(&nobody.remote(4711)), Err(Errno::EHOSTUNREACH));
    sock.set_nonblocking(true)?;
    want!(sock.connect(&nobody.remote(4711)), Err(Errno::EHOSTUNREACH));
    Ok(())
}

fn listen_until_done(ctx: &mut Ctx) -> Result<()> {
    let _listener = ctx.serve(8)?;
    ctx.wait("done")
}

fn bad_name_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.socket()?;
    want!(sock.connect(&name[..1]), Err(Errno::EINVAL));
    want!(
        sock.connect(&name[..name.len() / 2 - 1]),
        Err(Errno::EINVAL)
    );
    let mut other = name.clone();
    other[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    want!(sock.connect(&other), Err(Errno::EAFNOSUPPORT));
    if ctx.net.is_fgdp() {
        want!(sock.connect(&name[..23]), Err(Errno::EINVAL));
        let mut reserved = name.clone();
        reserved[2] = 1;
        want!(sock.connect(&reserved), Err(Errno::EINVAL));
    }
    // A longer name than needed is fine, as for every family.
    let mut longer = name;
    longer.extend_from_slice(&[0; 8]);
    sock.connect(&longer)
        .context("with a name that is longer than needed")?;
    ctx.tell("done")
}

fn wrong_type_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = Sock::new(ctx.net.domain(), Kind::SeqPacket.number())?;
    want!(sock.connect(&name), Err(Errno::EPROTOTYPE));
    ctx.tell("done")
}

fn twice_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let sock = ctx.dial_name(&name)?;
    want!(sock.connect(&name), Err(Errno::EISCONN));
    want!(sock.listen(1), Err(Errno::EINVAL));
    want!(sock.bind(&ctx.net.any()), Err(Errno::EINVAL));
    want!(sock.accept(), Err(Errno::EINVAL));
    want!(sock.send(b"x"), Ok(1));
    ctx.wait("read")
}

fn twice_server(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.accept_one()?;
    same!(sock.recv_exact(1)?, b"x");
    ctx.tell("read")
}

fn socket_types(ctx: &mut Ctx) -> Result<()> {
    let domain = ctx.net.domain();
    want!(
        Sock::new(domain, libc::SOCK_RDM),
        Err(Errno::ESOCKTNOSUPPORT)
    );
    want!(
        sys::socket(domain, libc::SOCK_STREAM, 99),
        Err(Errno::EPROTONOSUPPORT)
    );
    want!(
        sys::socketpair(domain, libc::SOCK_STREAM),
        Err(Errno::EOPNOTSUPP)
    );
    if ctx.net.is_fgdp() {
        want!(
            Sock::new(domain, libc::SOCK_DGRAM),
            Err(Errno::ESOCKTNOSUPPORT)
        );
        let name = fgdp_name(domain as u16, 0, 0, &[0; 16]);
        same!(name.len(), 24);
    }
    Ok(())
}

fn unconnected(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    let mut buf = [0; 8];
    want!(sock.send(b"x"), Err(Errno::EPIPE | Errno::ENOTCONN));
    want!(sock.recv(&mut buf), Err(Errno::ENOTCONN));
    want!(sock.peer_name(), Err(Errno::ENOTCONN));
    want!(sock.shutdown(libc::SHUT_WR), Err(Errno::ENOTCONN));
    want!(sock.accept(), Err(Errno::EINVAL));
    same!(sock.events()?, PollFlags::EPOLLOUT | PollFlags::EPOLLHUP);
    Ok(())
}
