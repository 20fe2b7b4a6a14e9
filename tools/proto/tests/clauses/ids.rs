// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Connection ids against a set.

use std::collections::{BTreeSet, HashMap};

use fgdp_proto::proto::ctrl::{IdSlot, Ids};
use fgdp_proto::proto::wire::CONN_INDEX_MASK;
use proptest::prelude::*;

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn s_1_an_id_in_use_is_unique_and_its_serial_changes(
        size in 0usize..6,
        ops in prop::collection::vec(any::<(bool, u16)>(), 0..300),
    ) {
        let mut ids = Ids::new(vec![IdSlot::default(); size]);
        let mut live = BTreeSet::new();
        let mut dead: HashMap<u32, u32> = HashMap::new();
        for (alloc, pick) in ops {
            if alloc {
                match ids.alloc() {
                    Some(id) => {
                        let index = id & CONN_INDEX_MASK;
                        prop_assert!(id != 0 && (index as usize) < size);
                        prop_assert!(live.iter().all(|l| l & CONN_INDEX_MASK != index));
                        prop_assert!(dead.get(&index) != Some(&id), "serial not changed");
                        live.insert(id);
                    }
                    None => prop_assert_eq!(live.len(), size),
                }
            } else if let Some(&id) = live.iter().nth(usize::from(pick) % live.len().max(1)) {
                prop_assert!(ids.free(id));
                prop_assert!(!ids.free(id));
                live.remove(&id);
                dead.insert(id & CONN_INDEX_MASK, id);
            }
            prop_assert_eq!(ids.used() as usize, live.len());
            prop_assert!(live.iter().all(|&id| ids.contains(id)));
            prop_assert!(dead.values().all(|&id| !ids.contains(id)));
        }
    }
}

#[test]
fn s_1_serials_wrap_past_zero() {
    let mut ids = Ids::new([IdSlot::default(); 1]);
    let mut seen = BTreeSet::new();
    for _ in 0..70_000 {
        let id = ids.alloc().unwrap();
        assert_ne!(id >> 16, 0);
        seen.insert(id);
        assert!(ids.free(id));
    }
    assert_eq!(seen.len(), 65_535);
}
