// SPDX-License-Identifier: GPL-2.0

//! Listening: connections that wait for `accept(2)`.
//!
//! Lock order: `queue` is innermost.

use crate::conn::Connection;
use crate::family::{AfFgdp, FgdpRef};
use crate::proto::wire::{Kind, Refusal};
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::net::sock::Sock;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;

/// The longest accept queue, whatever `listen(2)` asked for.
const MAX_BACKLOG: u32 = 4096;

struct Queue {
    waiting: KVVec<Arc<Connection>>,
    backlog: usize,
    sock: Option<FgdpRef>,
}

/// A port that accepts connections.
#[pin_data]
pub(crate) struct Listener {
    /// Stream or records.
    pub(crate) kind: Kind,
    #[pin]
    queue: BhLock<Queue>,
}

fn limit(backlog: u32) -> usize {
    backlog.min(MAX_BACKLOG) as usize + 1
}

impl Listener {
    /// A listener for `sk`.
    pub(crate) fn new(sk: &Sock<AfFgdp>, kind: Kind, backlog: u32) -> Result<Arc<Self>> {
        let backlog = limit(backlog);
        let queue = Queue {
            waiting: KVVec::with_capacity(backlog, GFP_KERNEL)?,
            backlog,
            sock: Some(ARef::from(sk)),
        };
        Arc::pin_init(
            pin_init!(Self { kind, queue <- new_bhlock!(queue, "fgdp_listener") }),
            GFP_KERNEL,
        )
    }

    /// Another `listen(2)` on the same socket.
    pub(crate) fn set_backlog(&self, backlog: u32) -> Result {
        let backlog = limit(backlog);
        let mut room = KVVec::with_capacity(backlog, GFP_KERNEL)?;
        let mut queue = self.queue.lock();
        if room.capacity() > queue.waiting.capacity() {
            core::mem::swap(&mut queue.waiting, &mut room);
            for conn in room.drain_all() {
                // Cannot fail: the new capacity is larger.
                let _ = queue.waiting.push_within_capacity(conn);
            }
        }
        queue.backlog = backlog;
        drop(queue);
        Ok(())
    }

    /// Queues an open connection, or says why not.
    pub(crate) fn push(&self, conn: Arc<Connection>) -> Result<(), Refusal> {
        let mut queue = self.queue.lock();
        let Some(sock) = queue.sock.clone() else {
            return Err(Refusal::Refused);
        };
        if queue.waiting.len() >= queue.backlog {
            return Err(Refusal::Backlog);
        }
        let refused = queue.waiting.push_within_capacity(conn);
        drop(queue);
        if refused.is_err() {
            return Err(Refusal::Backlog);
        }
        sock.data_ready();
        Ok(())
    }

    /// Whether a connection can be queued now.
    pub(crate) fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        queue.sock.is_some() && queue.waiting.len() < queue.backlog
    }

    /// The connection that has waited longest.
    pub(crate) fn pop(&self) -> Option<Arc<Connection>> {
        self.queue.lock().waiting.remove(0).ok()
    }

    /// Whether one waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }

    /// How many wait, and how many may, for listings.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.waiting.len(), queue.backlog)
    }

    /// Ends listening: those that wait are reset, nobody is queued any more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        let sock = queue.sock.take();
        drop(queue);
        drop(sock);
        while let Some(conn) = self.pop() {
            conn.close(true);
        }
    }
}
