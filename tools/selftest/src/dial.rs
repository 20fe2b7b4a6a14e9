// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `connect(2)` that does not wait, while the peer cannot answer.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags as PollFlags;

use crate::net::Net;
use crate::sock::Sock;
use crate::want;

/// More than `connect` may take that does not wait, on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long the peer may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to `port`; how that ended, as an error's name or `connected`.
pub fn dial(net: &Net, port: u32) -> Result<String> {
    let sock = Sock::new(net.domain(), libc::SOCK_STREAM).context("socket")?;
    sock.set_nonblocking(true)?;
    let start = Instant::now();
    let begun = sock.connect(&net.remote(port));
    let took = start.elapsed();
    ensure!(took < AT_ONCE, "connect took {took:?}");
    match begun {
        Ok(()) => return Ok("connected".into()),
        Err(Errno::EINPROGRESS) => {}
        Err(e) => return Ok(format!("{e:?}")),
    }
    want!(sock.events()?, e if e.is_empty());
    want!(sock.connect(&net.remote(port)), Err(Errno::EALREADY));
    want!(sock.peer_name(), Err(Errno::ENOTCONN));
    want!(sock.send(b"early"), Err(Errno::EAGAIN));
    want!(sock.recv(&mut [0; 4]), Err(Errno::EAGAIN));
    println!("waits");
    let events = sock.poll(PollFlags::EPOLLOUT, PATIENCE)?;
    ensure!(!events.is_empty(), "nothing happened in {PATIENCE:?}");
    Ok(match sock.take_error()? {
        0 => "connected".into(),
        e => format!("{:?}", Errno::from_raw(e)),
    })
}
