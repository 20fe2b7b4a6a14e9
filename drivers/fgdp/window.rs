// SPDX-License-Identifier: GPL-2.0

//! Receiving without a copy: programs read what the peer granted where it is, in a mapping of the
//! peer's slot.
//!
//! A grant that a program took stays in the mapping, and is the program's to read, until it gives
//! it back. Page n of the mapping is frame n of the peer's slot, so nothing is looked up.
//!
//! Lock order: `rx` or `mmap_lock`, a connection's `mapped`, the window's lock, then a connection's
//! `state`.

use crate::conn::Connection;
use crate::inet::Mapping;
use crate::proto::grant::Run;
use crate::proto::wire::{FRAME_SHIFT, FRAME_SIZE};
use crate::sys::mm::NewArea;
use crate::sys::net::errno::Errno;
use crate::sys::net::family::ZerocopyReceive;
use crate::sys::window::{Viewer, Window};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// A grant that a program took.
struct Taken {
    place: u8,
    first: usize,
    count: usize,
}

impl Taken {
    fn is_inside(&self, first: u64, end: u64) -> bool {
        let (at, count) = (self.first as u64, self.count as u64);
        at >= first && at.saturating_add(count) <= end
    }
}

/// What a program maps of the peer of a connection.
pub(crate) struct Mapped {
    window: Arc<Window<Reader>>,
    taken: KVec<Taken>,
}

/// Whose connection a window is.
struct Reader {
    conn: Arc<Connection>,
    /// Of a TCP connection: it stays with us meanwhile.
    _mapping: Option<Mapping>,
}

impl Viewer for Reader {
    fn closed(&self) {
        let conn = &self.conn;
        let mapped = conn.mapped.lock().take();
        if let Some(mapped) = mapped {
            mapped.taken.iter().for_each(|taken| conn.give_back(taken));
        }
    }
}

/// What a program got.
#[derive(Default)]
pub(crate) struct Received {
    /// Where it is in the mapping.
    pub(crate) offset: u64,
    /// Bytes there.
    pub(crate) length: u32,
    /// Bytes that come first, and that `recv(2)` reads.
    pub(crate) skip: u32,
}

impl From<Received> for ZerocopyReceive {
    fn from(got: Received) -> Self {
        Self {
            offset: got.offset,
            length: got.length,
            recv_skip_hint: got.skip,
        }
    }
}

impl Received {
    /// The next `n` bytes are for `recv(2)`.
    pub(crate) fn copied(n: u32) -> Self {
        Self {
            skip: n,
            ..Self::default()
        }
    }
}

/// How much of `conn`'s peer can be mapped, in bytes.
pub(crate) fn size(conn: &Connection) -> u64 {
    conn.channel.peering.size
}

/// `mmap(2)` of the window of `conn`; `mapping` is of a TCP connection.
///
/// # Errors
///
/// `EBUSY` while there is one; `EINVAL` for more than there is.
pub(crate) fn map(conn: &Arc<Connection>, area: &NewArea<'_>, mapping: Option<Mapping>) -> Result {
    if !conn.is_stream() {
        return Err(Errno::OpNotSupp.into());
    }
    if area.pages() as u64 > size(conn) >> FRAME_SHIFT {
        return Err(EINVAL);
    }
    let mut mapped = conn.mapped.lock();
    if mapped.is_some() {
        return Err(EBUSY);
    }
    let memory = conn.device.group().share();
    let window = Window::map(
        area,
        Reader {
            conn: conn.clone(),
            _mapping: mapping,
        },
        memory,
        conn.channel.peering.base,
    )?;
    // Who ends the channel looks for windows after its death.
    if conn.channel.is_dead() {
        window.revoke();
    }
    *mapped = Some(Mapped {
        window,
        taken: KVec::new(),
    });
    Ok(())
}

