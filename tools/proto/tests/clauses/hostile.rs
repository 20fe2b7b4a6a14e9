// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A peer whose memory changes between any two fetches.
//!
//! Whatever it shows, nothing panics, every span is inside what was accepted, no
//! store leaves the own slot, and a rule once broken stays broken.

use std::cell::Cell;

use fgdp_proto::proto::grant::{Accepted, Places, Run};
use fgdp_proto::proto::mem::{Mem, MemMut, View};
use fgdp_proto::proto::ring::{LaneRx, LaneTx, PushError};
use fgdp_proto::proto::stream::{Conn, Ring, Source, TxPath};
use fgdp_proto::proto::wire::*;
use proptest::prelude::*;

use crate::memory::{accepted, attach, first_extent, slot_base, view, Group, Slot, SLOT};

/// What a fetch gives: mostly something near what belongs there.
struct Hostile<'a> {
    group: &'a Group,
    seed: Cell<u64>,
    /// One of so many fetches lies.
    rate: u64,
}

impl Hostile<'_> {
    fn random(&self) -> u64 {
        // xorshift64*: the sequence depends on the seed alone.
        let mut x = self.seed.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn lie(&self, off: u64) -> u32 {
        let honest = self.group.load(off);
        if self.random() % self.rate != 0 {
            return honest;
        }
        let r = self.random() as u32;
        match self.random() % 10 {
            0 => r,
            1 => r % 4,
            2 => r % 2048,
            3 => honest.wrapping_add(r % 64),
            4 => honest.wrapping_sub(r % 64),
            5 => honest.wrapping_add(1 << (r % 32)),
            6 => honest ^ (1 << (r % 32)),
            7 => first_extent(1) + r % 2048,
            8 => [4, 8, 16, 1024, 4096, 16384, u32::MAX][r as usize % 7],
            _ => 0,
        }
    }
}

impl Mem for Hostile<'_> {
    fn size(&self) -> u64 {
        self.group.size()
    }
    fn load(&self, off: u64) -> u32 {
        assert!(
            off + 4 <= self.size(),
            "fetch outside the group at {off:#x}"
        );
        self.lie(off)
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.load(off)
    }
    fn fence(&self) {}
}

/// Latched reasons: once seen, always seen.
#[derive(Default)]
struct Latch(Option<Reason>);

impl Latch {
    fn see<T>(&mut self, result: Result<T, Reason>) -> Option<T> {
        match result {
            Ok(value) => {
                assert!(self.0.is_none(), "works after {:?}", self.0);
                Some(value)
            }
            Err(reason) => {
                assert!(reason.is_violation());
                assert!(self.0.is_none_or(|r| r == reason));
                self.0 = Some(reason);
                None
            }
        }
    }
}

type HostileView<'a> = View<'a, Slot, Hostile<'a>>;

fn hostile_view<'a>(slot: &'a Slot, window: &'a Hostile<'a>) -> HostileView<'a> {
    View {
        slot,
        window,
        slot_base: slot.base,
        peer_base: slot_base(1),
        peer_size: SLOT,
    }
}

/// The honest side of the peer, so that the lies have a truth to be near to.
struct Peer<'a> {
    v: View<'a, Slot, Group>,
    conn: Conn,
    accepted: Accepted,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Bytes,
    Records,
    Tcp,
}

impl Use {
    fn conn(self) -> Conn {
        match self {
            Use::Bytes => Conn::new(0x1_0001, Kind::Stream),
            Use::Records => Conn::new(0x1_0001, Kind::SeqPacket),
            Use::Tcp => Conn::new_carried(0x1_0001),
        }
    }
}

