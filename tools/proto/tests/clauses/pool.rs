// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The frame pool against a map of frames.

use std::collections::BTreeMap;

use fgdp_proto::proto::grant::{FramePool, NoRun, Unit};
use fgdp_proto::proto::wire::EXTENT_FRAMES;
use proptest::prelude::*;

const FIRST: u32 = 7 * EXTENT_FRAMES;
const UNITS: u32 = 8;
/// Three units per peer.
const QUOTA: u64 = 3 * EXTENT_FRAMES as u64;

#[derive(Clone, Debug)]
enum Op {
    Alloc { peer: u32, order: u32 },
    Free(usize),
    FreeWrong { pfn: u32, order: u32 },
    Answer { yes: bool },
    Revoke(u32),
    Release(usize),
    Reclaim(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u32..4, 0u32..=11).prop_map(|(peer, order)| Op::Alloc { peer, order }),
        5 => any::<usize>().prop_map(Op::Free),
        1 => (FIRST - 9..FIRST + UNITS * EXTENT_FRAMES + 9, 0u32..=11)
            .prop_map(|(pfn, order)| Op::FreeWrong { pfn, order }),
        4 => prop::bool::weighted(0.8).prop_map(|yes| Op::Answer { yes }),
        1 => (1u32..4).prop_map(Op::Revoke),
        2 => any::<usize>().prop_map(Op::Release),
        1 => (1u32..4).prop_map(Op::Reclaim),
    ]
}

#[derive(Default)]
struct Model {
    /// Runs in use: first frame to peer and length.
    runs: BTreeMap<u32, (u32, u32)>,
    /// Extents by id: peer, first frame, length, offered, revoked.
    extents: BTreeMap<u32, (u32, u32, u32, bool, bool)>,
}

