// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the host tells: configuration, slot 0, headers of slots and channels.

use fgdp_proto::proto::ctrl::{Member, Pair};
use fgdp_proto::proto::mem::{MemMut, View};
use fgdp_proto::proto::wire::*;
use proptest::prelude::*;

use crate::memory::{attach, slot_base, view, Group, Slot, CONNS, HOST, SLOT};

const TABLE: u32 = 4096;
const DIR: u32 = 8192;

/// The host writes slot 0 through this.
fn slot0(group: &Group) -> Slot {
    Slot {
        group: group.clone(),
        base: 0,
    }
}

fn entry() -> impl Strategy<Value = DirEntry> {
    (
        1u32..3,
        any::<u32>(),
        any::<[u8; 16]>(),
        0u32..=8,
        any::<[[u8; 16]; 8]>(),
        any::<[u8; 32]>(),
        1u16..5,
        0u16..2,
    )
        .prop_map(
            |(state, generation, guest_id, num_addrs, addrs, name, lanes, class)| DirEntry {
                state: [PeerState::Absent, PeerState::Attached, PeerState::Ready][state as usize],
                generation,
                class: [PeerClass::Local, PeerClass::Cluster][usize::from(class)],
                lanes,
                guest_id,
                slot_offset: slot_base(1),
                slot_size: SLOT,
                ivshmem_id: generation ^ 5,
                num_addrs,
                addrs,
                name,
            },
        )
}

proptest! {
    #![proptest_config(crate::cases(128))]

    #[test]
    fn h_4_entries_round_trip(e in entry(), slot in 0u32..32, other in entry()) {
        let group = Group::new(1);
        let host = slot0(&group);
        other.write(&host, DIR, slot);
        e.write(&host, DIR, slot);
        prop_assert_eq!(DirEntry::read(&group, DIR, slot), Ok(e));
        prop_assert_eq!(e.addrs().len(), e.num_addrs as usize);
        prop_assert!(e.name().len() <= 32 && !e.name().contains(&0));
    }

    #[test]
    fn h_4_an_entry_with_a_wrong_value_is_invalid(e in entry(), word in 1u64..14, value in any::<u32>()) {
        let group = Group::new(1);
        e.write(&slot0(&group), DIR, 3);
        group.poke(u64::from(DIR) + 3 * DirEntry::SIZE + word * 4, value);
        match DirEntry::read(&group, DIR, 3) {
            Ok(got) => {
                prop_assert!(got.state == PeerState::Absent || got.slot_offset + got.slot_size <= HOST + SLOT);
                prop_assert!(got.state == PeerState::Absent || (got.num_addrs <= 8 && got.lanes <= 4));
            }
            Err(why) => prop_assert_eq!(why, DirError::Invalid),
        }
    }

    #[test]
    fn h_1_config_round_trips(slot in 0u32..40, off in 0u64..12, size in 0u64..12, lanes in 0u16..7, odd in any::<bool>(), id in any::<[u8; 16]>()) {
        let config = Config {
            slot,
            group_size: 24 << 20,
            slot_offset: (off << 21) + u64::from(odd),
            slot_size: size << 21,
            guest_id: id,
            generation: 77,
            max_lanes: lanes,
            group_id: [id[0]; 16],
        };
        let bytes = config.encode();
        let want = if !(1..32).contains(&slot) {
            Err(AttachError::Slot)
        } else if odd || off == 0 || size < 8 || off + size > 12 {
            Err(AttachError::SlotRange)
        } else if !(1..=4).contains(&lanes) {
            Err(AttachError::Lanes)
        } else {
            Ok(config)
        };
        prop_assert_eq!(Config::parse(&bytes), want);
        prop_assert_eq!(Config::parse(&bytes[..71]), Err(AttachError::Length));
        let mut other = bytes;
        other[0] = 2;
        prop_assert_eq!(Config::parse(&other), Err(AttachError::Abi));
    }

    #[test]
    fn m_6_a_slot_header_is_as_it_says_or_refused(word in 0u64..7, value in prop_oneof![any::<u32>(), 0u32..40_000]) {
        let group = Group::new(1);
        attach(&group, 1);
        group.poke(slot_base(1) + word * 4, value);
        match SlotHdr::read(&group, slot_base(1), SLOT) {
            Ok(hdr) => {
                prop_assert!((1..=4).contains(&hdr.lanes) && (1..=32768).contains(&hdr.conns));
                prop_assert!(word >= 3 || value == [0x5044_4746, 0x544f_4c53, 1][word as usize]);
            }
            Err(why) => prop_assert_eq!(why, if word == 2 { Reason::Abi } else { Reason::BadSlot }),
        }
    }

    #[test]
    fn c_3_to_c_5_a_round_ends_when_both_closed(calls in prop::collection::vec(any::<(bool, bool)>(), 0..40)) {
        let mut pair = Pair::new();
        let (mut opened, mut closed) = ([false; 2], [false; 2]);
        for (who, open) in calls {
            let (i, o) = (usize::from(who), usize::from(!who));
            let by = [Member::First, Member::Second][i];
            if open {
                let good = !opened[i] && !closed[i] && !closed[o];
                prop_assert_eq!(pair.open(by), good.then_some(()).ok_or(Status::State));
                opened[i] |= good;
            } else {
                let good = !closed[i] && (opened[0] || opened[1]);
                let over = closed[o];
                prop_assert_eq!(pair.close(by), good.then_some(over).ok_or(Status::State));
                closed[i] |= good;
                if good && over {
                    (opened, closed) = ([false; 2], [false; 2]);
                }
            }
            prop_assert_eq!(pair.is_up(), opened == [true; 2] && closed == [false; 2]);
        }
    }
}

