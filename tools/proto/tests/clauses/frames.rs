// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The life of frames that programs map, against a map of frames; and what is told of
//! the calls that granted them.

use std::collections::BTreeMap;

use fgdp_proto::proto::grant::{bitmap, Call, Entry, FramePool, Ledger, Notice, Run, Unit};
use fgdp_proto::proto::wire::EXTENT_FRAMES;
use proptest::prelude::*;

const FIRST: u32 = 5 * EXTENT_FRAMES;
const UNITS: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    Alloc(u32),
    Map(u32, u32),
    Grant(u32, u32, u32),
    Release(u32, u32),
    Unmap(u32, u32),
    Free(u32),
    Reclaim(u32),
    Offer(u32),
}

/// Runs of up to `most` frames, among the first `frames`: few, so that they meet.
fn op(frames: u32, most: u32) -> impl Strategy<Value = Op> {
    let at = move || 0..frames;
    let n = move || 1..=most;
    prop_oneof![
        4 => (1u32..3).prop_map(Op::Alloc),
        6 => (at(), n()).prop_map(|(a, n)| Op::Map(a, n)),
        8 => (1u32..3, at(), n()).prop_map(|(p, a, n)| Op::Grant(p, a, n)),
        8 => (at(), n()).prop_map(|(a, n)| Op::Release(a, n)),
        5 => (at(), n()).prop_map(|(a, n)| Op::Unmap(a, n)),
        3 => at().prop_map(Op::Free),
        1 => (1u32..3).prop_map(Op::Reclaim),
        1 => (1u32..3).prop_map(Op::Offer),
    ]
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Frame {
    peer: u32,
    mapped: bool,
    grants: u32,
}

/// Frames in use.
type Model = BTreeMap<u32, Frame>;

fn offer(pool: &mut FramePool<Vec<Unit>>, peer: u32) {
    if let Some(extent) = pool.offer(peer, 1) {
        assert!(pool.accepted(peer, extent.id));
    }
}

/// Does `ops`, of which each allocation is of `size` frames.
fn run(ops: &[Op], size: u32) -> Result<(), TestCaseError> {
    let mut pool = FramePool::new(vec![Unit::default(); UNITS as usize], FIRST, u64::MAX);
    let mut m = Model::new();
    for peer in 1..3 {
        offer(&mut pool, peer);
    }
    let all = |m: &Model, at: u32, n: u32, f: &dyn Fn(&Frame) -> bool| {
        (at..at + n).all(|p| m.get(&(FIRST + p)).is_some_and(f))
    };
    for op in ops {
        match *op {
            Op::Alloc(peer) => {
                if let Ok(pfn) = pool.alloc(peer, size) {
                    for frame in pfn..pfn + size {
                        let new = Frame {
                            peer,
                            ..Frame::default()
                        };
                        prop_assert_eq!(m.insert(frame, new), None, "in use");
                    }
                }
            }
            Op::Map(at, n) => {
                let ok = all(&m, at, n, &|f| !f.mapped && f.grants == 0);
                prop_assert_eq!(pool.map(FIRST + at, n), ok);
                let frames = m.range_mut(FIRST + at..FIRST + at + n);
                frames.filter(|_| ok).for_each(|(_, f)| f.mapped = true);
            }
            Op::Grant(peer, at, n) => {
                let ok = all(&m, at, n, &|f| f.mapped && f.peer == peer);
                prop_assert_eq!(pool.grant(peer, FIRST + at, n), ok);
                let frames = m.range_mut(FIRST + at..FIRST + at + n);
                frames.filter(|_| ok).for_each(|(_, f)| f.grants += 1);
            }
            Op::Release(at, n) => {
                let ok = all(&m, at, n, &|f| f.grants > 0);
                prop_assert_eq!(pool.release(FIRST + at, n), ok);
                let frames = m.range_mut(FIRST + at..FIRST + at + n);
                frames.filter(|_| ok).for_each(|(_, f)| f.grants -= 1);
                let gone = |p: u32| (FIRST + at..FIRST + at + n).contains(&p);
                m.retain(|p, f| !ok || !gone(*p) || f.mapped || f.grants > 0);
            }
            Op::Unmap(at, n) => {
                let ok = all(&m, at, n, &|f| f.mapped);
                prop_assert_eq!(pool.unmap(FIRST + at, n), ok);
                let frames = m.range_mut(FIRST + at..FIRST + at + n);
                frames.filter(|_| ok).for_each(|(_, f)| f.mapped = false);
                let gone = |p: u32| (FIRST + at..FIRST + at + n).contains(&p);
                m.retain(|p, f| !ok || !gone(*p) || f.grants > 0);
            }
            Op::Free(at) => {
                let ok = all(&m, at, 1, &|f| !f.mapped && f.grants == 0);
                prop_assert_eq!(pool.free(FIRST + at, 1), ok);
                if ok {
                    m.remove(&(FIRST + at));
                }
            }
            Op::Reclaim(peer) => {
                pool.reclaim(peer);
                m.retain(|_, f| f.peer != peer || f.mapped);
                for f in m.values_mut().filter(|f| f.peer == peer) {
                    // Nobody's until it is unmapped.
                    (f.peer, f.grants) = (0, 0);
                }
            }
            Op::Offer(peer) => offer(&mut pool, peer),
        }
        for (&pfn, frame) in &m {
            prop_assert_eq!(pool.is_granted(pfn), frame.grants > 0);
        }
        let granted = m
            .iter()
            .find(|(_, f)| f.grants > 0)
            .map(|(pfn, _)| pfn - FIRST);
        let all = UNITS * EXTENT_FRAMES;
        prop_assert_eq!(pool.not_granted(FIRST, all), granted.unwrap_or(all));
        for peer in 1..3 {
            let of = m.values().filter(|f| f.peer == peer);
            prop_assert_eq!(
                pool.mapped(peer),
                of.clone().filter(|f| f.mapped).count() as u64
            );
            prop_assert_eq!(pool.in_use(peer), of.count() as u64);
        }
    }
    // Everything comes back in the end.
    for (&pfn, frame) in &m {
        for _ in 0..frame.grants {
            prop_assert!(pool.release(pfn, 1));
        }
        if frame.mapped {
            prop_assert!(pool.unmap(pfn, 1));
        } else if frame.grants == 0 {
            prop_assert!(pool.free(pfn, 1));
        }
    }
    for peer in 1..3 {
        prop_assert_eq!(pool.in_use(peer), 0);
        pool.reclaim(peer);
    }
    prop_assert!(pool.offer(1, UNITS).is_some(), "a unit is not free");
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases(512))]

    #[test]
    fn z_10_no_frame_is_free_and_granted_or_returned_twice(ops in prop::collection::vec(op(12, 4), 1..200)) {
        run(&ops, 4)?;
    }

    #[test]
    fn z_11_each_call_is_told_once(
        steps in prop::collection::vec((0u8..5, any::<u8>()), 1..300)
    ) {
        let mut ledger = Ledger::new(vec![Entry::default(); 256], vec![Call::default(); 8]);
        // Calls that run, grants that are out, and what is told.
        let (mut open, mut out, mut told) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut granted = BTreeMap::new();
        let mut calls = 0u32;
        for (step, n) in steps {
            match step {
                0 if ledger.reserve() => {
                    prop_assert_eq!(ledger.begin(), calls);
                    open.push(calls);
                    granted.insert(calls, 0u32);
                    calls += 1;
                }
                1 if !open.is_empty() => {
                    let call = open[usize::from(n) % open.len()];
                    let run = Run { pfn: u32::from(n), frames: 1 };
                    let free = !out.contains_key(&n);
                    prop_assert_eq!(ledger.put(n, run, call), free);
                    if free {
                        out.insert(n, call);
                        *granted.get_mut(&call).unwrap() += 1;
                    }
                }
                2 if !open.is_empty() => {
                    let call = open.swap_remove(usize::from(n) % open.len());
                    ledger.end(call);
                }
                3 => {
                    let place = out.keys().next().copied().unwrap_or(n);
                    let run = ledger.take(place);
                    prop_assert_eq!(run.is_some(), out.remove(&place).is_some());
                }
                4 => {
                    prop_assert_eq!(ledger.places().iter().count(), out.len());
                    if let Some(Notice { first, last, copied }) = ledger.notice() {
                        for call in first..=last {
                            prop_assert_eq!(told.insert(call, copied), None, "told twice");
                            prop_assert!(!open.contains(&call) && !out.values().any(|c| *c == call));
                            prop_assert_eq!(copied, granted[&call] == 0);
                        }
                    }
                }
                _ => {}
            }
        }
        for call in open {
            ledger.end(call);
        }
        for place in out.into_keys() {
            prop_assert!(ledger.take(place).is_some());
        }
        while let Some(notice) = ledger.notice() {
            for call in notice.first..=notice.last {
                prop_assert_eq!(told.insert(call, notice.copied), None);
            }
        }
        prop_assert_eq!(told.len(), calls as usize);
        prop_assert_eq!(ledger.bytes(), 0);
    }
}