impl Model {
    fn busy(&self, pfn: u32, frames: u32) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|(&p, &(_, n))| p < pfn + frames && pfn < p + n)
    }
    fn lent(&self, peer: u32) -> u64 {
        let mine = self.extents.values().filter(|e| e.0 == peer);
        mine.map(|e| u64::from(e.2)).sum()
    }
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut pool = FramePool::new(vec![Unit::default(); UNITS as usize], FIRST, QUOTA);
    let mut m = Model::default();
    for op in ops {
        match *op {
            Op::Alloc { peer, order } => match pool.alloc(peer, 1 << order) {
                Ok(pfn) => {
                    let frames = 1 << order;
                    prop_assert_eq!(pfn % frames.min(EXTENT_FRAMES), 0);
                    prop_assert!(!m.busy(pfn, frames));
                    let inside = (pfn..pfn + frames).all(|f| {
                        let mut of_peer = m.extents.values();
                        of_peer
                            .any(|e| e.0 == peer && !e.3 && !e.4 && (e.1..e.1 + e.2).contains(&f))
                    });
                    prop_assert!(inside, "frames that the peer did not accept");
                    m.runs.insert(pfn, (peer, frames));
                }
                Err(NoRun::Size) => prop_assert!(order > 10),
                Err(NoRun::Wait) => {
                    prop_assert!(m.extents.values().any(|e| e.0 == peer && e.3));
                }
                Err(NoRun::NeedExtent(units)) => {
                    let e = pool.offer(peer, units).expect("what the pool asks for");
                    prop_assert!(m
                        .extents
                        .values()
                        .all(|o| o.1 + o.2 <= e.pfn || e.pfn + e.frames <= o.1));
                    prop_assert!(
                        e.pfn >= FIRST && e.pfn + e.frames <= FIRST + UNITS * EXTENT_FRAMES
                    );
                    prop_assert_eq!(e.frames, units * EXTENT_FRAMES);
                    prop_assert!(m
                        .extents
                        .insert(e.id, (peer, e.pfn, e.frames, true, false))
                        .is_none());
                    prop_assert!(m.lent(peer) <= QUOTA);
                }
                Err(NoRun::Exhausted) => {
                    prop_assert!(!m.extents.values().any(|e| e.0 == peer && e.3));
                }
            },
            Op::Free(pick) => {
                if let Some((&pfn, &(_, frames))) = m.runs.iter().nth(pick % m.runs.len().max(1)) {
                    prop_assert!(pool.free(pfn, frames));
                    prop_assert!(!pool.free(pfn, frames));
                    m.runs.remove(&pfn);
                }
            }
            Op::FreeWrong { pfn, order } => {
                let frames = 1u32 << order;
                // A part of a run can be freed; frames that nobody uses cannot.
                let used = (pfn..pfn + frames).all(|f| m.busy(f, 1));
                if !used {
                    prop_assert!(!pool.free(pfn, frames));
                }
            }
            Op::Answer { yes } => {
                let offered = m
                    .extents
                    .iter()
                    .find(|(_, e)| e.3)
                    .map(|(id, e)| (*id, e.0));
                if let Some((id, peer)) = offered {
                    prop_assert!(!pool.accepted(peer + 1, id), "another peer's extent");
                    if yes {
                        prop_assert!(pool.accepted(peer, id));
                        m.extents.get_mut(&id).unwrap().3 = false;
                    } else {
                        prop_assert!(pool.refused(peer, id));
                        m.extents.remove(&id);
                    }
                    prop_assert!(!pool.accepted(peer, id));
                }
            }
            Op::Revoke(peer) => {
                if let Some(id) = pool.revoke_idle(peer) {
                    let (owner, pfn, frames, offered, revoked) = m.extents[&id];
                    prop_assert!(owner == peer && !offered && !revoked);
                    prop_assert!(!m.busy(pfn, frames));
                    m.extents.get_mut(&id).unwrap().4 = true;
                }
            }
            Op::Release(pick) => {
                let any = m.extents.iter().nth(pick % m.extents.len().max(1));
                if let Some((&id, &(peer, pfn, frames, ..))) = any {
                    let idle = !m.busy(pfn, frames);
                    prop_assert_eq!(pool.released(peer, id), idle);
                    if idle {
                        m.extents.remove(&id);
                    }
                }
            }
            Op::Reclaim(peer) => {
                pool.reclaim(peer);
                m.extents.retain(|_, e| e.0 != peer);
                m.runs.retain(|_, r| r.0 != peer);
            }
        }
        for peer in 1..4 {
            prop_assert_eq!(pool.lent(peer), m.lent(peer));
            let used: u64 = m
                .runs
                .values()
                .filter(|r| r.0 == peer)
                .map(|r| u64::from(r.1))
                .sum();
            prop_assert_eq!(pool.in_use(peer), used);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn g_5_runs_are_accepted_disjoint_and_within_the_quota(ops in prop::collection::vec(op(), 1..200)) {
        run(&ops)?;
    }
}

#[test]
fn g_5_units_begin_behind_the_connection_table() {
    let (pfn, units) = FramePool::<Vec<Unit>>::units(2 << 20, 16 << 20, 64);
    assert_eq!(
        pfn,
        (8 << 20) >> 12,
        "4 MiB of channels, a part of the next unit"
    );
    assert_eq!(units, 5);
    let (pfn, units) = FramePool::<Vec<Unit>>::units(2 << 20, 16 << 20, 32768);
    assert_eq!(pfn, (12 << 20) >> 12);
    assert_eq!(units, 3);
    assert_eq!(
        FramePool::<Vec<Unit>>::units(u64::MAX, u64::MAX, u32::MAX).1,
        0
    );
}

#[test]
fn g_5_no_offer_is_beyond_the_quota_or_the_slot() {
    let mut pool = FramePool::new(vec![Unit::default(); UNITS as usize], FIRST, QUOTA);
    assert_eq!(pool.offer(1, 4), None);
    let first = pool.offer(1, 2).unwrap();
    assert_eq!((first.pfn, first.frames), (FIRST, 2 * EXTENT_FRAMES));
    assert_eq!(pool.offer(1, 2), None, "a third and a fourth unit");
    assert!(pool.offer(1, 1).is_some());
    assert!(pool.offer(2, 3).is_some());
    assert_eq!(pool.offer(3, 3), None, "two units are left");
    assert_eq!(pool.offer(3, 0), None);
    assert!(pool.offer(3, 2).is_some());
}
