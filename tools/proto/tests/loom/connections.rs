// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Connections: publish against arm_data, consume against arm_space, flags, ring
//! moves. READY messages are notifications here; that they arrive is what the
//! lanes' tests show.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use fgdp_proto::proto::grant::{Accepted, Extent};
use fgdp_proto::proto::mem::{Mem, MemMut};
use fgdp_proto::proto::stream::{Conn, Notify as Send, Ring};
use fgdp_proto::proto::wire::{conn, conn_entry, Kind, EXTENT_FRAMES, FRAME_SHIFT};
use loom::sync::Notify;
use loom::thread;

use crate::memory::{base, explore, slot, view, Group, SLOT};

pub const ID: u32 = 1 << 16;
/// Frames of member 1 behind its tables.
const PFN: u32 = ((10 << 20) >> FRAME_SHIFT) as u32;
pub const SMALL: Ring = Ring {
    pfn: PFN,
    frames: 4,
};
const LARGE: Ring = Ring {
    pfn: PFN + 8,
    frames: 8,
};

/// The words that a test about one direction, from member 1 to member 2, moves;
/// `bytes` are offsets of stream bytes. The entry is as `init_entry` left it, and
/// the data event is `armed`.
pub fn words(armed: u32, bytes: &[u64]) -> Vec<(u64, u32)> {
    let tx = base(1) + conn_entry(ID);
    let rx = base(2) + conn_entry(ID);
    let mut words = vec![
        (tx + conn::TAIL, 0),
        (tx + conn::TX_FLAGS, 0),
        (tx + conn::SPACE_EVENT, u32::MAX),
        (tx + conn::RING_SERIAL, 0),
        (tx + conn::RING_PFN, 0),
        (tx + conn::RING_FRAMES, 0),
        (tx + conn::RING_BASE, 0),
        (tx + conn::ID, ID),
        (rx + conn::ID, ID),
        (rx + conn::HEAD, 0),
        (rx + conn::DATA_EVENT, armed),
        (rx + conn::RX_FLAGS, 0),
    ];
    words.extend(bytes.iter().map(|&off| (off, 0)));
    words
}

fn connection(slot: &crate::memory::Slot) -> Conn {
    let mut conn = Conn::new(ID, Kind::Stream);
    conn.set_peer(&view(slot), ID).unwrap();
    conn
}

pub fn accepted() -> Accepted {
    let mut accepted = Accepted::new(base(1), SLOT, 8);
    accepted
        .insert(Extent {
            id: 1,
            pfn: PFN,
            frames: EXTENT_FRAMES,
        })
        .unwrap();
    accepted
}

pub fn tell(bell: &Notify, send: Send) {
    if send.ready {
        bell.notify();
    }
}