/// `FGDP_ZEROCOPY_RECEIVE`: takes the grant that is next in the stream. Does not wait.
///
/// # Errors
///
/// `EINVAL` without a mapping; `ENOMEM`.
pub(crate) fn receive(conn: &Connection) -> Result<Received> {
    let _rx = conn.rx.lock();
    let mut mapped = conn.mapped.lock();
    let Mapped { window, taken } = (*mapped).as_mut().ok_or(EINVAL)?;
    taken.reserve(1, GFP_KERNEL)?;
    let look = conn
        .with_rx(|proto, _, avail| Ok((proto.rx_next_grant(), proto.rx_before_grant().min(avail))));
    // A connection that is over says so to `recv`.
    let (run, skip) = look.unwrap_or((None, 0));
    let Some(run) = run else {
        return Ok(Received::copied(skip));
    };
    let (first, count) = pages(conn, run);
    if !window.show(first, count) {
        // Not mapped, or taken already by an earlier grant of the same frames.
        return Ok(Received::copied(bytes(run)));
    }
    let place = conn.with(|proto, view| Ok(proto.rx_take_grant(view)));
    let Ok(Some(place)) = place else {
        window.hide(first, count);
        return Ok(Received::default());
    };
    let new = Taken {
        place,
        first,
        count,
    };
    // Room was reserved.
    taken.push(new, GFP_KERNEL)?;
    conn.counters.rx_bytes.add(bytes(run).into(), Relaxed);
    Ok(Received {
        offset: (first as u64) << FRAME_SHIFT,
        length: bytes(run),
        skip: 0,
    })
}

/// `FGDP_ZEROCOPY_RELEASE`: gives back what was taken in a part of the mapping.
///
/// # Errors
///
/// `EINVAL` without a mapping, for parts of pages, and if nothing was taken there.
pub(crate) fn release(conn: &Connection, offset: u64, length: u64) -> Result {
    let mask = u64::from(FRAME_SIZE).wrapping_sub(1);
    let end = offset.checked_add(length).ok_or(EINVAL)?;
    if (offset | length) & mask != 0 {
        return Err(EINVAL);
    }
    let (first, end) = (offset >> FRAME_SHIFT, end >> FRAME_SHIFT);
    let mut mapped = conn.mapped.lock();
    let Mapped { window, taken } = (*mapped).as_mut().ok_or(EINVAL)?;
    let before = taken.len();
    taken.retain(|taken| {
        let goes = taken.is_inside(first, end);
        if goes {
            window.hide(taken.first, taken.count);
            conn.give_back(taken);
        }
        !goes
    });
    if taken.len() == before {
        return Err(EINVAL);
    }
    Ok(())
}

fn bytes(run: Run) -> u32 {
    run.frames << FRAME_SHIFT
}

/// The pages of the mapping where `run` is: the first and how many.
fn pages(conn: &Connection, run: Run) -> (usize, usize) {
    let base = conn.channel.peering.base >> FRAME_SHIFT;
    let first = u64::from(run.pfn).wrapping_sub(base);
    (first as usize, run.frames as usize)
}

impl Connection {
    /// Nobody shows the grant's frames any more.
    fn give_back(&self, taken: &Taken) {
        let notify = self.with(|proto, view| Ok(proto.rx_release(view, taken.place)));
        self.notify_space(notify);
        if self.is_closed() {
            // That was what DONE waited for.
            self.advance_close();
        }
    }

    /// What the program has taken of the peer stays with it. Sleeps.
    pub(crate) fn keep_window(&self) {
        if let Some(mapped) = &*self.mapped.lock() {
            mapped.window.keep();
        }
    }

    /// The peer's frames may be somebody else's from now on. Sleeps.
    pub(crate) fn revoke_window(&self) {
        if let Some(mapped) = &*self.mapped.lock() {
            mapped.window.revoke();
        }
    }

    /// Whether what programs map of the peer is lent no more. Sleeps.
    pub(crate) fn shows_others(&self) -> bool {
        let mapped = self.mapped.lock();
        let Some(Mapped { taken, .. }) = &*mapped else {
            return false;
        };
        let base = self.channel.peering.base >> FRAME_SHIFT;
        let accepted = self.channel.accepted.lock();
        taken.iter().any(|taken| {
            let pfn = base.wrapping_add(taken.first as u64) as u32;
            !accepted.contains(pfn, taken.count as u32)
        })
    }
}
