// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Grants: a stream of words of which some go by the ring and some as frames, in
//! any order of events, with all frames accounted for; and what breaks the channel.

use std::collections::BTreeSet;

use fgdp_proto::proto::grant::{Accepted, Call, Entry, FramePool, Ledger, Run, Unit};
use fgdp_proto::proto::mem::{MemMut, View};
use fgdp_proto::proto::stream::{Conn, Ring, Spans};
use fgdp_proto::proto::wire::*;
use proptest::prelude::*;

use crate::memory::{accepted, attach, first_extent, view, Group, Slot};

const ID: u32 = (1 << 16) | 3;
const POISON: u32 = 0xdead_beef;

/// The word at a place of the stream.
fn word(n: u64) -> u32 {
    (n as u32).wrapping_mul(0x9e37_79b1) | 1
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(u32),
    Grant(u32),
    /// The program writes to the n-th of its frames.
    Touch(usize),
    Unmap,
    Read(u32),
    Peek(u32, u32),
    /// The consumer takes the next grant, to read it later.
    Take,
    /// It gives the n-th back that it has.
    GiveBack(usize),
    Ring(u32),
    Reap,
    Close,
    Done,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1u32..6000).prop_map(Act::Write),
        6 => (1u32..4).prop_map(Act::Grant),
        2 => any::<usize>().prop_map(Act::Touch),
        1 => Just(Act::Unmap),
        9 => (1u32..12_000).prop_map(Act::Read),
        2 => (0u32..9000, 1u32..9000).prop_map(|(at, n)| Act::Peek(at, n)),
        5 => Just(Act::Take),
        3 => any::<usize>().prop_map(Act::GiveBack),
        3 => (2u32..6).prop_map(|o| Act::Ring(1 << o)),
        3 => Just(Act::Reap),
        1 => prop::bool::weighted(0.1).prop_map(|y| if y { Act::Close } else { Act::Reap }),
        2 => Just(Act::Done),
    ]
}

type Pool = FramePool<Vec<Unit>>;

struct World<'a> {
    group: &'a Group,
    tx: Conn,
    rx: Conn,
    vt: View<'a, Slot, Group>,
    vr: View<'a, Slot, Group>,
    accepted: Accepted,
    pool: Pool,
    ledger: Ledger<Vec<Entry>, Vec<Call>>,
    mapped: Vec<u32>,
    /// What the consumer took, and the word that it begins with.
    held: Vec<(u8, Run, u64)>,
    notices: BTreeSet<u32>,
    calls: u32,
    sent: u64,
    read: u64,
    closed: bool,
}

