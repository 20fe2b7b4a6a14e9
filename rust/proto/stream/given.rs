// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The producer's grants: frames of the own slot that take the place of bytes in the
//! ring.
//!
//! The count of grants is the upper half of the word whose lower half is the serial
//! of the ring: one fetch tells of both, and costs nothing while there are none.

use super::{Conn, Notify};
use crate::proto::grant::{Places, Run};
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{
    conn, grant, Kind, Reason, FRAME_SHIFT, GRANTS, GRANTS_SHIFT, GRANT_HEAD_SHIFT,
    GRANT_MAX_FRAMES, GRANT_SIZE, TX_FIN, TX_RST,
};

/// The place of grant `n`.
pub(super) const fn place_of(n: u16) -> u8 {
    // There are 256 places, and 65536 is a multiple of it.
    (n % GRANTS as u16) as u8
}

/// Grants are counted modulo this in `grant_head`.
const COUNTED: u16 = 1 << (u32::BITS - GRANT_HEAD_SHIFT);

/// `grant_head` when `read` grants and `part` bytes of the next one were read (T-16).
pub(super) const fn grant_head(read: u16, part: u32) -> u32 {
    // The upper bits of the count go.
    ((read as u32) << GRANT_HEAD_SHIFT) | part
}

/// The producer's side.
///
/// # Invariants
///
/// A place is in one of `out` and `back` at most, and a record at a place in `out`
/// does not change. `seen` is what the peer last said of the places. On a carried
/// connection grants `read` to `count`, which are at most [`GRANTS`], are in `out`, and
/// `part` is less than the bytes of grant `read`, or 0 without one.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Grants published.
    count: u16,
    /// Grants that the peer, and later TCP, took to their end; of a carried connection.
    read: u16,
    /// Bytes taken of the next one.
    part: u32,
    /// The frame of the records.
    frame: Option<u32>,
    out: Places,
    back: Places,
    seen: Places,
}

impl Given {
    /// Grants that were not taken to their end.
    fn unread(&self) -> u16 {
        self.count.wrapping_sub(self.read)
    }

    /// The places of those.
    fn unread_places(&self) -> Places {
        let mut places = Places::default();
        for n in 0..self.unread() {
            places.flip(place_of(self.read.wrapping_add(n)));
        }
        places
    }

    /// Those at `places`, which are out, are the owner's again.
    fn bring_back(&mut self, places: &Places) {
        self.out = self.out.without(places);
        self.back = self.back.either(places);
    }
}

/// What is left of a grant that the peer will not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// The grant's position.
    pub(super) position: u32,
    /// Offset in the group of the first byte.
    pub(super) start: u64,
    /// How many there are.
    pub(super) bytes: u32,
}

impl Conn {
    /// The word that counts the rings and grants of this side.
    pub(super) fn tx_serial(&self, serial: u32) -> u32 {
        (serial & 0xffff) | (u32::from(self.tx.given.count) << GRANTS_SHIFT)
    }

    /// The frame of the records, if there is one.
    pub fn tx_grant_frame(&self) -> Option<u32> {
        self.tx.given.frame
    }

