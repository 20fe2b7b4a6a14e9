// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The producer of a lane.

use super::passed;
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{lane, lane_area, Msg, Reason, LANE_MSGS, LANE_MSGS_OFFSET, MSG_SIZE};

/// After [`LaneTx::arm_space`] the producer is rung when this many messages
/// fit, not at the first one.
const SPACE_BATCH: u32 = LANE_MSGS / 4;

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// No space: keep the message, call [`LaneTx::arm_space`].
    Full,
    /// The peer broke a rule.
    Broken(Reason),
}

impl From<Reason> for PushError {
    fn from(reason: Reason) -> Self {
        Self::Broken(reason)
    }
}

/// The producer's half of a lane.
///
/// # Invariants
///
/// `tail - head <= LANE_MSGS` (wrapping); `head` is the newest consumer index
/// that was fetched, and never goes back.
#[derive(Debug)]
pub struct LaneTx {
    own: u64,
    peer: u64,
    tail: u32,
    head: u32,
    broken: Option<Reason>,
}

impl LaneTx {
    /// Lane `lane` of the channel from `own_slot` to `peer_slot`, as
    /// [`reset`](super::reset) left it. Slots and lanes were validated before;
    /// numbers out of range count modulo their limits.
    pub fn new(peer_slot: u32, own_slot: u32, lane: u32) -> Self {
        Self::starting_at(peer_slot, own_slot, lane, 0)
    }

    /// Like [`LaneTx::new`], with `index` messages behind it; both sides'
    /// words must say so. Tests reach the wrap-around this way.
    pub fn starting_at(peer_slot: u32, own_slot: u32, lane: u32, index: u32) -> Self {
        Self {
            own: lane_area(peer_slot, lane),
            peer: lane_area(own_slot, lane),
            tail: index,
            head: index,
            broken: None,
        }
    }

    /// Messages that were published and, as far as is known, not consumed.
    pub fn in_flight(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    fn check(&self) -> Result<(), Reason> {
        self.broken.map_or(Ok(()), Err)
    }

    /// Fetches the consumer's index (L-3).
    fn refresh<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<(), Reason> {
        // Pairs with the release in `LaneRx::publish_head`: the consumer is done
        // with the messages before it.
        let head = v.peer_load_acquire(self.peer.wrapping_add(lane::HEAD));
        if head.wrapping_sub(self.head) > self.in_flight() {
            self.broken = Some(Reason::BadLane);
            return Err(Reason::BadLane);
        }
        // INVARIANT: the check above keeps head within [head, tail].
        self.head = head;
        Ok(())
    }

    /// Publishes `msg`. `Ok(true)`: the consumer asked to be rung.
    ///
    /// # Errors
    ///
    /// [`PushError::Full`] if the lane has no space; nothing is stored.
    /// [`PushError::Broken`] with [`Reason::BadLane`] if the peer's index is
    /// outside the window; also from then on.
    pub fn push<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        msg: &Msg,
    ) -> Result<bool, PushError> {
        self.check()?;
        if self.in_flight() >= LANE_MSGS {
            self.refresh(v)?;
            if self.in_flight() >= LANE_MSGS {
                return Err(PushError::Full);
            }
        }
        let place = u64::from(self.tail % LANE_MSGS).wrapping_mul(MSG_SIZE);
        let at = self.own.wrapping_add(LANE_MSGS_OFFSET).wrapping_add(place);
        v.slot.store_words(at, &msg.encode());
        Ok(self.publish(v))
    }

    /// Makes one more message visible; true if the consumer asked to be rung.
    fn publish<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> bool {
        let old = self.tail;
        // INVARIANT: `push` saw in_flight() < LANE_MSGS.
        self.tail = old.wrapping_add(1);
        // Pairs with the acquire in `LaneRx::refresh`: the message is complete.
        v.slot
            .store_release(self.own.wrapping_add(lane::TAIL), self.tail);
        // Pairs with the fence in `LaneRx::arm`: either the consumer sees the new
        // tail, or the event fetched next is the one it armed.
        v.fence();
        let event = v.peer_load(self.peer.wrapping_add(lane::MSG_EVENT));
        passed(event, self.tail, old)
    }

    /// Asks to be rung when there is space again. `Ok(true)`: there is space
    /// already, try again instead of waiting.
    ///
    /// # Errors
    ///
    /// As [`LaneTx::push`].
    pub fn arm_space<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        self.check()?;
        // Rung when the head has passed this: SPACE_BATCH messages fit then. A
        // consumer that drains the lane gets there.
        let event = self
            .tail
            .wrapping_sub(LANE_MSGS)
            .wrapping_add(SPACE_BATCH - 1);
        v.slot
            .store(self.own.wrapping_add(lane::SPACE_EVENT), event);
        // Pairs with the fence in `LaneRx::publish_head`.
        v.fence();
        self.refresh(v)?;
        Ok(self.in_flight() < LANE_MSGS)
    }
}
