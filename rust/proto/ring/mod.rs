// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Lanes: message rings between two members.
//!
//! A lane is two rings of [`LANE_MSGS`](crate::proto::wire::LANE_MSGS) messages,
//! one per direction. Each side keeps, in its own slot, the ring it produces
//! into and its consumer index of the other one.
//!
//! # Wake-up protocol (L-5 to L-8)
//!
//! Each index has an event word on the other side: the value at whose passing
//! the other side wants to be rung. Both sides do the same two steps in
//! opposite order, with the full barrier between them:
//!
//! ```text
//! mover (push, publish_head)      sleeper (arm, arm_space)
//!   store index                     store event
//!   fence                           fence
//!   load event; passed: ring        load index; moved: do not sleep
//! ```
//!
//! So at least one of them sees the other's store, and no wake-up is lost. An
//! event word works once: a passed one stays behind the index, which therefore
//! suppresses until the owner arms again.

mod rx;
mod tx;

pub use rx::LaneRx;
pub use tx::{LaneTx, PushError};

use crate::proto::mem::{zero, MemMut};
use crate::proto::wire::{chan_area, lane, lane_area, CHAN_SIZE, LANE_OFFSET, MAX_LANES};

/// True if an index that moved from `old` to `new` passed `event` on its way:
/// `old <= event < new` in the arithmetic of 2^32 (L-5).
pub const fn passed(event: u32, new: u32, old: u32) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Prepares the own channel area for peer `peer_slot`: everything zero but the
/// space events, which are behind the head. Done before the channel is opened,
/// and only while the peer's side of the last one is closed (C-3). Messages are
/// armed: the first one rings.
pub fn reset<S: MemMut + ?Sized>(slot: &S, peer_slot: u32) {
    let area = chan_area(peer_slot);
    zero(
        slot,
        area.wrapping_add(LANE_OFFSET),
        CHAN_SIZE.wrapping_sub(LANE_OFFSET),
    );
    for n in 0..MAX_LANES {
        let at = lane_area(peer_slot, n);
        slot.store(at.wrapping_add(lane::SPACE_EVENT), u32::MAX);
    }
    slot.fence();
}
