// SPDX-License-Identifier: GPL-2.0 OR MIT
//! One example per rule; the model-based tests do the rest.

use crate::memory::{accepted, attach, first_extent, view, Group, Slot, CONNS};
use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::mem::{Mem, MemMut, View};
use fgdp_proto::proto::ring::{self, LaneRx, LaneTx, PushError};
use fgdp_proto::proto::stream::{Conn, Refused, Ring};
use fgdp_proto::proto::wire::{
    conn, conn_entry, lane, lane_area, Kind, Msg, Reason, LANE_MSGS, RECORD_HDR, TX_RST,
};
use proptest::collection::vec;
use proptest::prelude::*;

struct Pair {
    group: Group,
    a: Slot,
    b: Slot,
}

impl Pair {
    fn new() -> Self {
        let group = Group::new(2);
        let (a, b) = (attach(&group, 1), attach(&group, 2));
        ring::reset(&a, 2);
        ring::reset(&b, 1);
        Pair { group, a, b }
    }
    fn va(&self) -> View<'_, Slot, Group> {
        view(&self.a, &self.group, 2)
    }
    fn vb(&self) -> View<'_, Slot, Group> {
        view(&self.b, &self.group, 1)
    }
    fn conns(&self, kind: Kind) -> (Conn, Conn) {
        let (mut a, mut b) = (Conn::new(0x1_0003, kind), Conn::new(0x2_0007, kind));
        a.init_entry(&self.va());
        b.init_entry(&self.vb());
        a.set_peer(&self.va(), b.own_id()).unwrap();
        b.set_peer(&self.vb(), a.own_id()).unwrap();
        (a, b)
    }
}

fn ready(conn: u32) -> Msg {
    Msg::Ready {
        conn,
        data: true,
        space: false,
    }
}

fn ring_of(n: u32, at: u32, frames: u32) -> Ring {
    Ring {
        pfn: first_extent(n) + at,
        frames,
    }
}

#[test]
fn l_2_a_full_lane_takes_no_more_and_rings_when_drained() {
    let p = Pair::new();
    let mut tx = LaneTx::new(2, 1, 0);
    let mut rx = LaneRx::new(1, 2, 0);
    assert_eq!(tx.push(&p.va(), &ready(0)), Ok(true), "new lanes are armed");
    for n in 1..LANE_MSGS {
        assert_eq!(tx.push(&p.va(), &ready(n)), Ok(false));
    }
    assert_eq!(tx.push(&p.va(), &ready(999)), Err(PushError::Full));
    assert_eq!(tx.arm_space(&p.va()), Ok(false));
    for n in 0..LANE_MSGS {
        assert_eq!(rx.pop(&p.vb()), Ok(Some(ready(n))));
    }
    assert_eq!(rx.pop(&p.vb()), Ok(None));
    assert_eq!(rx.publish_head(&p.vb()), Ok(true));
    assert_eq!(rx.publish_head(&p.vb()), Ok(false));
    assert_eq!(tx.push(&p.va(), &ready(0)), Ok(false), "suppressed");
    assert_eq!(rx.arm(&p.vb()), Ok(true));
    assert_eq!(rx.pop(&p.vb()), Ok(Some(ready(0))));
    assert_eq!(rx.arm(&p.vb()), Ok(false));
    rx.suppress(&p.vb());
    assert_eq!(tx.push(&p.va(), &ready(0)), Ok(false));
}

#[test]
fn l_3_a_jumping_tail_breaks_the_lane_for_good() {
    let p = Pair::new();
    let mut rx = LaneRx::new(1, 2, 0);
    let tail = lane_area(2, 0) + lane::TAIL;
    p.a.store(tail, LANE_MSGS + 1);
    assert_eq!(rx.pop(&p.vb()), Err(Reason::BadLane));
    p.a.store(tail, 0);
    assert_eq!(rx.pop(&p.vb()), Err(Reason::BadLane));
    assert_eq!(rx.arm(&p.vb()), Err(Reason::BadLane));
}

