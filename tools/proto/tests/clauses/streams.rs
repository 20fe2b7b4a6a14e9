// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two ends of a stream against positions in an endless pattern, with the bytes
//! really moved, rings allocated, grown, given back and reused.

use std::cell::RefCell;

use fgdp_proto::proto::grant::{Accepted, FramePool, Unit};
use fgdp_proto::proto::mem::View;
use fgdp_proto::proto::stream::{Conn, Refused, Ring};
use fgdp_proto::proto::wire::{conn_entry, Kind, Msg, EXTENT_FRAMES, FRAME_SHIFT};
use proptest::prelude::*;

use crate::memory::{accepted, attach, first_extent, slot_base, view, Group, Slot};

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(u32),
    Read(u32),
    Ring(u32),
    Reap,
    ReleaseIdle,
    ArmData,
    ArmLow(u32),
    ArmSpace(u32),
    Fin,
    Reset,
    ShutRx,
    Done,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop_oneof![1u32..64, 1u32..20_000, 1u32..200_000];
    prop_oneof![
        12 => bytes().prop_map(Act::Write),
        12 => bytes().prop_map(Act::Read),
        4 => (2u32..7).prop_map(|o| Act::Ring(1 << o)),
        3 => Just(Act::Reap),
        2 => Just(Act::ReleaseIdle),
        4 => Just(Act::ArmData),
        2 => bytes().prop_map(Act::ArmLow),
        4 => bytes().prop_map(Act::ArmSpace),
        1 => prop::bool::weighted(0.1).prop_map(|y| if y { Act::Fin } else { Act::Reap }),
        1 => prop::bool::weighted(0.05).prop_map(|y| if y { Act::Reset } else { Act::Reap }),
        1 => prop::bool::weighted(0.05).prop_map(|y| if y { Act::ShutRx } else { Act::Reap }),
        2 => Just(Act::Done),
    ]
}

/// The byte at a position of the stream that member `n` sends.
fn pattern(n: u32, pos: u64) -> u8 {
    let x = pos.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(n) << 13);
    (x >> 40) as u8 ^ x as u8
}

/// One end, and what it knows for itself.
struct End<'a> {
    n: u32,
    conn: Conn,
    v: View<'a, Slot, Group>,
    accepted: Accepted,
    pool: FramePool<Vec<Unit>>,
    sent: u64,
    read: u64,
    fin: bool,
    rst: bool,
    shut: bool,
    /// Sleeps until that many bytes in all were sent to it.
    sleeps_for: Option<u64>,
    /// Sleeps until so many bytes of its own were read.
    sleeps_for_space: Option<u64>,
    /// READYs that one arm may still cause.
    data_rings: u32,
    space_rings: u32,
}

struct World<'a> {
    group: &'a Group,
    bytes: &'a RefCell<Vec<u8>>,
    ends: [End<'a>; 2],
}

const POISON: u8 = 0xee;