#[test]
fn h_4_an_entry_that_is_being_written_is_busy_and_mends() {
    let group = Group::new(1);
    let host = slot0(&group);
    let entry = DirEntry::default();
    entry.write(&host, DIR, 1);
    let seq = u64::from(DIR) + DirEntry::SIZE;
    group.poke(seq, group.peek(seq) + 1);
    assert_eq!(DirEntry::read(&group, DIR, 1), Err(DirError::Busy));
    // The writer died in the middle; the next one writes anew.
    entry.write(&host, DIR, 1);
    assert_eq!(group.peek(seq) % 2, 0);
    assert_eq!(DirEntry::read(&group, DIR, 1), Ok(entry));
}

fn host_hdr() -> HostHdr {
    HostHdr {
        table_offset: TABLE,
        table_entries: 8,
        dir_offset: DIR,
        dir_entries: 32,
    }
}

fn table(group: &Group, calls: &[(u16, u16, u32, u64)]) -> Result<CallTable, AttachError> {
    for (n, &(nr, version, flags, quota)) in (0u32..).zip(calls) {
        let entry = CallEntry {
            nr,
            version,
            flags,
            quota,
        };
        entry.write(&slot0(group), TABLE, n);
    }
    let hdr = HostHdr {
        table_entries: calls.len() as u32,
        ..host_hdr()
    };
    hdr.write(&slot0(group));
    assert_eq!(HostHdr::read(group), Ok(hdr));
    CallTable::read(group, &hdr)
}

#[test]
fn h_2_calls_are_used_if_known_and_refused_if_required() {
    let group = Group::new(1);
    let needed = [(1, 1, 1, 0), (4, 1, 1, 0), (5, 1, 1, 0), (6, 1, 1, 4096)];
    let t = table(&group, &needed).unwrap();
    assert!(t.has(Call::Frames) && !t.has(Call::Stats));
    assert_eq!(t.quota(Call::Frames), Some(4096));
    assert_eq!((t.quota(Call::Hello), t.quota(Call::Stats)), (None, None));
    let with = |extra| {
        let mut calls = needed.to_vec();
        calls.push(extra);
        table(&group, &calls)
    };
    assert!(with((99, 1, 0, 0)).is_ok(), "unknown and optional");
    assert!(with((7, 2, 0, 0)).is_ok_and(|t| !t.has(Call::Stats)));
    assert_eq!(with((99, 1, 1, 0)), Err(AttachError::UnknownCall(99)));
    assert_eq!(with((7, 2, 1, 0)), Err(AttachError::UnknownCall(7)));
    assert_eq!(with((1, 1, 0, 0)), Err(AttachError::HostTable));
    for n in 0..4 {
        let mut calls = needed.to_vec();
        let (nr, ..) = calls.remove(n);
        let call = Call::from_u16(nr).unwrap();
        assert_eq!(table(&group, &calls), Err(AttachError::MissingCall(call)));
    }
}