#[test]
fn s_5_bytes_before_the_base_are_in_the_previous_ring() {
    let p = Pair::new();
    let (mut a, mut b) = p.conns(Kind::Stream);
    let acc: Accepted = accepted(1);
    let (small, large) = (ring_of(1, 0, 4), ring_of(1, 16, 16));
    a.set_tx_ring(&p.va(), small).unwrap();
    assert_eq!(a.tx_space(&p.va()), Ok(16384));
    assert!(
        a.tx_publish(&p.va(), 16000).unwrap().ready,
        "armed at first"
    );
    assert_eq!(a.set_tx_ring(&p.va(), large), Err(Refused::Pending));
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(16000));
    assert!(!b.rx_consume(&p.vb(), 1000).unwrap().ready);
    assert_eq!(a.tx_space(&p.va()), Ok(1384));
    a.set_tx_ring(&p.va(), large).unwrap();
    assert_eq!(a.reap_tx_ring(&p.va()), Ok(None));
    assert_eq!(a.tx_space(&p.va()), Ok(65536));
    assert_eq!(a.tx_spans(&p.va(), 0, 65536).bytes(), 65536);
    let n = a.tx_publish(&p.va(), 65536).unwrap();
    assert!(!n.ready, "the event was passed, nobody armed again");
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(15000 + 65536));
    let spans = b.rx_spans(0, u32::MAX);
    assert_eq!(spans.as_slice()[0].off, small.start() + 1000);
    assert_eq!(spans.as_slice()[0].len, 15000);
    assert_eq!(spans.as_slice()[1].off, large.start() + 16000);
    assert_eq!(spans.bytes(), 15000 + 65536);
    let _ = b.rx_consume(&p.vb(), 15000).unwrap();
    assert_eq!(a.reap_tx_ring(&p.va()), Ok(Some(small)));
    assert!(a.tx_move_pending());
    let _ = b.rx_consume(&p.vb(), 1).unwrap();
    assert_eq!(a.tx_space(&p.va()), Ok(1));
    assert!(!a.tx_move_pending());
}

proptest! {
    #[test]
    fn s_5_one_run_is_where_the_runs_are(
        steps in vec((1u32..9000, 0u32..9000, 0u32..12), 1..200),
    ) {
        let p = Pair::new();
        let (mut a, mut b) = p.conns(Kind::Stream);
        let acc = accepted(1);
        let (small, large) = (ring_of(1, 0, 4), ring_of(1, 16, 16));
        a.set_tx_ring(&p.va(), small).unwrap();
        for (write, read, change) in steps {
            if change == 0 {
                let ring = if a.tx_ring() == Some(small) { large } else { small };
                let _ = a.reap_tx_ring(&p.va()).unwrap();
                let _ = a.set_tx_ring(&p.va(), ring);
            }
            let free = a.tx_space(&p.va()).unwrap();
            let runs = a.tx_spans(&p.va(), 0, write);
            match a.tx_span(&p.va(), write) {
                Some(one) => prop_assert_eq!(runs.as_slice(), &[one]),
                None => prop_assert!(write > free || runs.as_slice().len() > 1),
            }
            let _ = a.tx_publish(&p.va(), write).unwrap();
            b.rx_avail(&p.vb(), &acc).unwrap();
            let _ = b.rx_consume(&p.vb(), read).unwrap();
        }
    }
}

#[test]
fn s_10_fin_is_announced_once() {
    let p = Pair::new();
    let (mut a, mut b) = p.conns(Kind::Stream);
    let acc = accepted(1);
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(0));
    assert_eq!(b.arm_data(&p.vb()), Ok(false));
    assert!(a.tx_fin(&p.va()).ready);
    assert!(!a.tx_fin(&p.va()).ready);
    assert_eq!(b.arm_data(&p.vb()), Ok(true));
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(0));
    assert!(b.rx_fin());
    assert_eq!(b.arm_data(&p.vb()), Ok(false));
}

#[test]
fn s_12_a_flag_taken_back_breaks_the_connection() {
    let p = Pair::new();
    let (mut a, mut b) = p.conns(Kind::Stream);
    let acc = accepted(1);
    assert!(a.tx_fin(&p.va()).ready);
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(0));
    p.a.store(conn_entry(a.own_id()) + conn::TX_FLAGS, TX_RST);
    assert_eq!(b.rx_avail(&p.vb(), &acc), Err(Reason::BadFlags));
    assert_eq!(b.tx_space(&p.vb()), Err(Reason::BadFlags));
}

