// SPDX-License-Identifier: GPL-2.0

//! Connections that peers open: from a CONNECT to the listener's queue.
//!
//! Process context, but not `ctl`: a host that does not answer its calls keeps nobody from accepting.

use crate::channel::Channel;
use crate::device::{Device, ACCEPT};
use crate::port;
use crate::proto::wire::{Kind, Msg, Refusal};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// CONNECTs of one peer that may wait. More than the longest accept queue are refused anyway.
const MAX_CONNECTS: i32 = 4096;

/// A CONNECT that waits for process context.
pub(crate) struct Connect {
    /// From whom.
    pub(crate) channel: Arc<Channel>,
    /// The peer's connection id.
    pub(crate) peer_conn: u32,
    /// The peer's port.
    pub(crate) src_port: u32,
    /// The port that it wants.
    pub(crate) dst_port: u32,
    /// What it wants to carry.
    pub(crate) kind: Kind,
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
        match self.try_accept(connect) {
            Ok(()) => self.counters.accepts.add(1, Relaxed),
            Err(Some(error)) => self.refuse(&connect.channel, connect.peer_conn, error),
            Err(None) => {}
        }
    }

    /// Finds the listener and gives it the connection. An error of `None`: there is nobody to answer.
    fn try_accept(self: &Arc<Self>, connect: &Connect) -> Result<(), Option<Refusal>> {
        let channel = &connect.channel;
        let listener = port::listener(&self.stack, connect.dst_port).ok_or(Refusal::Refused)?;
        if listener.kind != connect.kind {
            return Err(Some(Refusal::Type));
        }
        if !listener.has_room() {
            return Err(Some(Refusal::Backlog));
        }
        let conn = self
            .add_connection(channel, connect.kind, connect.dst_port, connect.src_port)
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
