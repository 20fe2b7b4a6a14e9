// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The consumer of a lane.

use super::passed;
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{
    lane, lane_area, Msg, Reason, LANE_MSGS, LANE_MSGS_OFFSET, MSG_SIZE, MSG_WORDS,
};

/// The consumer's half of a lane.
///
/// # Invariants
///
/// In the arithmetic of 2^32, `published <= head <= tail` and
/// `tail - published <= LANE_MSGS`; `tail` is the newest producer index that was
/// fetched, and never goes back.
#[derive(Debug)]
pub struct LaneRx {
    own: u64,
    peer: u64,
    head: u32,
    published: u32,
    tail: u32,
    armed: bool,
    broken: Option<Reason>,
}

impl LaneRx {
    /// Lane `lane` of the channel from `peer_slot` to `own_slot`, as
    /// [`reset`](super::reset) left it: armed.
    pub fn new(peer_slot: u32, own_slot: u32, lane: u32) -> Self {
        Self::starting_at(peer_slot, own_slot, lane, 0)
    }

    /// Like [`LaneRx::new`], with `index` messages behind it; both sides'
    /// words must say so. Tests reach the wrap-around this way.
    pub fn starting_at(peer_slot: u32, own_slot: u32, lane: u32, index: u32) -> Self {
        Self {
            own: lane_area(peer_slot, lane),
            peer: lane_area(own_slot, lane),
            head: index,
            published: index,
            tail: index,
            armed: true,
            broken: None,
        }
    }

    fn check(&self) -> Result<(), Reason> {
        self.broken.map_or(Ok(()), Err)
    }

    fn fail<T>(&mut self, reason: Reason) -> Result<T, Reason> {
        self.broken = Some(reason);
        Err(reason)
    }

    /// Fetches the producer's index (L-3).
    fn refresh<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<(), Reason> {
        // Pairs with the release in `LaneTx::publish`: messages before it are
        // complete.
        let tail = v.peer_load_acquire(self.peer.wrapping_add(lane::TAIL));
        let ahead = tail.wrapping_sub(self.published);
        if ahead > LANE_MSGS || ahead < self.tail.wrapping_sub(self.published) {
            return self.fail(Reason::BadLane);
        }
        // INVARIANT: the check above; the newest tail was not ahead of this one.
        self.tail = tail;
        Ok(())
    }

    /// Fetches the next message into private memory and validates it. After a
    /// batch call [`LaneRx::publish_head`].
    ///
    /// # Errors
    ///
    /// [`Reason::BadLane`] if the peer's index is outside the window,
    /// [`Reason::BadMsg`] if the message is invalid; also from then on.
    pub fn pop<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Option<Msg>, Reason> {
        self.check()?;
        if self.head == self.tail {
            self.refresh(v)?;
            if self.head == self.tail {
                return Ok(None);
            }
        }
        let place = u64::from(self.head % LANE_MSGS).wrapping_mul(MSG_SIZE);
        let at = self.peer.wrapping_add(LANE_MSGS_OFFSET).wrapping_add(place);
        let mut words = [0u32; MSG_WORDS];
        v.peer_load_words(at, &mut words);
        // INVARIANT: head != tail.
        self.head = self.head.wrapping_add(1);
        match Msg::decode(&words) {
            Ok(msg) => Ok(Some(msg)),
            Err(reason) => self.fail(reason),
        }
    }

    /// Gives the places of the messages taken so far back to the producer.
    /// `Ok(true)`: it waits for space, ring it.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn publish_head<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        self.check()?;
        let old = self.published;
        if self.head == old {
            return Ok(false);
        }
        // INVARIANT: head <= tail, and tail - published gets smaller.
        self.published = self.head;
        // Pairs with the acquire in `LaneTx::refresh`: the messages are copied.
        v.slot
            .store_release(self.own.wrapping_add(lane::HEAD), self.head);
        // Pairs with the fence in `LaneTx::arm_space`.
        v.fence();
        let event = v.peer_load(self.peer.wrapping_add(lane::SPACE_EVENT));
        Ok(passed(event, self.head, old))
    }

    /// The consumer is awake and will look by itself: do not ring. Stores
    /// nothing if that is so already.
    pub fn suppress<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) {
        if self.armed {
            self.armed = false;
            v.slot.store(
                self.own.wrapping_add(lane::MSG_EVENT),
                self.head.wrapping_sub(1),
            );
        }
    }

    /// About to sleep: ring me at the next message. `Ok(true)`: messages are
    /// there already, do not sleep. The head must be published before.
    ///
    /// # Errors
    ///
    /// [`Reason::BadLane`], also from then on.
    pub fn arm<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        self.check()?;
        if self.head != self.tail {
            return Ok(true);
        }
        self.armed = true;
        v.slot
            .store(self.own.wrapping_add(lane::MSG_EVENT), self.head);
        // Pairs with the fence in `LaneTx::publish`: either the producer sees the
        // event, or the tail fetched next is the one it stored.
        v.fence();
        self.refresh(v)?;
        Ok(self.head != self.tail)
    }
}
