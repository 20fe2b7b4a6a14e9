// SPDX-License-Identifier: GPL-2.0

//! One connection: rings that wrap and move, and a producer that lies.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_stream)]
mod tests {
    use crate::kunit::{group, view, BASE, SIZE};
    use crate::proto::grant::{Accepted, Extent};
    use crate::proto::mem::{Mem, MemMut};
    use crate::proto::stream::{Conn, Refused, Ring};
    use crate::proto::wire::{
        conn, conn_entry, Kind, Reason, SlotHdr, EXTENT_FRAMES, FRAME_SHIFT, TX_FIN,
    };
    use crate::sys::shm::{GroupMem, LocalGroup, SlotMem};
    use kernel::prelude::*;

    const CONNS: u32 = 64;
    /// First frame behind headers, channels and 64 connections.
    const FIRST: u32 = (BASE >> FRAME_SHIFT) as u32 + 3 * EXTENT_FRAMES;
    const RING: Ring = Ring {
        pfn: FIRST,
        frames: 4,
    };

    struct Pair {
        group: LocalGroup,
        accepted: KBox<Accepted>,
        tx: Conn,
        rx: Conn,
    }

    /// Two ends in the same table, one extent accepted.
    fn pair(kind: Kind) -> Result<Pair> {
        let group = group()?;
        SlotHdr {
            generation: 1,
            lanes: 1,
            conns: CONNS,
        }
        .write(&group.slot);
        let mut accepted = KBox::new(Accepted::new(BASE, SIZE, CONNS), GFP_KERNEL)?;
        let extent = Extent {
            id: 1,
            pfn: FIRST,
            frames: EXTENT_FRAMES,
        };
        accepted.insert(extent).map_err(|_| EINVAL)?;
        let (mut tx, mut rx) = (
            Conn::new(1 << 16, kind),
            Conn::new(1 << 16 | (CONNS - 1), kind),
        );
        let v = view(&group);
        tx.init_entry(&v);
        rx.init_entry(&v);
        tx.set_peer(&v, rx.own_id()).map_err(|_| EINVAL)?;
        rx.set_peer(&v, tx.own_id()).map_err(|_| EINVAL)?;
        Ok(Pair {
            group,
            accepted,
            tx,
            rx,
        })
    }

    /// The byte at a position of the stream.
    fn byte(pos: u32) -> u8 {
        (pos ^ pos >> 8).wrapping_mul(37) as u8
    }

    fn set(slot: &SlotMem, off: u64, value: u8) {
        let shift = off % 4 * 8;
        let word = slot.load(off & !3) & !(0xff << shift);
        slot.store(off & !3, word | u32::from(value) << shift);
    }

    fn get(group: &GroupMem, off: u64) -> u8 {
        (group.load(off & !3) >> (off % 4 * 8)) as u8
    }

    impl Pair {
        /// Writes up to `len` bytes of the pattern from position `pos` on.
        fn write(&mut self, pos: u32, len: u32) -> Result<u32> {
            let v = view(&self.group);
            let space = self.tx.tx_space(&v).map_err(|_| EPIPE)?;
            let len = len.min(space);
            let mut at = pos;
            for span in &self.tx.tx_spans(&v, 0, len) {
                for n in 0..u64::from(span.len) {
                    set(&self.group.slot, span.off + n, byte(at));
                    at = at.wrapping_add(1);
                }
            }
            if at.wrapping_sub(pos) != len {
                return Err(EIO);
            }
            let _ = self.tx.tx_publish(&v, len).map_err(|_| EPIPE)?;
            Ok(len)
        }

        /// Reads up to `len` bytes, which must be the pattern from `pos` on.
        fn read(&mut self, pos: u32, len: u32) -> Result<u32> {
            let v = view(&self.group);
            let len = self
                .rx
                .rx_avail(&v, &*self.accepted)
                .map_err(|_| EPIPE)?
                .min(len);
            let mut at = pos;
            for span in &self.rx.rx_spans(0, len) {
                for n in 0..u64::from(span.len) {
                    if get(&self.group.group, span.off + n) != byte(at) {
                        return Err(EFAULT);
                    }
                    at = at.wrapping_add(1);
                }
            }
            if at.wrapping_sub(pos) != len {
                return Err(EIO);
            }
            let _ = self.rx.rx_consume(&v, len).map_err(|_| EPIPE)?;
            Ok(len)
        }
    }