impl World<'_> {
    fn fill(&self, pfn: u32, from: u64) {
        for n in 0..1024 {
            self.group
                .poke((u64::from(pfn) << 12) + n * 4, word(from + n));
        }
    }

    /// Frames that nobody uses any more would show whoever reads them.
    fn poison(&self, pfn: u32) {
        for n in (0..1024).step_by(97) {
            self.group.poke((u64::from(pfn) << 12) + n * 4, POISON);
        }
    }

    fn in_use(&self) -> u64 {
        self.pool.in_use(2)
    }

    fn collect(&mut self) {
        for place in self.tx.take_released().iter() {
            let run = self.ledger.take(place).expect("released twice");
            for pfn in run.pfn..run.pfn + run.frames {
                let before = self.in_use();
                assert!(self.pool.release(pfn, 1), "released and not granted");
                if self.in_use() < before {
                    self.poison(pfn);
                }
            }
        }
        while let Some(notice) = self.ledger.notice() {
            for n in notice.first..=notice.last {
                assert!(self.notices.insert(n), "told twice");
            }
        }
    }

    fn grant(&mut self, frames: u32) {
        let frames = frames.next_power_of_two();
        if self.tx.tx_grant_frame().is_none() {
            let pfn = self.pool.alloc(2, 1).unwrap();
            assert!(self.tx.set_tx_grant_frame(&self.vt, pfn));
        }
        if !self.tx.tx_can_grant() || !self.ledger.reserve() {
            return;
        }
        let Ok(pfn) = self.pool.alloc(2, frames) else {
            self.ledger.unreserve();
            return;
        };
        assert!(self.pool.map(pfn, frames));
        assert!(self.pool.grant(2, pfn, frames));
        for n in 0..frames {
            self.fill(pfn + n, self.sent + u64::from(n) * 1024);
            self.mapped.push(pfn + n);
        }
        let run = Run { pfn, frames };
        let (place, notify) = self.tx.tx_grant(&self.vt, run).unwrap().unwrap();
        assert!(notify.ready, "READY follows each grant");
        let call = self.ledger.begin();
        self.calls += 1;
        assert!(self.ledger.put(place, run, call));
        assert!(!self.ledger.put(place, run, call), "one place, two grants");
        self.ledger.end(call);
        self.sent += u64::from(frames) * 1024;
    }

    fn write(&mut self, words: u32) {
        let space = self.tx.tx_space(&self.vt).unwrap() / 4 * 4;
        let spans = self.tx.tx_spans(&self.vt, 0, space.min(words * 4));
        let mut n = 0;
        for span in &spans {
            for off in (0..u64::from(span.len)).step_by(4) {
                self.vt.slot.store(span.off + off, word(self.sent + n));
                n += 1;
            }
        }
        let _ = self.tx.tx_publish(&self.vt, spans.bytes()).unwrap();
        self.sent += n;
    }

    fn check(&self, spans: &Spans, from: u64) {
        let mut n = from;
        for span in spans {
            for off in (0..u64::from(span.len)).step_by(4) {
                assert_eq!(self.group.peek(span.off + off), word(n), "word {n}");
                n += 1;
            }
        }
    }

    fn check_run(&self, run: Run, from: u64) {
        let start = u64::from(run.pfn) << 12;
        for n in 0..u64::from(run.frames) * 1024 {
            assert_eq!(self.group.peek(start + n * 4), word(from + n), "taken");
        }
    }

    fn take(&mut self) {
        let avail = self.avail();
        let before = self.rx.rx_before_grant();
        let Some(run) = self.rx.rx_next_grant() else {
            assert!(before <= avail);
            assert_eq!(self.rx.rx_take_grant(&self.vr), None);
            return;
        };
        assert_eq!(before, 0);
        let place = self.rx.rx_take_grant(&self.vr).unwrap();
        self.check_run(run, self.read);
        self.held.push((place, run, self.read));
        self.read += u64::from(run.frames) * 1024;
    }

    fn give_back(&mut self, n: usize) {
        let (place, run, from) = self.held.swap_remove(n);
        self.check_run(run, from);
        assert!(self.rx.rx_release(&self.vr, place).ready);
        assert!(!self.rx.rx_release(&self.vr, place).ready, "released twice");
    }

    fn avail(&mut self) -> u32 {
        let avail = self.rx.rx_avail(&self.vr, &self.accepted).unwrap();
        assert!(u64::from(avail / 4) <= self.sent - self.read);
        // What is not seen is behind the window.
        assert!(
            avail != 0 || self.sent == self.read,
            "the rest is never seen"
        );
        avail
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(n) if !self.closed => self.write(n),
            Act::Grant(n) if !self.closed => self.grant(n),
            Act::Write(_) | Act::Grant(_) => {
                assert!(!self.tx.tx_can_grant(), "grants behind FIN");
            }
            Act::Touch(n) if !self.mapped.is_empty() => {
                let at = n % self.mapped.len();
                let pfn = self.mapped[at];
                if !self.pool.is_granted(pfn) {
                    self.poison(pfn);
                } else if let Ok(fresh) = self.pool.alloc(2, 1) {
                    assert!(self.pool.map(fresh, 1));
                    assert!(self.pool.unmap(pfn, 1));
                    assert!(!self.pool.unmap(pfn, 1));
                    self.poison(fresh);
                    self.mapped[at] = fresh;
                }
            }
            Act::Unmap => {
                for pfn in std::mem::take(&mut self.mapped) {
                    assert!(
                        !self.pool.free(pfn, 1),
                        "a mapped frame is not the protocol's"
                    );
                    let before = self.in_use();
                    assert!(self.pool.unmap(pfn, 1));
                    if self.in_use() < before {
                        self.poison(pfn);
                    }
                }
            }
            Act::Read(n) => {
                let n = self.avail().min(n * 4);
                let spans = self.rx.rx_spans(0, n);
                assert!(spans.bytes() == n || spans.as_slice().len() == 4);
                self.check(&spans, self.read);
                let _ = self.rx.rx_consume(&self.vr, spans.bytes()).unwrap();
                self.read += u64::from(spans.bytes() / 4);
            }
            Act::Peek(at, n) => {
                let at = at.min(self.avail() / 4);
                let spans = self.rx.rx_spans(at * 4, n * 4);
                self.check(&spans, self.read + u64::from(at));
            }
            Act::Take => self.take(),
            Act::GiveBack(n) if !self.held.is_empty() => self.give_back(n % self.held.len()),
            Act::GiveBack(_) => {}
            Act::Ring(frames) => {
                if self.closed || self.tx.tx_move_pending() {
                    return;
                }
                if let Ok(pfn) = self.pool.alloc(2, frames) {
                    let ring = Ring { pfn, frames };
                    self.tx.set_tx_ring(&self.vt, ring).unwrap();
                }
            }
            Act::Reap => {
                if let Some(ring) = self.tx.reap_tx_ring(&self.vt).unwrap() {
                    assert!(self.pool.free(ring.pfn, ring.frames));
                }
                let _ = self.tx.tx_space(&self.vt).unwrap();
                self.collect();
            }
            Act::Close => {
                let _ = self.tx.tx_fin(&self.vt);
                self.closed = true;
            }
            Act::Done => {
                if self.tx.poll_done(&self.vt).unwrap().is_some() {
                    assert_eq!(self.read, self.sent, "DONE with bytes on their way");
                    assert!(!self.tx.tx_is_granting());
                }
            }
            Act::Touch(_) => {}
        }
    }

    /// Everything is read, closed and unmapped: no frame is missing.
    fn finish(&mut self) {
        while self.avail() != 0 {
            self.act(Act::Read(100_000));
        }
        assert_eq!(self.read, self.sent);
        while !self.held.is_empty() {
            assert!(self.tx.poll_done(&self.vt).unwrap().is_none());
            self.give_back(0);
        }
        self.act(Act::Reap);
        self.act(Act::Unmap);
        self.act(Act::Close);
        let _ = self.rx.shut_rx(&self.vr);
        let _ = self.rx.tx_fin(&self.vr);
        let _ = self.avail();
        assert!(self.rx.poll_done(&self.vr).unwrap().is_some());
        self.tx.peer_done().unwrap();
        self.collect();
        for ring in self.tx.take_tx_rings().into_iter().flatten() {
            assert!(self.pool.free(ring.pfn, ring.frames));
        }
        if let Some(pfn) = self.tx.take_tx_grant_frame() {
            assert!(self.pool.free(pfn, 1));
        }
        assert_eq!(self.in_use(), 0, "frames are missing");
        assert_eq!(self.notices.len(), self.calls as usize, "calls not told");
        assert_eq!(self.ledger.bytes(), 0);
    }
}

