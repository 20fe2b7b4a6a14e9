// SPDX-License-Identifier: GPL-2.0 OR MIT
//! One connection: a byte ring per direction, beside it the words that move it.
//!
//! A side's whole shared state is one entry of its connection table. The bytes
//! are not touched here: [`Spans`] say where they are, the caller copies.
//!
//! # Wake-up protocol (S-8 to S-11)
//!
//! Positions as for lanes (see [`ring`](crate::proto::ring)), with a READY
//! message in place of the doorbell. A flag changes once in a connection's life:
//! READY follows always, whatever is armed.
//!
//! # TCP connections
//!
//! A connection made by [`Conn::new_carried`] carries a TCP connection: see
//! [`TxPath`] and [`Source`].

mod close;
mod given;
mod got;
mod rest;
mod ringpos;
mod rx;
mod spans;
mod tcp;
mod tx;

pub use ringpos::Ring;
pub use spans::{Span, Spans};
pub use tcp::{Endpoint, Source, TxPath};
pub use tx::Refused;

use crate::proto::mem::{zero, Mem, MemMut, View};
use crate::proto::wire::{
    conn, conn_entry, slot_hdr, Kind, Reason, CONN_INDEX_MASK, CONN_SIZE, MAX_CONNS,
};
use given::Given;
use got::Got;
use ringpos::RingPos;
use tcp::Carried;

/// What to send to the peer after a change.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The peer waits for this change, or has to know it: send READY, with the data flag after a
    /// `tx_` function, with the space flag after an `rx_` function or
    /// [`Conn::shut_rx`].
    pub ready: bool,
}

impl Notify {
    const NO: Self = Self { ready: false };
}

/// The producer's half.
///
/// # Invariants
///
/// `head` is the newest consumer position that was fetched, never goes back and
/// never passes `tail`. `ring.spare(head, tail)` is defined: the unread bytes
/// fit their rings.
#[derive(Debug, Default)]
struct Tx {
    tail: u32,
    head: u32,
    flags: u32,
    peer_rx: u32,
    ring: RingPos,
    given: Given,
}

/// The consumer's half.
///
/// # Invariants
///
/// `tail` is the newest producer position that was accepted, never goes back,
/// and `ring.holds(head, tail)`. No byte of the ring behind an unread grant is read
/// before it.
#[derive(Debug, Default)]
struct Rx {
    head: u32,
    tail: u32,
    flags: u32,
    peer_tx: u32,
    ring: RingPos,
    record: Option<u32>,
    version: u32,
    /// The word that was last fetched of rings and grants.
    word: u32,
    /// The data event in the own entry, once one was stored.
    event: Option<u32>,
    got: Got,
}

/// One side of a connection: private shadow of both entries.
///
/// The caller serialises all calls on one `Conn`.
#[derive(Debug)]
pub struct Conn {
    kind: Kind,
    own_id: u32,
    own: u64,
    peer_id: u32,
    peer: Option<u64>,
    tx: Tx,
    rx: Rx,
    done_sent: bool,
    done_seen: bool,
    broken: Option<Reason>,
    /// Where in a TCP connection the rings begin and end, if they carry one.
    carried: Option<Carried>,
}

impl Conn {
    /// A connection with id `own_id`, not connected yet.
    pub fn new(own_id: u32, kind: Kind) -> Self {
        Self {
            kind,
            own_id,
            own: conn_entry(own_id),
            peer_id: 0,
            peer: None,
            tx: Tx::default(),
            rx: Rx::default(),
            done_sent: false,
            done_seen: false,
            broken: None,
            carried: None,
        }
    }

    /// Own connection id.
    pub fn own_id(&self) -> u32 {
        self.own_id
    }

    /// The peer's connection id, once [`Conn::set_peer`] succeeded.
    pub fn peer_id(&self) -> Option<u32> {
        self.peer.map(|_| self.peer_id)
    }

    /// Stream or records.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Why the peer is at fault, if it is.
    pub fn broken(&self) -> Option<Reason> {
        self.broken
    }

    /// Makes the own entry new: everything zero but the id, and the space event
    /// behind the head (S-2). Before CONNECT or ACCEPT is sent, and only if the
    /// entry is free (S-16).
    pub fn init_entry<S: MemMut + ?Sized, W: Mem + ?Sized>(&self, v: &View<'_, S, W>) {
        // Who still looks for the final head of an earlier connection sees that it
        // is gone (T-14).
        v.slot.store(self.own.wrapping_add(conn::ID), 0);
        v.fence();
        zero(v.slot, self.own, CONN_SIZE);
        v.slot
            .store(self.own.wrapping_add(conn::SPACE_EVENT), u32::MAX);
        v.slot
            .store_release(self.own.wrapping_add(conn::ID), self.own_id);
    }

    /// Names the peer's end, from its CONNECT or ACCEPT (S-3).
    ///
    /// # Errors
    ///
    /// [`Reason::BadMsg`] if the peer's table has no such entry, if the entry
    /// has another id, or if the peer is named already.
    pub fn set_peer<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        peer_id: u32,
    ) -> Result<(), Reason> {
        let index = peer_id & CONN_INDEX_MASK;
        let entry = conn_entry(peer_id);
        let conns = v.peer_load(slot_hdr::CONNS).min(MAX_CONNS);
        if self.peer.is_some()
            || index >= conns
            || entry.wrapping_add(CONN_SIZE) > v.peer_size
            || v.peer_load_acquire(entry.wrapping_add(conn::ID)) != peer_id
        {
            return Err(Reason::BadMsg);
        }
        self.peer_id = peer_id;
        self.peer = Some(entry);
        Ok(())
    }

    fn check(&self) -> Result<(), Reason> {
        self.broken.map_or(Ok(()), Err)
    }

    fn fail<T>(&mut self, reason: Reason) -> Result<T, Reason> {
        self.broken = Some(reason);
        Err(reason)
    }

    /// Offset of the peer's entry in its slot, while it may be looked at: after
    /// ACCEPT or CONNECT, before the own DONE (S-15) and the channel's end (C-5).
    fn peer_entry(&self) -> Option<u64> {
        if self.done_sent || self.is_cut() {
            return None;
        }
        self.peer
    }

    /// READY, if there is somebody who still looks.
    fn notify_always(&self) -> Notify {
        Notify {
            ready: self.peer.is_some() && !self.done_seen && !self.is_cut(),
        }
    }

    fn own_store<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        off: u64,
        value: u32,
    ) {
        v.slot.store(self.own.wrapping_add(off), value);
    }

    fn own_release<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        off: u64,
        value: u32,
    ) {
        v.slot.store_release(self.own.wrapping_add(off), value);
    }
}