    #[test]
    fn a_ring_wraps_at_every_distance() -> Result {
        let mut p = pair(Kind::Stream)?;
        p.tx.set_tx_ring(&view(&p.group), RING)
            .map_err(|_| EINVAL)?;
        let size = RING.bytes();
        let (mut sent, mut got) = (0, 0);
        for chunk in [1, size - 1, size, size + 1, 4095, 4097, 5000, 16383, 3] {
            for _ in 0..5 {
                sent += p.write(sent, chunk)?;
                assert_eq!(sent - got, chunk.min(size));
                got += p.read(got, chunk)?;
                assert_eq!(sent, got);
            }
        }
        sent += p.write(sent, u32::MAX)?;
        assert_eq!(sent - got, size);
        assert_eq!(p.write(sent, 1), Ok(0));
        got += p.read(got, 1)?;
        assert_eq!(p.write(sent, 2), Ok(1));
        assert_eq!(p.read(got, u32::MAX), Ok(size));
        Ok(())
    }

    #[test]
    fn a_ring_moves_with_bytes_in_it() -> Result {
        let mut p = pair(Kind::Stream)?;
        let larger = Ring {
            pfn: FIRST + 8,
            frames: 8,
        };
        p.tx.set_tx_ring(&view(&p.group), RING)
            .map_err(|_| EINVAL)?;
        let mut sent = p.write(0, 10_000)?;
        // The consumer has not begun with the ring.
        assert_eq!(
            p.tx.set_tx_ring(&view(&p.group), larger),
            Err(Refused::Pending)
        );
        let mut got = p.read(0, 9_000)?;
        sent += p.write(sent, 12_000)?;
        p.tx.tx_space(&view(&p.group)).map_err(|_| EINVAL)?;
        assert_eq!(p.tx.set_tx_ring(&view(&p.group), larger), Ok(()));
        sent += p.write(sent, u32::MAX)?;
        assert_eq!(sent - got, 13_000 + larger.bytes());
        assert_eq!(p.tx.reap_tx_ring(&view(&p.group)), Ok(None));
        got += p.read(got, 12_999)?;
        assert_eq!(p.tx.reap_tx_ring(&view(&p.group)), Ok(None));
        got += p.read(got, 2)?;
        assert_eq!(p.tx.reap_tx_ring(&view(&p.group)), Ok(Some(RING)));
        assert_eq!(p.read(got, u32::MAX)?, sent - got);
        assert_eq!(p.tx.release_tx_ring(&view(&p.group)), Ok(Some(larger)));
        assert_eq!(p.write(sent, 1), Ok(0));
        Ok(())
    }

    #[test]
    fn rings_that_cannot_be() -> Result {
        let mut p = pair(Kind::Stream)?;
        let v = view(&p.group);
        let end = ((BASE + SIZE) >> FRAME_SHIFT) as u32;
        for (pfn, frames, want) in [
            (FIRST, 0, Refused::Size),
            (FIRST, 2, Refused::Size),
            (FIRST, 5, Refused::Size),
            (FIRST, 2048, Refused::Size),
            (FIRST, u32::MAX, Refused::Size),
            (0, 4, Refused::Range),
            (end - 3, 4, Refused::Range),
            (u32::MAX, 4, Refused::Range),
        ] {
            assert_eq!(p.tx.set_tx_ring(&v, Ring { pfn, frames }), Err(want));
        }
        Ok(())
    }

