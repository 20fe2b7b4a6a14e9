// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the peer will not read of a carried connection, and TCP has to send: bytes of
//! the rings, and of grants between them (T-10, T-16).

use super::{Conn, Span, Spans};
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{RX_STOP, TX_RST};

/// What comes next.
enum Piece {
    /// So many bytes of the rings.
    Ring(u32),
    /// Bytes of a grant: where in the group the first one is, and how many.
    Grant(u64, u32),
}

impl Conn {
    /// Bytes of the rings that neither the peer has read nor TCP has.
    fn ring_left(&self) -> u32 {
        let left = self.tx.tail.wrapping_sub(self.tx.head);
        left.saturating_sub(self.tx_rest_gone())
    }

    /// Bytes of the rings behind the final head that went by TCP.
    pub(super) fn tx_rest_gone(&self) -> u32 {
        self.carried.as_ref().map_or(0, |c| c.rest_sent)
    }

    /// True if there are bytes that neither the peer has read nor TCP has, as far as is
    /// known.
    pub(super) fn tx_has_unread(&self) -> bool {
        self.ring_left() != 0 || self.tx_has_unread_grants()
    }

    /// True if rings or grants have bytes that this side may have to send by TCP: their
    /// frames stay, also after DONE and after the channel's end.
    pub fn tx_keeps_bytes(&self) -> bool {
        let void = self.rx_reset() || self.tx_has(TX_RST);
        let lost = self.carried.as_ref().is_none_or(|c| c.lost);
        !lost && !void && self.tx_has_unread()
    }

    /// What has to go by TCP next, once it is known what the peer has read.
    fn piece<S: MemMut + ?Sized, W: Mem + ?Sized>(&self, v: &View<'_, S, W>) -> Option<Piece> {
        if self.tx.peer_rx & RX_STOP == 0 || !self.tx_keeps_bytes() {
            return None;
        }
        let in_ring = self.ring_left();
        let Some(grant) = self.first_unread(v) else {
            return Some(Piece::Ring(in_ring));
        };
        let sent = self.tx.head.wrapping_add(self.tx_rest_gone());
        // A peer that says it read more of the ring before this grant gets what it asks for.
        match grant.position.wrapping_sub(sent) {
            n if n != 0 && n <= in_ring => Some(Piece::Ring(n)),
            _ => Some(Piece::Grant(grant.start, grant.bytes)),
        }
    }

    /// Bytes of what has to go by TCP next; more may be behind them.
    pub(super) fn rest_bytes<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
    ) -> u32 {
        match self.piece(v) {
            Some(Piece::Ring(n) | Piece::Grant(_, n)) => n,
            None => 0,
        }
    }

    /// Where the first `len` bytes are that have to go by TCP next, as offsets in
    /// the own slot; limited to what [`TxPath::Rest`](super::TxPath::Rest) says.
    pub fn tx_rest_spans<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &self,
        v: &View<'_, S, W>,
        len: u32,
    ) -> Spans {
        let mut out = Spans::EMPTY;
        // No underflow: rings and grants were seen inside the own slot when they were made.
        let mut push = |off: u64, len| {
            out.push(Span {
                off: off.wrapping_sub(v.slot_base),
                len,
            });
        };
        match self.piece(v) {
            Some(Piece::Ring(n)) => {
                let sent = self.tx_rest_gone();
                for span in &self.tx.ring.spans(self.tx.head, sent, len.min(n)) {
                    push(span.off, span.len);
                }
            }
            Some(Piece::Grant(start, n)) => push(start, len.min(n)),
            None => {}
        }
        out
    }

    /// TCP took `n` bytes of the rest, not more than were next.
    pub fn tx_rest_sent<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        n: u32,
    ) {
        match self.piece(v) {
            Some(Piece::Ring(left)) => {
                if let Some(c) = &mut self.carried {
                    c.rest_sent = c.rest_sent.saturating_add(n.min(left));
                }
            }
            Some(Piece::Grant(_, left)) => self.pass_unread(n.min(left), left),
            None => {}
        }
    }
}