fn run(acts: &[Act]) {
    let group = Group::new(2);
    let (s1, s2) = (attach(&group, 1), attach(&group, 2));
    let units = 3;
    let mut pool = FramePool::new(vec![Unit::default(); units], first_extent(1), u64::MAX);
    let extent = pool.offer(2, 3).unwrap();
    assert!(pool.accepted(2, extent.id));
    let ledger = Ledger::new(vec![Entry::default(); 256], vec![Call::default(); 8]);
    let mut w = World {
        group: &group,
        tx: Conn::new(ID, Kind::Stream),
        rx: Conn::new(ID, Kind::Stream),
        vt: view(&s1, &group, 2),
        vr: view(&s2, &group, 1),
        accepted: accepted(1),
        pool,
        ledger,
        mapped: Vec::new(),
        held: Vec::new(),
        notices: BTreeSet::new(),
        calls: 0,
        sent: 0,
        read: 0,
        closed: false,
    };
    w.tx.init_entry(&w.vt);
    w.rx.init_entry(&w.vr);
    w.tx.set_peer(&w.vt, ID).unwrap();
    w.rx.set_peer(&w.vr, ID).unwrap();
    for &act in acts {
        w.act(act);
    }
    w.finish();
}

proptest! {
    #![proptest_config(crate::cases(192))]

    #[test]
    fn z_4_words_of_ring_and_grants_keep_their_order_and_frames_come_back(
        acts in prop::collection::vec(act(), 1..160)
    ) {
        run(&acts);
    }
}