fn victim_conn(what: Use, seed: u64, rate: u64, ops: &[(u8, u32)]) {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    let window = Hostile {
        group: &group,
        seed: Cell::new(seed | 1),
        rate,
    };
    let v = hostile_view(&slots[1], &window);
    let mut peer = Peer {
        v: view(&slots[0], &group, 2),
        conn: what.conn(),
        accepted: accepted(2),
    };
    let mut conn = what.conn();
    conn.init_entry(&v);
    peer.conn.init_entry(&peer.v);
    peer.conn.set_peer(&peer.v, 0x1_0001).unwrap();
    // The lie may be about the id; without a peer there is nothing to test.
    if (0..50).all(|_| conn.set_peer(&v, 0x1_0001).is_err()) {
        return;
    }
    let mut acc = accepted(1);
    let mut latch = Latch::default();
    let mut grants = Grants::default();
    let mut place = 0;
    for &(op, n) in ops {
        let at = first_extent(2) + 1024 * (place % 2);
        let ring = |pfn| Ring {
            pfn,
            frames: 4 << (n % 5),
        };
        match op % 32 {
            0..=2 => {
                let Some(avail) = latch.see(conn.rx_avail(&v, &acc)) else {
                    continue;
                };
                check_spans(&conn, &acc, n, avail);
            }
            3 => {
                let _ = latch.see(conn.rx_consume(&v, n % 9000));
            }
            4 => {
                if let Some(Some(len)) = latch.see(conn.rx_record(&v)) {
                    assert!(matches!(what, Use::Records));
                    assert_eq!(conn.rx_spans(RECORD_HDR, len).bytes(), len);
                    let _ = latch.see(conn.rx_consume_record(&v));
                }
            }
            5 => {
                let _ = latch.see(conn.arm_data(&v));
            }
            6 => {
                let _ = latch.see(conn.arm_data_low(&v, n));
            }
            7 => {
                if conn.set_tx_ring(&v, ring(at)).is_ok() {
                    place += 1;
                }
            }
            8 | 9 => {
                let Some(space) = latch.see(conn.tx_space(&v)) else {
                    continue;
                };
                let spans = conn.tx_spans(&v, n % 5000, space);
                for span in &spans {
                    assert!(span.off + u64::from(span.len) <= SLOT);
                    assert!(span.off >= u64::from(first_extent(2)) * 4096 - slot_base(2));
                }
                assert!(spans.bytes() <= space);
                let _ = latch.see(conn.tx_publish(&v, n % 9000));
            }
            10 => {
                let _ = latch.see(conn.reap_tx_ring(&v));
                let _ = latch.see(conn.arm_space(&v, n));
            }
            11 => {
                let _ = latch.see(conn.release_tx_ring(&v));
                let _ = latch.see(conn.tx_unacked(&v));
            }
            12 => {
                let _ = latch.see(conn.peer_rx_shut(&v));
                let _ = latch.see(conn.arm_close(&v));
            }
            13 if conn.is_cut() => assert_eq!(conn.poll_done(&v), Ok(None)),
            13 => {
                let _ = latch.see(conn.poll_done(&v));
            }
            14 if n % 40 == 0 => {
                let _ = conn.tx_fin(&v);
            }
            14 if n % 40 == 1 => {
                let _ = conn.shut_rx(&v);
            }
            14 if n % 40 == 2 => {
                acc.remove(1);
            }
            // What the peer would do, were it honest.
            14 | 15 => {
                let _ = peer
                    .conn
                    .set_tx_ring(&peer.v, ring(first_extent(1) + 1024 * (n % 2)));
                let _ = peer.conn.reap_tx_ring(&peer.v);
                let _ = peer.conn.tx_record(&peer.v, n % 100);
                let size = Conn::record_size(n % 100).unwrap();
                if peer.conn.tx_space(&peer.v).is_ok() {
                    let _ = peer.conn.tx_publish(&peer.v, size);
                }
            }
            18..=21 => victim_tcp(&mut conn, &v, &acc, &mut latch, n),
            24..=28 => grants.victim(&mut conn, &v, &acc, &mut latch, n),
            29 | 30 => grants.peer(&mut peer, n),
            22 => {
                let _ = peer.conn.tx_switch(&peer.v, n % 50);
                if n % 40 == 0 {
                    let _ = peer.conn.tx_back(&peer.v);
                }
                if n % 40 == 1 {
                    let _ = peer.conn.rx_stop(&peer.v);
                }
            }
            _ => {
                if let Ok(n) = peer.conn.rx_avail(&peer.v, &peer.accepted) {
                    let _ = peer.conn.rx_consume(&peer.v, n);
                }
            }
        }
        assert_eq!(conn.broken(), latch.0);
    }
}

