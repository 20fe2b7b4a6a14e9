// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The consumer's grants: frames of the producer that it reads where they are.

use super::given::{grant_head, place_of};
use super::spans::{Span, Spans};
use super::{Conn, Notify, Rx};
use crate::proto::grant::{Lent, Places, Run};
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{
    conn, grant, Kind, Reason, FRAME_SHIFT, GRANTS, GRANTS_SHIFT, GRANT_MAX_FRAMES, GRANT_SIZE,
    TX_BACK, TX_FIN, TX_RST,
};

/// Grants that a consumer has fetched and not read, at most; later ones follow when
/// it has read some.
const WINDOW: usize = 16;

/// A grant that was fetched.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    position: u32,
    run: Option<Run>,
    /// Bytes read.
    done: u32,
    place: u8,
}

impl Taken {
    fn left(&self) -> u32 {
        let bytes = self.run.map_or(0, |run| run.frames << FRAME_SHIFT);
        bytes.saturating_sub(self.done)
    }

    fn start(&self) -> u64 {
        let pfn = self.run.map_or(0, |run| run.pfn);
        (u64::from(pfn) << FRAME_SHIFT).wrapping_add(u64::from(self.done))
    }
}

/// The consumer's side.
///
/// # Invariants
///
/// The first `len` of `window` are in the order of the stream, not before the head
/// and not behind the tail, and not read to their end.
#[derive(Debug, Default)]
pub(super) struct Got {
    window: [Taken; WINDOW],
    len: usize,
    /// Grants fetched.
    count: u16,
    /// Grants published that were not fetched.
    behind: u32,
    /// Grants read to their end, or taken.
    read: u16,
    held: Places,
    said: Places,
}

impl Got {
    fn window(&self) -> &[Taken] {
        self.window.get(..self.len).unwrap_or(&[])
    }

    /// The count that was last seen.
    pub(super) fn published(&self) -> u16 {
        self.count.wrapping_add(self.behind as u16)
    }

    /// True if no grant has bytes to read.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.behind == 0
    }

    fn remove_first(&mut self) {
        if let Some(all) = self.window.get_mut(..self.len) {
            all.rotate_left(1);
        }
        self.len = self.len.saturating_sub(1);
        self.read = self.read.wrapping_add(1);
    }

    /// What was not read will not be (T-8).
    pub(super) fn drop_unread(&mut self) {
        self.held = self.taken();
        self.len = 0;
        self.behind = 0;
    }

    /// The places of grants that were taken and not released.
    fn taken(&self) -> Places {
        let mut unread = Places::default();
        for grant in self.window() {
            unread.flip(grant.place);
        }
        self.held.without(&unread)
    }

    /// How far they were read.
    fn head(&self) -> u32 {
        grant_head(self.read, self.window().first().map_or(0, |g| g.done))
    }

    fn release(&mut self, place: u8) {
        self.held.flip(place);
        self.said.flip(place);
    }

    /// True if more grants are to be fetched, and there is room for one.
    pub(super) fn wants(&self) -> bool {
        self.behind != 0 && self.len < WINDOW
    }
}

impl Rx {
    /// Bytes that can be read when the ring has some up to `tail`.
    pub(super) fn readable(&self) -> u32 {
        let unread = self.tail.wrapping_sub(self.head);
        if self.got.is_empty() {
            return unread;
        }
        // Behind the last grant that was fetched there may be another one.
        let in_ring = match (self.got.behind, self.got.window().last()) {
            (0, _) => unread,
            (_, Some(last)) => last.position.wrapping_sub(self.head),
            (_, None) => 0,
        };
        let granted = self.got.window().iter();
        granted.fold(in_ring, |sum, g| sum.saturating_add(g.left()))
    }

    /// Runs of `len` bytes that start `at` bytes after the head; the caller has
    /// limited both to what is readable.
    pub(super) fn spans(&self, at: u32, len: u32) -> Spans {
        if self.got.is_empty() {
            return self.ring.spans(self.head, at, len);
        }
        let mut out = Spans::EMPTY;
        let (mut skip, mut left, mut from) = (at, len, 0u32);
        for taken in self.got.window() {
            let to = taken.position.wrapping_sub(self.head);
            self.push_ring(&mut out, &mut skip, &mut left, from, to);
            from = to;
            let (first, n) = part(&mut skip, &mut left, taken.left());
            out.push(Span {
                off: taken.start().wrapping_add(u64::from(first)),
                len: n,
            });
        }
        let to = self.tail.wrapping_sub(self.head);
        self.push_ring(&mut out, &mut skip, &mut left, from, to);
        out
    }

