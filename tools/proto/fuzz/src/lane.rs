// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A lane whose other side the fuzzer plays.

use fgdp_proto::proto::mem::MemMut;
use fgdp_proto::proto::ring::{LaneRx, LaneTx, PushError};
use fgdp_proto::proto::wire::*;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::memory::{base, view, Group};

/// Both halves of a lane against arbitrary words.
pub fn l_3_lane(data: &[u8]) {
    // The end of the data is the end of the run.
    let _end = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let group = Group::new();
    let slot = group.slot(base(1));
    let v = view(&slot, &group);
    let start = u.arbitrary()?;
    slot.store(
        lane_area(2, 0) + lane::SPACE_EVENT,
        u32::wrapping_sub(start, 1),
    );
    let (mut tx, mut rx) = (
        LaneTx::starting_at(2, 1, 0, start),
        LaneRx::starting_at(2, 1, 0, start),
    );
    let peer = base(2) + lane_area(1, 0);
    group.poke(peer + lane::HEAD, start);
    group.poke(peer + lane::TAIL, start);
    let (mut bad_tx, mut bad_rx) = (None, None);
    while !u.is_empty() {
        match u.int_in_range(0..=8)? {
            0 => group.poke(peer + lane::TAIL, u.arbitrary()?),
            1 => group.poke(peer + lane::HEAD, u.arbitrary()?),
            2 => {
                // Near what is right.
                let word = peer
                    + if u.arbitrary()? {
                        lane::TAIL
                    } else {
                        lane::HEAD
                    };
                let step = u32::from(u.arbitrary::<u16>()?);
                group.poke(word, group.peek(word).wrapping_add(step));
            }
            3 => {
                let place = u64::from(u.int_in_range(0..=LANE_MSGS - 1)?) * MSG_SIZE;
                group.overlay(peer + LANE_MSGS_OFFSET + place, u.bytes(28)?);
            }
            4 => group.lie(u.int_in_range(0..=20)?, u.arbitrary()?),
            5 => {
                for _ in 0..u.int_in_range(1..=300)? {
                    match tx.push(&v, &Msg::Done { conn: 1 }) {
                        Ok(_) => assert_eq!(bad_tx, None),
                        Err(PushError::Full) => break,
                        Err(PushError::Broken(reason)) => latch(&mut bad_tx, reason),
                    }
                }
                assert!(tx.in_flight() <= LANE_MSGS);
            }
            6 => match tx.arm_space(&v) {
                Ok(_) => assert_eq!(bad_tx, None),
                Err(reason) => latch(&mut bad_tx, reason),
            },
            7 => {
                let mut taken = 0;
                loop {
                    match rx.pop(&v) {
                        Ok(Some(_)) => taken += 1,
                        Ok(None) => break,
                        Err(reason) => break latch(&mut bad_rx, reason),
                    }
                }
                assert!(taken <= LANE_MSGS, "more than a lane holds");
                match rx.publish_head(&v) {
                    Ok(_) => assert_eq!(bad_rx, None),
                    Err(reason) => latch(&mut bad_rx, reason),
                }
            }
            _ => {
                match rx.arm(&v) {
                    Ok(_) => assert_eq!(bad_rx, None),
                    Err(reason) => latch(&mut bad_rx, reason),
                }
                rx.suppress(&v);
            }
        }
    }
    Ok(())
}

fn latch(seen: &mut Option<Reason>, reason: Reason) {
    assert!(matches!(reason, Reason::BadLane | Reason::BadMsg));
    assert!(seen.is_none_or(|r| r == reason), "another reason later");
    *seen = Some(reason);
}
