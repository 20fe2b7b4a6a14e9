// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Binding, and the names of sockets.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{setuid, Uid};

use crate::case::{Case, Ctx};
use crate::net::{fgdp_name, FGDP_PORT_ANY};
use crate::{same, want};

pub const CASES: &[Case] = &[
    Case::stream("bind_any_port", any_port, idle),
    Case::stream("bind_in_use", in_use, idle),
    Case::stream("bind_twice", bind_twice, idle),
    Case::stream("bind_bad_name", bad_name, idle),
    Case::stream("bind_other_guest", other_guest, idle).fgdp(),
    Case::stream("bind_reserved_port", reserved, idle),
    Case::stream("names_of_connection", names_client, names_server),
    Case::records("names_of_connection", names_client, names_server),
];

fn idle(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn any_port(ctx: &mut Ctx) -> Result<()> {
    let fresh = ctx.socket()?;
    same!(ctx.net.port_of(&fresh.name()?)?, 0);
    let (_a, first) = ctx.bound()?;
    let (_b, second) = ctx.bound()?;
    want!(first, port if (1024..FGDP_PORT_ANY).contains(&port));
    want!(second, port if port != first && port >= 1024);
    // Listening without a bind takes a port, too.
    fresh.listen(1).context("listen")?;
    want!(ctx.net.port_of(&fresh.name()?)?, port if port >= 1024);
    Ok(())
}

fn in_use(ctx: &mut Ctx) -> Result<()> {
    let (first, port) = ctx.bound()?;
    let second = ctx.socket()?;
    want!(second.bind(&ctx.net.local(port)), Err(Errno::EADDRINUSE));
    first.listen(1)?;
    want!(second.bind(&ctx.net.local(port)), Err(Errno::EADDRINUSE));
    drop(first);
    second
        .bind(&ctx.net.local(port))
        .context("after the first was closed")?;
    Ok(())
}

fn bind_twice(ctx: &mut Ctx) -> Result<()> {
    let (sock, port) = ctx.bound()?;
    want!(sock.bind(&ctx.net.any()), Err(Errno::EINVAL));
    same!(ctx.net.port_of(&sock.name()?)?, port);
    Ok(())
}

fn bad_name(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    let name = ctx.net.any();
    want!(sock.bind(&name[..name.len() / 2 - 1]), Err(Errno::EINVAL));
    let mut other = name.clone();
    other[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    want!(sock.bind(&other), Err(Errno::EAFNOSUPPORT));
    if ctx.net.is_fgdp() {
        want!(sock.bind(&name[..23]), Err(Errno::EINVAL));
        let reserved = fgdp_name(ctx.net.domain() as u16, 1, FGDP_PORT_ANY, &[0; 16]);
        want!(sock.bind(&reserved), Err(Errno::EINVAL));
    }
    sock.bind(&name).context("none of the bad names was bound")
}

fn other_guest(ctx: &mut Ctx) -> Result<()> {
    let sock = ctx.socket()?;
    let name = fgdp_name(ctx.net.domain() as u16, 0, FGDP_PORT_ANY, &[0xee; 16]);
    want!(sock.bind(&name), Err(Errno::EADDRNOTAVAIL));
    Ok(())
}

fn reserved(ctx: &mut Ctx) -> Result<()> {
    ctx.socket()?
        .bind(&ctx.net.local(1023))
        .context("as root")?;
    // This process ends with the case, so it need not become root again.
    setuid(Uid::from_raw(65534)).context("setuid")?;
    want!(ctx.socket()?.bind(&ctx.net.local(1023)), Err(Errno::EACCES));
    want!(ctx.socket()?.bind(&ctx.net.local(1)), Err(Errno::EACCES));
    ctx.bound().context("a port that is not reserved")?;
    Ok(())
}

fn names_client(ctx: &mut Ctx) -> Result<()> {
    let name = ctx.server_name()?;
    let (sock, port) = ctx.bound()?;
    sock.connect(&name).context("connect")?;
    let own = sock.name()?;
    same!(ctx.net.port_of(&own)?, port);
    same!(
        ctx.net.port_of(&sock.peer_name()?)?,
        ctx.net.port_of(&name)?
    );
    ctx.tell_value("name", hex(&own))?;
    ctx.tell_value("peer", hex(&sock.peer_name()?))?;
    ctx.wait("done")?;
    Ok(())
}

fn names_server(ctx: &mut Ctx) -> Result<()> {
    let listener = ctx.serve(1)?;
    let (sock, from) = listener.accept_from(0)?;
    same!(from, sock.peer_name()?);
    // What one side calls itself is what the other calls it.
    same!(hex(&from), ctx.wait_value("name")?);
    same!(hex(&sock.name()?), ctx.wait_value("peer")?);
    same!(
        ctx.net.port_of(&sock.name()?)?,
        ctx.net.port_of(&listener.name()?)?
    );
    ctx.tell("done")
}

/// A name as one word, for the control channel.
fn hex(name: &[u8]) -> String {
    let bytes: Vec<String> = name.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.concat()
}