/// The same on a connection that may carry TCP.
fn victim_tcp(conn: &mut Conn, v: &HostileView<'_>, acc: &Accepted, latch: &mut Latch, n: u32) {
    match n % 8 {
        0..=2 => {
            let source = conn.rx_source(v, acc, n % 50, n % 60);
            if conn.rx_stopped() {
                assert_eq!(source, Ok(Source::Back));
            } else if let Some(Source::Ring(unread)) = latch.see(source) {
                check_spans(conn, acc, n, unread);
            }
        }
        3 => {
            let _ = latch.see(conn.tx_switch(v, n % 50));
        }
        4..=6 => {
            let path = conn.tx_path(v, n % 50);
            let path = if conn.is_cut() {
                Some(path.unwrap())
            } else {
                latch.see(path)
            };
            let rest = match path {
                Some(TxPath::Rest(rest)) => rest,
                _ => 0,
            };
            assert!(rest <= 8 << 20);
            let spans = conn.tx_rest_spans(v, u32::MAX);
            if path.is_some() {
                assert_eq!(spans.bytes(), rest);
            }
            for span in &spans {
                assert!(span.off + u64::from(span.len) <= SLOT);
                assert!(span.off >= u64::from(first_extent(2)) * 4096 - slot_base(2));
            }
            conn.tx_rest_sent(v, n % 3000);
        }
        _ if !conn.is_carried() => {}
        _ if n % 64 == 7 => {
            let _ = conn.tx_back(v);
        }
        _ if n % 64 == 15 => {
            let _ = conn.rx_stop(v);
        }
        _ if n % 512 == 23 => conn.cut(v),
        _ if n % 512 == 31 => {
            conn.cut(v);
            conn.tx_final(v);
            let path = conn.tx_path(v, 0).unwrap();
            assert_ne!(path, TxPath::Wait);
            drain(conn, v);
        }
        _ => {}
    }
}

/// All that is left goes by TCP; it ends.
fn drain(conn: &mut Conn, v: &HostileView<'_>) {
    // Each grant, and the bytes before it.
    for _ in 0..2 * GRANTS + 2 {
        let TxPath::Rest(n) = conn.tx_path(v, 0).unwrap() else {
            break;
        };
        assert!(n != 0);
        conn.tx_rest_sent(v, n);
    }
    assert!(!matches!(conn.tx_path(v, 0), Ok(TxPath::Rest(_))));
    assert!(!conn.tx_keeps_bytes());
}

/// Grants of the victim that are out, and those that it took.
#[derive(Default)]
struct Grants {
    out: Places,
    held: Vec<u8>,
    held_by_peer: Vec<u8>,
}

impl Grants {
    fn run(member: u32, n: u32) -> Run {
        Run {
            pfn: first_extent(member) + 512 + n % 300,
            frames: 1 + n % 5,
        }
    }

