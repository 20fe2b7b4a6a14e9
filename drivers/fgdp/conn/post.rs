// SPDX-License-Identifier: GPL-2.0

//! A connection's messages: what is to be said, until the lane has space for it.

use super::Connection;
use crate::proto::stream::Notify;
use crate::proto::wire::Msg;
use crate::sys::lock::as_bottom_half;
use kernel::prelude::*;

/// Messages that found no space in their lane.
pub(crate) mod pending {
    /// CONNECT.
    pub(crate) const CONNECT: u32 = 1 << 0;
    /// ACCEPT.
    pub(crate) const ACCEPT: u32 = 1 << 1;
    /// READY with the data flag.
    pub(crate) const DATA: u32 = 1 << 2;
    /// READY with the space flag.
    pub(crate) const SPACE: u32 = 1 << 3;
    /// DONE.
    pub(crate) const DONE: u32 = 1 << 4;
}

impl Connection {
    /// Sends the CONNECT.
    pub(crate) fn start(&self) {
        self.post(pending::CONNECT);
    }

    /// Tells the peer about bytes or flags if it waits for them.
    pub(crate) fn notify_data(&self, notify: Result<Notify>) {
        if matches!(notify, Ok(Notify { ready: true })) && !self.tell_here(true, false) {
            self.post(pending::DATA);
        }
    }

    /// Tells the peer about space or flags if it waits for them.
    pub(crate) fn notify_space(&self, notify: Result<Notify>) {
        if matches!(notify, Ok(Notify { ready: true })) && !self.tell_here(false, true) {
            self.post(pending::SPACE);
        }
    }

    /// Does at once what a READY would do at the other end, if that is in this guest, too, and
    /// knows this one.
    fn tell_here(&self, data: bool, space: bool) -> bool {
        if !self.device.is_loopback() {
            return false;
        }
        let peer = self.peer_id().and_then(|id| self.device.connection(id));
        let Some(peer) = peer.filter(|peer| peer.peer_id() == Some(self.id)) else {
            return false;
        };
        // What it does to the other end's socket is one step for whoever uses that.
        as_bottom_half(|| peer.on_ready(data, space));
        true
    }

    pub(super) fn post(&self, what: u32) {
        self.pending.set(what);
        self.flush();
    }

    /// Sends what is pending, in the order that the protocol wants.
    pub(crate) fn flush(&self) {
        let sending = self.sending.lock();
        let mut bits = self.pending.take();
        let state = self.state.lock();
        // What changes behind this is seen by who changes it: nothing is pending.
        let (peer, over) = (state.proto.peer_id(), state.proto.is_free());
        drop(state);
        while bits != 0 {
            let bit = bits & bits.wrapping_neg();
            if let Some(msg) = self.message(bit, peer) {
                if !self.channel.send(&self.device, self.lane(), &msg) {
                    // No space: the channel flushes us when there is.
                    self.pending.set(bits);
                    self.channel.backlog(&self.device, self.lane());
                    return;
                }
            }
            bits &= !bit;
        }
        drop(sending);
        if over {
            self.device.forget(self);
        }
    }

    /// Whether messages wait for space in the lane.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.any()
    }

    fn message(&self, bit: u32, peer: Option<u32>) -> Option<Msg> {
        Some(match bit {
            pending::CONNECT if self.endpoint.is_some() => {
                Msg::Carry(self.endpoint.as_ref()?.propose(self.id))
            }
            pending::CONNECT => Msg::Connect {
                peer_conn: self.id,
                src_port: self.local_port,
                dst_port: self.remote_port,
                kind: self.kind,
            },
            pending::ACCEPT => Msg::Accept {
                conn: peer?,
                peer_conn: self.id,
            },
            pending::DATA => Msg::Ready {
                conn: peer?,
                data: true,
                space: false,
            },
            pending::SPACE => Msg::Ready {
                conn: peer?,
                data: false,
                space: true,
            },
            pending::DONE => Msg::Done { conn: peer? },
            _ => return None,
        })
    }

    /// Says ACCEPT.
    pub(crate) fn send_accept(&self) {
        self.post(pending::ACCEPT);
    }
}