    /// The bytes of the ring from `from` to `to` after the head.
    fn push_ring(&self, out: &mut Spans, skip: &mut u32, left: &mut u32, from: u32, to: u32) {
        let (first, n) = part(skip, left, to.wrapping_sub(from));
        if n != 0 {
            let spans = self.ring.spans(self.head, from.wrapping_add(first), n);
            // What does not fit any more is left for the next call.
            spans.iter().for_each(|span| out.push(*span));
        }
    }
}

/// The part of the next `len` bytes that is wanted: behind `skip` bytes, `left` at
/// most. Counts both down.
fn part(skip: &mut u32, left: &mut u32, len: u32) -> (u32, u32) {
    let first = len.min(*skip);
    let n = len.wrapping_sub(first).min(*left);
    *skip = skip.wrapping_sub(first);
    *left = left.wrapping_sub(n);
    (first, n)
}

/// What to publish after reading.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Bytes of the ring.
    pub(super) in_ring: u32,
    /// Words of `released` that changed, as bits.
    words: u32,
}

impl Step {
    /// `n` bytes of the ring, and no grant.
    pub(super) fn ring(n: u32) -> Self {
        Self {
            in_ring: n,
            words: 0,
        }
    }

    /// True if a grant was read to its end.
    pub(super) fn released(&self) -> bool {
        self.words != 0
    }
}

