// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Grants between bytes of the ring, and their return: nothing is slept through, read
//! before it is there, or written before it is back.

use std::sync::Arc;

use fgdp_proto::proto::grant::Run;
use fgdp_proto::proto::mem::{Mem, MemMut};
use fgdp_proto::proto::stream::Conn;
use fgdp_proto::proto::wire::{conn, conn_entry, grant, Kind, FRAME_SHIFT};
use loom::sync::Notify;
use loom::thread;

use crate::connections::{accepted, tell, words, ID, SMALL};
use crate::memory::{base, explore, slot, view, Group, Slot};

pub const RECORDS: u32 = SMALL.pfn + 16;
pub const FRAME: u32 = SMALL.pfn + 17;
const POISON: u32 = 0xdead;

fn connection(slot: &Slot) -> Conn {
    let mut conn = Conn::new(ID, Kind::Stream);
    conn.set_peer(&view(slot), ID).unwrap();
    conn
}

/// The words of one grant, the first one of a direction from member 1 to member 2.
pub fn grant_words() -> [(u64, u32); 5] {
    let record = u64::from(RECORDS) << FRAME_SHIFT;
    [
        (base(1) + conn_entry(ID) + conn::GRANT_PFN, 0),
        (base(2) + conn_entry(ID) + conn::RELEASED, 0),
        (record + grant::POSITION, 0),
        (record + grant::PFN, 0),
        (record + grant::FRAMES, 0),
    ]
}

/// One frame goes over, and if `behind` says so a word of the ring behind it; then the
/// producer writes to the frame, once it is back.
fn one(behind: bool) {
    let start = u64::from(FRAME) << FRAME_SHIFT;
    let mut all = words(0, &[start, SMALL.start()]);
    all.extend(grant_words());
    let group = Group::new(&all, true);
    let (data, room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let producer = {
        let (s, data, room) = (slot(&group, 1), data.clone(), room.clone());
        thread::spawn(move || {
            let v = view(&s);
            let mut conn = connection(&s);
            conn.set_tx_ring(&v, SMALL).unwrap();
            assert!(conn.set_tx_grant_frame(&v, RECORDS));
            v.slot.store(start - v.slot_base, 7);
            let run = Run {
                pfn: FRAME,
                frames: 1,
            };
            tell(&data, conn.tx_grant(&v, run).unwrap().unwrap().1);
            if behind {
                let spans = conn.tx_spans(&v, 0, 4);
                v.slot.store(spans.as_slice()[0].off, 8);
                tell(&data, conn.tx_publish(&v, 4).unwrap());
            }
            loop {
                conn.tx_space(&v).unwrap();
                if conn.take_released().has(0) {
                    break;
                }
                // READY follows each release.
                room.wait();
            }
            v.slot.store(start - v.slot_base, POISON);
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let (mut conn, accepted) = (connection(&s), accepted());
    let want = 4096 + if behind { 4 } else { 0 };
    let mut got = 0;
    loop {
        let avail = conn.rx_avail(&v, &accepted).unwrap();
        for span in conn.rx_spans(0, avail).as_slice() {
            let expected = if got == 0 { 7 } else { 8 };
            assert_eq!(v.window.load(span.off), expected, "out of order");
            got += span.len;
        }
        tell(&room, conn.rx_consume(&v, avail).unwrap());
        if got == want {
            break;
        }
        if !conn.arm_data(&v).unwrap() {
            data.wait();
        }
    }
    producer.join().unwrap();
}

#[test]
fn z_3_no_grant_is_slept_through() {
    explore(3, || one(false));
}

#[test]
fn z_4_no_byte_of_the_ring_overtakes_a_grant() {
    explore(2, || one(true));
}
