// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The consumer's half of a connection.

use super::got::Step;
use super::{Conn, Notify, Ring, Spans};
use crate::proto::grant::Lent;
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::ring::passed;
use crate::proto::wire::{
    conn, Kind, Reason, FRAME_SIZE, RECORD_HDR, RING_MIN_FRAMES, RX_SHUT, TX_BACK, TX_FIN, TX_RST,
};

impl Conn {
    /// Bytes that can be read; 0 after RST of either side, after the own DONE,
    /// and on a carried connection after the own STOP. Fetches and validates what
    /// the producer wrote (S-12); rings have to lie in `accepted`.
    ///
    /// # Errors
    ///
    /// [`Reason::BadFlags`], [`Reason::BadRing`], [`Reason::BadPosition`] if the
    /// peer broke a rule; also from then on.
    pub fn rx_avail<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
    ) -> Result<u32, Reason> {
        self.check()?;
        if let Some(peer) = self.peer_entry() {
            self.observe(v, accepted, peer)?;
        }
        Ok(self.rx_unread())
    }

    /// Size of the ring that is read from, 0 without one.
    pub fn rx_size(&self) -> u32 {
        self.rx.ring.size()
    }

    pub(super) fn rx_unread(&self) -> u32 {
        // After DONE the peer may use the frames for something else; after STOP
        // the head is final.
        let void = self.rx_reset() && self.carried.is_none();
        if self.done_sent || void || self.tx.flags & TX_RST != 0 || self.rx_stopped() {
            return 0;
        }
        self.rx.readable()
    }

    pub(super) fn observe<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        peer: u64,
    ) -> Result<(), Reason> {
        let version = accepted.version();
        // The order matters. Flags first: a tail fetched after FIN was seen is the
        // last one. Serial last: whatever ring the bytes before the tail are in, and
        // whatever grant lies between them, was stored before the tail.
        let order = [conn::TX_FLAGS, conn::TAIL, conn::RING_SERIAL];
        let [flags, tail, word] = v.peer_load_each(peer, conn::SIZE, order);

        let same = flags == self.rx.peer_tx && tail == self.rx.tail && word == self.rx.word;
        if same && self.rx.version == version && !self.rx.got.wants() {
            return Ok(());
        }
        self.observe_change(v, accepted, peer, (flags, tail, word, version))
    }

    /// Validates what the producer wrote, and takes it over. Out of the way of those
    /// who look in vain.
    #[inline(never)]
    fn observe_change<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        peer: u64,
        (flags, tail, word, version): (u32, u32, u32, u32),
    ) -> Result<(), Reason> {
        if self.rx.peer_tx & !flags != 0 || !self.tx_flags_ok(flags) {
            return self.fail(Reason::BadFlags);
        }
        if flags & TX_RST != 0 && self.carried.is_none() {
            // Nothing else of the entry has a meaning any more.
            self.rx.peer_tx = flags;
            return Ok(());
        }
        if self.carried.is_some() && !self.observe_switch(v, peer, flags) {
            self.rx.peer_tx = flags;
            return Ok(());
        }
        if word & 0xffff != self.rx.ring.serial() {
            self.adopt(v, accepted, peer, word & 0xffff)?;
        }
        let seen = self.rx.tail.wrapping_sub(self.rx.head);
        let unread = tail.wrapping_sub(self.rx.head);
        let ended = self.rx.peer_tx & (TX_FIN | TX_BACK | TX_RST) != 0;
        let after_end = ended && tail != self.rx.tail;
        if unread < seen || after_end || !self.rx.ring.holds(self.rx.head, tail) {
            return self.fail(Reason::BadPosition);
        }
        if self.rx.version != version {
            // An extent went. The owner may take it back while an idle ring is in it.
            let inside = |r: &Ring| accepted.contains(r.pfn, r.frames);
            match self.rx.ring.recheck(self.rx.head, tail, inside) {
                Some(true) => self.rx.version = version,
                Some(false) => {}
                None => return self.fail(Reason::BadRing),
            }
            if !self.recheck_grants(accepted) {
                return self.fail(Reason::BadGrant);
            }
        }
        // INVARIANT: not before the old tail, and `holds` by the check above.
        self.rx.tail = tail;
        let ended = self.rx.peer_tx;
        self.rx.peer_tx = flags;
        self.rx.word = word;
        self.observe_grants(v, accepted, peer, ended)
    }

    /// Takes the producer's next ring over into the private state (S-5, S-6).
    fn adopt<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        peer: u64,
        serial: u32,
    ) -> Result<(), Reason> {
        let ring = Ring {
            pfn: v.peer_load_acquire(peer.wrapping_add(conn::RING_PFN)),
            frames: v.peer_load_acquire(peer.wrapping_add(conn::RING_FRAMES)),
        };
        let base = v.peer_load_acquire(peer.wrapping_add(conn::RING_BASE));
        let seen = self.rx.tail.wrapping_sub(self.rx.head);
        // The bytes from head to base lie in the ring that was current until now.
        let before = base.wrapping_sub(self.rx.head);
        if serial != self.rx.ring.serial().wrapping_add(1) & 0xffff
            || !self.rx.ring.settled()
            || !ring.size_ok()
            || !accepted.contains(ring.pfn, ring.frames)
            || before < seen
            || before > self.rx.ring.size()
        {
            return self.fail(Reason::BadRing);
        }
        self.rx.ring.replace(ring, serial, before);
        if before == 0 {
            self.rx.ring.take_old();
        }
        Ok(())
    }

    /// Where `len` unread bytes are, `at` bytes after the head, as offsets in
    /// the group. Limited to what [`Conn::rx_avail`] last returned. The bytes may
    /// change while they are read: they are the peer's.
    pub fn rx_spans(&self, at: u32, len: u32) -> Spans {
        let len = len.min(self.rx_unread().saturating_sub(at));
        if len == 0 {
            return Spans::EMPTY;
        }
        self.rx.spans(at, len)
    }

    /// Gives `n` bytes back to the producer, not more than
    /// [`Conn::rx_avail`] last returned.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn rx_consume<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        n: u32,
    ) -> Result<Notify, Reason> {
        self.check()?;
        let n = n.min(self.rx_unread());
        if n == 0 {
            return Ok(Notify::NO);
        }
        let old = self.rx.head;
        let granted = !self.rx.got.is_empty();
        let step = if granted {
            self.rx_step(n)
        } else {
            Step::ring(n)
        };
        // INVARIANT: not more than tail - head, nor than up to an unread grant.
        self.rx.head = old.wrapping_add(step.in_ring);
        self.rx.ring.advance(step.in_ring);
        self.rx.ring.take_old();
        self.rx.record = None;
        if granted {
            self.publish_grant_head(v);
            self.publish_released(v, &step);
        }
        // Pairs with the acquire in `refresh_head`: the bytes are copied.
        self.own_release(v, conn::HEAD, self.rx.head);
        let Some(peer) = self.peer_entry() else {
            return Ok(Notify::NO);
        };
        // Pairs with the fence in `arm_head`.
        v.fence();
        let event = v.peer_load(peer.wrapping_add(conn::SPACE_EVENT));
        Ok(Notify {
            ready: step.released() || passed(event, self.rx.head, old),
        })
    }

    /// True if the peer said that no byte follows those that are available.
    pub fn rx_fin(&self) -> bool {
        self.rx.peer_tx & TX_FIN != 0
    }

    /// True if the peer aborted: ECONNRESET, on a carried connection by TCP.
    pub fn rx_reset(&self) -> bool {
        self.rx.peer_tx & TX_RST != 0
    }

    /// Asks for READY when there is more than [`Conn::rx_avail`] last returned,
    /// or a flag changed. `Ok(true)`: that is so already, look again. A hostile
    /// peer can keep that true: after a few tries the caller waits all the same,
    /// with a time limit.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn arm_data<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        self.arm_tail(v, self.rx.tail)
    }

    /// As [`Conn::arm_data`], for who has just called [`Conn::rx_avail`]: if that was
    /// asked for before, a change since the look is announced, and nobody looks again.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn arm_data_seen<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        if self.rx.event == Some(self.rx.tail) && self.rx.peer_tx & TX_BACK == 0 {
            return Ok(false);
        }
        self.arm_data(v)
    }

    /// Like [`Conn::arm_data`], for at least `low` unread bytes (SO_RCVLOWAT).
    /// `low` is limited to the ring's size, which is all that a producer can
    /// publish.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn arm_data_low<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        low: u32,
    ) -> Result<bool, Reason> {
        let size = match self.rx.ring.size() {
            0 => RING_MIN_FRAMES.wrapping_mul(FRAME_SIZE),
            size => size,
        };
        let event = self
            .rx
            .head
            .wrapping_add(low.clamp(1, size))
            .wrapping_sub(1);
        // The bytes that were seen do not wake anybody a second time.
        let seen = self.rx.tail.wrapping_sub(self.rx.head);
        if event.wrapping_sub(self.rx.head) < seen {
            return self.arm_tail(v, self.rx.tail);
        }
        self.arm_tail(v, event)
    }

    fn arm_tail<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        event: u32,
    ) -> Result<bool, Reason> {
        self.check()?;
        // After RST nothing comes that matters.
        let Some(peer) = self.peer_entry().filter(|_| !self.rx_reset()) else {
            return Ok(false);
        };
        if self.rx_stopped() {
            // Flags are announced whatever is armed, and no byte matters.
            let flags = v.peer_load_acquire(peer.wrapping_add(conn::TX_FLAGS));
            return Ok(flags != self.rx.peer_tx);
        }
        // One that was stored before still holds: no tail that was seen has passed it.
        if self.rx.event != Some(event) {
            self.rx.event = Some(event);
            self.own_store(v, conn::DATA_EVENT, event);
            // Pairs with the fence in `tx_publish`: either the producer sees the event,
            // or the tail fetched next is the one it stored.
            v.fence();
        }
        let [flags, tail] = v.peer_load_each(peer, conn::SIZE, [conn::TX_FLAGS, conn::TAIL]);
        // Only compared: `rx_avail` validates when it looks.
        Ok(flags != self.rx.peer_tx
            || flags & TX_BACK != 0
            || passed(event, tail, self.rx.tail)
            || tail.wrapping_sub(self.rx.tail) >= 1 << 31)
    }

    /// Nobody will read any more: bytes that come are void. A second call changes
    /// nothing. On a carried connection it is [`Conn::rx_stop`]: TCP knows what to
    /// do with bytes that nobody reads (T-8).
    pub fn shut_rx<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> Notify {
        if self.carried.is_some() {
            return self.rx_stop(v);
        }
        if self.rx.flags & RX_SHUT != 0 {
            return Notify::NO;
        }
        self.rx.flags |= RX_SHUT;
        self.own_release(v, conn::RX_FLAGS, self.rx.flags);
        self.notify_always()
    }

    /// The next record's length, if one is there; to be called after
    /// [`Conn::rx_avail`]. Its header is fetched once: the length stays the same
    /// until the record is consumed. Its bytes are at
    /// `rx_spans(RECORD_HDR, len)`.
    ///
    /// # Errors
    ///
    /// [`Reason::BadRecord`] if the header breaks S-13; also from then on.
    pub fn rx_record<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Option<u32>, Reason> {
        self.check()?;
        let unread = self.rx_unread();
        if self.kind != Kind::SeqPacket || unread == 0 {
            return Ok(None);
        }
        if let Some(len) = self.rx.record {
            return Ok(Some(len));
        }
        let spans = self.rx_spans(0, RECORD_HDR);
        let [span] = spans.as_slice() else {
            return self.fail(Reason::BadRecord);
        };
        if span.len != RECORD_HDR || span.off % 8 != 0 {
            return self.fail(Reason::BadRecord);
        }
        let len = v.window.load(span.off);
        let flags = v.window.load(span.off.wrapping_add(4));
        // Records are published whole.
        let fits = Self::record_size(len).is_some_and(|size| size <= unread);
        if flags != 0 || !fits {
            return self.fail(Reason::BadRecord);
        }
        self.rx.record = Some(len);
        Ok(Some(len))
    }

    /// Gives the record that [`Conn::rx_record`] returned back to the producer,
    /// read or not.
    ///
    /// # Errors
    ///
    /// The latched reason.
    pub fn rx_consume_record<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Notify, Reason> {
        self.check()?;
        match self.rx.record.and_then(Self::record_size) {
            Some(size) => self.rx_consume(v, size),
            None => Ok(Notify::NO),
        }
    }
}