    /// Brings the frame for the records of grants, which is in the own slot (Z-2).
    /// False if there is one, or grants are impossible.
    pub fn set_tx_grant_frame<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        pfn: u32,
    ) -> bool {
        let possible = self.kind == Kind::Stream && self.entry_lives();
        if !possible || self.tx.given.frame.is_some() || !in_slot(v, pfn, 1) {
            return false;
        }
        self.own_store(v, conn::GRANT_PFN, pfn);
        self.tx.given.frame = Some(pfn);
        true
    }

    /// The frame of the records, when nobody looks at it any more: as
    /// [`Conn::take_tx_rings`].
    pub fn take_tx_grant_frame(&mut self) -> Option<u32> {
        if self.tx_keeps_bytes() {
            return None;
        }
        self.tx.given.frame.take()
    }

    /// Whether a grant can follow now: there is a place for its record, and the
    /// stream goes on, of a carried connection by the ring.
    pub fn tx_can_grant(&self) -> bool {
        let given = &self.tx.given;
        let gone = self.rx_reset() || self.done_seen;
        let ended = self.tx.flags & (TX_FIN | TX_RST) != 0 || gone || !self.tx_on_ring();
        let place = place_of(given.count);
        let free = !given.out.has(place) && !given.back.has(place);
        given.frame.is_some() && free && !ended && self.peer_entry().is_some()
    }

    /// Offset in the own slot of the record at `place`, in the frame `pfn` of records.
    fn record<S: MemMut + ?Sized, W: Mem + ?Sized>(v: &View<'_, S, W>, pfn: u32, place: u8) -> u64 {
        // No underflow: `set_tx_grant_frame` saw the frame inside the own slot.
        (u64::from(pfn) << FRAME_SHIFT)
            .wrapping_sub(v.slot_base)
            .wrapping_add(u64::from(place).wrapping_mul(GRANT_SIZE))
    }

    /// Grants frames of the own slot: their bytes follow those that were published
    /// (Z-3). The place of the record, and READY, which follows always. `None`, and
    /// nothing granted, if [`Conn::tx_can_grant`] says no, or the run is impossible.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn tx_grant<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        run: Run,
    ) -> Result<Option<(u8, Notify)>, Reason> {
        self.check()?;
        let good = (1..=GRANT_MAX_FRAMES).contains(&run.frames) && in_slot(v, run.pfn, run.frames);
        let Some(frame) = self.tx.given.frame.filter(|_| good && self.tx_can_grant()) else {
            return Ok(None);
        };
        let place = place_of(self.tx.given.count);
        let at = Self::record(v, frame, place);
        v.slot.store(at.wrapping_add(grant::POSITION), self.tx.tail);
        v.slot.store(at.wrapping_add(grant::PFN), run.pfn);
        v.slot.store(at.wrapping_add(grant::FRAMES), run.frames);
        v.slot.store(at.wrapping_add(grant::FLAGS), 0);
        // INVARIANT: the place was free; so not more than there are places are out.
        self.tx.given.out.flip(place);
        self.tx.given.count = self.tx.given.count.wrapping_add(1);
        if self.carried.is_none() {
            // Nobody asks how far those were read.
            self.tx.given.read = self.tx.given.count;
        }
        let word = self.tx_serial(self.tx.ring.serial());
        // Pairs with the acquire in `observe`: record and frames are complete. A tail
        // that is stored later is fetched with this word, or a later one, after it.
        self.own_release(v, conn::RING_SERIAL, word);
        Ok(Some((place, self.notify_always())))
    }

    /// Fetches what the peer released (Z-7), and how far it has read (T-17).
    pub(super) fn refresh_released<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        peer: u64,
    ) -> Result<(), Reason> {
        // DONE brought all back but what TCP may have to send.
        let done = self.done_seen;
        if self.tx.given.out.is_empty() || (done && !self.tx_keeps_bytes()) {
            return Ok(());
        }
        let seen = self.tx.given.seen;
        let now = Places::from_words(|n| {
            if done {
                // What was released before it is no news.
                return seen.word(n);
            }
            let off = conn::RELEASED.wrapping_add((n as u64).wrapping_mul(4));
            // Pairs with the release in `publish_released`: the frames are read.
            v.peer_load_acquire(peer.wrapping_add(off))
        });
        if self.carried.is_some() {
            // Behind the head and the releases, which follow it there.
            let word = v.peer_load_acquire(peer.wrapping_add(conn::GRANT_HEAD));
            if !self.take_grant_head(v, word) {
                return self.fail(Reason::BadGrant);
            }
        }
        let given = &mut self.tx.given;
        let back = now.differ(&given.seen);
        let released = given.out.without(&given.unread_places());
        if !back.without(&released).is_empty() {
            return self.fail(Reason::BadGrant);
        }
        given.seen = now;
        given.bring_back(&back);
        Ok(())
    }

    /// Takes over how far the peer has read grants; false, and nothing changed, if that
    /// cannot be.
    pub(super) fn take_grant_head<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        word: u32,
    ) -> bool {
        let given = &self.tx.given;
        let step = ((word >> GRANT_HEAD_SHIFT) as u16).wrapping_sub(given.read) % COUNTED;
        let part = word & grant_head(0, u32::MAX >> (u32::BITS - GRANT_HEAD_SHIFT));
        let least = if step == 0 { given.part } else { 0 };
        if step > given.unread() || part < least {
            return false;
        }
        let read = given.read.wrapping_add(step);
        if part != 0 {
            let whole = self.unread_grant(v, read).map_or(0, |(_, run)| run.bytes());
            if u64::from(part) >= whole {
                return false;
            }
        }
        // INVARIANT: by the checks above.
        self.tx.given.read = read;
        self.tx.given.part = part;
        true
    }

    /// Position and frames of grant `n`, if it is one that was not read to its end: as
    /// this side wrote them, and nobody else can.
    fn unread_grant<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        n: u16,
    ) -> Option<(u32, Run)> {
        let given = &self.tx.given;
        if n == given.count {
            return None;
        }
        let at = Self::record(v, given.frame?, place_of(n));
        let run = Run {
            pfn: v.slot.load(at.wrapping_add(grant::PFN)),
            frames: v.slot.load(at.wrapping_add(grant::FRAMES)),
        };
        Some((v.slot.load(at.wrapping_add(grant::POSITION)), run))
    }

    /// What is left of the first grant that was not read to its end.
    pub(super) fn first_unread<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
    ) -> Option<Left> {
        let given = &self.tx.given;
        let (position, run) = self.unread_grant(v, given.read)?;
        // Frames of a grant are 1024 at most.
        let bytes = (run.frames << FRAME_SHIFT).wrapping_sub(given.part);
        let start = (u64::from(run.pfn) << FRAME_SHIFT).wrapping_add(u64::from(given.part));
        Some(Left {
            position,
            start,
            bytes,
        })
    }

    /// `n` more bytes of the first grant that was not read went another way, of `left`
    /// that there were.
    pub(super) fn pass_unread(&mut self, n: u32, left: u32) {
        let given = &mut self.tx.given;
        if n < left {
            given.part = given.part.wrapping_add(n);
            return;
        }
        let mut places = Places::default();
        places.flip(place_of(given.read));
        given.bring_back(&places);
        given.read = given.read.wrapping_add(1);
        given.part = 0;
    }

    /// True if there are grants that the peer has not read to their end, as far as is
    /// known; always false if no TCP is carried.
    pub(super) fn tx_has_unread_grants(&self) -> bool {
        self.tx.given.unread() != 0
    }

    /// The peer does not look any more: grants are back, but for those that have to go by
    /// TCP.
    pub(super) fn all_released(&mut self) {
        let unread = self.tx_keeps_bytes();
        let given = &mut self.tx.given;
        let kept = if unread {
            given.unread_places()
        } else {
            Places::default()
        };
        given.bring_back(&given.out.without(&kept));
    }

    /// True if the peer has grants that it did not release.
    pub fn tx_is_granting(&self) -> bool {
        !self.tx.given.out.is_empty()
    }

    /// The places of grants that came back since the last call; their records can be
    /// made anew.
    pub fn take_released(&mut self) -> Places {
        if self.done_seen {
            // More of them, as the peer's last word on what it has read came.
            self.all_released();
        }
        core::mem::take(&mut self.tx.given.back)
    }
}

/// True if all of the frames are in the own slot.
fn in_slot<S: MemMut + ?Sized, W: Mem + ?Sized>(v: &View<'_, S, W>, pfn: u32, frames: u32) -> bool {
    let start = u64::from(pfn) << FRAME_SHIFT;
    let end = u64::from(pfn).saturating_add(u64::from(frames)) << FRAME_SHIFT;
    start >= v.slot_base && end <= v.slot_base.saturating_add(v.slot.size())
}