proptest! {
    #[test]
    fn z_10_runs_of_bits_are_those_bits(map in any::<[u64; 4]>(), from in 0usize..260, len in 0usize..260) {
        let run = from..from + len;
        let bits = |map: &[u64; 4]| (0..256).map(|n| (map[n / 64] >> (n % 64)) & 1 != 0).collect::<Vec<_>>();
        let before = bits(&map);
        let inside = before.get(run.clone());
        prop_assert_eq!(bitmap::all(&map, run.clone()), len == 0 || inside.is_some_and(|b| b.iter().all(|b| *b)));
        prop_assert_eq!(bitmap::none(&map, run.clone()), len == 0 || inside.is_some_and(|b| b.iter().all(|b| !*b)));
        let (mut flipped, mut cleared) = (map, map);
        bitmap::flip(&mut flipped, run.clone());
        bitmap::clear(&mut cleared, run.clone());
        for (n, bit) in before.into_iter().enumerate() {
            prop_assert_eq!(bits(&flipped)[n], bit ^ run.contains(&n));
            prop_assert_eq!(bits(&cleared)[n], bit && !run.contains(&n));
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(48))]

    /// Runs that cross the words of bitmaps, and the units.
    #[test]
    fn z_10_long_runs_do_not_differ(ops in prop::collection::vec(op(1100, 700), 1..60)) {
        run(&ops, 256)?;
    }
}

#[test]
fn z_11_neighbours_are_told_as_one_and_the_limit_holds() {
    let mut ledger = Ledger::new(vec![Entry::default(); 256], vec![Call::default(); 2]);
    for _ in 0..5 {
        assert!(ledger.reserve());
        let call = ledger.begin();
        ledger.end(call);
    }
    assert!(ledger.reserve());
    assert!(!ledger.reserve(), "what is not told takes room");
    let five = Notice {
        first: 0,
        last: 4,
        copied: true,
    };
    assert_eq!(ledger.notice(), Some(five));
    assert!(ledger.reserve());
    ledger.unreserve();
    ledger.unreserve();
    assert_eq!(ledger.notice(), None);
    assert!(!ledger.has_notice());
}
