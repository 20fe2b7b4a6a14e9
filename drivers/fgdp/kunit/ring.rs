// SPDX-License-Identifier: GPL-2.0

//! Lanes: indices at the wrap-around, events, and a producer that lies.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_ring)]
mod tests {
    use crate::kunit::{group, view, SLOT};
    use crate::proto::mem::MemMut;
    use crate::proto::ring::{passed, reset, LaneRx, LaneTx, PushError};
    use crate::proto::wire::{lane, lane_area, Msg, Reason, LANE_MSGS};
    use crate::sys::shm::LocalGroup;
    use kernel::prelude::*;

    /// A lane with `index` messages behind it.
    fn lane_at(group: &LocalGroup, index: u32) -> (LaneTx, LaneRx) {
        reset(&group.slot, SLOT);
        let at = lane_area(SLOT, 0);
        for off in [lane::TAIL, lane::HEAD, lane::MSG_EVENT] {
            group.slot.store(at.wrapping_add(off), index);
        }
        group
            .slot
            .store(at.wrapping_add(lane::SPACE_EVENT), index.wrapping_sub(1));
        (
            LaneTx::starting_at(SLOT, SLOT, 0, index),
            LaneRx::starting_at(SLOT, SLOT, 0, index),
        )
    }

    #[test]
    fn passed_at_the_edges() {
        const MAX: u32 = u32::MAX;
        // Event, new index, old index.
        for (event, new, old, want) in [
            (0, 1, 0, true),
            (1, 1, 0, false),
            (MAX, 1, 0, false),
            (0, 0, 0, false),
            (5, 9, 5, true),
            (8, 9, 5, true),
            (9, 9, 5, false),
            (4, 9, 5, false),
            (MAX, 0, MAX, true),
            (0, 0, MAX, false),
            (0, 1, MAX, true),
            (MAX - 1, 1, MAX, false),
            (0x7fff_ffff, 0x8000_0000, 0x7fff_ffff, true),
            (0x8000_0000, 0x8000_0000, 0x7fff_ffff, false),
            (0, MAX, 0, true),
            (MAX - 1, MAX, 0, true),
        ] {
            assert_eq!(passed(event, new, old), want);
        }
    }

    #[test]
    fn a_full_lane_wraps() -> Result {
        let group = group()?;
        let v = view(&group);
        for index in [
            0,
            1,
            u32::MAX,
            u32::MAX - LANE_MSGS + 1,
            u32::MAX - 3,
            0x7fff_ff80,
        ] {
            let (mut tx, mut rx) = lane_at(&group, index);
            for round in 0..3u32 {
                for n in 0..LANE_MSGS {
                    let rung = tx.push(
                        &v,
                        &Msg::Done {
                            conn: round << 16 | n,
                        },
                    );
                    assert_eq!(rung, Ok(n == 0));
                }
                assert_eq!(tx.in_flight(), LANE_MSGS);
                assert_eq!(tx.push(&v, &Msg::Done { conn: 0 }), Err(PushError::Full));
                for n in 0..LANE_MSGS {
                    assert_eq!(
                        rx.pop(&v),
                        Ok(Some(Msg::Done {
                            conn: round << 16 | n
                        }))
                    );
                }
                assert_eq!(rx.pop(&v), Ok(None));
                assert_eq!(rx.publish_head(&v), Ok(false));
                assert_eq!(rx.arm(&v), Ok(false));
            }
        }
        Ok(())
    }

    #[test]
    fn an_event_rings_once() -> Result {
        let group = group()?;
        let v = view(&group);
        let (mut tx, mut rx) = lane_at(&group, u32::MAX);
        let msg = Msg::Done { conn: 1 };
        assert_eq!(tx.push(&v, &msg), Ok(true));
        assert_eq!(tx.push(&v, &msg), Ok(false));
        // Messages are there: no sleep.
        assert_eq!(rx.pop(&v), Ok(Some(msg)));
        assert_eq!(rx.arm(&v), Ok(true));
        rx.suppress(&v);
        assert_eq!(rx.pop(&v), Ok(Some(msg)));
        assert_eq!(tx.push(&v, &msg), Ok(false));
        assert_eq!(rx.pop(&v), Ok(Some(msg)));
        assert_eq!(rx.publish_head(&v), Ok(false));
        assert_eq!(rx.arm(&v), Ok(false));
        assert_eq!(tx.push(&v, &msg), Ok(true));
        Ok(())
    }

    #[test]
    fn space_rings_at_a_quarter() -> Result {
        let group = group()?;
        let v = view(&group);
        let (mut tx, mut rx) = lane_at(&group, u32::MAX - 5);
        for n in 0..LANE_MSGS {
            assert!(tx.push(&v, &Msg::Done { conn: n }).is_ok());
        }
        assert_eq!(tx.arm_space(&v), Ok(false));
        for n in 1..=LANE_MSGS {
            assert!(matches!(rx.pop(&v), Ok(Some(_))));
            assert_eq!(rx.publish_head(&v), Ok(n == LANE_MSGS / 4));
        }
        assert_eq!(tx.arm_space(&v), Ok(true));
        Ok(())
    }

    #[test]
    fn indices_outside_the_window_break_the_lane() -> Result {
        let group = group()?;
        let v = view(&group);
        for index in [0u32, 7, u32::MAX - 1] {
            for off in [LANE_MSGS + 1, 0x8000_0000, u32::MAX] {
                let (mut tx, mut rx) = lane_at(&group, index);
                let at = lane_area(SLOT, 0);
                group
                    .slot
                    .store(at.wrapping_add(lane::TAIL), index.wrapping_add(off));
                assert_eq!(rx.pop(&v), Err(Reason::BadLane));
                group.slot.store(at.wrapping_add(lane::TAIL), index);
                assert_eq!(rx.pop(&v), Err(Reason::BadLane));

                group
                    .slot
                    .store(at.wrapping_add(lane::HEAD), index.wrapping_add(off));
                assert_eq!(tx.arm_space(&v), Err(Reason::BadLane));
                let msg = Msg::Done { conn: 1 };
                assert_eq!(tx.push(&v, &msg), Err(PushError::Broken(Reason::BadLane)));
            }
        }
        Ok(())
    }

    #[test]
    fn an_unknown_message_breaks_the_lane() -> Result {
        let group = group()?;
        let v = view(&group);
        let (_, mut rx) = lane_at(&group, 0);
        let at = lane_area(SLOT, 0);
        group.slot.store(
            at.wrapping_add(crate::proto::wire::LANE_MSGS_OFFSET),
            0xffff,
        );
        group.slot.store(at.wrapping_add(lane::TAIL), 1);
        assert_eq!(rx.pop(&v), Err(Reason::BadMsg));
        assert_eq!(rx.arm(&v), Err(Reason::BadMsg));
        Ok(())
    }
}
