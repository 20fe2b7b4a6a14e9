// SPDX-License-Identifier: GPL-2.0

//! The frames of a slot: runs, extents, quotas, and offers that must not be accepted.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_frames)]
mod tests {
    use crate::kunit::{BASE, SIZE};
    use crate::proto::grant::{Accepted, Extent, FramePool, NoRun, Unit, MAX_EXTENTS};
    use crate::proto::wire::{Reason, EXTENT_FRAMES, FRAME_SHIFT, MAX_CONNS};
    use crate::storage::Storage;
    use kernel::prelude::*;

    const FIRST: u32 = 5 * EXTENT_FRAMES;
    const PEER: u32 = 3;

    fn pool(units: usize, quota: u32) -> Result<FramePool<Storage<Unit>>> {
        let quota = u64::from(quota) * u64::from(EXTENT_FRAMES);
        Ok(FramePool::new(Storage::new(units)?, FIRST, quota))
    }

    #[test]
    fn runs_of_impossible_length() -> Result {
        let mut pool = pool(4, 4)?;
        for frames in [0, 3, 5, 511, 513, 1023, 1025, 2048, u32::MAX, 1 << 31] {
            assert_eq!(pool.alloc(PEER, frames), Err(NoRun::Size));
            assert!(!pool.free(FIRST, frames));
        }
        Ok(())
    }

    #[test]
    fn an_extent_from_offer_to_release() -> Result {
        let mut pool = pool(4, 2)?;
        assert_eq!(pool.alloc(PEER, 4), Err(NoRun::NeedExtent(1)));
        let offer = pool.offer(PEER, 1).ok_or(ENOSPC)?;
        assert_eq!((offer.pfn, offer.frames), (FIRST, EXTENT_FRAMES));
        assert_eq!(pool.alloc(PEER, 4), Err(NoRun::Wait));
        assert!(!pool.accepted(PEER + 1, offer.id));
        assert!(pool.accepted(PEER, offer.id));
        assert!(!pool.accepted(PEER, offer.id));
        // Each run once, each at a multiple of its length.
        for n in 0..EXTENT_FRAMES / 4 {
            assert_eq!(pool.alloc(PEER, 4), Ok(FIRST + 4 * n));
        }
        assert_eq!(pool.in_use(PEER), u64::from(EXTENT_FRAMES));
        assert_eq!(pool.alloc(PEER, 1), Err(NoRun::NeedExtent(1)));
        assert_eq!(pool.revoke_idle(PEER), None);
        assert!(!pool.released(PEER, offer.id));
        for n in 0..EXTENT_FRAMES / 4 {
            assert!(!pool.free(FIRST + 4 * n + 1, 4));
            assert!(pool.free(FIRST + 4 * n, 4));
            assert!(!pool.free(FIRST + 4 * n, 4));
        }
        assert_eq!(pool.revoke_idle(PEER), Some(offer.id));
        // Revoked, not released yet.
        assert_eq!(pool.alloc(PEER, 4), Err(NoRun::NeedExtent(1)));
        assert_eq!(pool.lent(PEER), u64::from(EXTENT_FRAMES));
        assert!(pool.released(PEER, offer.id));
        assert_eq!(pool.lent(PEER), 0);
        Ok(())
    }

    #[test]
    fn quota_and_slot_are_limits() -> Result {
        let mut pool = pool(3, 2)?;
        // A run of two units needs both together.
        assert_eq!(pool.alloc(PEER, 1024), Err(NoRun::NeedExtent(2)));
        let offer = pool.offer(PEER, 2).ok_or(ENOSPC)?;
        assert!(pool.accepted(PEER, offer.id));
        assert_eq!(pool.offer(PEER, 1), None);
        assert_eq!(pool.alloc(PEER, 1024), Ok(FIRST));
        assert_eq!(pool.alloc(PEER, 1), Err(NoRun::Exhausted));
        assert_eq!(pool.alloc(PEER + 1, 1024), Err(NoRun::Exhausted));
        assert_eq!(pool.alloc(PEER + 1, 512), Err(NoRun::NeedExtent(1)));
        for (pfn, frames) in [
            (FIRST - 1, 1024),
            (FIRST + 1, 1024),
            (FIRST + 512, 1024),
            (0, 4),
            (u32::MAX, 4),
            (FIRST + 3 * 512, 4),
        ] {
            assert!(!pool.free(pfn, frames));
        }
        assert!(pool.free(FIRST, 1024));
        pool.reclaim(PEER);
        assert_eq!(pool.lent(PEER), 0);
        assert_eq!(pool.offer(32, 1), None);
        Ok(())
    }