/// Four bytes at a time go over, `count` times, then FIN if `fin`. The consumer
/// sleeps when it has seen everything, or looks once more before if it `polls`; it
/// checks each byte's value.
fn data(count: u32, fin: bool, polls: bool, armed: u32, fences: bool) {
    let bytes: Vec<u64> = (0..u64::from(count))
        .map(|n| SMALL.start() + 4 * n)
        .collect();
    let group = Group::new(&words(armed, &bytes), fences);
    let bell = Arc::new(Notify::new());
    let producer = {
        let (s, bell) = (slot(&group, 1), bell.clone());
        thread::spawn(move || {
            let v = view(&s);
            let mut conn = connection(&s);
            conn.set_tx_ring(&v, SMALL).unwrap();
            for n in 0..count {
                let spans = conn.tx_spans(&v, 0, 4);
                v.slot.store(spans.as_slice()[0].off, n + 1);
                tell(&bell, conn.tx_publish(&v, 4).unwrap());
            }
            if fin {
                tell(&bell, conn.tx_fin(&v));
            }
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let (mut conn, accepted) = (connection(&s), accepted());
    let mut got = 0;
    loop {
        let avail = conn.rx_avail(&v, &accepted).unwrap();
        for span in conn.rx_spans(0, avail).as_slice() {
            for n in 0..u64::from(span.len / 4) {
                got += 1;
                assert_eq!(v.window.load(span.off + 4 * n), got, "byte not written yet");
            }
        }
        let _ = conn.rx_consume(&v, avail).unwrap();
        if conn.rx_fin() {
            assert_eq!(got, count, "bytes behind FIN");
        }
        if got == count && conn.rx_fin() == fin {
            break;
        }
        let sleeps = if polls {
            // The second look finds that the first has asked already.
            let asked = !conn.arm_data(&v).unwrap();
            let same = conn.rx_avail(&v, &accepted).unwrap() == 0 && !conn.rx_fin();
            asked && same && !conn.arm_data_seen(&v).unwrap()
        } else {
            !conn.arm_data(&v).unwrap()
        };
        if sleeps {
            bell.wait();
        }
    }
    producer.join().unwrap();
}

#[test]
fn s_9_no_data_is_slept_through() {
    explore(3, || data(2, false, false, 0, true));
}

#[test]
fn s_9_nor_by_one_that_was_awake() {
    explore(3, || data(2, false, false, u32::MAX, true));
}

#[test]
fn s_9_nor_by_one_that_polls_twice() {
    explore(3, || data(2, false, true, 0, true));
    explore(3, || data(1, true, true, 0, true));
}

#[test]
fn s_10_no_fin_is_slept_through_or_overtakes_data() {
    explore(3, || data(1, true, false, 0, true));
}

/// A full ring: the producer sleeps until `want` bytes fit, or until the consumer
/// reads no more.
fn space(want: u32, shut: bool, fences: bool) {
    let group = Group::new(&words(u32::MAX, &[]), fences);
    let room = Arc::new(Notify::new());
    let s1 = slot(&group, 1);
    let mut tx = connection(&s1);
    tx.set_tx_ring(&view(&s1), SMALL).unwrap();
    let full = tx.tx_space(&view(&s1)).unwrap();
    let _ = tx.tx_publish(&view(&s1), full).unwrap();
    let producer = {
        let room = room.clone();
        thread::spawn(move || {
            let v = view(&s1);
            loop {
                if tx.peer_rx_shut(&v).unwrap() || tx.tx_space(&v).unwrap() >= want {
                    break;
                }
                if !tx.arm_space(&v, want).unwrap() {
                    room.wait();
                }
            }
        })
    };
    let s2 = slot(&group, 2);
    let v = view(&s2);
    let (mut rx, accepted) = (connection(&s2), accepted());
    assert_eq!(rx.rx_avail(&v, &accepted), Ok(full));
    if shut {
        tell(&room, rx.shut_rx(&v));
    } else {
        for _ in 0..2 {
            tell(&room, rx.rx_consume(&v, full / 2).unwrap());
        }
    }
    producer.join().unwrap();
}

#[test]
fn s_11_no_space_is_slept_through() {
    explore(4, || space(1, false, true));
}

#[test]
fn s_11_nor_the_space_of_a_whole_ring() {
    explore(4, || space(SMALL.bytes(), false, true));
}

#[test]
fn s_10_no_shutdown_is_slept_through() {
    explore(4, || space(1, true, true));
}

/// Ring moves that `ring_move` made, in all interleavings.
static MOVES: AtomicU32 = AtomicU32::new(0);

/// The producer moves to a larger ring while the consumer reads the first one.
fn ring_move() {
    let bytes = [SMALL.start(), SMALL.start() + 4, LARGE.start() + 8];
    let group = Group::new(&words(0, &bytes), true);
    let bell = Arc::new(Notify::new());
    let producer = {
        let (s, bell) = (slot(&group, 1), bell.clone());
        thread::spawn(move || {
            let v = view(&s);
            let mut conn = connection(&s);
            conn.set_tx_ring(&v, SMALL).unwrap();
            for n in 1..=3 {
                // As soon as the consumer allows it.
                let _ = conn.tx_space(&v).unwrap();
                if n > 1 && conn.tx_ring() == Some(SMALL) && !conn.tx_move_pending() {
                    conn.set_tx_ring(&v, LARGE).unwrap();
                    MOVES.fetch_add(1, Ordering::Relaxed);
                }
                let at = conn.tx_spans(&v, 0, 4).as_slice()[0].off;
                v.slot.store(at, n);
                tell(&bell, conn.tx_publish(&v, 4).unwrap());
            }
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let (mut conn, accepted) = (connection(&s), accepted());
    let mut got = 0;
    while got < 3 {
        let avail = conn.rx_avail(&v, &accepted).unwrap();
        if avail != 0 {
            let span = conn.rx_spans(0, 4).as_slice()[0];
            got += 1;
            let value = v.window.load(span.off);
            // Bytes that the test does not watch are in the ring all the same.
            if bytes.contains(&span.off) {
                assert_eq!(value, got);
            }
            let _ = conn.rx_consume(&v, 4).unwrap();
        } else if !conn.arm_data(&v).unwrap() {
            bell.wait();
        }
    }
    producer.join().unwrap();
}

#[test]
fn s_6_a_ring_is_taken_over_whole() {
    explore(2, ring_move);
    assert_ne!(MOVES.load(Ordering::Relaxed), 0, "the ring never moved");
}

mod without_fence {
    use super::*;

    #[test]
    #[should_panic(expected = "deadlock")]
    fn s_9_data_is_slept_through() {
        explore(3, || data(2, false, false, 0, false));
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn s_11_space_is_slept_through() {
        explore(4, || space(1, false, false));
    }
}
