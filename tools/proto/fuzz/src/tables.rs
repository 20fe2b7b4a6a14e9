// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Slot 0 and the headers of slots and channels.

use fgdp_proto::proto::mem::Mem;
use fgdp_proto::proto::wire::*;

use crate::memory::{base, view, Group, SLOT};

const TABLE: u32 = 64;
const DIRECTORY: u32 = 4096;

/// Slot 0 as a host writes it.
fn host() -> Group {
    let group = Group::new();
    let slot0 = group.slot(0);
    let hdr = HostHdr {
        table_offset: TABLE,
        table_entries: Call::ALL.len() as u32,
        dir_offset: DIRECTORY,
        dir_entries: MAX_SLOTS,
    };
    hdr.write(&slot0);
    for (n, call) in (0u32..).zip(Call::ALL) {
        let entry = CallEntry {
            nr: call.nr(),
            version: CALL_VERSION,
            flags: CALL_F_REQUIRED,
            quota: 0,
        };
        entry.write(&slot0, TABLE, n);
    }
    group
}

/// The header of slot 0 and the hypercall table: the first byte says from where
/// on the rest overwrites them.
pub fn h_2_table(data: &[u8]) {
    let Some((&at, rest)) = data.split_first() else {
        return;
    };
    let group = host();
    group.overlay(u64::from(at) * 4, rest);
    let Ok(hdr) = HostHdr::read(&group) else {
        return;
    };
    let end = u64::from(hdr.table_offset) + u64::from(hdr.table_entries) * CALL_ENTRY;
    assert!(end <= group.size() && hdr.table_entries <= MAX_CALLS);
    let end = u64::from(hdr.dir_offset) + u64::from(hdr.dir_entries) * DirEntry::SIZE;
    assert!(end <= group.size() && hdr.dir_entries <= MAX_SLOTS);
    match CallTable::read(&group, &hdr) {
        Ok(table) => assert!(CallTable::NEEDED.iter().all(|&call| table.has(call))),
        Err(error) => assert!(error.number() > 0),
    }
}

/// A directory entry, with one word that changes while it is read.
pub fn h_4_directory(data: &[u8]) {
    let Some((&[skip, a, b, c, d], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let group = host();
    let entry = DirEntry {
        state: PeerState::Ready,
        lanes: 1,
        slot_offset: base(1),
        slot_size: SLOT,
        ..DirEntry::default()
    };
    entry.write(&group.slot(0), DIRECTORY, 1);
    group.overlay(u64::from(DIRECTORY) + DirEntry::SIZE, rest);
    group.lie(u32::from(skip), u32::from_le_bytes([a, b, c, d]));
    if let Ok(e) = DirEntry::read(&group, DIRECTORY, 1) {
        assert!(e.addrs().len() <= MAX_ADDRS && e.name().len() <= 32);
        if e.state != PeerState::Absent {
            let end = e.slot_offset.checked_add(e.slot_size).unwrap();
            assert!(e.slot_offset >= EXTENT_SIZE && end <= group.size());
            assert!(e.slot_size >= MIN_SLOT_SIZE && u32::from(e.lanes) <= MAX_LANES);
        }
    }
}

/// The peer's slot header and channel header.
pub fn m_6_headers(data: &[u8]) {
    let Some((&[skip, a, b, c, d], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let group = Group::new();
    let slot = group.slot(base(1));
    let v = view(&slot, &group);
    let (hdr, chan) = rest.split_at(rest.len().min(32));
    group.overlay(base(2), hdr);
    group.overlay(base(2) + chan_area(1), chan);
    group.lie(u32::from(skip), u32::from_le_bytes([a, b, c, d]));
    match SlotHdr::read_peer(&v, 1) {
        Ok(hdr) => {
            assert!((1..=MAX_LANES).contains(&hdr.lanes));
            assert!(CONN_OFFSET + u64::from(hdr.conns) * CONN_SIZE <= SLOT);
        }
        Err(reason) => {
            assert!([Reason::BadSlot, Reason::Abi, Reason::Generation].contains(&reason))
        }
    }
    match ChanHdr::read_peer(&v, 1) {
        Ok(_) => {}
        Err(reason) => assert_eq!(reason, Reason::BadSlot),
    }
}