#[test]
fn h_1_tables_outside_the_group_are_refused() {
    let group = Group::new(1);
    assert_eq!(HostHdr::read(&group), Err(AttachError::HostMagic));
    let good = host_hdr();
    let end = (HOST + SLOT) as u32;
    for (hdr, want) in [
        (
            HostHdr {
                table_offset: 0,
                ..good
            },
            AttachError::HostTable,
        ),
        (
            HostHdr {
                table_offset: end - 64,
                ..good
            },
            AttachError::HostTable,
        ),
        (
            HostHdr {
                table_offset: 4100,
                ..good
            },
            AttachError::HostTable,
        ),
        (
            HostHdr {
                table_entries: 65,
                ..good
            },
            AttachError::HostTable,
        ),
        (
            HostHdr {
                table_entries: 0,
                ..good
            },
            AttachError::HostTable,
        ),
        (
            HostHdr {
                dir_offset: u32::MAX - 7,
                ..good
            },
            AttachError::HostDirectory,
        ),
        (
            HostHdr {
                dir_entries: 33,
                ..good
            },
            AttachError::HostDirectory,
        ),
        (
            HostHdr {
                dir_entries: 0,
                ..good
            },
            AttachError::HostDirectory,
        ),
    ] {
        hdr.write(&slot0(&group));
        assert_eq!(HostHdr::read(&group), Err(want));
    }
    good.write(&slot0(&group));
    group.poke(8, 2);
    assert_eq!(HostHdr::read(&group), Err(AttachError::Abi));
}

#[test]
fn h_8_a_doorbell_device_names_its_group() {
    let hdr = BellHdr { group_id: [7; 16] };
    let bytes = hdr.encode();
    assert_eq!(BellHdr::parse(&bytes), Some(hdr));
    assert_eq!(BellHdr::parse(&bytes[..31]), None);
    for at in [0, 7, 8] {
        let mut other = bytes;
        other[at] ^= 1;
        assert_eq!(BellHdr::parse(&other), None);
    }
}

#[test]
fn c_2_channel_headers_round_trip() {
    let group = Group::new(2);
    let (a, b) = (attach(&group, 1), attach(&group, 2));
    let hdr = ChanHdr {
        state: ChanState::Broken,
        peer_generation: 2,
        reason: Reason::BadLane,
    };
    hdr.write(&a, 2);
    let vb = view(&b, &group, 1);
    assert_eq!(ChanHdr::read_peer(&vb, 2), Ok(hdr));
    assert_eq!(ChanHdr::read_peer(&vb, 1).unwrap().state, ChanState::Closed);
    a.store(4096 + 2 * 131_072, 3);
    assert_eq!(ChanHdr::read_peer(&vb, 2), Err(Reason::BadSlot));
    assert_eq!(SlotHdr::read_peer(&vb, 1).unwrap().conns, CONNS);
    assert_eq!(SlotHdr::read_peer(&vb, 2), Err(Reason::Generation));
}

#[test]
fn m_2_nothing_outside_the_peers_slot_is_fetched() {
    let group = Group::new(2);
    let slot = attach(&group, 1);
    group.poke(slot_base(2) - 4, 1);
    group.poke(slot_base(2), 2);
    let v = view(&slot, &group, 1);
    assert_eq!(v.peer_load(SLOT - 4), 1);
    assert_eq!(v.peer_load(SLOT), 0);
    assert_eq!(v.peer_load_acquire(u64::MAX - 3), 0);
    let past = View {
        peer_base: u64::MAX - 3,
        peer_size: u64::MAX,
        ..v
    };
    assert_eq!(past.peer_load(16), 0);
}
