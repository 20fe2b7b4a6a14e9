// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Lanes: push against pop and arm, publish against arm_space.

use std::sync::Arc;

use fgdp_proto::proto::ring::{LaneRx, LaneTx, PushError};
use fgdp_proto::proto::wire::{lane, lane_area, Msg, LANE_MSGS, LANE_MSGS_OFFSET, MSG_SIZE};
use loom::sync::Notify;
use loom::thread;

use crate::memory::{base, explore, slot, view, Group};

/// The words of lane 0 from member 1 to member 2, of which messages have
/// `bodies`, with `armed` as the consumer's event.
fn words(bodies: u32, armed: u32) -> Vec<(u64, u32)> {
    let tx = base(1) + lane_area(2, 0);
    let rx = base(2) + lane_area(1, 0);
    let mut words = vec![
        (tx + lane::TAIL, 0),
        (tx + lane::SPACE_EVENT, u32::MAX),
        (rx + lane::HEAD, 0),
        (rx + lane::MSG_EVENT, armed),
    ];
    for n in 0..bodies {
        let at = tx + LANE_MSGS_OFFSET + u64::from(n) * MSG_SIZE;
        words.push((at, 0));
        words.push((at + 4, 0));
    }
    words
}

/// `count` messages go over; the consumer sleeps when it has nothing to do.
fn messages(count: u32, armed: u32, suppress: bool, fences: bool) {
    let group = Group::new(&words(count, armed), fences);
    let bell = Arc::new(Notify::new());
    let producer = {
        let (s, bell) = (slot(&group, 1), bell.clone());
        thread::spawn(move || {
            let mut tx = LaneTx::new(2, 1, 0);
            for n in 0..count {
                if tx.push(&view(&s), &Msg::Done { conn: n + 1 }).unwrap() {
                    bell.notify();
                }
            }
        })
    };
    let s = slot(&group, 2);
    let v = view(&s);
    let mut rx = LaneRx::new(1, 2, 0);
    let mut next = 1;
    loop {
        if suppress {
            rx.suppress(&v);
        }
        while let Some(msg) = rx.pop(&v).unwrap() {
            assert_eq!(msg, Msg::Done { conn: next }, "incomplete message");
            next += 1;
        }
        rx.publish_head(&v).unwrap();
        if next > count {
            break;
        }
        if !rx.arm(&v).unwrap() {
            bell.wait();
        }
    }
    producer.join().unwrap();
}

#[test]
fn l_6_no_message_is_slept_through() {
    explore(3, || messages(2, 0, false, true));
}

#[test]
fn l_7_nor_after_suppressing() {
    explore(3, || messages(2, 0, true, true));
}

#[test]
fn l_6_nor_by_one_that_was_awake() {
    explore(3, || messages(2, u32::MAX, false, true));
}

/// A full lane: the producer sleeps until there is space.
fn space(fences: bool) {
    let group = Group::new(&words(0, u32::MAX), fences);
    let (bell, room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let s1 = slot(&group, 1);
    let mut tx = LaneTx::new(2, 1, 0);
    for _ in 0..LANE_MSGS {
        tx.push(&view(&s1), &Msg::Done { conn: 0 }).unwrap();
    }
    let producer = {
        let (bell, room) = (bell.clone(), room.clone());
        thread::spawn(move || {
            let v = view(&s1);
            loop {
                match tx.push(&v, &Msg::Done { conn: 0 }) {
                    Ok(true) => break bell.notify(),
                    Ok(false) => break,
                    Err(PushError::Full) => {
                        if !tx.arm_space(&v).unwrap() {
                            room.wait();
                        }
                    }
                    Err(PushError::Broken(reason)) => panic!("{reason:?}"),
                }
            }
        })
    };
    let s2 = slot(&group, 2);
    let v = view(&s2);
    let mut rx = LaneRx::new(1, 2, 0);
    let mut got = 0;
    loop {
        while rx.pop(&v).unwrap().is_some() {
            got += 1;
        }
        if rx.publish_head(&v).unwrap() {
            room.notify();
        }
        if got > LANE_MSGS {
            break;
        }
        if !rx.arm(&v).unwrap() {
            bell.wait();
        }
    }
    producer.join().unwrap();
}

#[test]
fn l_8_no_space_is_slept_through() {
    explore(3, || space(true));
}

mod without_fence {
    use super::*;

    #[test]
    #[should_panic(expected = "deadlock")]
    fn l_6_a_message_is_slept_through() {
        explore(3, || messages(2, 0, false, false));
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn l_8_space_is_slept_through() {
        explore(3, || space(false));
    }
}
