// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Lanes against a queue.

use std::collections::VecDeque;

use fgdp_proto::proto::mem::MemMut;
use fgdp_proto::proto::ring::{self, passed, LaneRx, LaneTx, PushError};
use fgdp_proto::proto::wire::{lane, lane_area, Msg, LANE_MSGS};
use proptest::prelude::*;

use crate::memory::{attach, view, Group};

#[derive(Clone, Debug)]
enum Op {
    Push(u32),
    ArmSpace,
    Pop(u32),
    Publish,
    Suppress,
    Arm,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u32..400).prop_map(Op::Push),
        1 => Just(Op::ArmSpace),
        4 => (1u32..400).prop_map(Op::Pop),
        2 => Just(Op::Publish),
        1 => Just(Op::Suppress),
        2 => Just(Op::Arm),
    ]
}

/// What each side was told, and what it may rely on.
#[derive(Default)]
struct Model {
    queue: VecDeque<u32>,
    /// Messages taken since the head was published.
    taken: u32,
    /// The consumer sleeps: the next push must ring.
    consumer_sleeps: bool,
    /// Doorbells since the last arm: at most one.
    rung: u32,
    /// The producer sleeps: it must be rung before the lane is empty and published.
    producer_sleeps: bool,
}

fn message(n: u32) -> Msg {
    Msg::Ready {
        conn: n,
        data: n % 2 == 0,
        space: n % 3 == 0 || n % 2 == 1,
    }
}

fn run(start: u32, ops: &[Op]) -> Result<(), TestCaseError> {
    let group = Group::new(2);
    let (a, b) = (attach(&group, 1), attach(&group, 2));
    ring::reset(&a, 2);
    ring::reset(&b, 1);
    a.store(lane_area(2, 1) + lane::TAIL, start);
    a.store(lane_area(2, 1) + lane::SPACE_EVENT, start.wrapping_sub(1));
    b.store(lane_area(1, 1) + lane::HEAD, start);
    b.store(lane_area(1, 1) + lane::MSG_EVENT, start);
    let (va, vb) = (view(&a, &group, 2), view(&b, &group, 1));
    let mut tx = LaneTx::starting_at(2, 1, 1, start);
    let mut rx = LaneRx::starting_at(1, 2, 1, start);
    let mut m = Model {
        consumer_sleeps: true,
        ..Model::default()
    };
    let mut next = 0u32;
    for op in ops {
        match *op {
            Op::Push(count) => {
                for _ in 0..count {
                    let full = m.queue.len() as u32 + m.taken >= LANE_MSGS;
                    match tx.push(&va, &message(next)) {
                        Ok(ring) => {
                            prop_assert!(!full);
                            prop_assert!(ring || !m.consumer_sleeps, "lost wake-up");
                            m.rung += u32::from(ring);
                            prop_assert!(m.rung <= 1, "rung twice for one arm");
                            m.consumer_sleeps = false;
                            m.queue.push_back(next);
                            next += 1;
                        }
                        Err(PushError::Full) => {
                            prop_assert!(full);
                            break;
                        }
                        Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
                    }
                }
            }
            Op::ArmSpace => {
                let full = m.queue.len() as u32 + m.taken >= LANE_MSGS;
                let space = tx.arm_space(&va).unwrap();
                prop_assert_eq!(space, !full);
                m.producer_sleeps = !space;
            }
            Op::Pop(count) => {
                for _ in 0..count {
                    let got = rx.pop(&vb).unwrap();
                    let want = m.queue.pop_front();
                    prop_assert_eq!(got, want.map(message));
                    if want.is_none() {
                        break;
                    }
                    m.taken += 1;
                }
            }
            Op::Publish => {
                let ring = rx.publish_head(&vb).unwrap();
                m.taken = 0;
                prop_assert!(
                    ring || !m.producer_sleeps || !m.queue.is_empty(),
                    "the lane is drained and the producer sleeps"
                );
                m.producer_sleeps &= !ring;
            }
            Op::Suppress => {
                rx.suppress(&vb);
                m.consumer_sleeps = false;
                // Nobody armed: no doorbell until the next arm.
                m.rung = 1;
            }
            Op::Arm => {
                let some = rx.arm(&vb).unwrap();
                prop_assert_eq!(some, !m.queue.is_empty());
                if !some {
                    m.rung = 0;
                    m.consumer_sleeps = true;
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases(64))]

    #[test]
    fn l_2_to_l_8_lane_is_a_queue_that_loses_no_wake_up(
        start in prop_oneof![Just(0u32), (u32::MAX - 600)..=u32::MAX],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        run(start, &ops)?;
    }

    #[test]
    fn l_5_passed_is_old_to_new_half_open(old in any::<u32>(), step in 0u32..1000, at in 0u32..2000) {
        let event = old.wrapping_sub(500).wrapping_add(at);
        let passes = (500..500 + step).contains(&at);
        prop_assert_eq!(passed(event, old.wrapping_add(step), old), passes);
    }
}

#[test]
fn l_1_lanes_and_channels_do_not_overlap() {
    let group = Group::new(2);
    let (a, b) = (attach(&group, 1), attach(&group, 2));
    let (va, vb) = (view(&a, &group, 2), view(&b, &group, 1));
    ring::reset(&a, 2);
    ring::reset(&b, 1);
    let mut lanes: Vec<_> = (0..4)
        .map(|n| (LaneTx::new(2, 1, n), LaneRx::new(1, 2, n)))
        .collect();
    for round in 0..LANE_MSGS {
        for (n, (tx, _)) in (0u32..).zip(&mut lanes) {
            tx.push(
                &va,
                &Msg::Done {
                    conn: (n << 16) | round,
                },
            )
            .unwrap();
        }
    }
    for round in 0..LANE_MSGS {
        for (n, (_, rx)) in (0u32..).zip(&mut lanes) {
            let want = Msg::Done {
                conn: (n << 16) | round,
            };
            assert_eq!(rx.pop(&vb), Ok(Some(want)));
        }
    }
}
