// SPDX-License-Identifier: GPL-2.0

//! Connection ids at their limits.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_ids)]
mod tests {
    use crate::proto::ctrl::{IdSlot, Ids};
    use crate::proto::wire::{CONN_INDEX_MASK, MAX_CONNS};
    use crate::storage::Storage;
    use kernel::prelude::*;

    fn ids(len: usize) -> Result<Ids<Storage<IdSlot>>> {
        Ok(Ids::new(Storage::new(len)?))
    }

    #[test]
    fn a_full_table() -> Result {
        // More entries than ids exist.
        let mut ids = ids(MAX_CONNS as usize + 5)?;
        for n in 0..MAX_CONNS {
            assert_eq!(ids.alloc(), Some(1 << 16 | n));
        }
        assert_eq!(ids.alloc(), None);
        assert_eq!(ids.used(), MAX_CONNS);
        // The index freed first comes back first.
        for index in [MAX_CONNS - 1, 0, 77] {
            assert!(ids.free(1 << 16 | index));
        }
        for index in [MAX_CONNS - 1, 0, 77] {
            assert_eq!(ids.alloc(), Some(2 << 16 | index));
        }
        assert_eq!(ids.alloc(), None);
        Ok(())
    }

    #[test]
    fn a_serial_wraps_and_no_id_is_zero() -> Result {
        let mut ids = ids(1)?;
        for n in 0..0x2_0000u32 {
            let id = ids.alloc().ok_or(ENOSPC)?;
            assert_eq!(id >> 16, n % 0xffff + 1);
            assert_eq!(id & CONN_INDEX_MASK, 0);
            assert!(ids.free(id));
        }
        Ok(())
    }

    #[test]
    fn what_is_not_in_use_is_not_freed() -> Result {
        let mut ids = ids(3)?;
        let id = ids.alloc().ok_or(ENOSPC)?;
        for wrong in [
            0,
            1,
            2,
            3,
            id ^ 1 << 16,
            id ^ 1,
            u32::MAX,
            MAX_CONNS,
            1 << 16 | CONN_INDEX_MASK,
        ] {
            assert!(!ids.contains(wrong));
            assert!(!ids.free(wrong));
        }
        assert!(ids.contains(id));
        assert!(ids.free(id));
        assert!(!ids.free(id));
        assert_eq!(ids.used(), 0);
        Ok(())
    }

    #[test]
    fn no_table() -> Result {
        let mut ids = ids(0)?;
        assert_eq!(ids.alloc(), None);
        assert!(!ids.free(0));
        Ok(())
    }
}
