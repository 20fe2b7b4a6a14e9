// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Rings, and which positions of a stream lie in which.

use super::spans::{Span, Spans};
use crate::proto::wire::{FRAME_SHIFT, RING_MAX_FRAMES, RING_MIN_FRAMES};

/// A ring: a run of frames of the producer's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// First frame, in the group.
    pub pfn: u32,
    /// Number of frames: a power of two from [`RING_MIN_FRAMES`] to
    /// [`RING_MAX_FRAMES`].
    pub frames: u32,
}

impl Ring {
    /// True if the number of frames is allowed (S-4).
    pub const fn size_ok(&self) -> bool {
        self.frames >= RING_MIN_FRAMES
            && self.frames <= RING_MAX_FRAMES
            && self.frames.is_power_of_two()
    }

    /// Size in bytes.
    pub const fn bytes(&self) -> u32 {
        self.frames.wrapping_shl(FRAME_SHIFT)
    }

    /// Offset in the group of the first byte.
    pub const fn start(&self) -> u64 {
        (self.pfn as u64) << FRAME_SHIFT
    }

    /// Appends the runs of `len` bytes, at most the ring's size, from position
    /// `pos` on.
    fn push_spans(&self, out: &mut Spans, pos: u32, len: u32) {
        let size = self.bytes();
        let at = pos & size.wrapping_sub(1);
        let len = len.min(size);
        let first = len.min(size.wrapping_sub(at));
        out.push(Span {
            off: self.start().wrapping_add(u64::from(at)),
            len: first,
        });
        out.push(Span {
            off: self.start(),
            len: len.wrapping_sub(first),
        });
    }
}

/// The current ring of a direction, and the previous one while bytes are unread
/// in it (S-5).
///
/// # Invariants
///
/// `ahead` is how many bytes the head has to go to pass `base`, the position
/// from which on bytes lie in `ring`: `base - head + 1` until then, 0
/// afterwards. So `base` itself is never compared with a position that is 2^31
/// away. All rings satisfy [`Ring::size_ok`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RingPos {
    ring: Option<Ring>,
    old: Option<Ring>,
    serial: u32,
    ahead: u32,
}

impl RingPos {
    pub(super) fn ring(&self) -> Option<Ring> {
        self.ring
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// True if the head has passed the base, or there was no ring ever: the ring
    /// may be replaced (S-6).
    pub(super) fn settled(&self) -> bool {
        self.ahead == 0
    }

    /// Unread bytes that lie before the base.
    pub(super) fn before_base(&self) -> u32 {
        self.ahead.saturating_sub(1)
    }

    /// Size of the current ring, 0 without one.
    pub(super) fn size(&self) -> u32 {
        self.ring.map_or(0, |r| r.bytes())
    }

    /// True if the positions from `head` to `tail` fit into the rings.
    pub(super) fn holds(&self, head: u32, tail: u32) -> bool {
        let unread = tail.wrapping_sub(head);
        unread.saturating_sub(self.before_base()) <= self.size()
    }

    /// Bytes that fit behind `tail`.
    pub(super) fn spare(&self, head: u32, tail: u32) -> u32 {
        let unread = tail.wrapping_sub(head);
        self.size()
            .saturating_sub(unread.saturating_sub(self.before_base()))
    }

    /// Positions from `head + before` on lie in `ring`.
    pub(super) fn replace(&mut self, ring: Ring, serial: u32, before: u32) {
        self.old = self.ring;
        self.ring = Some(ring);
        self.serial = serial;
        self.ahead = before.saturating_add(1);
    }

    /// The head moved by `n` bytes.
    pub(super) fn advance(&mut self, n: u32) {
        self.ahead = self.ahead.saturating_sub(n);
    }

    /// The previous ring, once no unread byte is in it.
    pub(super) fn take_old(&mut self) -> Option<Ring> {
        if self.before_base() != 0 {
            return None;
        }
        self.old.take()
    }

    /// True if the previous ring was not taken yet.
    pub(super) fn has_old(&self) -> bool {
        self.old.is_some()
    }

    /// The current ring; the caller saw that no unread byte is in it.
    pub(super) fn take_ring(&mut self) -> Option<Ring> {
        self.ring.take()
    }

    /// Both rings, whatever is in them.
    pub(super) fn take_all(&mut self) -> [Option<Ring>; 2] {
        [self.ring.take(), self.old.take()]
    }

    /// Validates anew the rings that the positions from `head` to `tail` lie in.
    /// `Some(true)`: these and all others are good; `Some(false)`: these are good,
    /// but there is one without unread bytes that is not; `None`: bytes are where
    /// they must not be.
    pub(super) fn recheck(
        &self,
        head: u32,
        tail: u32,
        good: impl Fn(&Ring) -> bool,
    ) -> Option<bool> {
        let unread = tail.wrapping_sub(head);
        let ring = self.ring.as_ref().is_none_or(&good);
        let old = self.old.as_ref().is_none_or(&good);
        if (!ring && unread > self.before_base()) || (!old && self.before_base() != 0) {
            return None;
        }
        Some(ring && old)
    }

    /// The run of `len` bytes that start `at` bytes after `head`, if they are one in
    /// the current ring. The caller has limited both to what the rings hold.
    pub(super) fn span(&self, head: u32, at: u32, len: u32) -> Option<Span> {
        let ring = self.ring.filter(|_| at >= self.before_base())?;
        let size = ring.bytes();
        let from = head.wrapping_add(at) & size.wrapping_sub(1);
        (len <= size.wrapping_sub(from)).then(|| Span {
            off: ring.start().wrapping_add(u64::from(from)),
            len,
        })
    }

    /// Runs of `len` bytes that start `at` bytes after `head`; the caller has
    /// limited both to what the rings hold.
    pub(super) fn spans(&self, head: u32, at: u32, len: u32) -> Spans {
        let mut out = Spans::EMPTY;
        let pos = head.wrapping_add(at);
        let in_old = len.min(self.before_base().saturating_sub(at));
        if let (Some(old), true) = (self.old, in_old != 0) {
            old.push_spans(&mut out, pos, in_old);
        }
        if let Some(ring) = self.ring {
            ring.push_spans(&mut out, pos.wrapping_add(in_old), len.wrapping_sub(in_old));
        }
        out
    }
}
