// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The host's record of the channel between two members.

use crate::proto::wire::Status;

/// One of the two members; the host chooses which is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// One.
    First,
    /// The other.
    Second,
}

impl Member {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    opened: bool,
    closed: bool,
}

/// A round of a channel begins with the first OPEN and ends when both members
/// have called CLOSE (C-3 to C-5). Each call that succeeds is told to the other
/// member by an event, whatever that member has called itself; so a member that
/// saw the other's close knows that its memory is not read any more.
///
/// When a member's slot loses its generation the host forgets the pair.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    first: Side,
    second: Side,
}

impl Pair {
    /// No round.
    pub const fn new() -> Self {
        let none = Side {
            opened: false,
            closed: false,
        };
        Self {
            first: none,
            second: none,
        }
    }

    fn sides(&mut self, by: Member) -> (&mut Side, &mut Side) {
        match by {
            Member::First => (&mut self.first, &mut self.second),
            Member::Second => (&mut self.second, &mut self.first),
        }
    }

    /// CHANNEL_OPEN by a member. After `Ok` the other member gets the event.
    ///
    /// # Errors
    ///
    /// [`Status::State`] if it opened already in this round, or if one of both
    /// closed in this round and the other has still to do so.
    pub fn open(&mut self, by: Member) -> Result<(), Status> {
        let (own, other) = self.sides(by);
        if own.opened || own.closed || other.closed {
            return Err(Status::State);
        }
        own.opened = true;
        Ok(())
    }

    /// CHANNEL_CLOSE by a member. After `Ok` the other member gets the event;
    /// `Ok(true)`: the round is over, all extents of the pair are forgotten.
    ///
    /// # Errors
    ///
    /// [`Status::State`] if there is no round or it closed already.
    pub fn close(&mut self, by: Member) -> Result<bool, Status> {
        let (own, other) = self.sides(by);
        if own.closed || !(own.opened || other.opened) {
            return Err(Status::State);
        }
        own.closed = true;
        if !other.closed {
            return Ok(false);
        }
        *self = Self::new();
        Ok(true)
    }

    /// True if both members opened and none closed: frames can be offered.
    pub fn is_up(&self) -> bool {
        let up = |s: &Side| s.opened && !s.closed;
        up(&self.first) && up(&self.second)
    }
}
