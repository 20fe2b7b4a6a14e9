// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Carried connections: the switch, which no READY announces, and the ways back,
//! with a consumer that reads meanwhile.

use std::sync::Arc;

use fgdp_proto::proto::mem::{Mem, MemMut};
use fgdp_proto::proto::stream::{Conn, Source, TxPath};
use fgdp_proto::proto::wire::{conn, conn_entry};
use loom::sync::Notify;
use loom::thread;

use crate::connections::{accepted, tell, words, ID, SMALL};
use crate::memory::{base, explore, slot, view, Group, Slot};

/// Where the ring begins in TCP.
pub const SEQ: u32 = 7;

fn group(bytes: &[u64], fences: bool) -> Arc<Group> {
    let mut words = words(0, bytes);
    words.push((base(1) + conn_entry(ID) + conn::TCP_SEQ, 0));
    Group::new(&words, fences)
}

pub fn carried(slot: &Slot) -> Conn {
    let mut conn = Conn::new_carried(ID);
    conn.set_peer(&view(slot), ID).unwrap();
    conn
}

/// The producer switches and sends `count` times four bytes, while the consumer
/// waits for bytes of TCP or of the ring.
fn switch(count: u32, fences: bool) {
    let bytes: Vec<u64> = (0..u64::from(count))
        .map(|n| SMALL.start() + 4 * n)
        .collect();
    let group = group(&bytes, fences);
    let bell = Arc::new(Notify::new());
    let producer = {
        let (s, bell) = (slot(&group, 1), bell.clone());
        thread::spawn(move || {
            let v = view(&s);
            let mut conn = carried(&s);
            assert_eq!(conn.tx_switch(&v, SEQ), Ok(true));
            conn.set_tx_ring(&v, SMALL).unwrap();
            for n in 0..count {
                let spans = conn.tx_spans(&v, 0, 4);
                v.slot.store(spans.as_slice()[0].off, n + 1);
                tell(&bell, conn.tx_publish(&v, 4).unwrap());
            }
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let (mut conn, accepted) = (carried(&s), accepted());
    let mut got = 0;
    while got < count {
        match conn.rx_source(&v, &accepted, SEQ, SEQ).unwrap() {
            Source::Tcp | Source::Ring(0) => {
                if !conn.arm_data(&v).unwrap() {
                    bell.wait();
                }
            }
            Source::Ring(_) => {
                got += 1;
                let at = conn.rx_spans(0, 4).as_slice()[0].off;
                assert_eq!(v.window.load(at), got, "byte not written yet");
                let _ = conn.rx_consume(&v, 4).unwrap();
            }
            other => panic!("{other:?}: the number was not complete"),
        }
    }
    producer.join().unwrap();
}

#[test]
fn t_4_no_switch_is_slept_through() {
    explore(3, || switch(1, true));
}

#[test]
fn t_4_nor_the_second_byte() {
    explore(2, || switch(2, true));
}

/// The producer sends eight bytes, and wants back if `back`; the consumer stops
/// after `reads` reads, or when it is asked to. What was consumed and the rest are
/// all, and nobody sleeps through the other's word.
fn ways_back(reads: u32, back: bool) {
    let group = group(&[], true);
    let (data, space) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let producer = {
        let (s, data, space) = (slot(&group, 1), data.clone(), space.clone());
        thread::spawn(move || {
            let v = view(&s);
            let mut conn = carried(&s);
            if conn.tx_switch(&v, SEQ).unwrap() {
                conn.set_tx_ring(&v, SMALL).unwrap();
            }
            let mut by_ring = 0;
            for _ in 0..2 {
                if conn.tx_space(&v).unwrap() >= 4 {
                    tell(&data, conn.tx_publish(&v, 4).unwrap());
                    by_ring += 4;
                }
            }
            if back {
                tell(&data, conn.tx_back(&v));
            }
            loop {
                match conn.tx_path(&v, SEQ).unwrap() {
                    TxPath::Rest(n) => return (by_ring, n),
                    TxPath::Back => return (by_ring, 0),
                    TxPath::Wait | TxPath::Ring => space.wait(),
                    other => panic!("{other:?}"),
                }
            }
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let (mut conn, accepted) = (carried(&s), accepted());
    let mut got = 0;
    for _ in 0..reads {
        match conn.rx_source(&v, &accepted, SEQ, SEQ).unwrap() {
            Source::Stop => break,
            Source::Ring(n) if n != 0 => {
                got += n.min(4);
                tell(&space, conn.rx_consume(&v, 4).unwrap());
            }
            _ if !back => {}
            _ => {
                if !conn.arm_data(&v).unwrap() {
                    data.wait();
                }
            }
        }
    }
    tell(&space, conn.rx_stop(&v));
    let (by_ring, rest) = producer.join().unwrap();
    assert_eq!(got + rest, by_ring, "lost or doubled");
}

#[test]
fn t_8_stop_comes_at_any_time_and_the_head_is_final() {
    explore(2, || ways_back(1, false));
}

#[test]
fn t_9_no_wish_to_go_back_is_slept_through() {
    explore(2, || ways_back(u32::MAX, true));
}

mod without_fence {
    use super::*;

    #[test]
    #[should_panic(expected = "deadlock")]
    fn t_4_a_byte_is_slept_through() {
        explore(3, || switch(2, false));
    }
}
