// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Each rule that a peer can break in a connection's entry, and the reason that it
//! is broken with. Beside each stands the nearest thing that is allowed.

use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::mem::{MemMut, View};
use fgdp_proto::proto::stream::{Conn, Ring};
use fgdp_proto::proto::wire::{conn, conn_entry, Kind, Reason, RX_SHUT, TX_FIN, TX_RST};

use crate::memory::{accepted, attach, first_extent, view, Group, Slot};

const ID: u32 = 0x1_0001;

/// A victim, member 2, whose peer's entry the test writes.
struct Victim {
    group: Group,
    peer: Slot,
    own: Slot,
    conn: Conn,
    acc: Accepted,
}

impl Victim {
    /// Connected; nothing was sent.
    fn new() -> Self {
        let group = Group::new(2);
        let (peer, own) = (attach(&group, 1), attach(&group, 2));
        let mut v = Victim {
            group,
            peer,
            own,
            conn: Conn::new(ID, Kind::Stream),
            acc: accepted(1),
        };
        v.set(conn::ID, ID);
        v.conn.init_entry(&view(&v.own, &v.group, 1));
        v.conn.set_peer(&view(&v.own, &v.group, 1), ID).unwrap();
        v
    }

    /// The peer has sent 1000 bytes through its first ring, of 4 frames, and the
    /// victim has read `read` of them.
    fn reading(read: u32) -> Self {
        let mut v = Victim::new();
        v.ring(1, 0, 4, 0);
        v.set(conn::TAIL, 1000);
        assert_eq!(v.avail(), Ok(1000));
        let _ = v.with(|c, view| c.rx_consume(view, read)).unwrap();
        v
    }

    /// The victim has sent 1000 bytes, of which the peer has read 500.
    fn writing() -> Self {
        let mut v = Victim::new();
        let pfn = first_extent(2);
        v.with(|c, view| c.set_tx_ring(view, Ring { pfn, frames: 4 }))
            .unwrap();
        let _ = v.with(|c, view| c.tx_publish(view, 1000)).unwrap();
        v.set(conn::HEAD, 500);
        assert_eq!(v.with(|c, view| c.tx_unacked(view)), Ok(500));
        v
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Conn, &View<'_, Slot, Group>) -> R) -> R {
        f(&mut self.conn, &view(&self.own, &self.group, 1))
    }

    fn set(&self, off: u64, value: u32) {
        self.peer.store(conn_entry(ID) + off, value);
    }

    /// Ring words; `at` in frames from the accepted extents' start.
    fn ring(&self, serial: u32, at: u32, frames: u32, base: u32) {
        self.set(conn::RING_PFN, first_extent(1).wrapping_add(at));
        self.set(conn::RING_FRAMES, frames);
        self.set(conn::RING_BASE, base);
        self.set(conn::RING_SERIAL, serial);
    }

    fn avail(&mut self) -> Result<u32, Reason> {
        let v = view(&self.own, &self.group, 1);
        self.conn.rx_avail(&v, &self.acc)
    }

    fn space(&mut self) -> Result<u32, Reason> {
        self.with(|c, view| c.tx_space(view))
    }
}

/// What `change` leads to, for a victim that has read 400 of 1000 bytes.
fn reading(change: impl FnOnce(&Victim)) -> Result<u32, Reason> {
    let mut v = Victim::reading(400);
    change(&v);
    let result = v.avail();
    assert_eq!(v.conn.broken(), result.err());
    result
}

fn writing(change: impl FnOnce(&Victim)) -> Result<u32, Reason> {
    let mut v = Victim::writing();
    change(&v);
    let result = v.space();
    assert_eq!(v.conn.broken(), result.err());
    result
}

#[test]
fn s_12_tail_moves_forward_within_the_ring() {
    let at = |tail| reading(|v| v.set(conn::TAIL, tail));
    assert_eq!(at(1000), Ok(600));
    assert_eq!(at(999), Err(Reason::BadPosition), "behind the last one");
    assert_eq!(at(399), Err(Reason::BadPosition), "behind the head");
    assert_eq!(at(400 + 16384), Ok(16384));
    assert_eq!(at(401 + 16384), Err(Reason::BadPosition));
    assert_eq!(at(u32::MAX), Err(Reason::BadPosition));
    let mut v = Victim::new();
    v.set(conn::TAIL, 1);
    assert_eq!(v.avail(), Err(Reason::BadPosition), "bytes without a ring");
}

#[test]
fn s_12_tail_does_not_move_after_fin() {
    let mut v = Victim::reading(400);
    v.set(conn::TX_FLAGS, TX_FIN);
    v.set(conn::TAIL, 1001);
    assert_eq!(v.avail(), Ok(601), "the last bytes came with FIN");
    assert!(v.conn.rx_fin());
    v.set(conn::TAIL, 1002);
    assert_eq!(v.avail(), Err(Reason::BadPosition));
}