#[test]
fn z_4_more_grants_than_a_consumer_fetches_at_once() {
    let mut acts = vec![Act::Ring(4)];
    for n in 0..40 {
        acts.extend([Act::Grant(1), Act::Write(n % 5 + 1), Act::Grant(2)]);
    }
    acts.extend([Act::Read(1500); 30]);
    acts.extend([Act::Reap; 2]);
    acts.extend([Act::Grant(3); 30]);
    run(&acts);
}

#[test]
fn z_6_grants_that_are_held_go_back_in_any_order() {
    let mut acts = vec![Act::Ring(4)];
    for n in 0..40 {
        acts.extend([
            Act::Grant(1),
            Act::Write(n % 3),
            Act::Take,
            Act::Read(n % 3),
        ]);
    }
    // What is left is given back at the end.
    acts.extend((0..30).map(|n| Act::GiveBack(n * 7)));
    acts.extend([Act::Reap, Act::Unmap, Act::Grant(3), Act::Take]);
    run(&acts);
}

#[test]
fn z_3_counts_wrap() {
    let mut acts = vec![Act::Ring(4)];
    for _ in 0..600 {
        acts.extend([
            Act::Grant(1),
            Act::Write(1),
            Act::Read(3000),
            Act::Reap,
            Act::Unmap,
        ]);
    }
    run(&acts);
}

/// A consumer, and words of the producer that the test writes.
struct Victim {
    group: Group,
    own: Slot,
    conn: Conn,
    accepted: Accepted,
}

const RECORDS: u32 = 64;

impl Victim {
    fn new() -> Self {
        let group = Group::new(2);
        let (peer, own) = (attach(&group, 1), attach(&group, 2));
        peer.store(conn_entry(ID) + conn::ID, ID);
        let mut conn = Conn::new(ID, Kind::Stream);
        conn.init_entry(&view(&own, &group, 1));
        conn.set_peer(&view(&own, &group, 1), ID).unwrap();
        let v = Victim {
            group,
            own,
            conn,
            accepted: accepted(1),
        };
        v.set(conn::RING_PFN, first_extent(1));
        v.set(conn::RING_FRAMES, 4);
        v.set(conn::RING_SERIAL, 1);
        v.set(conn::TAIL, 100);
        v.set(conn::GRANT_PFN, first_extent(1) + RECORDS);
        v
    }

    fn set(&self, off: u64, value: u32) {
        let peer = self.group.slot(1);
        peer.store(conn_entry(ID) + off, value);
    }

    fn count(&self, grants: u32) {
        self.set(conn::RING_SERIAL, 1 | (grants << GRANTS_SHIFT));
    }

    fn record(&self, place: u32, words: [u32; 4]) {
        let at = u64::from(first_extent(1) + RECORDS) << FRAME_SHIFT;
        for (n, word) in (0u64..).zip(words) {
            let off = at + u64::from(place) * GRANT_SIZE + n * 4;
            self.group.poke(off, word);
        }
    }

