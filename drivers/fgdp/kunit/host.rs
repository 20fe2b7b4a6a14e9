// SPDX-License-Identifier: GPL-2.0

//! What the host says: header, hypercall table, directory, replies and events.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_host)]
mod tests {
    use crate::kunit::{group, BASE, SIZE};
    use crate::proto::mem::{Mem, MemMut};
    use crate::proto::wire::{
        encode_reply, AttachError, Call, CallEntry, CallTable, DirEntry, DirError, Event, Frames,
        FramesOp, HostHdr, ParseError, PeerClass, PeerState, Range, Ranges, Reply, ReplyBody,
        Request, Status, CALL_F_REQUIRED, CALL_VERSION, EVENT_SIZE, HOST_MAGIC, MAX_CALLS,
        MAX_RANGES, MAX_REQUEST, MAX_SLOTS,
    };
    use crate::sys::shm::LocalGroup;
    use kernel::prelude::*;

    const TABLE: u32 = 64;
    const DIR: u32 = 4096;
    const GOOD: HostHdr = HostHdr {
        table_offset: TABLE,
        table_entries: 4,
        dir_offset: DIR,
        dir_entries: MAX_SLOTS,
    };

    fn line(group: &LocalGroup, index: u32, nr: u16, version: u16, flags: u32) {
        let entry = CallEntry {
            nr,
            version,
            flags,
            quota: u64::from(nr) << 33,
        };
        entry.write(&group.host, TABLE, index);
    }

    /// The calls that a driver needs, in lines 0 to 3.
    fn needed(group: &LocalGroup) {
        for (index, call) in (0..).zip(CallTable::NEEDED) {
            line(group, index, call.nr(), CALL_VERSION, CALL_F_REQUIRED);
        }
    }

    #[test]
    fn header_at_its_limits() -> Result {
        let group = group()?;
        assert_eq!(HostHdr::read(&group.group), Err(AttachError::HostMagic));
        let end = (BASE + SIZE) as u32;
        let table = |table_offset, table_entries| HostHdr {
            table_offset,
            table_entries,
            ..GOOD
        };
        let dir = |dir_offset, dir_entries| HostHdr {
            dir_offset,
            dir_entries,
            ..GOOD
        };
        for (hdr, want) in [
            (GOOD, Ok(GOOD)),
            (table(32, MAX_CALLS), Ok(table(32, MAX_CALLS))),
            (table(end - 16, 1), Ok(table(end - 16, 1))),
            (dir(end - 248, 1), Ok(dir(end - 248, 1))),
            (table(TABLE, 0), Err(AttachError::HostTable)),
            (table(TABLE, MAX_CALLS + 1), Err(AttachError::HostTable)),
            (table(TABLE, u32::MAX), Err(AttachError::HostTable)),
            (table(24, 4), Err(AttachError::HostTable)),
            (table(68, 4), Err(AttachError::HostTable)),
            (table(end - 8, 1), Err(AttachError::HostTable)),
            (table(end, 1), Err(AttachError::HostTable)),
            (table(u32::MAX - 7, 64), Err(AttachError::HostTable)),
            (dir(DIR, 0), Err(AttachError::HostDirectory)),
            (dir(DIR, MAX_SLOTS + 1), Err(AttachError::HostDirectory)),
            (dir(end - 240, 1), Err(AttachError::HostDirectory)),
            (dir(0, 1), Err(AttachError::HostDirectory)),
        ] {
            hdr.write(&group.host);
            assert_eq!(HostHdr::read(&group.group), want);
        }
        GOOD.write(&group.host);
        group.host.store(8, 2);
        assert_eq!(HostHdr::read(&group.group), Err(AttachError::Abi));
        group.host.store(8, 1);
        group.host.store(4, (HOST_MAGIC >> 32) as u32 ^ 1);
        assert_eq!(HostHdr::read(&group.group), Err(AttachError::HostMagic));
        Ok(())
    }

    #[test]
    fn table_with_required_and_optional_calls() -> Result {
        let group = group()?;
        needed(&group);
        let table = CallTable::read(&group.group, &GOOD).map_err(|_| EINVAL)?;
        assert!(table.has(Call::Hello) && !table.has(Call::Stats));
        assert_eq!(table.quota(Call::Frames), Some(6 << 33));
        assert_eq!(table.quota(Call::Stats), None);

        let five = HostHdr {
            table_entries: 5,
            ..GOOD
        };
        for (nr, version, flags, want) in [
            // Calls of another time are skipped unless they are required.
            (9, CALL_VERSION, 0, Ok(table)),
            (0, CALL_VERSION, 0, Ok(table)),
            (u16::MAX, u16::MAX, !CALL_F_REQUIRED, Ok(table)),
            (
                9,
                CALL_VERSION,
                CALL_F_REQUIRED,
                Err(AttachError::UnknownCall(9)),
            ),
            (0, CALL_VERSION, u32::MAX, Err(AttachError::UnknownCall(0))),
            (Call::Stats.nr(), CALL_VERSION + 1, 0, Ok(table)),
            (
                Call::Stats.nr(),
                0,
                CALL_F_REQUIRED,
                Err(AttachError::UnknownCall(7)),
            ),
            // Twice.
            (
                Call::Hello.nr(),
                CALL_VERSION,
                0,
                Err(AttachError::HostTable),
            ),
        ] {
            line(&group, 4, nr, version, flags);
            assert_eq!(CallTable::read(&group.group, &five), want);
        }
        Ok(())
    }