    fn victim(
        &mut self,
        conn: &mut Conn,
        v: &HostileView<'_>,
        acc: &Accepted,
        latch: &mut Latch,
        n: u32,
    ) {
        match n % 8 {
            0..=2 => {
                let _there = conn.set_tx_grant_frame(v, first_extent(2) + 511);
                let Some(Some((place, _))) = latch.see(conn.tx_grant(v, Self::run(2, n / 8)))
                else {
                    return;
                };
                assert!(!self.out.has(place), "a place taken twice");
                self.out.flip(place);
            }
            3 | 4 => {
                if latch.see(conn.rx_avail(v, acc)).is_none() {
                    return;
                }
                let next = conn.rx_next_grant();
                let place = conn.rx_take_grant(v);
                assert_eq!(next.is_some(), place.is_some());
                if let (Some(run), Some(place)) = (next, place) {
                    assert!(acc.contains(run.pfn, run.frames));
                    assert!(!self.held.contains(&place), "two in one place");
                    self.held.push(place);
                }
            }
            5 if !self.held.is_empty() => {
                let at = n as usize % self.held.len();
                let place = self.held.swap_remove(at);
                let _ = conn.rx_release(v, place);
                assert!(!conn.rx_release(v, place).ready, "released twice");
            }
            5 => assert!(!conn.rx_release(v, n as u8).ready, "not taken"),
            6 if n % 64 == 6 && conn.peer_id().is_some() && !conn.done_seen() => {
                if latch.0.is_none() {
                    conn.peer_done().unwrap();
                }
            }
            _ => {
                for place in conn.take_released().iter() {
                    assert!(self.out.has(place), "returned twice, or never granted");
                    self.out.flip(place);
                }
                if conn.tx_keeps_bytes() {
                    assert_eq!(conn.take_tx_rings(), [None, None]);
                    assert_eq!(conn.take_tx_grant_frame(), None);
                } else if conn.done_seen() {
                    assert!(self.out.is_empty(), "never back");
                    let _pfn = conn.take_tx_grant_frame();
                }
            }
        }
        assert_eq!(conn.rx_has_taken(), !self.held.is_empty());
    }

    /// What the peer would do, were it honest.
    fn peer(&mut self, peer: &mut Peer<'_>, n: u32) {
        let conn = &mut peer.conn;
        match n % 4 {
            0 | 1 => {
                let _there = conn.set_tx_grant_frame(&peer.v, first_extent(1) + 511);
                let _ = conn.tx_grant(&peer.v, Self::run(1, n / 4));
                let _back = conn.take_released();
            }
            2 => {
                let looked = conn.rx_avail(&peer.v, &peer.accepted).is_ok();
                if let Some(place) = conn.rx_take_grant(&peer.v).filter(|_| looked) {
                    self.held_by_peer.push(place);
                }
            }
            _ => {
                if let Some(place) = self.held_by_peer.pop() {
                    let _ = conn.rx_release(&peer.v, place);
                }
            }
        }
    }
}

fn check_spans(conn: &Conn, acc: &Accepted, n: u32, avail: u32) {
    // Two rings, and 16 grants that are fetched at a time.
    assert!(avail <= (8 << 20) + 16 * (4 << 20));
    let spans = conn.rx_spans(0, u32::MAX);
    // What is in more runs is left for the next call.
    let many = spans.as_slice().len() == 4;
    assert!(spans.bytes() == avail || many && spans.bytes() < avail);
    for span in &spans {
        let first = (span.off / 4096) as u32;
        let last = ((span.off + u64::from(span.len) - 1) / 4096) as u32;
        assert!(acc.contains(first, last - first + 1), "outside the extents");
    }
    let some = conn.rx_spans(n % 3000, 5000);
    let all = avail.saturating_sub(n % 3000).min(5000);
    assert!(some.bytes() == all || some.as_slice().len() == 4 && some.bytes() < all);
}

