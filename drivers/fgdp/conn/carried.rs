// SPDX-License-Identifier: GPL-2.0

//! A connection that carries TCP: it outlives its channel until TCP has its bytes.

use super::Connection;
use crate::extents::Extents;
use crate::proto::mem::View;
use crate::proto::stream::{Conn, TxPath};
use crate::proto::wire::Reason;
use crate::sys::net::errno::Errno;
use crate::sys::shm::{GroupMem, SlotMem};
use kernel::prelude::*;

impl Connection {
    /// Whether it carries TCP.
    pub(crate) fn is_carried(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Runs `f` on the protocol's state, also when the channel has ended and that was settled.
    ///
    /// # Errors
    ///
    /// `ECONNRESET` when the peer broke a rule, or while the channel's end is not settled.
    pub(crate) fn carried<R>(
        &self,
        f: impl FnOnce(&mut Conn, &View<'_, SlotMem, GroupMem>, &Extents) -> Result<R, Reason>,
    ) -> Result<R> {
        let view = self.view();
        let mut state = self.state.lock();
        if state.retired || (self.channel.is_dead() && !state.proto.is_cut()) {
            return Err(Errno::ConnReset.into());
        }
        let result = f(&mut state.proto, &view, &self.channel.accepted);
        drop(state);
        result.map_err(|reason| self.broken(reason))
    }

    /// Stops reading from the ring: the rest comes by TCP. Not under the hands of a reader. Sleeps.
    pub(crate) fn stop_reading(&self) {
        let _rx = self.rx.lock();
        let notify = self.carried(|proto, view, _| Ok(proto.rx_stop(view)));
        self.notify_space(notify);
    }

    /// Wants what it sends to go by TCP. Behind what a sender is copying. Sleeps.
    pub(crate) fn stop_sending(&self) {
        let _tx = self.tx.lock();
        let notify = self.carried(|proto, view, _| Ok(proto.tx_back(view)));
        self.notify_data(notify);
    }

    /// The channel ends: nobody looks at the peer's entry any more. Before CHANNEL_CLOSE. Sleeps.
    pub(crate) fn cut(&self) {
        if !self.is_carried() {
            return;
        }
        let _tx = self.tx.lock();
        let _rx = self.rx.lock();
        let view = self.view();
        self.state.lock().proto.cut(&view);
    }

    /// After [`Connection::cut`]: what the peer has not read, for TCP. `known`: its last word can
    /// be read.
    fn settle(&self, known: bool) -> KVVec<u8> {
        let mut bytes = KVVec::new();
        // Not while some of them are on their way to TCP.
        let _tx = self.tx.lock();
        let view = self.view();
        let mut state = self.state.lock();
        if known {
            state.proto.tx_final(&view);
        } else {
            state.proto.tx_give_up();
        }
        drop(state);
        // Its frames go to somebody else now, so the bytes cannot stay. Nobody changes them
        // meanwhile.
        while let Ok(TxPath::Rest(n)) = self.carried(|proto, view, _| proto.tx_path(view, 0)) {
            let spans = self.carried(|proto, view, _| Ok(proto.tx_rest_spans(view, n)));
            let mut copied = 0u32;
            for span in spans.iter().flatten() {
                if !self.device.slot().append_to(span.off, span.len, &mut bytes) {
                    break;
                }
                copied = copied.wrapping_add(span.len);
            }
            if copied == 0 {
                // No memory: these bytes are lost, and the stream with them.
                let _told = self.state.lock().proto.tx_reset(&view);
                break;
            }
            self.rest_sent(copied);
        }
        bytes
    }

    /// After [`Connection::cut`]: TCP gets what the peer has not read. Sleeps.
    pub(crate) fn end_carrying(&self, known: bool) {
        if !self.is_carried() {
            return;
        }
        let path = match self.user() {
            Some(super::User::Tcp(path)) => Some(path),
            _ => None,
        };
        if let Some(path) = &path {
            path.hold_back();
        }
        let bytes = self.settle(known);
        if let Some(path) = path {
            path.on_channel_end(bytes);
        }
    }

    /// TCP has taken `n` bytes of what the peer will not read from the ring. That counts whatever
    /// happens to the channel. The caller holds `tx`.
    pub(crate) fn rest_sent(&self, n: u32) {
        let view = self.view();
        let mut state = self.state.lock();
        state.proto.tx_rest_sent(&view, n);
        self.settle_grants(&mut state);
        drop(state);
        self.tell_notices();
    }

    /// Whether its rings have bytes that TCP may have to send.
    pub(crate) fn keeps_bytes(&self) -> bool {
        self.is_carried() && self.state.lock().proto.tx_keeps_bytes()
    }
}