#[test]
fn s_13_records_keep_their_ends() {
    let p = Pair::new();
    let (mut a, mut b) = p.conns(Kind::SeqPacket);
    let acc = accepted(1);
    a.set_tx_ring(&p.va(), ring_of(1, 0, 4)).unwrap();
    for len in [5, 0, 16384 - 16 - 8 - 8] {
        assert!(a.tx_record(&p.va(), len));
        let _ = a
            .tx_publish(&p.va(), Conn::record_size(len).unwrap())
            .unwrap();
    }
    assert_eq!(a.tx_space(&p.va()), Ok(0));
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(16384));
    for len in [5, 0, 16384 - 16 - 8 - 8] {
        assert_eq!(b.rx_record(&p.vb()), Ok(Some(len)));
        assert_eq!(b.rx_spans(RECORD_HDR, len).bytes(), len);
        let _ = b.rx_consume_record(&p.vb()).unwrap();
    }
    assert_eq!(b.rx_record(&p.vb()), Ok(None));
}

#[test]
fn s_15_done_waits_until_everything_is_read() {
    let p = Pair::new();
    let (mut a, mut b) = p.conns(Kind::Stream);
    let acc = accepted(1);
    a.set_tx_ring(&p.va(), ring_of(1, 0, 4)).unwrap();
    let _ = a.tx_publish(&p.va(), 10).unwrap();
    assert!(a.tx_fin(&p.va()).ready);
    assert!(a.shut_rx(&p.va()).ready);
    assert_eq!(a.poll_done(&p.va()), Ok(None));
    assert_eq!(a.arm_close(&p.va()), Ok(false));
    assert_eq!(b.rx_avail(&p.vb(), &acc), Ok(10));
    assert_eq!(b.poll_done(&p.vb()), Ok(None));
    assert!(b.rx_consume(&p.vb(), 10).unwrap().ready);
    let done = Msg::Done { conn: b.own_id() };
    assert_eq!(a.poll_done(&p.va()), Ok(Some(done)));
    assert_eq!(a.poll_done(&p.va()), Ok(None));
    b.peer_done().unwrap();
    let _ = b.tx_fin(&p.vb());
    let done = Msg::Done { conn: a.own_id() };
    assert_eq!(b.poll_done(&p.vb()), Ok(Some(done)));
    assert!(b.is_free() && !a.is_free());
    a.peer_done().unwrap();
    assert!(a.is_free());
    assert_eq!(a.peer_done(), Err(Reason::BadMsg));
}

#[test]
fn s_2_an_entry_is_made_new() {
    let p = Pair::new();
    let conn = Conn::new(0x1_0003, Kind::Stream);
    let at = conn_entry(conn.own_id());
    for word in 0..32 {
        p.a.store(at + word * 4, 77);
    }
    conn.init_entry(&p.va());
    for word in 0..32 {
        let want = match word * 4 {
            conn::ID => conn.own_id(),
            conn::SPACE_EVENT => u32::MAX,
            _ => 0,
        };
        assert_eq!(p.a.load(at + word * 4), want, "word {word}");
    }
    assert_eq!(p.a.load(at - 4) | p.a.load(at + 128), 0, "a neighbour");
}

#[test]
fn s_3_the_peers_id_must_be_in_its_table() {
    let p = Pair::new();
    let mut a = Conn::new(0x1_0003, Kind::Stream);
    let b = Conn::new(0x2_0007, Kind::Stream);
    a.init_entry(&p.va());
    b.init_entry(&p.vb());
    // Another serial, another index, an index behind the table.
    for id in [0x1_0007, 0x2_0008, 0x2_0000 | CONNS, 0xffff_ffff] {
        assert_eq!(a.set_peer(&p.va(), id), Err(Reason::BadMsg));
        assert_eq!(a.peer_id(), None);
    }
    assert_eq!(a.set_peer(&p.va(), b.own_id()), Ok(()));
    assert_eq!(a.set_peer(&p.va(), b.own_id()), Err(Reason::BadMsg));
}

#[test]
fn s_3_data_may_be_there_before_the_peer_is_named() {
    let p = Pair::new();
    let (mut a, mut b) = (
        Conn::new(0x1_0003, Kind::Stream),
        Conn::new(1 << 16, Kind::Stream),
    );
    a.init_entry(&p.va());
    b.init_entry(&p.vb());
    a.set_tx_ring(&p.va(), ring_of(1, 0, 4)).unwrap();
    assert_eq!(a.tx_space(&p.va()), Ok(16384));
    assert!(!a.tx_publish(&p.va(), 100).unwrap().ready, "nobody to tell");
    b.set_peer(&p.vb(), a.own_id()).unwrap();
    assert_eq!(b.rx_avail(&p.vb(), &accepted(1)), Ok(100));
    assert!(b.peer_done().is_ok() && a.peer_done().is_err());
}