    #[test]
    fn units_of_a_slot() {
        type Pool = FramePool<Storage<Unit>>;
        let table_units = |conns| (SIZE >> 21) as usize - Pool::units(BASE, SIZE, conns).1;
        // Headers and channels take 4 MiB and a frame, each connection 128 bytes.
        assert_eq!(table_units(1), 3);
        assert_eq!(table_units(16352), 3);
        assert_eq!(table_units(16353), 4);
        assert_eq!(table_units(MAX_CONNS), 5);
        assert_eq!(Pool::units(BASE, 0, 1).1, 0);
        assert_eq!(Pool::units(u64::MAX, u64::MAX, u32::MAX).1, 0);
        assert_eq!(
            Pool::units(BASE, SIZE, 1).0,
            ((BASE >> 21) as u32 + 3) * EXTENT_FRAMES
        );
    }

    #[test]
    fn offers_outside_the_rules() -> Result {
        let mut accepted = KBox::new(Accepted::new(BASE, SIZE, 64), GFP_KERNEL)?;
        let first = (BASE >> FRAME_SHIFT) as u32 + 3 * EXTENT_FRAMES;
        let end = ((BASE + SIZE) >> FRAME_SHIFT) as u32;
        let extent = |pfn, frames| Extent { id: 1, pfn, frames };
        for bad in [
            extent(first, 0),
            extent(first + 1, 4),
            extent(first - EXTENT_FRAMES, EXTENT_FRAMES),
            extent(0, u32::MAX),
            extent(end, EXTENT_FRAMES),
            extent(end - EXTENT_FRAMES, EXTENT_FRAMES + 1),
            extent(u32::MAX - 511, u32::MAX),
        ] {
            assert_eq!(accepted.insert(bad), Err(Reason::BadExtent));
        }
        assert_eq!(accepted.insert(extent(first + 512, 512)), Ok(()));
        for bad in [
            extent(first + 512, 1),
            extent(first, 513),
            extent(first, end - first),
        ] {
            assert_eq!(accepted.insert(bad), Err(Reason::BadExtent));
        }
        assert_eq!(accepted.insert(extent(first, 512)), Ok(()));
        assert_eq!(accepted.insert(extent(end - 512, 512)), Ok(()));
        for (pfn, frames, want) in [
            (first, 1024, true),
            (first, 1025, false),
            (first + 1, 1023, true),
            (first - 1, 2, false),
            (first + 511, 2, true),
            (first, 0, false),
            (end - 1, 1, true),
            (end - 1, 2, false),
            (u32::MAX, u32::MAX, false),
        ] {
            assert_eq!(accepted.contains(pfn, frames), want);
        }
        assert_eq!(accepted.remove(2), None);
        assert_eq!(accepted.remove(1), Some(3 * 512));
        assert!(accepted.is_empty() && !accepted.contains(first, 1));
        Ok(())
    }

    #[test]
    fn a_full_table_of_extents() -> Result {
        let size = 1 << 30;
        let mut accepted = KBox::new(Accepted::new(0, size, 1), GFP_KERNEL)?;
        let extent = |n: u32| Extent {
            id: n,
            pfn: (n + 3) * EXTENT_FRAMES,
            frames: 1,
        };
        for n in (0..MAX_EXTENTS as u32).rev() {
            assert_eq!(accepted.insert(extent(n)), Ok(()));
        }
        assert_eq!(
            accepted.insert(extent(MAX_EXTENTS as u32)),
            Err(Reason::NoFrames)
        );
        assert_eq!(accepted.len(), MAX_EXTENTS);
        assert_eq!(accepted.remove(0), Some(1));
        assert_eq!(accepted.insert(extent(MAX_EXTENTS as u32)), Ok(()));
        Ok(())
    }
}