#[test]
fn s_12_flags_are_known_and_stay() {
    let flags = |flags| reading(|v| v.set(conn::TX_FLAGS, flags));
    assert_eq!(flags(TX_FIN), Ok(600));
    assert_eq!(flags(TX_RST), Ok(0));
    assert_eq!(flags(4), Err(Reason::BadFlags));
    assert_eq!(flags(u32::MAX), Err(Reason::BadFlags));
    let mut v = Victim::reading(0);
    v.set(conn::TX_FLAGS, TX_RST);
    assert_eq!(v.avail(), Ok(0));
    v.set(conn::TX_FLAGS, TX_FIN);
    assert_eq!(v.avail(), Err(Reason::BadFlags), "RST taken back");

    let shut = |flags| writing(|v| v.set(conn::RX_FLAGS, flags));
    assert_eq!(shut(RX_SHUT), Ok(16384 - 500));
    assert_eq!(shut(2), Err(Reason::BadFlags));
    let mut v = Victim::writing();
    v.set(conn::RX_FLAGS, RX_SHUT);
    assert_eq!(v.with(|c, view| c.peer_rx_shut(view)), Ok(true));
    v.set(conn::RX_FLAGS, 0);
    assert_eq!(v.space(), Err(Reason::BadFlags));
}

#[test]
fn s_12_head_is_between_the_last_one_and_tail() {
    let at = |head| writing(|v| v.set(conn::HEAD, head));
    assert_eq!(at(500), Ok(16384 - 500));
    assert_eq!(at(1000), Ok(16384));
    assert_eq!(at(499), Err(Reason::BadPosition));
    assert_eq!(at(1001), Err(Reason::BadPosition));
    assert_eq!(at(0), Err(Reason::BadPosition));
}

#[test]
fn s_6_the_next_ring_is_the_next_and_good() {
    let ring = |serial, at, frames, base| reading(|v| v.ring(serial, at, frames, base));
    assert_eq!(ring(2, 16, 16, 1000), Ok(600));
    assert_eq!(
        ring(3, 16, 16, 1000),
        Err(Reason::BadRing),
        "one was left out"
    );
    assert_eq!(ring(0, 16, 16, 1000), Err(Reason::BadRing), "back");
    assert_eq!(
        ring(2, 16, 16, 999),
        Err(Reason::BadRing),
        "base behind the tail"
    );
    assert_eq!(
        ring(2, 16, 16, 400 + 16384),
        Ok(600),
        "a tail that is still to come"
    );
    assert_eq!(ring(2, 16, 16, 401 + 16384), Err(Reason::BadRing));
    for frames in [0, 2, 3, 5, 2048, u32::MAX] {
        assert_eq!(
            ring(2, 16, frames, 1000),
            Err(Reason::BadRing),
            "{frames} frames"
        );
    }
    let last = 3 * 512 - 16;
    assert_eq!(ring(2, last, 16, 1000), Ok(600));
    assert_eq!(
        ring(2, last + 1, 16, 1000),
        Err(Reason::BadRing),
        "past the extents"
    );
    assert_eq!(
        ring(2, u32::MAX, 16, 1000),
        Err(Reason::BadRing),
        "before them"
    );
    let mut v = Victim::new();
    v.ring(1, 0, 4, 8);
    assert_eq!(
        v.avail(),
        Err(Reason::BadRing),
        "the first ring begins at 0"
    );
}

#[test]
fn s_6_no_ring_is_replaced_before_a_byte_of_it_was_read() {
    for (read, want) in [(600, Err(Reason::BadRing)), (601, Ok(399))] {
        let mut v = Victim::reading(400);
        v.ring(2, 16, 16, 1000);
        v.set(conn::TAIL, 1400);
        assert_eq!(v.avail(), Ok(1000));
        let _ = v.with(|c, view| c.rx_consume(view, read)).unwrap();
        v.ring(3, 64, 16, 1400);
        assert_eq!(v.avail(), want, "{read} bytes read");
    }
}

#[test]
fn g_4_an_extent_that_goes_takes_unread_bytes_with_it() {
    let mut v = Victim::reading(1000);
    v.acc.remove(1).unwrap();
    assert_eq!(v.avail(), Ok(0), "an idle ring may go");
    v.set(conn::TAIL, 1001);
    assert_eq!(v.avail(), Err(Reason::BadRing), "bytes in it may not");
    let mut v = Victim::reading(999);
    v.acc.remove(1).unwrap();
    assert_eq!(v.avail(), Err(Reason::BadRing));
}

#[test]
fn s_12_after_rst_nothing_else_counts() {
    let mut v = Victim::reading(400);
    v.set(conn::TX_FLAGS, TX_RST | TX_FIN);
    v.set(conn::TAIL, 77);
    v.ring(99, 0, 3, 5);
    assert_eq!(v.avail(), Ok(0));
    assert!(v.conn.rx_reset() && v.conn.broken().is_none());
    assert_eq!(v.with(|c, view| c.arm_data(view)), Ok(false));
    assert_eq!(v.space(), Ok(0));
}
