// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/fgdp/`: connections, peers and counters for people and tools.
//!
//! Columns are separated by blanks and named by the first line; what is not known is `-`. A device
//! is called `fgdp` and its number in the order of attachment. Sockets that listen come after the
//! connections. Each entry is a snapshot of its own:
//! what changes between two of them is seen or not.

use crate::addr::{Addr, GuestId};
use crate::conn::{Connection, Phase};
use crate::device::Device;
use crate::listen::Listener;
use crate::port;
use crate::proto::wire::{Kind, PeerState, Reason, MAX_SLOTS};
use crate::stack::{Stack, MAX_DEVICES};
use crate::sys::proc::{Dir, File, Listing};
use crate::sys::task;
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// All listings of the module.
pub(crate) struct Listings {
    _connections: File<Connections>,
    _peers: File<Peers>,
    _stats: File<Stats>,
}

impl Listings {
    /// Makes `stack` readable.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(stack: &Arc<Stack>) -> Result<Self> {
        let dir = Dir::new(c"fgdp")?;
        let connections = Arc::new(Connections(stack.clone()), GFP_KERNEL)?;
        let peers = Arc::new(Peers(stack.clone()), GFP_KERNEL)?;
        let stats = Arc::new(Stats(stack.clone()), GFP_KERNEL)?;
        Ok(Self {
            _connections: File::new(&dir, c"connections", connections)?,
            _peers: File::new(&dir, c"peers", peers)?,
            _stats: File::new(&dir, c"stats", stats)?,
        })
    }
}

/// A guest id as UUID.
struct Uuid(GuestId);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0 .0.iter().enumerate() {
            let dash = if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
            f.write_fmt(fmt!("{dash}{byte:02x}"))?;
        }
        Ok(())
    }
}

/// `guest:port`.
struct Endpoint(Addr);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}:{}", Uuid(self.0.guest), self.0.port))
    }
}

/// A number that is not always known.
struct Known(Option<u32>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => f.write_fmt(fmt!("{n}")),
            None => f.write_str("-"),
        }
    }
}

/// A name that the host gave: what would break a column, or a terminal, becomes `?`.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|b| *b == 0).next().unwrap_or_default();
        if name.is_empty() {
            return f.write_str("-");
        }
        for byte in name {
            let shown = if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
            f.write_fmt(fmt!("{shown}"))?;
        }
        Ok(())
    }
}

/// Splits a place into the device's number and the place in that device's table of `len`.
fn split(at: u64, len: usize) -> Option<(usize, usize)> {
    let at = usize::try_from(at).ok()?;
    Some((at.checked_div(len)?, at.checked_rem(len)?))
}

/// The first place at or after `at`, in tables of `len`, for which `used` holds.
fn seek(
    stack: &Stack,
    at: u64,
    len: usize,
    used: impl Fn(&Device, usize) -> bool,
) -> Option<u64> {
    let (first, mut from) = split(at, len)?;
    for number in first..MAX_DEVICES {
        let device = stack.device(number)?;
        for place in from..len {
            if used(&device, place) {
                return Some((number * len + place) as u64);
            }
            if place % 1024 == 0 {
                task::cond_resched();
            }
        }
        from = 0;
    }
    None
}

struct Connections(Arc<Stack>);

/// Places from here on are the ports that somebody listens on; those before are connections.
const LISTENERS: u64 = (MAX_DEVICES * Device::TABLE_LEN) as u64;

impl Listing for Connections {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "device id peer_id state type local remote rx_bytes tx_bytes readable unacked tx_ring \
             rx_waits tx_waits\n"
        );
    }

    fn seek(&self, at: u64) -> Option<u64> {
        if at < LISTENERS {
            let used = |device: &Device, place| device.connection_at(place).is_some();
            let found = seek(&self.0, at, Device::TABLE_LEN, used);
            if found.is_some() {
                return found;
            }
        }
        let port = u32::try_from(at.saturating_sub(LISTENERS)).ok()?;
        let (port, _) = port::next_listener(&self.0, port)?;
        Some(LISTENERS + u64::from(port))
    }

    fn show(&self, at: u64, out: &SeqFile) {
        if let Some(port) = at.checked_sub(LISTENERS) {
            let listener = u32::try_from(port).ok().and_then(|p| port::next_listener(&self.0, p));
            if let Some((_, listener)) = listener.filter(|(p, _)| u64::from(*p) == port) {
                show_listener(port, &listener, out);
            }
            return;
        }
        let Some((number, place)) = split(at, Device::TABLE_LEN) else {
            return;
        };
        let device = self.0.device(number);
        if let Some(conn) = device.and_then(|device| device.connection_at(place)) {
            show_connection(number, &conn, out);
        }
    }
}

fn state(conn: &Connection) -> &'static str {
    match conn.phase() {
        Phase::Dead => "dead",
        _ if conn.channel.is_dead() => "dead",
        _ if conn.is_closed() => "closing",
        Phase::Opening => "opening",
        Phase::Open => "open",
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Stream => "stream",
        Kind::SeqPacket => "seqpacket",
    }
}