impl World<'_> {
    fn free(&mut self, i: usize, ring: Ring) {
        let end = &mut self.ends[i];
        assert!(end.pool.free(ring.pfn, ring.frames), "ring freed twice");
        let start = ring.start() as usize;
        self.bytes.borrow_mut()[start..start + ring.bytes() as usize].fill(POISON);
    }

    /// The peer of `i` gets READY for data.
    fn ready_data(&mut self, i: usize, ready: bool, always: bool) {
        let sent = self.ends[i].sent;
        let peer = &mut self.ends[1 - i];
        if let Some(at) = peer.sleeps_for {
            assert!(ready || (sent < at && !always), "lost wake-up for data");
            if ready {
                peer.sleeps_for = None;
            }
        }
        if ready && !always {
            assert!(peer.data_rings > 0, "READY that nobody asked for");
            peer.data_rings -= 1;
        }
    }

    fn ready_space(&mut self, i: usize, ready: bool, always: bool) {
        let read = self.ends[i].read;
        let peer = &mut self.ends[1 - i];
        if let Some(at) = peer.sleeps_for_space {
            assert!(ready || (read < at && !always), "lost wake-up for space");
            if ready {
                peer.sleeps_for_space = None;
            }
        }
        if ready && !always {
            assert!(peer.space_rings > 0, "READY that nobody asked for");
            peer.space_rings -= 1;
        }
    }

    fn act(&mut self, i: usize, act: Act) {
        let bytes = self.bytes;
        let peer_gone = self.ends[1 - i].conn.done_sent();
        let peer_rst = self.ends[1 - i].rst;
        let end = &mut self.ends[i];
        let v = end.v;
        match act {
            Act::Write(n) => {
                let space = end.conn.tx_space(&v).unwrap();
                assert!(space == 0 || !(end.fin || end.rst));
                let n = n.min(space);
                let spans = end.conn.tx_spans(&v, 0, n);
                assert_eq!(spans.bytes(), n);
                let mut pos = end.sent;
                for span in &spans {
                    let at = (span.off + end.v.slot_base) as usize;
                    for b in &mut bytes.borrow_mut()[at..at + span.len as usize] {
                        *b = pattern(end.n, pos);
                        pos += 1;
                    }
                }
                end.sent = pos;
                let ready = end.conn.tx_publish(&v, n).unwrap().ready;
                if n != 0 && !peer_gone {
                    self.ready_data(i, ready, false);
                }
            }
            Act::Read(n) => {
                let avail = end.conn.rx_avail(&v, &end.accepted).unwrap();
                let n = n.min(avail);
                let spans = end.conn.rx_spans(0, n);
                assert_eq!(spans.bytes(), n);
                let mut pos = end.read;
                for span in &spans {
                    let at = span.off as usize;
                    for &b in &bytes.borrow()[at..at + span.len as usize] {
                        assert_eq!(b, pattern(3 - end.n, pos), "at {pos}");
                        pos += 1;
                    }
                }
                end.read = pos;
                let ready = end.conn.rx_consume(&v, n).unwrap().ready;
                if n != 0 && !peer_gone {
                    self.ready_space(i, ready, false);
                }
                let peer = &self.ends[1 - i];
                let end = &self.ends[i];
                assert!(end.read <= peer.sent);
                if end.conn.rx_fin() {
                    assert!(peer.fin);
                    let left = end.conn.rx_spans(0, u32::MAX).bytes();
                    // After DONE what was not read is void.
                    if !end.rst && !end.conn.rx_reset() && !end.conn.done_sent() {
                        assert_eq!(end.read + u64::from(left), peer.sent, "bytes behind FIN");
                    }
                }
            }
            Act::Ring(frames) => {
                if end.fin || end.rst || end.conn.done_seen() {
                    return;
                }
                let Ok(pfn) = end.pool.alloc(3 - end.n, frames) else {
                    return;
                };
                let pending = end.conn.tx_move_pending();
                let ring = Ring { pfn, frames };
                match end.conn.set_tx_ring(&v, ring) {
                    Ok(()) => assert!(!pending && end.conn.tx_ring() == Some(ring)),
                    Err(why) => {
                        assert!(pending && why == Refused::Pending);
                        assert!(end.pool.free(pfn, frames));
                    }
                }
            }
            Act::Reap => {
                if let Some(ring) = end.conn.reap_tx_ring(&v).unwrap() {
                    self.free(i, ring);
                }
            }
            Act::ReleaseIdle => {
                if let Some(ring) = end.conn.release_tx_ring(&v).unwrap() {
                    assert_eq!(self.ends[1 - i].read, self.ends[i].sent);
                    self.free(i, ring);
                }
            }
            Act::ArmData | Act::ArmLow(_) => {
                if end.conn.done_sent() {
                    return;
                }
                let avail = end.conn.rx_avail(&v, &end.accepted).unwrap();
                let seen = end.read + u64::from(avail);
                let (some, at) = match act {
                    Act::ArmLow(low) => {
                        let low = low.min(16 << 10);
                        let at = (end.read + u64::from(low)).max(seen + 1);
                        (end.conn.arm_data_low(&v, low).unwrap(), at)
                    }
                    _ => (end.conn.arm_data_seen(&v).unwrap(), seen + 1),
                };
                // Nothing happened between looking and arming.
                assert!(!some);
                end.sleeps_for = Some(at);
                end.data_rings = 1;
            }
            Act::ArmSpace(want) => {
                if end.conn.done_sent() || end.fin || end.rst {
                    return;
                }
                let space = end.conn.tx_space(&v).unwrap();
                let Some(ring) = end.conn.tx_ring() else {
                    assert!(end.conn.arm_space(&v, want).unwrap());
                    return;
                };
                let want = want.clamp(1, ring.bytes());
                let some = end.conn.arm_space(&v, want).unwrap();
                if !end.conn.rx_reset() {
                    assert_eq!(some, space >= want);
                }
                end.space_rings = 1;
                end.sleeps_for_space = None;
                if !some {
                    let missing = u64::from(want - space);
                    let unread = end.conn.tx_unacked(&v).unwrap();
                    let before = u64::from(unread).saturating_sub(u64::from(ring.bytes() - space));
                    end.sleeps_for_space = Some(end.sent - u64::from(unread) + before + missing);
                }
            }
            Act::Fin => {
                let first = !end.fin;
                end.fin = true;
                let ready = end.conn.tx_fin(&v).ready;
                assert_eq!(ready, first && !end.conn.done_seen());
                if ready {
                    self.ready_data(i, ready, true);
                }
            }
            Act::Reset => {
                let first = !end.rst;
                end.rst = true;
                let ready = end.conn.tx_reset(&v).ready;
                assert_eq!(ready, first && !end.conn.done_seen());
                if ready {
                    self.ready_data(i, ready, true);
                }
            }
            Act::ShutRx => {
                let first = !end.shut;
                end.shut = true;
                let ready = end.conn.shut_rx(&v).ready;
                assert_eq!(ready, first && !end.conn.done_seen());
                if ready {
                    self.ready_space(i, ready, true);
                }
            }
            Act::Done => {
                if end.conn.done_sent() {
                    return;
                }
                let avail = end.conn.rx_avail(&v, &end.accepted).unwrap();
                let before = (end.fin, end.rst, end.shut);
                let Some(msg) = end.conn.poll_done(&v).unwrap() else {
                    return;
                };
                let (n, read, sent) = (end.n, end.read, end.sent);
                let peer = &mut self.ends[1 - i];
                assert_eq!(
                    msg,
                    Msg::Done {
                        conn: peer.conn.own_id()
                    }
                );
                let (fin, rst, shut) = before;
                let peer_closed = peer.fin && avail == 0 && read == peer.sent;
                assert!(rst || peer_rst || shut || peer_closed, "unread bytes");
                let told = fin && (peer.read == sent || peer.shut || peer.conn.done_sent());
                assert!(rst || peer_rst || told, "unsent bytes");
                peer.conn.peer_done().unwrap();
                peer.sleeps_for = None;
                peer.sleeps_for_space = None;
                // This end looks at the peer's entry no more: it may become anything.
                let entry = slot_base(3 - n) + conn_entry(peer.conn.own_id());
                for word in 0..32 {
                    self.group.poke(entry + word * 4, 0xffff_fff7);
                }
                for ring in self.ends[1 - i].conn.take_tx_rings().into_iter().flatten() {
                    self.free(1 - i, ring);
                }
            }
        }
    }
}