fn victim_lane(seed: u64, rate: u64, ops: &[(u8, u32)]) {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    let window = Hostile {
        group: &group,
        seed: Cell::new(seed | 1),
        rate,
    };
    let (v, pv) = (hostile_view(&slots[1], &window), view(&slots[0], &group, 2));
    let (mut tx, mut rx) = (LaneTx::new(1, 2, 0), LaneRx::new(1, 2, 0));
    let (mut peer_tx, mut peer_rx) = (LaneTx::new(2, 1, 0), LaneRx::new(2, 1, 0));
    let (mut broken_tx, mut broken_rx) = (Latch::default(), Latch::default());
    let mut taken = 0u64;
    for &(op, n) in ops {
        match op % 8 {
            0 | 1 => {
                for _ in 0..n % 300 {
                    match tx.push(&v, &Msg::Done { conn: n }) {
                        Ok(_) => assert!(broken_tx.0.is_none()),
                        Err(PushError::Full) => break,
                        Err(PushError::Broken(reason)) => {
                            broken_tx.see::<()>(Err(reason));
                            break;
                        }
                    }
                }
                assert!(tx.in_flight() <= LANE_MSGS);
            }
            2 => {
                let _ = broken_tx.see(tx.arm_space(&v));
            }
            3 | 4 => {
                // Bounded: without publishing the head no more than a lane's worth.
                let mut batch = 0;
                while let Some(Some(_)) = broken_rx.see(rx.pop(&v)) {
                    batch += 1;
                    assert!(batch <= u64::from(LANE_MSGS), "endless lane");
                }
                taken += batch;
                let _ = broken_rx.see(rx.publish_head(&v));
            }
            5 => {
                let _ = broken_rx.see(rx.arm(&v));
                rx.suppress(&v);
            }
            6 => {
                let _ = peer_tx.push(
                    &pv,
                    &Msg::Ready {
                        conn: n,
                        data: true,
                        space: false,
                    },
                );
            }
            _ => {
                while let Ok(Some(_)) = peer_rx.pop(&pv) {}
                let _ = peer_rx.publish_head(&pv);
            }
        }
    }
    assert!(taken <= ops.len() as u64 * u64::from(LANE_MSGS));
}

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn b_2_hostile_connection_breaks_or_behaves(
        what in prop_oneof![Just(Use::Bytes), Just(Use::Records), Just(Use::Tcp), Just(Use::Tcp)],
        seed in any::<u64>(),
        rate in prop_oneof![1u64..4, 4u64..60],
        ops in prop::collection::vec(any::<(u8, u32)>(), 1..200),
    ) {
        victim_conn(what, seed, rate, &ops);
    }

    #[test]
    fn b_2_hostile_lane_breaks_or_behaves(
        seed in any::<u64>(),
        rate in prop_oneof![1u64..4, 4u64..60, 200u64..2000],
        ops in prop::collection::vec(any::<(u8, u32)>(), 1..60),
    ) {
        victim_lane(seed, rate, &ops);
    }

    #[test]
    fn b_2_hostile_headers_are_valid_or_refused(seed in any::<u64>(), rate in 1u64..8) {
        let group = Group::new(2);
        let slots = [attach(&group, 1), attach(&group, 2)];
        let window = Hostile { group: &group, seed: Cell::new(seed | 1), rate };
        let v = hostile_view(&slots[1], &window);
        let host = Slot { group: group.clone(), base: 0 };
        let entry = DirEntry {
            state: PeerState::Ready,
            slot_offset: slot_base(1),
            slot_size: SLOT,
            lanes: 1,
            ..DirEntry::default()
        };
        entry.write(&host, 8192, 1);
        for _ in 0..50 {
            if let Ok(hdr) = SlotHdr::read_peer(&v, 1) {
                prop_assert!(hdr.generation == 1 && hdr.lanes <= 4 && hdr.conns <= MAX_CONNS);
                prop_assert!(CONN_OFFSET + u64::from(hdr.conns) * CONN_SIZE <= SLOT);
            }
            let _ = ChanHdr::read_peer(&v, 2);
            if let Ok(e) = DirEntry::read(&window, 8192, 1) {
                prop_assert!(e.addrs().len() <= MAX_ADDRS);
                if e.state != PeerState::Absent {
                    prop_assert!(e.slot_offset + e.slot_size <= group.size());
                    prop_assert!(e.slot_offset >= 2 << 20);
                }
            }
            if let Ok(hdr) = HostHdr::read(&window) {
                let _ = CallTable::read(&window, &hdr);
            }
        }
        v.slot.store(0, 0);
    }
}