/// As `ss` does it: the queue where others have bytes to read, its limit where they have bytes sent.
fn show_listener(port: u64, listener: &Listener, out: &SeqFile) {
    let (waiting, limit) = listener.queued();
    let kind = kind_name(listener.kind);
    seq_print!(out, "- - - listen {kind} *:{port} - 0 0 {waiting} {limit} 0 0 0\n");
}

fn show_connection(number: usize, conn: &Connection, out: &SeqFile) {
    let state = state(conn);
    // Behind a dead channel is memory that may belong to somebody else by now.
    let (readable, unacked) = match state {
        "dead" => (0, 0),
        _ => (conn.readable(), conn.unacked()),
    };
    let counters = &conn.counters;
    seq_print!(
        out,
        "fgdp{} {} {} {} {} {} {} {} {} {} {} {} {} {}\n",
        number,
        conn.id(),
        Known(conn.peer_id()),
        state,
        kind_name(conn.kind()),
        Endpoint(conn.local()),
        Endpoint(conn.remote()),
        counters.rx_bytes.load(Relaxed),
        counters.tx_bytes.load(Relaxed),
        readable,
        unacked,
        conn.tx_ring_bytes(),
        counters.rx_waits.load(Relaxed),
        counters.tx_waits.load(Relaxed)
    );
}

struct Peers(Arc<Stack>);

/// Slots of a device that can have a peer.
const SLOTS: usize = MAX_SLOTS as usize;

impl Listing for Peers {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "device transport slot guest name state generation channel lanes lent_frames \
             used_frames accepted_frames last_down\n"
        );
    }

    fn seek(&self, at: u64) -> Option<u64> {
        seek(&self.0, at, SLOTS, |device, place| {
            device.peers().get(place).is_some_and(|peer| {
                peer.entry().state != PeerState::Absent || peer.last_down() != Reason::None
            })
        })
    }

    fn show(&self, at: u64, out: &SeqFile) {
        let Some((number, place)) = split(at, SLOTS) else {
            return;
        };
        if let Some(device) = self.0.device(number) {
            show_peer(number, &device, place, out);
        }
    }
}

fn show_peer(number: usize, device: &Device, place: usize, out: &SeqFile) {
    let Some(peer) = device.peers().get(place) else {
        return;
    };
    let entry = peer.entry();
    let channel = peer.channel();
    let state = match entry.state {
        PeerState::Absent => "absent",
        PeerState::Attached => "attached",
        PeerState::Ready => "ready",
    };
    let lanes = channel.as_ref().map_or(0, |c| c.lanes());
    let accepted = channel.as_ref().map_or(0, |c| c.accepted.lock().frames());
    let pool = device.pool.lock();
    let (lent, used) = (pool.lent(peer.number), pool.in_use(peer.number));
    drop(pool);
    seq_print!(
        out,
        "fgdp{} {} {} {} {} {} {} {} {} {} {} {} {}\n",
        number,
        Name(device.transport.name().to_bytes()),
        peer.number,
        Uuid(GuestId(entry.guest_id)),
        Name(&entry.name),
        state,
        entry.generation,
        if channel.is_some() { "up" } else { "down" },
        lanes,
        lent,
        used,
        accepted,
        peer.last_down().name()
    );
}

struct Stats(Arc<Stack>);

impl Listing for Stats {
    fn header(&self, out: &SeqFile) {
        let Stack { family, spin_usec, .. } = &*self.0;
        seq_print!(out, "counter value\nmodule.family {family}\nmodule.spin_usec {spin_usec}\n");
    }

    fn seek(&self, at: u64) -> Option<u64> {
        self.0.device(usize::try_from(at).ok()?).map(|_| at)
    }

    fn show(&self, at: u64, out: &SeqFile) {
        if let Some(device) = usize::try_from(at).ok().and_then(|at| self.0.device(at)) {
            show_stats(at, &device, out);
        }
    }
}

fn show_stats(number: u64, device: &Device, out: &SeqFile) {
    let c = &device.counters;
    let numbers = [
        ("connects", &c.connects),
        ("accepts", &c.accepts),
        ("refusals", &c.refusals),
        ("messages_sent", &c.messages_sent),
        ("messages_received", &c.messages_received),
        ("suppressed", &c.suppressed),
        ("lane_runs", &c.lane_runs),
        ("addr_refused", &c.addr_refused),
        ("calls_refused", &c.calls_refused),
        ("bad_events", &c.bad_events),
    ];
    for (name, counter) in numbers {
        seq_print!(out, "fgdp{}.{} {}\n", number, name, counter.load(Relaxed));
    }
    let doorbells = device.transport.doorbells();
    let numbers = [
        ("rung_ivshmem", doorbells.rung_ivshmem),
        ("rung_trap", doorbells.rung_trap),
        ("coalesced", doorbells.coalesced),
        ("received_ivshmem", doorbells.received_ivshmem),
        ("received_trap", doorbells.received_trap),
    ];
    for (name, value) in numbers {
        seq_print!(out, "fgdp{}.doorbells_{} {}\n", number, name, value);
    }
    for (reason, counter) in Reason::ALL.iter().zip(&c.down) {
        seq_print!(out, "fgdp{}.down_{} {}\n", number, reason.name(), counter.load(Relaxed));
    }
}
