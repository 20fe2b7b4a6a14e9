// SPDX-License-Identifier: GPL-2.0

//! Which events hold on a connection, and being told when that changes.

use crate::conn::{Connection, Phase};
use crate::inet::Path;
use crate::proto::mem::View;
use crate::proto::stream::{Conn, Source, TxPath};
use crate::proto::wire::Reason;
use crate::sys::net::anysock::AnySock;
use crate::sys::net::consts::*;
use crate::sys::net::tcp::TcpSock;
use crate::sys::shm::{GroupMem, SlotMem};
use kernel::sync::atomic::ordering::*;
use kernel::sync::{Arc, ArcBorrow};

const READABLE: u32 = EPOLLIN | EPOLLRDNORM;
const WRITABLE: u32 = EPOLLOUT | EPOLLWRNORM;

/// How often a poll looks while the peer changes things.
const LOOKS: u32 = 4;

/// Whether `avail` bytes are as many as `SO_RCVLOWAT` asks for, or so many that the sender may
/// sleep until half of the ring is free.
fn is_enough(sk: &AnySock, proto: &Conn, avail: u32) -> bool {
    let low = u32::try_from(sk.rcvlowat(false, i32::MAX as usize)).unwrap_or(u32::MAX);
    avail > 0 && avail >= low.min(proto.rx_size() / 2)
}

/// The events of `conn`, as TCP would have them; asks to be woken when more data or space comes.
///
/// More data wakes even when there was some: that is an edge for EPOLLET.
pub(crate) fn events(sk: &AnySock, conn: &Connection) -> u32 {
    match conn.phase() {
        Phase::Opening => return 0,
        Phase::Dead => return READABLE | WRITABLE | EPOLLHUP | EPOLLRDHUP,
        Phase::Open => {}
    }
    // Arming may find that something changed already; then looking again finds it. A peer that goes
    // on changing things makes the socket look readable once in vain.
    let mut mask = 0;
    let mut more = true;
    for _ in 0..LOOKS {
        let look = conn.with_rx(|proto, view, avail| {
            let more = proto.arm_data(view)?;
            let size = proto.tx_ring().map_or(0, |r| r.bytes());
            let free = proto.tx_space(view)?;
            let enough = (size / 4).max(conn.record_size.load(Relaxed)).min(size);
            // Armed in vain means that there is enough by now.
            let writable = size == 0 || free >= enough || proto.arm_space(view, enough)?;
            let broken_pipe = proto.peer_rx_shut(view)?;
            Ok((
                is_enough(sk, proto, avail),
                writable || broken_pipe,
                proto.rx_fin(),
                proto.rx_reset(),
                more,
            ))
        });
        let Ok((enough, writable, fin, reset, again)) = look else {
            return READABLE | WRITABLE | EPOLLHUP | EPOLLRDHUP | EPOLLERR;
        };
        let mut down = sk.shutdown_mask();
        if fin || reset {
            down |= RCV_SHUTDOWN;
        }
        mask = 0;
        if down & (RCV_SHUTDOWN | SEND_SHUTDOWN) == RCV_SHUTDOWN | SEND_SHUTDOWN || reset {
            mask |= EPOLLHUP;
        }
        if down & RCV_SHUTDOWN != 0 {
            mask |= READABLE | EPOLLRDHUP;
        }
        if enough {
            mask |= READABLE;
        }
        if writable || down & SEND_SHUTDOWN != 0 {
            mask |= WRITABLE;
        } else {
            conn.tx_short.store(true, Relaxed);
        }
        more = again;
        if !more {
            break;
        }
    }
    if more {
        mask |= READABLE;
    }
    mask
}

/// Whether a quarter of the ring is free, or there is none yet, as was seen last; else asks to be
/// told when it is, unless it is so by now.
fn has_space(proto: &mut Conn, view: &View<'_, SlotMem, GroupMem>) -> Result<bool, Reason> {
    let size = proto.tx_ring().map_or(0, |r| r.bytes());
    let enough = size / 4;
    Ok(size == 0 || proto.tx_room() >= enough || proto.arm_space(view, enough)?)
}

/// The events of a TCP connection of which both directions go by rings and on, in one step; asks to
/// be told of others. `None` if it is not so, or something has just changed: then each direction is
/// looked at by itself. TCP has nothing to say of it.
pub(crate) fn on_rings(path: &Path, sk: &TcpSock) -> Option<u32> {
    let conn = path.conn().filter(|_| path.is_carried())?;
    let seqs = sk.seqs();
    let look = conn.carried(|proto, view, accepted| {
        // READY follows a change of the peer's flags, and is looked into: what was seen last is
        // good enough for who sends.
        if !(proto.tx_on_ring() && proto.tx_goes_on(seqs.write)) {
            return Ok(None);
        }
        let avail = proto.rx_avail(view, accepted)?;
        if !proto.rx_is_steady(seqs.copied, seqs.rcv_nxt) {
            return Ok(None);
        }
        let mut mask = 0;
        if is_enough(sk, proto, avail) {
            mask |= READABLE;
        }
        if has_space(proto, view)? {
            mask |= WRITABLE;
        }
        Ok((!proto.arm_data_seen(view)?).then_some(mask))
    });
    let mask = look.ok().flatten()?;
    if mask & WRITABLE == 0 {
        conn.tx_short.store(true, Relaxed);
    }
    Some(mask)
}

/// The events of a TCP connection that may be carried: `mask` is TCP's view.
pub(crate) fn carried(path: ArcBorrow<'_, Path>, sk: &TcpSock, mut mask: u32) -> u32 {
    if path.is_plain() {
        return mask;
    }
    let Some(conn) = path.conn().filter(|_| path.is_agreed()) else {
        return mask;
    };
    let down = sk.shutdown_mask();
    match path.tx_path(sk) {
        TxPath::Tcp | TxPath::Back => {}
        TxPath::Ring if down & SEND_SHUTDOWN == 0 => {
            let look = conn.with(|proto, view| {
                proto.tx_space(view)?;
                has_space(proto, view)
            });
            mask &= !WRITABLE;
            if look.unwrap_or(true) {
                mask |= WRITABLE;
            } else {
                conn.tx_short.store(true, Relaxed);
            }
        }
        TxPath::Ring => {}
        _ => {
            Arc::from(path).kick();
            if down & SEND_SHUTDOWN == 0 {
                mask &= !WRITABLE;
            }
        }
    }
    for _ in 0..LOOKS {
        match path.source(sk) {
            Source::Ring(_) => {
                // What was seen since does not wake anybody: it counts here.
                let look = conn.with_rx(|proto, view, avail| {
                    let enough = is_enough(sk, proto, avail);
                    Ok((enough, proto.arm_data(view)?, proto.rx_fin()))
                });
                let (enough, more, fin) = look.unwrap_or((false, true, false));
                if enough || fin {
                    mask |= READABLE;
                }
                if fin {
                    mask |= EPOLLRDHUP;
                }
                if !more {
                    break;
                }
            }
            Source::End => {
                mask |= READABLE | EPOLLRDHUP;
                if down & SEND_SHUTDOWN != 0 {
                    mask |= EPOLLHUP;
                }
                break;
            }
            Source::Stop | Source::Reset => {
                Arc::from(path).kick();
                break;
            }
            Source::TcpUntil(_) => {
                // Who reads what TCP has goes on into the ring, and is not polled for what comes
                // behind that.
                if !conn.arm_data() {
                    break;
                }
            }
            Source::Tcp | Source::Back => break,
        }
    }
    mask
}
