// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The producer's half of a connection.

use super::{Conn, Notify, Ring, Span, Spans};
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::ring::passed;
use crate::proto::wire::{conn, Kind, Reason, RECORD_HDR, RX_SHUT, RX_STOP, TX_FIN, TX_RST};

/// Why a ring was not taken; the caller keeps its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a power of two from 4 to 1024 frames.
    Size,
    /// Not wholly in the own slot.
    Range,
    /// The consumer has not passed the start of the current ring, or the
    /// previous one is not reaped yet; or the entry is free.
    Pending,
}

impl Conn {
    /// The ring that is written to, if there is one.
    pub fn tx_ring(&self) -> Option<Ring> {
        self.tx.ring.ring()
    }

    /// True if [`Conn::set_tx_ring`] would be refused for now: the consumer has
    /// not read a byte of the current ring yet (S-6).
    pub fn tx_move_pending(&self) -> bool {
        !self.tx.ring.settled() || self.tx.ring.has_old()
    }

    /// Bytes go into `ring` from the tail on: the first ring, a larger or a
    /// smaller one (S-5). The old ring stays in use until
    /// [`Conn::reap_tx_ring`] returns it.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; nothing changes then.
    pub fn set_tx_ring<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        ring: Ring,
    ) -> Result<(), Refused> {
        if !ring.size_ok() {
            return Err(Refused::Size);
        }
        let end = ring.start().wrapping_add(u64::from(ring.bytes()));
        if ring.start() < v.slot_base || end > v.slot_base.saturating_add(v.slot.size()) {
            return Err(Refused::Range);
        }
        if self.tx_move_pending() || !self.entry_lives() {
            return Err(Refused::Pending);
        }
        let serial = self.tx.ring.serial().wrapping_add(1) & 0xffff;
        self.own_store(v, conn::RING_PFN, ring.pfn);
        self.own_store(v, conn::RING_FRAMES, ring.frames);
        self.own_store(v, conn::RING_BASE, self.tx.tail);
        // Pairs with the acquire in `rx_avail`: the three words are complete. They
        // do not change before the consumer has read bytes behind the base, so it
        // cannot see a mixture.
        self.own_release(v, conn::RING_SERIAL, self.tx_serial(serial));
        // INVARIANT: with no byte in the new ring, what was unread before is
        // before the base.
        let unread = self.tx.tail.wrapping_sub(self.tx.head);
        self.tx.ring.replace(ring, serial, unread);
        Ok(())
    }

    /// The previous ring, once the consumer has read all bytes in it: its frames
    /// are free.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn reap_tx_ring<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Option<Ring>, Reason> {
        self.check()?;
        if !self.tx.ring.has_old() {
            return Ok(None);
        }
        self.refresh_head(v)?;
        Ok(self.tx.ring.take_old())
    }

    /// The current ring, if the connection is idle and the ring was used: its
    /// frames are free, and the next byte needs [`Conn::set_tx_ring`] (S-7).
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn release_tx_ring<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Option<Ring>, Reason> {
        self.refresh_head(v)?;
        if self.tx.head != self.tx.tail || self.tx_move_pending() {
            return Ok(None);
        }
        Ok(self.tx.ring.take_ring())
    }

    /// Both rings, for freeing their frames when the peer's DONE has come or the
    /// channel is gone; the connection has none afterwards. Nothing as long as
    /// [`Conn::tx_keeps_bytes`].
    pub fn take_tx_rings(&mut self) -> [Option<Ring>; 2] {
        if self.tx_keeps_bytes() {
            return [None, None];
        }
        self.tx.ring.take_all()
    }

    /// Fetches the consumer's position and flags (S-12).
    pub(super) fn refresh_head<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<(), Reason> {
        self.check()?;
        let Some(peer) = self.peer_entry() else {
            return Ok(());
        };
        // Flags first: a head fetched after STOP was seen is the final one. Pairs with
        // the release in `rx_consume`: bytes before the head are copied.
        let [flags, head] = v.peer_load_each(peer, conn::SIZE, [conn::RX_FLAGS, conn::HEAD]);
        if let Err(reason) = self.check_head(flags, head) {
            return self.fail(reason);
        }
        // What was read is final after STOP, and DONE brings all grants back.
        if self.tx.peer_rx & RX_STOP == 0 {
            // Before STOP counts: it makes both heads final.
            self.refresh_released(v, peer)?;
        }
        self.take_head(flags, head)
    }

    /// Checks the consumer's flags and the head that was fetched after them: how many
    /// bytes it moved.
    pub(super) fn check_head(&self, flags: u32, head: u32) -> Result<u32, Reason> {
        let known = match self.carried {
            Some(_) => RX_STOP,
            None => RX_SHUT,
        };
        let step = head.wrapping_sub(self.tx.head);
        let moved_on = self.tx.peer_rx & RX_STOP != 0 && step != 0;
        if step > self.tx.tail.wrapping_sub(self.tx.head) || moved_on {
            return Err(Reason::BadPosition);
        }
        if flags & !known != 0 || self.tx.peer_rx & !flags != 0 {
            return Err(Reason::BadFlags);
        }
        Ok(step)
    }

    /// Takes them over; on error nothing changes.
    pub(super) fn take_head(&mut self, flags: u32, head: u32) -> Result<(), Reason> {
        if flags == self.tx.peer_rx && head == self.tx.head {
            return Ok(());
        }
        let step = self.check_head(flags, head)?;
        // INVARIANT: head is in [old head, tail] by the check above.
        self.tx.head = head;
        self.tx.ring.advance(step);
        self.tx.peer_rx = flags;
        Ok(())
    }

    /// Bytes that can be written behind the tail; 0 without a ring, after FIN
    /// and after RST of either side.
    ///
    /// # Errors
    ///
    /// [`Reason::BadPosition`] or [`Reason::BadFlags`] if the peer's head or
    /// flags break S-12; also from then on.
    pub fn tx_space<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<u32, Reason> {
        self.refresh_head(v)?;
        Ok(self.tx_room())
    }

    /// As [`Conn::tx_space`], of what was seen last.
    pub fn tx_room(&self) -> u32 {
        if self.tx.flags & (TX_FIN | TX_RST) != 0 || self.rx_reset() || !self.tx_on_ring() {
            return 0;
        }
        self.tx.ring.spare(self.tx.head, self.tx.tail)
    }

    /// Where to write `len` bytes, `at` bytes after the tail, as offsets in the
    /// own slot. Limited to the free space that was last seen.
    pub fn tx_spans<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        at: u32,
        len: u32,
    ) -> Spans {
        let len = len.min(self.tx_room().saturating_sub(at));
        let unread = self.tx.tail.wrapping_sub(self.tx.head);
        let in_group = self
            .tx
            .ring
            .spans(self.tx.head, unread.wrapping_add(at), len);
        let mut out = Spans::EMPTY;
        for span in &in_group {
            // No underflow: `set_tx_ring` saw the ring inside the own slot.
            out.push(Span {
                off: span.off.wrapping_sub(v.slot_base),
                len: span.len,
            });
        }
        out
    }

    /// Where to write `len` bytes behind the tail, if they fit in one run: all that
    /// short messages need of [`Conn::tx_spans`].
    pub fn tx_span<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        len: u32,
    ) -> Option<Span> {
        if len > self.tx_room() {
            return None;
        }
        let unread = self.tx.tail.wrapping_sub(self.tx.head);
        let span = self.tx.ring.span(self.tx.head, unread, len)?;
        Some(Span {
            // No underflow: `set_tx_ring` saw the ring inside the own slot.
            off: span.off.wrapping_sub(v.slot_base),
            len,
        })
    }

    /// Publishes `n` bytes that were written behind the tail. Not more than the
    /// free space that was last seen.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn tx_publish<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        n: u32,
    ) -> Result<Notify, Reason> {
        self.check()?;
        let n = n.min(self.tx_room());
        if n == 0 {
            return Ok(Notify::NO);
        }
        let old = self.tx.tail;
        // INVARIANT: n <= spare.
        self.tx.tail = old.wrapping_add(n);
        // Pairs with the acquire in `rx_avail`: the bytes are written.
        self.own_release(v, conn::TAIL, self.tx.tail);
        let Some(peer) = self.peer_entry() else {
            return Ok(Notify::NO);
        };
        // Pairs with the fence in `arm_data`.
        v.fence();
        let event = v.peer_load(peer.wrapping_add(conn::DATA_EVENT));
        Ok(Notify {
            ready: passed(event, self.tx.tail, old),
        })
    }

    /// No byte will follow. A second call changes nothing. On a carried connection
    /// that [`Conn::tx_path`] does not say is on the ring it is
    /// [`Conn::tx_back`]: there the end comes by TCP (T-10).
    pub fn tx_fin<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> Notify {
        if self.carried.is_some() && !self.tx_on_ring() {
            return self.tx_back(v);
        }
        self.tx_flag(v, TX_FIN)
    }

    /// Aborts: what the peer has not read is void for it, and what this side has
    /// not read is void here. A second call changes nothing.
    pub fn tx_reset<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> Notify {
        self.tx_flag(v, TX_RST)
    }

    /// Sets a flag. It happens once and may matter to who waits for data and to
    /// who waits for space, so READY follows always (S-10).
    pub(super) fn tx_flag<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        flag: u32,
    ) -> Notify {
        if self.tx.flags & flag != 0 {
            return Notify::NO;
        }
        self.tx.flags |= flag;
        if !self.entry_lives() {
            return Notify::NO;
        }
        // Pairs with the acquire in `rx_avail`: the tail stored before is final.
        self.own_release(v, conn::TX_FLAGS, self.tx.flags);
        self.announce()
    }

    /// Bytes published that the peer has not consumed, and that did not go by TCP
    /// since.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn tx_unacked<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<u32, Reason> {
        self.refresh_head(v)?;
        let unread = self.tx.tail.wrapping_sub(self.tx.head);
        Ok(unread.saturating_sub(self.tx_rest_gone()))
    }

    /// True if the peer will read no more: writing is an error (EPIPE).
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn peer_rx_shut<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        self.refresh_head(v)?;
        Ok(self.tx.peer_rx & RX_SHUT != 0 || self.done_seen)
    }

    /// Asks for READY when at least `want` bytes fit (limited to 1 .. ring size).
    /// `Ok(true)`: they do already, or the peer's flags changed; do not wait.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn arm_space<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        want: u32,
    ) -> Result<bool, Reason> {
        let size = self.tx.ring.size();
        if size == 0 {
            // Nothing to wait for: the caller has to bring a ring.
            self.check()?;
            return Ok(true);
        }
        let want = want.clamp(1, size);
        // `want` bytes fit once the head is at tail + want - size.
        let event = self
            .tx
            .tail
            .wrapping_add(want)
            .wrapping_sub(size)
            .wrapping_sub(1);
        let flags = self.tx.peer_rx;
        self.arm_head(v, event)?;
        Ok(self.tx.ring.spare(self.tx.head, self.tx.tail) >= want
            || flags != self.tx.peer_rx
            || !self.tx_on_ring())
    }

    /// Asks for READY when the peer has consumed everything, and released all grants.
    /// `Ok(true)`: it has already, or its flags changed.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn arm_drained<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        let flags = self.tx.peer_rx;
        self.arm_head(v, self.tx.tail.wrapping_sub(1))?;
        let drained = self.tx.head == self.tx.tail && !self.tx_is_granting();
        Ok(drained || flags != self.tx.peer_rx || self.tx.peer_rx & RX_STOP != 0)
    }

    fn arm_head<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        event: u32,
    ) -> Result<(), Reason> {
        self.check()?;
        self.own_store(v, conn::SPACE_EVENT, event);
        // Pairs with the fence in `rx_consume`.
        v.fence();
        self.refresh_head(v)
    }

    /// Bytes that a record of `len` bytes takes: header, bytes, padding to 8
    /// (S-13). `None` if it can never fit a ring.
    pub const fn record_size(len: u32) -> Option<u32> {
        match len.checked_add(RECORD_HDR + 7) {
            Some(sum) => Some(sum & !7),
            None => None,
        }
    }

    /// Writes the header of a record of `len` bytes behind the tail. The bytes
    /// go to `tx_spans(v, RECORD_HDR, len)`; then [`Conn::tx_publish`] with
    /// [`Conn::record_size`]. False, and nothing written, if the whole record does
    /// not fit or the connection carries no records.
    pub fn tx_record<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        len: u32,
    ) -> bool {
        let fits = Self::record_size(len).is_some_and(|size| size <= self.tx_room());
        if self.kind != Kind::SeqPacket || !fits {
            return false;
        }
        // Positions and ring sizes are multiples of 8: the header is in one span.
        match self.tx_spans(v, 0, RECORD_HDR).as_slice() {
            [span] if span.len == RECORD_HDR => {
                v.slot.store(span.off, len);
                v.slot.store(span.off.wrapping_add(4), 0);
                true
            }
            _ => false,
        }
    }
}
