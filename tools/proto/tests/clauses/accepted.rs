// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The table of accepted extents against a map of frames.

use std::collections::HashMap;

use fgdp_proto::proto::grant::{Accepted, Extent, MAX_EXTENTS};
use fgdp_proto::proto::wire::{Reason, EXTENT_FRAMES, FRAME_SHIFT};
use proptest::prelude::*;

use crate::memory::{first_extent, slot_base, CONNS, SLOT};

#[derive(Clone, Debug)]
enum Op {
    Insert(Extent),
    Remove(u32),
    Contains(u32, u32),
}

fn op() -> impl Strategy<Value = Op> {
    let first = first_extent(1);
    let pfn = (
        0u32..6,
        prop_oneof![9 => Just(0u32), 1 => 0u32..EXTENT_FRAMES],
    )
        .prop_map(move |(n, odd)| first - EXTENT_FRAMES + n * EXTENT_FRAMES + odd);
    let frames = prop_oneof![
        Just(0u32),
        Just(1),
        Just(EXTENT_FRAMES),
        1u32..1100,
        Just(u32::MAX)
    ];
    prop_oneof![
        3 => (0u32..4, pfn.clone(), frames.clone())
            .prop_map(|(id, pfn, frames)| Op::Insert(Extent { id, pfn, frames })),
        1 => (0u32..4).prop_map(Op::Remove),
        4 => (pfn, 0u32..1100).prop_map(|(pfn, odd)| (pfn + odd % 512, odd))
            .prop_flat_map(|(pfn, _)| (Just(pfn), 0u32..1100))
            .prop_map(|(pfn, frames)| Op::Contains(pfn, frames)),
    ]
}

proptest! {
    #![proptest_config(crate::cases(200))]

    #[test]
    fn g_4_accepted_is_a_set_of_frames_of_the_peer(ops in prop::collection::vec(op(), 1..60)) {
        let mut table = Accepted::new(slot_base(1), SLOT, CONNS);
        let mut frames: HashMap<u32, u32> = HashMap::new();
        let lowest = slot_base(1) + (4 << 20) + 4096 + u64::from(CONNS) * 128;
        let end = ((slot_base(1) + SLOT) >> FRAME_SHIFT) as u32;
        for op in ops {
            match op {
                Op::Insert(e) => {
                    let bad = e.frames == 0
                        || e.pfn % EXTENT_FRAMES != 0
                        || u64::from(e.pfn) << FRAME_SHIFT < lowest
                        || u64::from(e.pfn) + u64::from(e.frames) > u64::from(end)
                        || (e.pfn..e.pfn + e.frames).any(|f| frames.contains_key(&f));
                    let want = if bad { Err(Reason::BadExtent) } else { Ok(()) };
                    prop_assert_eq!(table.insert(e), want);
                    if !bad {
                        frames.extend((e.pfn..e.pfn + e.frames).map(|f| (f, e.id)));
                    }
                }
                Op::Remove(id) => {
                    let before = frames.len();
                    let version = table.version();
                    frames.retain(|_, i| *i != id);
                    let gone = (before - frames.len()) as u64;
                    prop_assert_eq!(table.remove(id), (gone != 0).then_some(gone));
                    prop_assert_eq!(table.version() != version, gone != 0);
                }
                Op::Contains(pfn, count) => {
                    let all = count != 0 && (pfn..pfn + count).all(|f| frames.contains_key(&f));
                    prop_assert_eq!(table.contains(pfn, count), all);
                }
            }
            prop_assert_eq!(table.frames(), frames.len() as u64);
        }
    }
}

#[test]
fn g_4_a_full_table_is_no_fault_of_the_peer() {
    let mut table = Accepted::new(0, 1 << 40, 1);
    let at = |n: usize| Extent {
        id: 1,
        pfn: (100 + n as u32) * EXTENT_FRAMES,
        frames: 1,
    };
    for n in 0..MAX_EXTENTS {
        table.insert(at(n)).unwrap();
    }
    assert_eq!(table.insert(at(MAX_EXTENTS)), Err(Reason::NoFrames));
    assert_eq!(table.len(), MAX_EXTENTS);
}
