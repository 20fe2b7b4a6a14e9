// SPDX-License-Identifier: GPL-2.0

//! Connections that peers open: from a CONNECT to the listener's queue.
//!
//! Process context, but not `ctl`: a host that does not answer its calls keeps nobody from
//! accepting.

use crate::channel::Channel;
use crate::device::{Device, ACCEPT};
use crate::port;
use crate::proto::wire::{Carry, Kind, Msg, Refusal};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// CONNECTs of one peer that may wait. More than the longest accept queue are refused anyway.
const MAX_CONNECTS: i32 = 4096;

/// A CONNECT or CARRY that waits for process context.
pub(crate) struct Connect {
    /// From whom.
    pub(crate) channel: Arc<Channel>,
    /// The peer's connection id.
    pub(crate) peer_conn: u32,
    /// What it wants.
    pub(crate) what: What,
}

/// What a peer wants.
pub(crate) enum What {
    /// A connection.
    Connect {
        /// The peer's port.
        src_port: u32,
        /// The port that it wants.
        dst_port: u32,
        /// What it wants to send.
        kind: Kind,
    },
    /// To carry a TCP connection.
    Carry(Carry),
}

impl_has_work! {
    impl HasWork<Self, 5> for Device { self.accept_work }
}

impl WorkItem<ACCEPT> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        loop {
            let connects = core::mem::replace(&mut *this.connects.lock(), KVec::new());
            if connects.is_empty() {
                return;
            }
            for connect in connects {
                connect.channel.connects.add(-1, Relaxed);
                this.answer_connect(&connect);
            }
        }
    }
}

impl Device {
    /// Queues a CONNECT for process context, or refuses it. Bottom half.
    pub(crate) fn queue_connect(self: &Arc<Self>, connect: Connect) {
        let channel = connect.channel.clone();
        let peer_conn = connect.peer_conn;
        let queued = if channel.connects.fetch_add(1, Relaxed) < MAX_CONNECTS {
            self.connects.lock().push(connect, GFP_ATOMIC).is_ok()
        } else {
            false
        };
        if queued {
            self.kick_accept();
        } else {
            channel.connects.add(-1, Relaxed);
            self.refuse(&channel, peer_conn, Refusal::NoMem);
        }
    }

    /// As [`Device::queue_connect`], for a CARRY.
    pub(crate) fn queue_carry(self: &Arc<Self>, channel: &Arc<Channel>, carry: Carry) {
        self.queue_connect(Connect {
            channel: channel.clone(),
            peer_conn: carry.peer_conn,
            what: What::Carry(carry),
        });
    }

    /// Answers a CONNECT or a CARRY with REFUSE.
    pub(crate) fn refuse(self: &Arc<Self>, channel: &Channel, peer_conn: u32, error: Refusal) {
        self.counters.refusals.add(1, Relaxed);
        let refuse = Msg::Refuse {
            conn: peer_conn,
            error,
        };
        channel.send_later(self, peer_conn % channel.lanes(), &refuse);
    }

    fn answer_connect(self: &Arc<Self>, connect: &Connect) {
        if connect.channel.is_dead() {
            return;
        }
        let (src_port, dst_port, kind) = match connect.what {
            What::Connect {
                src_port,
                dst_port,
                kind,
            } => (src_port, dst_port, kind),
            What::Carry(carry) => {
                match self.stack.inet() {
                    Some(inet) => inet.on_carry(self, &connect.channel, &carry),
                    None => self.refuse(&connect.channel, connect.peer_conn, Refusal::Policy),
                }
                return;
            }
        };
        match self.try_accept(connect, src_port, dst_port, kind) {
            Ok(()) => self.counters.accepts.add(1, Relaxed),
            Err(Some(error)) => self.refuse(&connect.channel, connect.peer_conn, error),
            Err(None) => {}
        }
    }

    /// Finds the listener and gives it the connection. An error of `None`: there is nobody to
    /// answer.
    fn try_accept(
        self: &Arc<Self>,
        connect: &Connect,
        src_port: u32,
        dst_port: u32,
        kind: Kind,
    ) -> Result<(), Option<Refusal>> {
        let channel = &connect.channel;
        let listener = port::listener(&self.stack, dst_port).ok_or(Refusal::Refused)?;
        if listener.kind != kind {
            return Err(Some(Refusal::Type));
        }
        if !listener.has_room() {
            return Err(Some(Refusal::Backlog));
        }
        let conn = self
            .add_connection(channel, kind, dst_port, src_port, None)
            .map_err(|_| Refusal::NoMem)?;
        if let Err(reason) = conn.accept(connect.peer_conn) {
            self.break_channel(channel, reason);
            return Err(None);
        }
        conn.send_accept();
        if listener.push(conn.clone()).is_err() {
            // The listener closed or filled up meanwhile: as TCP, the peer sees a reset.
            conn.close(true);
        }
        Ok(())
    }
}