    fn avail(&mut self) -> Result<u32, Reason> {
        let v = view(&self.own, &self.group, 1);
        self.conn.rx_avail(&v, &self.accepted)
    }
}

/// What one record leads to, for a victim that can read 100 bytes of the ring.
fn one(words: [u32; 4]) -> Result<u32, Reason> {
    let mut v = Victim::new();
    v.record(0, words);
    v.count(1);
    let result = v.avail();
    assert_eq!(v.conn.broken(), result.err());
    result
}

#[test]
fn z_5_a_grant_is_inside_the_extents_and_the_ring() {
    let pfn = first_extent(1) + 8;
    let bad = Err(Reason::BadGrant);
    assert_eq!(one([100, pfn, 1, 0]), Ok(100 + 4096));
    assert_eq!(one([0, pfn, 2, 0]), Ok(100 + 8192));
    assert_eq!(one([100, pfn, GRANT_MAX_FRAMES, 0]), Ok(100 + (4 << 20)));
    assert_eq!(one([100, pfn, GRANT_MAX_FRAMES + 1, 0]), bad);
    assert_eq!(one([100, pfn, 0, 0]), bad);
    assert_eq!(one([100, pfn, 1, 1]), bad, "unknown flag");
    assert_eq!(one([100, first_extent(1) - 1, 1, 0]), bad);
    assert_eq!(
        one([100, first_extent(1) + 3 * EXTENT_FRAMES - 1, 2, 0]),
        bad
    );
    assert_eq!(one([100, first_extent(2), 1, 0]), bad, "of another member");
    assert_eq!(one([100, u32::MAX, 1, 0]), bad);
    // The tail that was fetched may be older than the grant, but not than the ring.
    assert_eq!(one([16384, pfn, 1, 0]), Ok(16384 + 4096));
    assert_eq!(one([16385, pfn, 1, 0]), bad);
    assert_eq!(one([u32::MAX, pfn, 1, 0]), bad);
}

#[test]
fn z_5_grants_come_in_order_and_not_behind_the_end() {
    let pfn = first_extent(1) + 8;
    let bad = Err(Reason::BadGrant);
    let mut v = Victim::new();
    v.record(0, [60, pfn, 1, 0]);
    v.record(1, [59, pfn + 1, 1, 0]);
    v.count(2);
    assert_eq!(v.avail(), bad, "before the last one");

    let mut v = Victim::new();
    v.record(0, [100, pfn, 1, 0]);
    v.set(conn::TX_FLAGS, TX_FIN);
    assert_eq!(v.avail(), Ok(100));
    v.count(1);
    assert_eq!(v.avail(), bad, "behind FIN");

    let mut v = Victim::new();
    v.record(0, [101, pfn, 1, 0]);
    v.count(1);
    v.set(conn::TX_FLAGS, TX_FIN);
    assert_eq!(v.avail(), bad, "the tail was the last one");

    let mut v = Victim::new();
    v.count(257);
    assert_eq!(v.avail(), bad, "more than there are places");
    let mut v = Victim::new();
    v.count(u32::MAX >> GRANTS_SHIFT);
    assert_eq!(v.avail(), bad, "the count goes back");

    let mut v = Victim::new();
    v.set(conn::GRANT_PFN, first_extent(2));
    v.record(0, [100, pfn, 1, 0]);
    v.count(1);
    assert_eq!(v.avail(), bad, "records outside the extents");

    let mut v = Victim::new();
    v.record(0, [200, pfn, 1, 0]);
    v.count(1);
    assert_eq!(v.avail(), Ok(200 + 4096));
    assert_eq!(
        v.avail(),
        Err(Reason::BadPosition),
        "the tail stays behind the grant"
    );
}