    #[test]
    fn a_lying_producer_is_found_out() -> Result {
        // Word, value, verdict; the ring is good and 100 bytes are in it.
        for (word, value, want) in [
            (conn::TAIL, 99, Some(Reason::BadPosition)),
            (conn::TAIL, RING.bytes(), None),
            (conn::TAIL, RING.bytes() + 1, Some(Reason::BadPosition)),
            (conn::TAIL, u32::MAX, Some(Reason::BadPosition)),
            (conn::TAIL, 1 << 31, Some(Reason::BadPosition)),
            (conn::TX_FLAGS, TX_FIN, None),
            (conn::TX_FLAGS, 4, Some(Reason::BadFlags)),
            (conn::TX_FLAGS, u32::MAX, Some(Reason::BadFlags)),
            (conn::RING_SERIAL, 2, Some(Reason::BadRing)),
        ] {
            let mut p = pair(Kind::Stream)?;
            p.tx.set_tx_ring(&view(&p.group), RING)
                .map_err(|_| EINVAL)?;
            p.write(0, 100)?;
            let v = view(&p.group);
            assert_eq!(p.rx.rx_avail(&v, &*p.accepted), Ok(100));
            p.group.slot.store(conn_entry(p.tx.own_id()) + word, value);
            let seen = p.rx.rx_avail(&v, &*p.accepted);
            assert_eq!(seen.err(), want);
            assert_eq!(p.rx.broken(), want);
        }
        Ok(())
    }

    #[test]
    fn a_ring_outside_what_was_accepted() -> Result {
        for (pfn, frames) in [
            (FIRST + EXTENT_FRAMES - 3, 4),
            (FIRST - 1, 4),
            (FIRST + EXTENT_FRAMES, 4),
            (FIRST, 1024),
            (FIRST, 2),
            (FIRST, 0),
            (0, 4),
            (u32::MAX, 4),
            (u32::MAX, u32::MAX),
        ] {
            let mut p = pair(Kind::Stream)?;
            p.tx.set_tx_ring(&view(&p.group), RING)
                .map_err(|_| EINVAL)?;
            p.write(0, 100)?;
            let entry = conn_entry(p.tx.own_id());
            p.group.slot.store(entry + conn::RING_PFN, pfn);
            p.group.slot.store(entry + conn::RING_FRAMES, frames);
            let v = view(&p.group);
            assert_eq!(p.rx.rx_avail(&v, &*p.accepted), Err(Reason::BadRing));
            assert_eq!(p.rx.rx_avail(&v, &*p.accepted), Err(Reason::BadRing));
        }
        Ok(())
    }

    #[test]
    fn a_peer_with_another_id() -> Result {
        let p = pair(Kind::Stream)?;
        let v = view(&p.group);
        // A wrong serial, an index behind the table, an entry that nobody made.
        for id in [2 << 16, 1 << 16 | CONNS, 0xffff_ffff, 1 << 16 | 5, 0xffff] {
            let mut conn = Conn::new(1 << 16 | 7, Kind::Stream);
            assert_eq!(conn.set_peer(&v, id), Err(Reason::BadMsg));
        }
        Ok(())
    }

    #[test]
    fn records_are_whole() -> Result {
        let mut p = pair(Kind::SeqPacket)?;
        let v = view(&p.group);
        p.tx.set_tx_ring(&v, RING).map_err(|_| EINVAL)?;
        let most = RING.bytes() - 8;
        assert!(!p.tx.tx_record(&v, most + 1));
        assert!(!p.tx.tx_record(&v, u32::MAX));
        assert!(p.tx.tx_record(&v, most));
        assert_eq!(Conn::record_size(most), Some(RING.bytes()));
        let _ = p.tx.tx_publish(&v, RING.bytes()).map_err(|_| EINVAL)?;
        assert_eq!(p.rx.rx_avail(&v, &*p.accepted), Ok(RING.bytes()));
        assert_eq!(p.rx.rx_record(&v), Ok(Some(most)));
        // Longer than what is there, after the length was fetched: the first length holds.
        let ring_at = RING.start() - BASE;
        p.group.slot.store(ring_at, most + 1);
        assert_eq!(p.rx.rx_record(&v), Ok(Some(most)));
        let _ = p.rx.rx_consume_record(&v).map_err(|_| EINVAL)?;
        assert!(p.tx.tx_space(&v) == Ok(RING.bytes()) && p.tx.tx_record(&v, 8));
        let _ = p.tx.tx_publish(&v, 16).map_err(|_| EINVAL)?;
        p.group.slot.store(ring_at, 9);
        assert_eq!(p.rx.rx_avail(&v, &*p.accepted), Ok(16));
        assert_eq!(p.rx.rx_record(&v), Err(Reason::BadRecord));
        Ok(())
    }
}
