// SPDX-License-Identifier: GPL-2.0

//! The kernel's mappings of shared memory: offsets that no access may follow.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_memory)]
mod tests {
    use crate::kunit::{group, view, BASE, SIZE};
    use crate::proto::mem::{load64, load_bytes, store64, store_bytes, zero, Mem, MemMut};
    use crate::sys::shm::LocalGroup;
    use kernel::prelude::*;

    #[test]
    fn sizes_that_cannot_be() {
        assert!(LocalGroup::new(0, 0).is_err());
        assert!(LocalGroup::new(u64::MAX, 1).is_err());
        assert!(LocalGroup::new(1 << 63, 4096).is_err());
        // Parts begin at words.
        assert!(LocalGroup::new(4097, 4096).is_err());
    }

    #[test]
    fn words_outside_read_zero_and_store_nothing() -> Result {
        let group = group()?;
        let last = SIZE - 4;
        group.slot.store(0, 0x0102_0304);
        group.slot.store_release(last, 0x0506_0708);
        assert_eq!(group.slot.load_acquire(0), 0x0102_0304);
        assert_eq!(group.group.load(BASE + last), 0x0506_0708);
        for off in [
            SIZE,
            SIZE + 4,
            last + 1,
            last + 3,
            1,
            2,
            3,
            u64::MAX,
            u64::MAX - 3,
            1 << 63,
            BASE + SIZE,
        ] {
            group.slot.store(off, u32::MAX);
            group.slot.store_release(off, u32::MAX);
            assert_eq!(group.slot.load(off), 0);
            assert_eq!(group.slot.load_acquire(off), 0);
        }
        assert_eq!(group.slot.load(0), 0x0102_0304);
        assert_eq!(group.slot.load(last), 0x0506_0708);
        assert_eq!(group.slot.load(4), 0);
        assert_eq!(group.group.load(BASE + SIZE), 0);
        assert_eq!(group.group.load(BASE - 4), 0);
        Ok(())
    }

    #[test]
    fn bytes_at_the_end() -> Result {
        let group = group()?;
        let mut buf = [0x5au8; 8];
        store_bytes(&group.slot, SIZE - 8, b"boundary");
        load_bytes(&group.group, BASE + SIZE - 8, &mut buf);
        assert_eq!(buf, *b"boundary");
        // What would lie behind the end reads as zero and is not stored.
        store_bytes(&group.slot, SIZE - 4, b"stopped.");
        load_bytes(&group.slot, SIZE - 4, &mut buf);
        assert_eq!(buf, *b"stop\0\0\0\0");
        zero(&group.slot, SIZE - 4, 8);
        load_bytes(&group.slot, SIZE - 8, &mut buf);
        assert_eq!(buf, *b"boun\0\0\0\0");
        Ok(())
    }

    #[test]
    fn a_peer_ends_where_its_slot_ends() -> Result {
        let group = group()?;
        group.slot.store(4096, 7);
        group.slot.store(4100, 8);
        let mut v = view(&group);
        v.peer_size = 4100;
        assert_eq!(v.peer_load(4096), 7);
        for off in [4097, 4100, 4104, u64::MAX, u64::MAX - 3] {
            assert_eq!(v.peer_load(off), 0);
            assert_eq!(v.peer_load_acquire(off), 0);
        }
        v.peer_base = u64::MAX;
        assert_eq!(v.peer_load(4096), 0);
        Ok(())
    }

    #[test]
    fn words_are_little_endian() -> Result {
        let group = group()?;
        let mut buf = [0u8; 8];
        store64(&group.slot, 8, 0x0807_0605_0403_0201);
        load_bytes(&group.slot, 8, &mut buf);
        assert_eq!(buf, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(load64(&group.group, BASE + 8), 0x0807_0605_0403_0201);
        Ok(())
    }
}