impl Conn {
    /// Takes the grants over that were published (Z-4), as far as there is room. The
    /// ring, the tail and the flags, which were `before`, were taken over.
    pub(super) fn observe_grants<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        peer: u64,
        before: u32,
    ) -> Result<(), Reason> {
        let count = (self.rx.word >> GRANTS_SHIFT) as u16;
        let step = u32::from(count.wrapping_sub(self.rx.got.published()));
        let behind = self.rx.got.behind.wrapping_add(step);
        if behind == 0 {
            return Ok(());
        }
        let ended = step != 0 && before & (TX_FIN | TX_BACK | TX_RST) != 0;
        if ended || self.kind != Kind::Stream || behind > GRANTS {
            return self.fail(Reason::BadGrant);
        }
        self.rx.got.behind = behind;
        if !self.rx.got.wants() {
            return Ok(());
        }
        let frame = v.peer_load_acquire(peer.wrapping_add(conn::GRANT_PFN));
        if !accepted.contains(frame, 1) {
            return self.fail(Reason::BadGrant);
        }
        while self.rx.got.wants() {
            self.take_grant(v, accepted, u64::from(frame) << FRAME_SHIFT)?;
        }
        Ok(())
    }

    /// Fetches the next record of the frame at `base` and checks it (Z-5).
    fn take_grant<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        base: u64,
    ) -> Result<(), Reason> {
        let place = place_of(self.rx.got.count);
        let at = base.wrapping_add(u64::from(place).wrapping_mul(GRANT_SIZE));
        let word = |off: u64| v.window.load(at.wrapping_add(off));
        let position = word(grant::POSITION);
        let run = Run {
            pfn: word(grant::PFN),
            frames: word(grant::FRAMES),
        };
        let flags = word(grant::FLAGS);
        let ahead = position.wrapping_sub(self.rx.head);
        let seen = self.rx.tail.wrapping_sub(self.rx.head);
        let last = self.rx.got.window().last();
        let least = last.map_or(0, |g| g.position.wrapping_sub(self.rx.head));
        let ended = self.rx.peer_tx & (TX_FIN | TX_BACK) != 0;
        if flags != 0
            || self.rx.got.held.has(place)
            || !(1..=GRANT_MAX_FRAMES).contains(&run.frames)
            || !accepted.contains(run.pfn, run.frames)
            || ahead < least
            || (ended && ahead > seen)
            || !self.rx.ring.holds(self.rx.head, position)
        {
            return self.fail(Reason::BadGrant);
        }
        let taken = Taken {
            position,
            run: Some(run),
            done: 0,
            place,
        };
        let got = &mut self.rx.got;
        if let Some(room) = got.window.get_mut(got.len) {
            *room = taken;
        }
        // INVARIANT: `wants` saw room; not before the last one by the check above.
        got.len = got.len.saturating_add(1);
        got.count = got.count.wrapping_add(1);
        got.behind = got.behind.saturating_sub(1);
        got.held.flip(place);
        if ahead > seen {
            // The tail that was fetched is older than the grant: bytes up to it are there.
            // INVARIANT: `holds` by the check above.
            self.rx.tail = position;
        }
        Ok(())
    }

    /// Validates the frames of unread grants anew, after an extent went.
    pub(super) fn recheck_grants(&self, accepted: &impl Lent) -> bool {
        let mut runs = self.rx.got.window().iter().filter_map(|g| g.run);
        runs.all(|run| accepted.contains(run.pfn, run.frames))
    }

    /// Reads `n` bytes, not more than are readable.
    pub(super) fn rx_step(&mut self, n: u32) -> Step {
        let mut step = Step::default();
        let mut left = n;
        while left != 0 {
            let head = self.rx.head.wrapping_add(step.in_ring);
            let got = &mut self.rx.got;
            let first = got.window.first_mut().filter(|_| got.len != 0);
            let Some(taken) = first else {
                step.in_ring = step.in_ring.wrapping_add(left);
                break;
            };
            let before = taken.position.wrapping_sub(head);
            if before != 0 {
                let n = before.min(left);
                step.in_ring = step.in_ring.wrapping_add(n);
                left = left.wrapping_sub(n);
                continue;
            }
            let n = taken.left().min(left);
            taken.done = taken.done.wrapping_add(n);
            left = left.wrapping_sub(n);
            if taken.left() == 0 {
                let place = taken.place;
                got.remove_first();
                got.release(place);
                step.words |= 1 << (place / 32);
            }
        }
        step
    }

    /// The grant that is next in the stream, if nothing of it was read.
    pub fn rx_next_grant(&self) -> Option<Run> {
        if self.rx_unread() == 0 {
            return None;
        }
        let first = self.rx.got.window().first()?;
        let next = first.position == self.rx.head && first.done == 0;
        first.run.filter(|_| next)
    }

    /// Takes the grant that is next in the stream: its frames are the caller's to read
    /// until it gives the place to [`Conn::rx_release`].
    pub fn rx_take_grant<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Option<u8> {
        self.rx_next_grant()?;
        let place = self.rx.got.window().first()?.place;
        self.rx.got.remove_first();
        self.publish_grant_head(v);
        Some(place)
    }

    /// True if there are grants that were taken and not released.
    pub fn rx_has_taken(&self) -> bool {
        !self.rx.got.taken().is_empty()
    }

    /// Gives back a grant that was taken (Z-6): the last access to its frames is over.
    pub fn rx_release<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        place: u8,
    ) -> Notify {
        let got = &mut self.rx.got;
        let unread = got.window().iter().any(|g| g.place == place);
        if unread || !got.held.has(place) {
            return Notify::NO;
        }
        got.release(place);
        if !self.entry_lives() {
            // The words may be another connection's.
            return Notify::NO;
        }
        let step = Step {
            in_ring: 0,
            words: 1 << (place / 32),
        };
        self.publish_released(v, &step);
        self.notify_always()
    }

    /// Bytes that can be read before the next grant that nothing was read of.
    pub fn rx_before_grant(&self) -> u32 {
        let mut started = 0;
        for grant in self.rx.got.window() {
            let before = grant.position.wrapping_sub(self.rx.head);
            if grant.done == 0 {
                return before.saturating_add(started);
            }
            started = grant.left();
        }
        self.rx.readable()
    }

    /// Tells the producer how far grants were read (T-16): before it is told of releases,
    /// and of what was read of the ring behind them.
    pub(super) fn publish_grant_head<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
    ) {
        if self.carried.is_some() {
            // Pairs with the acquire in `refresh_released`.
            self.own_release(v, conn::GRANT_HEAD, self.rx.got.head());
        }
    }

    /// Tells the producer which grants it has back (Z-6).
    pub(super) fn publish_released<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        step: &Step,
    ) {
        let mut words = step.words;
        while words != 0 {
            let n = words.trailing_zeros();
            words &= words.wrapping_sub(1);
            let off = conn::RELEASED.wrapping_add(u64::from(n).wrapping_mul(4));
            // Pairs with the acquire in `refresh_released`: the frames are read.
            self.own_release(v, off, self.rx.got.said.word(n as usize));
        }
    }
}
