// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Records against a queue of their lengths and first bytes.

use std::collections::VecDeque;

use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::mem::MemMut;
use fgdp_proto::proto::stream::{Conn, Ring};
use fgdp_proto::proto::wire::{Kind, Reason, RECORD_HDR};
use proptest::prelude::*;

use crate::memory::{accepted, attach, first_extent, view, Group, Slot};

struct Ends {
    group: Group,
    slots: [Slot; 2],
    tx: Conn,
    rx: Conn,
    acc: Accepted,
}

impl Ends {
    fn new() -> Self {
        let group = Group::new(2);
        let slots = [attach(&group, 1), attach(&group, 2)];
        let mut tx = Conn::new(0x1_0001, Kind::SeqPacket);
        let mut rx = Conn::new(0x1_0002, Kind::SeqPacket);
        tx.init_entry(&view(&slots[0], &group, 2));
        rx.init_entry(&view(&slots[1], &group, 1));
        tx.set_peer(&view(&slots[0], &group, 2), rx.own_id())
            .unwrap();
        rx.set_peer(&view(&slots[1], &group, 1), tx.own_id())
            .unwrap();
        Ends {
            group,
            slots,
            tx,
            rx,
            acc: accepted(1),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(u32),
    Recv(bool),
    Ring(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop_oneof![0u32..40, 0u32..5000, Just(u32::MAX), Just(16376)].prop_map(Op::Send),
        5 => any::<bool>().prop_map(Op::Recv),
        1 => (2u32..6).prop_map(|o| Op::Ring(1 << o)),
    ]
}

proptest! {
    #![proptest_config(crate::cases(128))]

    #[test]
    fn s_13_records_come_whole_and_in_order(ops in prop::collection::vec(op(), 1..200)) {
        let mut e = Ends::new();
        let (va, vb) = (view(&e.slots[0], &e.group, 2), view(&e.slots[1], &e.group, 1));
        let mut queue = VecDeque::new();
        let mut place = 0;
        for op in ops {
            match op {
                Op::Ring(frames) => {
                    // Two places for rings, used in turn: no ring overwrites the last.
                    let ring = Ring { pfn: first_extent(1) + place, frames };
                    e.tx.reap_tx_ring(&va).unwrap();
                    if e.tx.set_tx_ring(&va, ring).is_ok() {
                        place = 512 - place;
                    }
                }
                Op::Send(len) => {
                    let space = e.tx.tx_space(&va).unwrap();
                    let size = Conn::record_size(len);
                    let fits = size.is_some_and(|s| s <= space);
                    prop_assert_eq!(e.tx.tx_record(&va, len), fits);
                    if !fits {
                        continue;
                    }
                    let spans = e.tx.tx_spans(&va, RECORD_HDR, len);
                    prop_assert_eq!(spans.bytes(), len);
                    let mark = 0xabcd_0000 | queue.len() as u32;
                    if let Some(span) = spans.as_slice().first() {
                        va.slot.store(span.off, mark);
                    }
                    let _ = e.tx.tx_publish(&va, size.unwrap()).unwrap();
                    queue.push_back((len, mark));
                }
                Op::Recv(peek) => {
                    e.rx.rx_avail(&vb, &e.acc).unwrap();
                    let got = e.rx.rx_record(&vb).unwrap();
                    prop_assert_eq!(got, queue.front().map(|r| r.0));
                    let Some(len) = got else { continue };
                    let spans = e.rx.rx_spans(RECORD_HDR, len);
                    prop_assert_eq!(spans.bytes(), len);
                    if len >= 4 {
                        prop_assert_eq!(e.group.peek(spans.as_slice()[0].off), queue[0].1);
                    }
                    if !peek {
                        let _ = e.rx.rx_consume_record(&vb).unwrap();
                        queue.pop_front();
                    }
                }
            }
        }
    }

    #[test]
    fn s_13_a_bad_header_breaks(len in any::<u32>(), flags in 0u32..3, published in 1u32..100) {
        let mut e = Ends::new();
        let (va, vb) = (view(&e.slots[0], &e.group, 2), view(&e.slots[1], &e.group, 1));
        let ring = Ring { pfn: first_extent(1), frames: 4 };
        e.tx.set_tx_ring(&va, ring).unwrap();
        let at = ring.start() - va.slot_base;
        va.slot.store(at, len);
        va.slot.store(at + 4, flags);
        // Any number of bytes, also one that no record has.
        let _ = e.tx.tx_publish(&va, published).unwrap();
        e.rx.rx_avail(&vb, &e.acc).unwrap();
        let good = flags == 0 && Conn::record_size(len).is_some_and(|s| s <= published);
        let got = e.rx.rx_record(&vb);
        if good {
            prop_assert_eq!(got, Ok(Some(len)));
            // The header is fetched once.
            va.slot.store(at, len ^ 1);
            prop_assert_eq!(e.rx.rx_record(&vb), Ok(Some(len)));
        } else {
            prop_assert_eq!(got, Err(Reason::BadRecord));
            prop_assert_eq!(e.rx.rx_avail(&vb, &e.acc), Err(Reason::BadRecord));
        }
    }
}

#[test]
fn s_13_a_stream_has_no_records() {
    let group = Group::new(2);
    let slot = attach(&group, 1);
    let v = view(&slot, &group, 2);
    let mut conn = Conn::new(0x1_0001, Kind::Stream);
    conn.init_entry(&v);
    conn.set_tx_ring(
        &v,
        Ring {
            pfn: first_extent(1),
            frames: 4,
        },
    )
    .unwrap();
    assert!(!conn.tx_record(&v, 1));
    assert_eq!(conn.rx_record(&v), Ok(None));
    assert_eq!(Conn::record_size(u32::MAX), None);
    assert_eq!(Conn::record_size(u32::MAX - 15), Some(u32::MAX - 7));
    assert_eq!(
        [0, 1, 8, 9].map(Conn::record_size),
        [Some(8), Some(16), Some(16), Some(24)]
    );
}
