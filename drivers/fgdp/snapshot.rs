// SPDX-License-Identifier: GPL-2.0

//! What listings show: connections, peers and counters, entry by entry.
//!
//! Entries are named by a place that stays theirs while they live, so that a reader can go on where
//! it was. Each is a snapshot of its own: what changes between two of them is seen or not. Locks
//! are held for one entry at a time.

use crate::addr::{Addr, GuestId};
use crate::conn::{Connection, Phase};
use crate::connections::TABLE_LEN;
use crate::device::Device;
use crate::inet::Why;
use crate::port;
use crate::proto::wire::{DirEntry, Kind, PeerState, Reason, MAX_SLOTS};
use crate::stack::{Stack, MAX_DEVICES};
use crate::sys::task;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// A table that changes while it is read. Process context.
pub(crate) trait Snapshots: Send + Sync + 'static {
    /// An entry.
    type Entry;
    /// The first place at or after `at` that has an entry.
    fn seek(&self, at: u64) -> Option<u64>;
    /// The entry at `at`, unless it has gone since [`Snapshots::seek`].
    fn get(&self, at: u64) -> Option<Self::Entry>;
}

/// Splits a place into the device's number and the place in that device's table of `len`.
fn split(at: u64, len: usize) -> Option<(usize, usize)> {
    let at = usize::try_from(at).ok()?;
    Some((at.checked_div(len)?, at.checked_rem(len)?))
}

/// The first place at or after `at`, in tables of `len`, for which `used` holds.
fn seek(stack: &Stack, at: u64, len: usize, used: impl Fn(&Device, usize) -> bool) -> Option<u64> {
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

/// `enum fgdp_conn_state`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ConnState {
    Listen = 1,
    Opening = 2,
    Open = 3,
    Closing = 4,
    Dead = 5,
}

impl ConnState {
    fn of(conn: &Connection) -> Self {
        match conn.phase() {
            Phase::Dead => Self::Dead,
            _ if conn.channel.is_dead() => Self::Dead,
            _ if conn.is_closed() => Self::Closing,
            Phase::Opening => Self::Opening,
            Phase::Open => Self::Open,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Dead => "dead",
        }
    }
}

/// What a connection has and a socket that listens has not.
pub(crate) struct Ends {
    pub(crate) device: u32,
    pub(crate) id: u32,
    pub(crate) peer_id: Option<u32>,
    pub(crate) local: Addr,
    pub(crate) remote: Addr,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_waits: u64,
    pub(crate) tx_waits: u64,
    pub(crate) tx_ring: u32,
}

/// A connection, or a socket that listens.
pub(crate) struct ConnEntry {
    pub(crate) state: ConnState,
    /// None: it carries a TCP connection.
    pub(crate) kind: Option<Kind>,
    pub(crate) port: u32,
    /// As in `ss`: for a socket that listens, connections that wait.
    pub(crate) readable: u32,
    /// As in `ss`: for a socket that listens, how many may wait.
    pub(crate) unacked: u32,
    pub(crate) ends: Option<Ends>,
}

/// All connections, then all sockets that listen.
pub(crate) struct Connections(pub(crate) Arc<Stack>);

/// Places from here on are the ports that somebody listens on; those before are connections.
const LISTENERS: u64 = (MAX_DEVICES * TABLE_LEN) as u64;

/// A counter's value, which does not fall below zero.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn connection(device: u32, conn: &Connection) -> ConnEntry {
    let state = ConnState::of(conn);
    // Behind a dead channel is memory that may belong to somebody else by now.
    let (readable, unacked) = match state {
        ConnState::Dead => (0, 0),
        _ => (conn.readable(), conn.unacked()),
    };
    let counters = &conn.counters;
    let ends = Ends {
        device,
        id: conn.id(),
        peer_id: conn.peer_id(),
        local: conn.local(),
        remote: conn.remote(),
        rx_bytes: count(counters.rx_bytes.load(Relaxed)),
        tx_bytes: count(counters.tx_bytes.load(Relaxed)),
        rx_waits: count(counters.rx_waits.load(Relaxed)),
        tx_waits: count(counters.tx_waits.load(Relaxed)),
        tx_ring: conn.tx_ring_bytes(),
    };
    ConnEntry {
        state,
        kind: Some(conn.kind()).filter(|_| !conn.is_carried()),
        port: ends.local.port,
        readable,
        unacked,
        ends: Some(ends),
    }
}

fn listener(stack: &Stack, port: u32) -> Option<ConnEntry> {
    let (found, listener) = port::next_listener(stack, port)?;
    if found != port {
        return None;
    }
    let (waiting, limit) = listener.queued();
    Some(ConnEntry {
        state: ConnState::Listen,
        kind: Some(listener.kind),
        port,
        readable: u32::try_from(waiting).unwrap_or(u32::MAX),
        unacked: u32::try_from(limit).unwrap_or(u32::MAX),
        ends: None,
    })
}

impl Snapshots for Connections {
    type Entry = ConnEntry;

    fn seek(&self, at: u64) -> Option<u64> {
        if at < LISTENERS {
            let used = |device: &Device, place| device.connection_at(place).is_some();
            let found = seek(&self.0, at, TABLE_LEN, used);
            if found.is_some() {
                return found;
            }
        }
        let port = u32::try_from(at.saturating_sub(LISTENERS)).ok()?;
        let (port, _) = port::next_listener(&self.0, port)?;
        Some(LISTENERS + u64::from(port))
    }

    fn get(&self, at: u64) -> Option<ConnEntry> {
        if let Some(port) = at.checked_sub(LISTENERS) {
            return listener(&self.0, u32::try_from(port).ok()?);
        }
        let (number, place) = split(at, TABLE_LEN)?;
        let conn = self.0.device(number)?.connection_at(place)?;
        Some(connection(number as u32, &conn))
    }
}

