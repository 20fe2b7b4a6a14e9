// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The sequence count of a directory entry.

use fgdp_proto::proto::wire::{DirEntry, DirError, PeerState};
use loom::thread;

use crate::memory::{base, explore, slot, Group};

/// Sequence, state, generation and doorbell id of entry 0 are watched.
const WATCHED: [u64; 4] = [0, 4, 8, 48];

fn entry(n: u32) -> DirEntry {
    DirEntry {
        state: PeerState::Absent,
        generation: n,
        ivshmem_id: n,
        ..DirEntry::default()
    }
}

#[test]
fn h_4_an_entry_is_read_whole() {
    explore(2, || {
        let group = Group::new(&WATCHED.map(|off| (base(1) + off, 0)), true);
        let writer = {
            let s = slot(&group, 1);
            thread::spawn(move || {
                entry(1).write(&s, 0, 0);
            })
        };
        match DirEntry::read(&*group, 0, 0) {
            Ok(e) => assert_eq!(e.generation, e.ivshmem_id, "half an entry"),
            Err(why) => assert_eq!(why, DirError::Busy),
        }
        writer.join().unwrap();
        assert_eq!(DirEntry::read(&*group, 0, 0).unwrap().generation, 1);
    });
}
