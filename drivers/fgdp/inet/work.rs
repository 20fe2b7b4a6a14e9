// SPDX-License-Identifier: GPL-2.0

//! What takes the socket's lock: the ways back, and what waits for them.

use super::path::todo;
use super::{propose, Path, Why};
use crate::conn::Connection;
use crate::proto::stream::{Source, TxPath};
use crate::sys::net::consts::*;
use crate::sys::net::tcp::TcpSock;
use core::mem::{discriminant, Discriminant};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// Steps of one run; more are for the next one. A step takes the bytes of a ring up to the next
/// grant, or a grant.
const STEPS: u32 = 64;

impl_has_work! {
    impl HasWork<Self> for Path { self.work }
}

impl WorkItem for Path {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.run_work();
    }
}

/// What follows without the socket's lock.
enum After {
    Nothing,
    Reset,
    Close,
}

impl Path {
    fn run_work(self: &Arc<Self>) {
        self.drop_late();
        let Some(sk) = self.sk() else {
            return;
        };
        if self.todo.has(todo::PROPOSE) {
            self.todo.clear(todo::PROPOSE);
            propose::propose(self);
        }
        // The listener's end takes sockets that were not accepted, and nobody may own one then.
        // They have neither sent nor read: what needs the lock follows when they are accepted.
        let guard = self.has_user().then(|| sk.lock());
        let (before, was_plain) = (self.ways(&sk), self.is_plain());
        let after = self.advance(&sk, guard.is_some());
        drop(guard);
        match after {
            After::Nothing => {}
            After::Reset => {
                self.set_plain();
                sk.abort();
                if self.todo.has(todo::CLOSE) {
                    self.todo.clear(todo::CLOSE | todo::FIN);
                    sk.tcp_close(0);
                }
            }
            After::Close => {
                if let Some(conn) = self.conn() {
                    conn.close(false);
                }
                self.set_plain();
                sk.tcp_close(0);
            }
        }
        if self.todo.has(todo::AGAIN) {
            self.todo.clear(todo::AGAIN);
            self.kick_later();
        }
        // Not by the path, which may have left the socket: who waits has to look at TCP then. And
        // nobody is woken for nothing: that would be an edge for epoll.
        let now = self.ways(&sk);
        let over = self.is_plain() != was_plain;
        if over || now.0 != before.0 {
            sk.data_ready();
        }
        if over || now.1 != before.1 {
            sk.wake_writers();
        }
    }

    /// Where bytes come from and where they go, without how many.
    fn ways(&self, sk: &TcpSock) -> (Discriminant<Source>, Discriminant<TxPath>) {
        (
            discriminant(&self.source(sk)),
            discriminant(&self.tx_path(sk)),
        )
    }

    /// Does what can be done; without the socket's lock (not `locked`) only what needs none.
    fn advance(self: &Arc<Self>, sk: &TcpSock, locked: bool) -> After {
        let was_plain = self.is_plain();
        if let Some(conn) = self.conn().filter(|_| self.is_agreed() && !was_plain) {
            if self.todo.has(todo::BACK) {
                conn.stop_sending();
            }
            if locked {
                match self.move_bytes(sk, conn) {
                    Ok(()) => {}
                    Err(e) if e == EAGAIN => self.todo.set(todo::AGAIN),
                    Err(_) => return After::Reset,
                }
            }
            let stop = self.source(sk) == Source::Stop;
            if stop && !self.todo.has(todo::BACK) && !conn.channel.is_dead() {
                self.because(Why::Peer);
            }
            if stop || self.todo.has(todo::BACK) {
                conn.stop_reading();
            }
            if locked && self.source(sk) == Source::Reset {
                return After::Reset;
            }
            if self.tx_path(sk) == TxPath::Back && self.source(sk) == Source::Back {
                // Both directions are TCP's.
                conn.close(false);
                self.set_plain();
                self.inet.counters.back.add(1, Relaxed);
            }
        } else if self.todo.has(todo::BACK) && !was_plain {
            if let Some(conn) = self.conn() {
                // The peer may be agreeing just now: it finds that neither direction is to switch.
                conn.stop_sending();
                conn.stop_reading();
                conn.close(false);
            }
            self.set_plain();
        }
        if !locked {
            return After::Nothing;
        }
        let fin_goes = self.tx_is_tcp(sk);
        if self.todo.has(todo::FIN) && fin_goes {
            self.todo.clear(todo::FIN);
            if !self.todo.has(todo::CLOSE) {
                sk.tcp_shutdown(SEND_SHUTDOWN);
            }
        }
        // A connection that TCP has ended does not wait for the ring.
        if self.todo.has(todo::CLOSE) && (fin_goes || sk.state() == TCP_CLOSE) {
            self.todo.clear(todo::CLOSE);
            return After::Close;
        }
        if self.todo.has(todo::LEAVE) {
            self.try_leave(sk);
        }
        After::Nothing
    }

    /// Brings what the ring has to send to where it belongs. The socket's lock is held.
    ///
    /// # Errors
    ///
    /// `EAGAIN` without memory; anything else: the connection is to be reset.
    fn move_bytes(self: &Arc<Self>, sk: &TcpSock, conn: &Connection) -> Result {
        self.push_rest(sk)?;
        for _ in 0..STEPS {
            match self.tx_path(sk) {
                TxPath::Rest(n) => self.push_ring(sk, conn, n)?,
                TxPath::Stray => conn.stop_sending(),
                TxPath::Reset => return Err(EPIPE),
                TxPath::Wait if self.todo.has(todo::FIN) => {
                    // Not dead: then the channel's end brings us back here.
                    let drained = conn.with(|proto, view| proto.arm_drained(view));
                    if !matches!(drained, Ok(true)) {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
        self.kick();
        Ok(())
    }

    fn push_ring(&self, sk: &TcpSock, conn: &Connection, n: u32) -> Result {
        let _tx = conn.tx.lock();
        // An error: the channel is ending, and then says what is left.
        let spans = conn.carried(|proto, view, _| Ok(proto.tx_rest_spans(view, n)));
        for span in spans.iter().flatten() {
            let sent = sk.push_slot(conn.device.slot(), span.off, span.len)?;
            conn.rest_sent(sent);
            if sent < span.len {
                break;
            }
        }
        Ok(())
    }

    fn push_rest(&self, sk: &TcpSock) -> Result {
        let mut guard = self.rest.lock();
        let rest: &mut Option<_> = &mut guard;
        while let Some(left) = rest.as_mut() {
            match left.bytes.get(left.sent..) {
                Some(bytes) if !bytes.is_empty() => {
                    left.sent = left.sent.saturating_add(sk.push_bytes(bytes)?);
                }
                _ => {
                    *rest = None;
                    self.rest_left.store(false, Release);
                }
            }
        }
        Ok(())
    }

    fn kick_later(self: &Arc<Self>) {
        // Memory comes back by itself; on a queue of its own nobody waits behind this.
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(10));
        self.kick();
    }
}