fn pool(n: u32) -> FramePool<Vec<Unit>> {
    let frames = u64::from(3 * EXTENT_FRAMES);
    let mut pool = FramePool::new(vec![Unit::default(); 3], first_extent(n), frames);
    let extent = pool.offer(3 - n, 3).unwrap();
    assert!(pool.accepted(3 - n, extent.id));
    pool
}

/// `roll` times 4 MiB go through each direction before the test, so that the
/// positions wrap in it.
fn run(roll: u32, acts: &[(bool, Act)]) {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    let bytes = RefCell::new(vec![0; slot_base(3) as usize]);
    let ends = [1u32, 2].map(|n| {
        let v = view(&slots[n as usize - 1], &group, 3 - n);
        let conn = Conn::new((n << 16) | n, Kind::Stream);
        conn.init_entry(&v);
        End {
            n,
            conn,
            v,
            accepted: accepted(3 - n),
            pool: pool(n),
            sent: 0,
            read: 0,
            fin: false,
            rst: false,
            shut: false,
            sleeps_for: Some(1),
            sleeps_for_space: None,
            data_rings: 1,
            space_rings: 0,
        }
    });
    let mut w = World {
        group: &group,
        bytes: &bytes,
        ends,
    };
    for i in 0..2 {
        let (v, peer) = (w.ends[i].v, w.ends[1 - i].conn.own_id());
        w.ends[i].conn.set_peer(&v, peer).unwrap();
    }
    if roll != 0 {
        pre_roll(&mut w, roll);
    }
    for &(second, act) in acts {
        w.act(usize::from(second), act);
    }
    settle(&mut w);
}

