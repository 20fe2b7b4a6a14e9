// SPDX-License-Identifier: GPL-2.0

//! Memory of a TCP connection that is carried: what it lends, and what it reads in place.

use super::path::{todo, Inside};
use super::Path;
use crate::conn::Connection;
use crate::proto::stream::Source;
use crate::sys::mm::NewArea;
use crate::sys::net::errno::Errno;
use crate::sys::net::family::{ZerocopyReceive, ZerocopyRelease};
use crate::sys::net::tcp::TcpSock;
use crate::window::{self, Received};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// How long a program that has just connected waits until both sides have agreed: a proposal
/// without an answer is refused sooner.
const AGREE_MS: u32 = 2_000;

/// A mapping of memory that belongs to a connection: the socket is not given back to TCP, which
/// could not send from there, until it goes.
pub(crate) struct Mapping(Arc<Path>);

impl Mapping {
    fn new(path: &Arc<Path>) -> Self {
        let _before = path.mappings.fetch_add(1, Full);
        Self(path.clone())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _before = self.0.mappings.fetch_add(-1, Full);
        // A way back may have waited for it.
        if self.0.todo.has(todo::LEAVE) {
            self.0.kick();
        }
    }
}

/// The connection whose rings carry `path`. Waits until that is known.
///
/// # Errors
///
/// `EOPNOTSUPP` when there is none, now or any more.
fn carrying<'a>(path: &'a Path, sk: &TcpSock) -> Result<&'a Arc<Connection>> {
    let mut timeo = kernel::time::msecs_to_jiffies(AGREE_MS) as isize;
    path.awaited.store(true, Release);
    // A time that is over says the same as a refusal.
    let _ = sk.wait(&mut timeo, || {
        (path.is_agreed() || path.is_plain()).then_some(())
    });
    let conn = path.conn().filter(|_| path.is_carried());
    conn.ok_or(Errno::OpNotSupp.into())
}

/// `mmap(2)` of what only a carried connection has. Sleeps.
///
/// # Errors
///
/// If it is not carried `EPERM` as TCP says, for the window `EOPNOTSUPP`; else as of `AF_FGDP`.
pub(super) fn map(path: &Arc<Path>, sk: &TcpSock, area: &NewArea<'_>) -> Result {
    let _inside = Inside::new(path);
    let conn = carrying(path, sk).map_err(|e| if area.is_window() { e } else { EPERM })?;
    let mapping = Some(Mapping::new(path));
    if area.is_window() {
        window::map(conn, area, mapping)
    } else {
        crate::grant::map(sk, conn, area, mapping)
    }
}

/// `FGDP_WINDOW`. Sleeps.
///
/// # Errors
///
/// `EOPNOTSUPP` if it is not carried.
pub(super) fn window_size(path: &Path, sk: &TcpSock) -> Result<u64> {
    let _inside = Inside::new(path);
    carrying(path, sk).map(|conn| window::size(conn))
}

/// `FGDP_ZEROCOPY_RECEIVE`: also when TCP has the next bytes. Does not wait.
///
/// # Errors
///
/// `EOPNOTSUPP` if it was never carried; else as of `AF_FGDP`.
pub(super) fn receive(path: &Arc<Path>, sk: &TcpSock) -> Result<ZerocopyReceive> {
    let _inside = Inside::new(path);
    let conn = path.conn().ok_or(Errno::OpNotSupp)?;
    let got = match path.source(sk) {
        Source::Ring(_) | Source::End => window::receive(conn)?,
        Source::Stop | Source::Reset => {
            path.kick();
            Received::default()
        }
        Source::Tcp | Source::TcpUntil(_) | Source::Back => Received::copied(tcp_unread(path, sk)),
    };
    Ok(got.into())
}

/// Bytes that TCP has for the reader before those of the ring.
fn tcp_unread(path: &Path, sk: &TcpSock) -> u32 {
    // A FIN that was read counts in one of both.
    let unread = sk.rcv_nxt().wrapping_sub(sk.copied_seq()) as i32;
    let unread = unread.max(0) as u32;
    match path.source(sk) {
        Source::TcpUntil(n) => unread.min(n),
        _ => unread,
    }
}

/// `FGDP_ZEROCOPY_RELEASE`.
///
/// # Errors
///
/// `EOPNOTSUPP` if it was never carried; else as of `AF_FGDP`.
pub(super) fn release(path: &Path, what: &ZerocopyRelease) -> Result {
    let conn = path.conn().ok_or(Errno::OpNotSupp)?;
    window::release(conn, what.offset, what.length)
}

/// `TCP_ZEROCOPY_RECEIVE`, which maps pages of the network: how many bytes there are instead, and
/// whether they end there. `None` where TCP is to answer.
pub(super) fn unmappable(path: &Path, sk: &TcpSock) -> Option<(u32, bool)> {
    match path.source(sk) {
        Source::Ring(n) => Some((n, false)),
        Source::End => Some((0, true)),
        Source::Stop => Some((0, false)),
        Source::Tcp | Source::Back | Source::Reset => None,
        // TCP alone must not read behind the switch.
        Source::TcpUntil(_) => Some((tcp_unread(path, sk), false)),
    }
}