    #[test]
    fn table_without_a_needed_call() -> Result {
        let group = group()?;
        for (index, call) in (0..).zip(CallTable::NEEDED) {
            needed(&group);
            line(&group, index, Call::Stats.nr(), CALL_VERSION, 0);
            let want = Err(AttachError::MissingCall(call));
            assert_eq!(CallTable::read(&group.group, &GOOD), want);
        }
        let none = HostHdr {
            table_entries: 0,
            ..GOOD
        };
        assert_eq!(
            CallTable::read(&group.group, &none),
            Err(AttachError::MissingCall(Call::Hello))
        );
        Ok(())
    }

    #[test]
    fn directory_entries() -> Result {
        let group = group()?;
        let entry = DirEntry {
            state: PeerState::Ready,
            generation: u32::MAX,
            class: PeerClass::Local,
            lanes: 4,
            guest_id: [9; 16],
            slot_offset: BASE,
            slot_size: SIZE,
            num_addrs: 8,
            ..DirEntry::default()
        };
        let at = u64::from(DIR) + 31 * DirEntry::SIZE;
        entry.write(&group.host, DIR, 31);
        assert_eq!(DirEntry::read(&group.group, DIR, 31), Ok(entry));
        // In the middle of a write: the reader gives up instead of waiting for ever.
        let seq = group.host.load(at);
        group.host.store(at, seq | 1);
        assert_eq!(DirEntry::read(&group.group, DIR, 31), Err(DirError::Busy));
        for bad in [
            DirEntry {
                slot_offset: BASE + 4096,
                ..entry
            },
            DirEntry {
                slot_offset: 0,
                ..entry
            },
            DirEntry {
                slot_offset: BASE * 2,
                ..entry
            },
            DirEntry {
                slot_offset: u64::MAX << 21,
                ..entry
            },
            DirEntry {
                slot_size: SIZE / 2,
                ..entry
            },
            DirEntry {
                slot_size: u64::MAX << 21,
                ..entry
            },
            DirEntry {
                num_addrs: 9,
                ..entry
            },
            DirEntry { lanes: 5, ..entry },
        ] {
            bad.write(&group.host, DIR, 31);
            assert_eq!(
                DirEntry::read(&group.group, DIR, 31),
                Err(DirError::Invalid)
            );
        }
        Ok(())
    }

    #[test]
    fn requests_of_every_length() -> Result {
        let ranges = [Range {
            pfn: 512,
            frames: 512,
        }; MAX_RANGES];
        let frames = Frames {
            op: FramesOp::Offer,
            peer: 31,
            peer_generation: 1,
            extent: 5,
            ranges: Ranges::new(&ranges).ok_or(EINVAL)?,
        };
        let mut buf = KVec::from_elem(0u8, MAX_REQUEST, GFP_KERNEL)?;
        for request in [
            Request::Frames(frames),
            Request::AddrAdd([1; 16]),
            Request::Bye,
        ] {
            let len = request.encode(u64::MAX, &mut buf).ok_or(EINVAL)?;
            for short in 0..len {
                let part = buf.get(..short).ok_or(EINVAL)?;
                let error = Request::parse(part).err().ok_or(EINVAL)?;
                assert_eq!(error.status, Status::BadLength);
                assert_eq!(error.cookie, if short < 16 { 0 } else { u64::MAX });
                let mut small = KVec::from_elem(0u8, short, GFP_KERNEL)?;
                assert_eq!(request.encode(0, &mut small), None);
            }
            let whole = buf.get(..len).ok_or(EINVAL)?;
            assert!(Request::parse(whole) == Ok((u64::MAX, request)));
        }
        assert_eq!(Ranges::new(&[Range::default(); 1]).map(|r| r.len()), None);
        Ok(())
    }

    #[test]
    fn replies() -> Result {
        let mut buf = [0u8; 16];
        let len = encode_reply(Status::Quota, 7, &ReplyBody::None, &mut buf).ok_or(EINVAL)?;
        assert_eq!(len, 16);
        let reply = Reply::parse(&buf).map_err(|_| EINVAL)?;
        assert_eq!(
            (reply.status, reply.cookie, reply.body.len()),
            (Status::Quota, 7, 0)
        );
        assert_eq!(Reply::parse(&buf[..15]), Err(ParseError::Length));
        buf[0] = 10;
        assert_eq!(Reply::parse(&buf), Err(ParseError::Value));
        buf[0] = 0;
        buf[4] = 1;
        assert_eq!(Reply::parse(&buf), Err(ParseError::Length));
        Ok(())
    }

    #[test]
    fn events() -> Result {
        let mut buf = KVec::from_elem(0u8, EVENT_SIZE, GFP_KERNEL)?;
        let event = Event::Peer {
            peer: 31,
            generation: u32::MAX,
        };
        let len = event.encode(&mut buf).ok_or(EINVAL)?;
        buf.truncate(len);
        assert!(Event::parse(&buf) == Ok(event));
        // Byte, value, verdict.
        for (at, value, want) in [
            (0usize, 0u8, ParseError::Unknown),
            (0, 5, ParseError::Unknown),
            (1, 1, ParseError::Unknown),
            (2, 1, ParseError::Length),
            (4, 0, ParseError::Value),
            (4, 32, ParseError::Value),
            (7, 255, ParseError::Value),
        ] {
            let byte = buf.get_mut(at).ok_or(EINVAL)?;
            let old = core::mem::replace(byte, value);
            assert!(Event::parse(&buf) == Err(want));
            *buf.get_mut(at).ok_or(EINVAL)? = old;
        }
        for short in 0..len {
            assert!(Event::parse(buf.get(..short).ok_or(EINVAL)?) == Err(ParseError::Length));
        }
        Ok(())
    }
}