fn pre_roll(w: &mut World<'_>, roll: u32) {
    for i in 0..2 {
        w.act(i, Act::Ring(1024));
        for _ in 0..roll {
            let (v, pv) = (w.ends[i].v, w.ends[1 - i].v);
            let n = w.ends[i].conn.tx_space(&v).unwrap();
            assert_eq!(n, 4 << 20);
            let ready = w.ends[i].conn.tx_publish(&v, n).unwrap().ready;
            w.ends[i].sent += u64::from(n);
            w.ready_data(i, ready, false);
            let peer = &mut w.ends[1 - i];
            assert_eq!(peer.conn.rx_avail(&pv, &peer.accepted), Ok(n));
            let ready = peer.conn.rx_consume(&pv, n).unwrap().ready;
            peer.read += u64::from(n);
            w.ready_space(1 - i, ready, false);
        }
        w.act(i, Act::ReleaseIdle);
    }
}

/// Both ends close: in a bounded number of steps both entries are free and all
/// frames are back.
fn settle(w: &mut World<'_>) {
    for i in 0..2 {
        w.act(i, Act::Fin);
    }
    for _ in 0..3 {
        for i in 0..2 {
            if !w.ends[i].conn.done_sent() {
                w.act(i, Act::Read(u32::MAX));
            }
            w.act(i, Act::Done);
        }
    }
    for i in 0..2 {
        assert!(w.ends[i].conn.is_free(), "end {i} does not end");
        assert_eq!(w.ends[i].pool.in_use(3 - w.ends[i].n), 0, "frames leaked");
    }
}

proptest! {
    #![proptest_config(crate::cases(96))]

    #[test]
    fn s_4_to_s_16_stream_keeps_bytes_wakes_and_ends(
        acts in prop::collection::vec((any::<bool>(), act()), 1..250),
    ) {
        run(0, &acts);
    }

    #[test]
    fn s_8_positions_wrap(
        acts in prop::collection::vec((any::<bool>(), act()), 150..250),
    ) {
        run(1023, &acts);
    }
}

#[test]
fn s_4_a_ring_outside_the_own_slot_is_refused() {
    let group = Group::new(2);
    let slot = attach(&group, 1);
    let v = view(&slot, &group, 2);
    let mut conn = Conn::new(1 << 16, Kind::Stream);
    conn.init_entry(&v);
    let end = (slot_base(2) >> FRAME_SHIFT) as u32;
    for (pfn, frames, why) in [
        (end - 3, 4, Refused::Range),
        (end, 4, Refused::Range),
        (first_extent(1), 3, Refused::Size),
        (first_extent(1), 2, Refused::Size),
        (first_extent(1), 2048, Refused::Size),
        (u32::MAX, 1024, Refused::Range),
        (0, 4, Refused::Range),
    ] {
        assert_eq!(conn.set_tx_ring(&v, Ring { pfn, frames }), Err(why));
    }
    assert_eq!(
        conn.set_tx_ring(
            &v,
            Ring {
                pfn: end - 4,
                frames: 4
            }
        ),
        Ok(())
    );
}