/// Another member of a group.
pub(crate) struct PeerEntry {
    pub(crate) device: u32,
    pub(crate) transport: &'static CStr,
    pub(crate) slot: u32,
    pub(crate) dir: DirEntry,
    pub(crate) channel_up: bool,
    pub(crate) lanes: u32,
    pub(crate) lent_frames: u64,
    pub(crate) used_frames: u64,
    pub(crate) accepted_frames: u64,
    pub(crate) last_down: Reason,
}

impl PeerEntry {
    /// The peer's id.
    pub(crate) fn guest(&self) -> GuestId {
        GuestId(self.dir.guest_id)
    }

    /// What the host says for people, without the padding.
    pub(crate) fn name(&self) -> &[u8] {
        self.dir.name.split(|b| *b == 0).next().unwrap_or_default()
    }
}

/// All members of all groups that are there, or were.
pub(crate) struct Peers(pub(crate) Arc<Stack>);

/// Slots of a device that can have a peer.
const SLOTS: usize = MAX_SLOTS as usize;

impl Snapshots for Peers {
    type Entry = PeerEntry;

    fn seek(&self, at: u64) -> Option<u64> {
        seek(&self.0, at, SLOTS, |device, place| {
            device.peers().get(place).is_some_and(|peer| {
                peer.entry().state != PeerState::Absent || peer.last_down() != Reason::None
            })
        })
    }

    fn get(&self, at: u64) -> Option<PeerEntry> {
        let (number, place) = split(at, SLOTS)?;
        let device = self.0.device(number)?;
        let peer = device.peers().get(place)?;
        let channel = peer.channel();
        let pool = device.pool.lock();
        let (lent_frames, used_frames) = (pool.lent(peer.number), pool.in_use(peer.number));
        drop(pool);
        Some(PeerEntry {
            device: number as u32,
            transport: device.transport.name(),
            slot: peer.number,
            dir: peer.entry(),
            channel_up: channel.is_some(),
            lanes: channel.as_ref().map_or(0, |c| c.lanes()),
            lent_frames,
            used_frames,
            accepted_frames: channel.as_ref().map_or(0, |c| c.accepted.lock().frames()),
            last_down: peer.last_down(),
        })
    }
}

/// A counter.
pub(crate) struct StatEntry {
    /// `None`: the module's own.
    pub(crate) device: Option<u32>,
    /// First part of the name.
    pub(crate) prefix: &'static str,
    /// Rest of the name.
    pub(crate) name: &'static str,
    pub(crate) value: u64,
}

/// The module's settings, then all counters of all devices.
pub(crate) struct Stats(pub(crate) Arc<Stack>);

/// Places of the module, and of each device, which is more than any has.
const STATS: usize = 64;

fn device_stat(device: &Device, place: usize) -> Option<(&'static str, &'static str, u64)> {
    let c = &device.counters;
    let own = [
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
    if let Some((name, counter)) = own.get(place) {
        return Some(("", name, count(counter.load(Relaxed))));
    }
    let place = place.checked_sub(own.len())?;
    let doorbells = device.transport.doorbells();
    let bells = [
        ("rung_ivshmem", doorbells.rung_ivshmem),
        ("rung_trap", doorbells.rung_trap),
        ("coalesced", doorbells.coalesced),
        ("received_ivshmem", doorbells.received_ivshmem),
        ("received_trap", doorbells.received_trap),
    ];
    if let Some((name, value)) = bells.get(place) {
        return Some(("doorbells_", name, *value));
    }
    let place = place.checked_sub(bells.len())?;
    let (reason, counter) = (Reason::ALL.get(place)?, c.down.get(place)?);
    Some(("down_", reason.name(), count(counter.load(Relaxed))))
}

impl Snapshots for Stats {
    type Entry = StatEntry;

    fn seek(&self, at: u64) -> Option<u64> {
        let (group, _) = split(at, STATS)?;
        if self.get(at).is_some() {
            return Some(at);
        }
        // Whatever comes next begins a device.
        self.0.device(group)?;
        Some(((group + 1) * STATS) as u64)
    }

    fn get(&self, at: u64) -> Option<StatEntry> {
        let (group, place) = split(at, STATS)?;
        let Some(number) = group.checked_sub(1) else {
            let inet = self.0.inet();
            let c = inet.as_ref().map(|inet| &inet.counters);
            let own = [
                ("family", self.0.family.into()),
                ("spin_usec", self.0.spin_usec.into()),
                (
                    "inet_candidates",
                    c.map_or(0, |c| count(c.candidates.load(Relaxed))),
                ),
                (
                    "inet_carried",
                    c.map_or(0, |c| count(c.carried.load(Relaxed))),
                ),
                (
                    "inet_refused",
                    c.map_or(0, |c| count(c.refused.load(Relaxed))),
                ),
                ("inet_back", c.map_or(0, |c| count(c.back.load(Relaxed)))),
            ];
            let (prefix, name, value) = match own.get(place) {
                Some((name, value)) => ("", *name, *value),
                None => {
                    let why = *Why::ALL.get(place.checked_sub(own.len())?)?;
                    let n = c.map_or(0, |c| c.whys.get(why));
                    ("inet_not_", why.name(), count(n))
                }
            };
            return Some(StatEntry {
                device: None,
                prefix,
                name,
                value,
            });
        };
        let (prefix, name, value) = device_stat(&*self.0.device(number)?, place)?;
        Some(StatEntry {
            device: Some(number as u32),
            prefix,
            name,
            value,
        })
    }
}
