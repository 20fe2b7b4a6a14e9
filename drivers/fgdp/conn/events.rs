// SPDX-License-Identifier: GPL-2.0

//! What the peer's messages do to a connection.

use super::{pending, Connection, Phase};
use crate::proto::wire::{Reason, Refusal};
use crate::sys::net::errno::Errno;
use kernel::prelude::*;

impl Connection {
    /// Becomes open as the answer to a CONNECT, and says so.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub(crate) fn accept(&self, peer_id: u32) -> Result<(), Reason> {
        let view = self.view();
        let mut state = self.state.lock();
        state.proto.set_peer(&view, peer_id)?;
        state.phase = Phase::Open;
        state.opened = true;
        Ok(())
    }

    /// The peer accepted. Bottom half.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub(crate) fn on_accept(&self, peer_id: u32) -> Result<(), Reason> {
        let view = self.view();
        let mut state = self.state.lock();
        state.proto.set_peer(&view, peer_id)?;
        // The own side may have given up meanwhile; its close finds that there is somebody to tell.
        let in_time = state.phase == Phase::Opening;
        if in_time {
            state.phase = Phase::Open;
            state.opened = true;
        }
        let closed = state.closed;
        drop(state);
        let late = self.carried(|proto, _, _| Ok(proto.late_flags()));
        if matches!(late, Ok(notify) if notify.ready) {
            self.post(pending::DATA | pending::SPACE);
        }
        if closed {
            // Closed while connecting: now there is somebody to tell.
            self.post(pending::DATA);
            self.advance_close();
        } else if let Some(user) = self.user().filter(|_| in_time) {
            user.opened();
        }
        Ok(())
    }

    /// The peer refused. Bottom half.
    ///
    /// # Errors
    ///
    /// [`Reason::BadMsg`] when it had accepted before.
    pub(crate) fn on_refuse(&self, error: Refusal) -> Result<(), Reason> {
        if self.peer_id().is_some() {
            return Err(Reason::BadMsg);
        }
        self.die(match error {
            Refusal::Type => Errno::Prototype.into(),
            Refusal::Refused
            | Refusal::NoMem
            | Refusal::Backlog
            | Refusal::NoSocket
            | Refusal::Sequence
            | Refusal::Policy => Errno::ConnRefused.into(),
        });
        // The peer made no entry: nobody looks at ours.
        self.device.forget(self);
        Ok(())
    }

    /// The peer's entry changed. Bottom half, or as one with the peer's `tx` or `rx` if it is in
    /// this guest.
    pub(crate) fn on_ready(&self, data: bool, space: bool) {
        let view = self.view();
        let state = self.state.lock();
        let closed = state.closed;
        let goes_on = self.is_carried() && !self.is_over(&state) && state.proto.goes_on(&view);
        drop(state);
        if closed {
            self.advance_close();
            return;
        }
        // A carried connection ends when TCP says so: there may be bytes to read.
        let (reset, fin) = if self.is_carried() {
            (false, false)
        } else {
            self.with_rx(|proto, _, _| Ok((proto.rx_reset(), proto.rx_fin())))
                .unwrap_or((false, false))
        };
        if reset {
            self.die(Errno::ConnReset.into());
            return;
        }
        if space {
            self.collect_grants();
        }
        if let Some(user) = self.user() {
            // A change of the other direction says nothing new about this one's end: no edge.
            user.ready(data, space, fin && data, goes_on);
        }
    }

    /// The peer will not look at the own entry again. Bottom half.
    ///
    /// # Errors
    ///
    /// [`Reason::BadMsg`] when it said so before.
    pub(crate) fn on_done(&self) -> Result<(), Reason> {
        let mut state = self.state.lock();
        state.proto.peer_done()?;
        let closed = state.closed;
        drop(state);
        self.collect_grants();
        if closed {
            self.advance_close();
        } else if let Some(user) = self.user() {
            user.done();
        }
        Ok(())
    }
}