#[test]
fn z_5_records_have_none() {
    let group = Group::new(2);
    let (peer, own) = (attach(&group, 1), attach(&group, 2));
    peer.store(conn_entry(ID) + conn::ID, ID);
    let mut conn = Conn::new(ID, Kind::SeqPacket);
    let v = view(&own, &group, 1);
    conn.init_entry(&v);
    conn.set_peer(&v, ID).unwrap();
    assert!(!conn.set_tx_grant_frame(&v, first_extent(2)));
    peer.store(conn_entry(ID) + conn::RING_SERIAL, 1 << GRANTS_SHIFT);
    assert_eq!(conn.rx_avail(&v, &accepted(1)), Err(Reason::BadGrant));
}

#[test]
fn z_6_only_what_was_granted_is_released_and_once() {
    let given = |n: u32, change: &dyn Fn(&Slot)| {
        let group = Group::new(2);
        let (own, peer) = (attach(&group, 1), attach(&group, 2));
        peer.store(conn_entry(ID) + conn::ID, ID);
        let v = view(&own, &group, 2);
        let mut conn = Conn::new(ID, Kind::Stream);
        conn.init_entry(&v);
        conn.set_peer(&v, ID).unwrap();
        assert!(conn.set_tx_grant_frame(&v, first_extent(1)));
        for frame in 1..=n {
            let pfn = first_extent(1) + frame;
            assert!(conn.tx_grant(&v, Run { pfn, frames: 1 }).unwrap().is_some());
        }
        change(&peer);
        conn.tx_space(&v)?;
        let first = conn.take_released();
        conn.tx_space(&v)?;
        assert!(conn.take_released().is_empty(), "returned twice");
        Ok((first.iter().collect::<Vec<_>>(), conn.tx_is_granting()))
    };
    let word = |n: u64| conn_entry(ID) + conn::RELEASED + n * 4;
    let bad = Err(Reason::BadGrant);
    assert_eq!(given(2, &|_| {}), Ok((vec![], true)));
    assert_eq!(given(2, &|p| p.store(word(0), 2)), Ok((vec![1], true)));
    assert_eq!(given(2, &|p| p.store(word(0), 3)), Ok((vec![0, 1], false)));
    assert_eq!(given(2, &|p| p.store(word(0), 4)), bad);
    assert_eq!(given(2, &|p| p.store(word(7), 1 << 31)), bad);
    assert_eq!(
        given(256, &|p| p.store(word(7), 1 << 31)),
        Ok((vec![255], true))
    );
}

#[test]
fn z_2_no_more_than_there_are_places() {
    let group = Group::new(2);
    let (own, peer) = (attach(&group, 1), attach(&group, 2));
    peer.store(conn_entry(ID) + conn::ID, ID);
    let v = view(&own, &group, 2);
    let mut conn = Conn::new(ID, Kind::Stream);
    conn.init_entry(&v);
    conn.set_peer(&v, ID).unwrap();
    let run = Run {
        pfn: first_extent(1) + 1,
        frames: 1,
    };
    assert_eq!(conn.tx_grant(&v, run), Ok(None), "no frame for records");
    assert!(!conn.set_tx_grant_frame(&v, first_extent(2)));
    assert!(conn.set_tx_grant_frame(&v, first_extent(1)));
    for frames in [0, GRANT_MAX_FRAMES + 1] {
        assert_eq!(conn.tx_grant(&v, Run { frames, ..run }), Ok(None));
    }
    let pfn = first_extent(2);
    assert_eq!(conn.tx_grant(&v, Run { pfn, ..run }), Ok(None));
    for _ in 0..GRANTS {
        assert!(conn.tx_grant(&v, run).unwrap().is_some());
    }
    assert!(!conn.tx_can_grant());
    assert_eq!(conn.tx_grant(&v, run), Ok(None));
    // A place is taken again when its release was seen to.
    peer.store(conn_entry(ID) + conn::RELEASED, 1);
    conn.tx_space(&v).unwrap();
    assert!(!conn.tx_can_grant());
    assert_eq!(conn.take_released().iter().collect::<Vec<_>>(), [0]);
    assert!(conn.tx_can_grant());
}
