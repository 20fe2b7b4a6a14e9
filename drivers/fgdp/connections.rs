// SPDX-License-Identifier: GPL-2.0

//! The connections of a device, found by their ids.
//!
//! Lock order: the table's lock is innermost. A walk through the connections holds it for one place
//! at a time.

use crate::channel::Channel;
use crate::conn::Connection;
use crate::device::Device;
use crate::family::AfFgdp;
use crate::proto::ctrl::{IdSlot, Ids};
use crate::proto::stream::Endpoint;
use crate::proto::wire::{Kind, CONN_INDEX_MASK, MAX_CONNS};
use crate::storage::Storage;
use crate::sys::net::errno::Errno;
use crate::sys::net::sock::Sock;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// Connections of a device at most.
pub(crate) const CONNS: u32 = 16384;
const _: () = assert!(CONNS <= MAX_CONNS);

/// Places in the table of connections.
pub(crate) const TABLE_LEN: usize = CONNS as usize;

/// Connections of one peer at most, so that others find some.
const CONNS_OF_PEER: i32 = CONNS as i32 / 2;

/// The places, and which ids are in use.
pub(crate) struct Table {
    ids: Ids<Storage<IdSlot>>,
    conns: KVVec<Option<Arc<Connection>>>,
}

impl Table {
    /// No connection. Sleeps.
    pub(crate) fn new() -> Result<Self> {
        let mut conns = KVVec::with_capacity(TABLE_LEN, GFP_KERNEL)?;
        for _ in 0..TABLE_LEN {
            conns.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            ids: Ids::new(Storage::new(TABLE_LEN)?),
            conns,
        })
    }

    fn place(&mut self, id: u32) -> Option<&mut Option<Arc<Connection>>> {
        self.conns.get_mut((id & CONN_INDEX_MASK) as usize)
    }
}

impl Device {
    /// Makes a connection to `dst_port` of the peer of `channel`; [`Connection::start`] opens it.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when all connection ids are in use; `ENOMEM`.
    pub(crate) fn connect(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        kind: Kind,
        src_port: u32,
        dst_port: u32,
        sk: &Sock<AfFgdp>,
    ) -> Result<Arc<Connection>> {
        let conn = self.add_connection(channel, kind, src_port, dst_port, None)?;
        conn.attach(sk);
        self.counters.connects.add(1, Relaxed);
        Ok(conn)
    }

    /// Makes a connection with a new id. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when all connection ids are in use, or the peer has its share; `ENOMEM`.
    pub(crate) fn add_connection(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        kind: Kind,
        local_port: u32,
        remote_port: u32,
        endpoint: Option<Endpoint>,
    ) -> Result<Arc<Connection>> {
        let mut table = self.table.lock();
        // Counted under the lock, as everywhere.
        if channel.conns.load(Relaxed) >= CONNS_OF_PEER {
            return Err(Errno::NoBufs.into());
        }
        let id = table.ids.alloc().ok_or(Errno::NoBufs)?;
        channel.conns.add(1, Relaxed);
        drop(table);
        let conn = Connection::new(self, channel, id, kind, local_port, remote_port, endpoint);
        let mut table = self.table.lock();
        match conn {
            Ok(conn) => {
                if let Some(place) = table.place(id) {
                    *place = Some(conn.clone());
                }
                drop(table);
                if channel.is_dead() {
                    // Whoever ended it may have looked at this place before. The peer does not know
                    // the id.
                    self.remove(id);
                    return Err(Errno::ConnReset.into());
                }
                Ok(conn)
            }
            Err(e) => {
                table.ids.free(id);
                channel.conns.add(-1, Relaxed);
                Err(e)
            }
        }
    }

    /// Makes a connection that is to carry a TCP connection. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Device::add_connection`].
    pub(crate) fn add_carried(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        ends: Endpoint,
    ) -> Result<Arc<Connection>> {
        let (port, peer_port) = (u32::from(ends.port), u32::from(ends.peer_port));
        self.add_connection(channel, Kind::Stream, port, peer_port, Some(ends))
    }

    /// The connection with own id `id`.
    pub(crate) fn connection(&self, id: u32) -> Option<Arc<Connection>> {
        let mut table = self.table.lock();
        table.place(id)?.as_ref().filter(|c| c.id() == id).cloned()
    }

    /// The connection at place `at`, for listings.
    pub(crate) fn connection_at(&self, at: usize) -> Option<Arc<Connection>> {
        self.table.lock().conns.get(at)?.clone()
    }

    /// Runs `f` on all connections of `channel`. `f` is called without locks.
    pub(crate) fn each_connection(&self, channel: &Channel, mut f: impl FnMut(&Connection)) {
        for conn in self.connections() {
            if core::ptr::eq(&*conn.channel, channel) {
                f(&conn);
            }
        }
    }

    /// All connections; the table is not locked between two of them.
    pub(crate) fn connections(&self) -> impl Iterator<Item = Arc<Connection>> + '_ {
        (0..TABLE_LEN).filter_map(|at| self.connection_at(at))
    }

    /// Connections of channels to `slot` that have ended.
    fn ended(&self, slot: u32) -> impl Iterator<Item = Arc<Connection>> + '_ {
        self.connections()
            .filter(move |c| c.channel.is_dead() && c.channel.peering.slot == slot)
    }

    /// Both sides are done with `conn`: its id and frames are free. When the channel is dead that
    /// is for [`Device::reclaim`]: the peer may still look.
    pub(crate) fn forget(self: &Arc<Self>, conn: &Connection) {
        // Of one that carries TCP the last bytes may still be needed: TCP's side comes back here.
        if conn.channel.is_dead() || conn.keeps_bytes() {
            return;
        }
        conn.free_rings();
        self.remove(conn.id());
    }

    /// The id is nobody's from here on.
    pub(crate) fn remove(&self, id: u32) {
        let mut table = self.table.lock();
        let old = match table.place(id) {
            Some(place) if place.as_ref().is_some_and(|c| c.id() == id) => place.take(),
            _ => None,
        };
        if let Some(conn) = &old {
            table.ids.free(id);
            conn.channel.conns.add(-1, Relaxed);
        }
        drop(table);
        drop(old);
    }

    /// The channel to `slot` has ended: what its TCP connections have not delivered goes by TCP.
    /// `known`: the peer's last words can be read. Process context.
    pub(crate) fn settle(&self, slot: u32, known: bool) {
        self.ended(slot).for_each(|conn| conn.end_carrying(known));
    }

    /// The peer in `slot` does not look at the own slot any more. Process context.
    pub(crate) fn reclaim(&self, slot: u32) {
        for conn in self.ended(slot) {
            conn.void_grants();
            self.remove(conn.id());
        }
        self.pool.lock().reclaim(slot);
    }
}
