// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The end of a connection: who may forget what, and when (S-14 to S-16).

use super::Conn;
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{Msg, Reason, RX_SHUT, RX_STOP, TX_FIN, TX_RST};

impl Conn {
    /// True if there is nothing left to read: both sides agree that no byte will
    /// be.
    fn rx_finished(&self) -> bool {
        let read = self.rx.head == self.rx.tail && self.rx.got.is_empty();
        let drained = self.rx_fin() && read;
        // Of a carried connection bytes before RST may still be read (T-15).
        let void = self.rx_reset() && (read || self.carried.is_none());
        let ended = void || self.tx_has(TX_RST);
        drained || ended || self.rx.flags & (RX_SHUT | RX_STOP) != 0
    }

    /// True if nothing of what the peer does with the sent bytes matters.
    fn tx_finished(&self) -> bool {
        let acked = self.tx.head == self.tx.tail && !self.tx_is_granting();
        let unwanted = self.tx.peer_rx & RX_SHUT != 0 || self.done_seen;
        let ended = self.rx_reset() || self.tx_has(TX_RST);
        // Of a carried connection the rest goes by TCP.
        let stopped = self.tx.peer_rx & RX_STOP != 0 || self.done_seen;
        let back = self.carried.is_some() && stopped;
        (self.tx_has(TX_FIN) && (acked || unwanted)) || ended || back
    }

    pub(super) fn tx_has(&self, flag: u32) -> bool {
        self.tx.flags & flag != 0
    }

    /// The DONE message, when it may be sent and was not: from then on this side
    /// does not look at the peer's entry (S-15). The caller holds no span of the
    /// peer's ring.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn poll_done<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<Option<Msg>, Reason> {
        let Some(conn) = self.peer_id().filter(|_| !self.is_cut()) else {
            return Ok(None);
        };
        self.refresh_head(v)?;
        let finished = self.rx_finished() && self.tx_finished();
        if self.done_sent || !finished || self.rx_has_taken() {
            return Ok(None);
        }
        self.done_sent = true;
        Ok(Some(Msg::Done { conn }))
    }

    /// True if DONE was sent.
    pub fn done_sent(&self) -> bool {
        self.done_sent
    }

    /// The peer's DONE came: it does not look at the own entry and rings any
    /// more.
    ///
    /// # Errors
    ///
    /// [`Reason::BadMsg`] if it came before, or before ACCEPT.
    pub fn peer_done(&mut self) -> Result<(), Reason> {
        if self.done_seen || self.peer.is_none() {
            return self.fail(Reason::BadMsg);
        }
        self.done_seen = true;
        self.all_released();
        Ok(())
    }

    /// True if the peer's DONE came: frames of the own rings are free.
    pub fn done_seen(&self) -> bool {
        self.done_seen
    }

    /// True if both DONE passed: entry and id are free (S-16). Bytes of a carried
    /// connection may still have to go by TCP: see [`Conn::tx_keeps_bytes`].
    pub fn is_free(&self) -> bool {
        self.done_sent && self.done_seen
    }

    /// After the own close: asks to be woken by READY for whatever may let DONE
    /// be sent. `Ok(true)`: something changed already, call
    /// [`Conn::poll_done`] again (after [`Conn::rx_avail`], which sees the peer's
    /// flags).
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn arm_close<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
    ) -> Result<bool, Reason> {
        let drained = self.arm_drained(v)?;
        let flags = self.arm_data(v)?;
        Ok(drained || flags)
    }
}
