// SPDX-License-Identifier: GPL-2.0

//! One connection: the protocol's state, who waits for it, how it ends.
//!
//! A connection outlives its socket until the peer has read what was sent. References: the
//! device's table holds one until both sides said DONE or the channel is dead; a socket, a
//! listener's queue and running calls hold others. The connection holds its socket until
//! [`Connection::close`].
//!
//! Lock order: `tx` or `rx` (they sleep; one direction's callers), then `state`, then
//! `Channel::accepted`. `user` is innermost. Messages are sent without any of these but `tx`/`rx`.

mod carried;
mod events;
mod grants;
mod post;
mod user;

pub(crate) use post::pending;
pub(crate) use user::User;

use crate::addr::{Addr, GuestId};
use crate::bits::Bits;
use crate::channel::Channel;
use crate::device::Device;
use crate::family::AfFgdp;
use crate::policy::busy_poll_usec;
use crate::proto::mem::View;
use crate::proto::stream::{Conn, Endpoint};
use crate::proto::wire::{Kind, Reason};
use crate::spin::{Patience, Spin};
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::net::anysock::AnySock;
use crate::sys::net::consts::*;
use crate::sys::net::errno::Errno;
use crate::sys::net::sock::Sock;
use crate::sys::shm::{GroupMem, SlotMem};
use crate::sys::task;
use crate::window::Mapped;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::Atomic;
use kernel::sync::{new_mutex, Arc, Mutex};

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CONNECT is on its way.
    Opening,
    /// Both ends know each other.
    Open,
    /// Refused, reset, or the channel is gone.
    Dead,
}

struct State {
    proto: Conn,
    phase: Phase,
    opened: bool,
    closed: bool,
    /// The entry in the own slot is not ours any more.
    retired: bool,
    error: Option<Error>,
    /// What is granted, once something was.
    grants: Option<grants::Grants>,
}

/// Numbers for listings.
pub(crate) struct Counters {
    /// Bytes sent.
    pub(crate) tx_bytes: Atomic<i64>,
    /// Bytes received.
    pub(crate) rx_bytes: Atomic<i64>,
    /// Sends that slept.
    pub(crate) tx_waits: Atomic<i64>,
    /// Receives that slept.
    pub(crate) rx_waits: Atomic<i64>,
}

/// One end of a connection.
#[pin_data]
pub(crate) struct Connection {
    /// The device it goes through.
    pub(crate) device: Arc<Device>,
    /// The channel it belongs to, for ever: a new channel has new connections.
    pub(crate) channel: Arc<Channel>,
    id: u32,
    kind: Kind,
    local_port: u32,
    remote_port: u32,
    endpoint: Option<Endpoint>,
    /// Serialises senders; held while copying from user memory.
    #[pin]
    pub(crate) tx: Mutex<()>,
    /// Serialises receivers; held while copying to user memory.
    #[pin]
    pub(crate) rx: Mutex<()>,
    #[pin]
    state: BhLock<State>,
    #[pin]
    user: BhLock<Option<User>>,
    pending: Bits,
    /// Serialises who sends what is pending: DONE must not overtake ACCEPT. Outside the lane's
    /// lock.
    #[pin]
    sending: BhLock<()>,
    /// Waits for frames to make a ring of.
    pub(crate) wants_frames: Atomic<bool>,
    /// Whether waiting for bytes is worth looking.
    pub(crate) rx_spin: Spin,
    /// Whether waiting for space is worth looking.
    pub(crate) tx_spin: Spin,
    /// Who polls found the ring full: a larger one is worth having.
    pub(crate) tx_short: Atomic<bool>,
    /// Bytes that a record takes that did not fit: with less space the socket is not writable.
    pub(crate) record_size: Atomic<u32>,
    /// It has granted something, or may soon.
    grants: Atomic<bool>,
    /// Sends with `MSG_ZEROCOPY` are to be told to be complete.
    pub(crate) notices: Atomic<bool>,
    /// What a program maps of the peer.
    #[pin]
    pub(crate) mapped: Mutex<Option<Mapped>>,
    /// Numbers for listings.
    pub(crate) counters: Counters,
}

impl Connection {
    /// A connection with the free id `id`; its entry is made new.
    pub(crate) fn new(
        device: &Arc<Device>,
        channel: &Arc<Channel>,
        id: u32,
        kind: Kind,
        local_port: u32,
        remote_port: u32,
        endpoint: Option<Endpoint>,
    ) -> Result<Arc<Self>> {
        let proto = match endpoint {
            Some(_) => Conn::new_carried(id),
            None => Conn::new(id, kind),
        };
        let state = State {
            proto,
            phase: Phase::Opening,
            opened: false,
            closed: false,
            retired: false,
            error: None,
            grants: None,
        };
        let device = device.clone();
        let channel = channel.clone();
        let conn = Arc::pin_init(
            pin_init!(Self {
                device,
                channel,
                id,
                kind,
                local_port,
                remote_port,
                endpoint,
                tx <- new_mutex!((), "fgdp_tx"),
                rx <- new_mutex!((), "fgdp_rx"),
                state <- new_bhlock!(state, "fgdp_conn"),
                user <- new_bhlock!(None, "fgdp_conn_user"),
                pending: Bits::new(),
                sending <- new_bhlock!((), "fgdp_conn_sending"),
                wants_frames: Atomic::new(false),
                rx_spin: Spin::new(),
                tx_spin: Spin::new(),
                tx_short: Atomic::new(false),
                record_size: Atomic::new(0),
                grants: Atomic::new(false),
                notices: Atomic::new(false),
                mapped <- new_mutex!(None, "fgdp_mapped"),
                counters: Counters {
                    tx_bytes: Atomic::new(0),
                    rx_bytes: Atomic::new(0),
                    tx_waits: Atomic::new(0),
                    rx_waits: Atomic::new(0),
                },
            }),
            GFP_KERNEL,
        )?;
        conn.state.lock().proto.init_entry(&conn.view());
        Ok(conn)
    }

    /// Own connection id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The peer's connection id, once it is known.
    pub(crate) fn peer_id(&self) -> Option<u32> {
        self.state.lock().proto.peer_id()
    }

    /// The lane that this connection's messages take.
    pub(crate) fn lane(&self) -> u32 {
        self.id % self.channel.lanes()
    }

    /// Stream or records.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Own address.
    pub(crate) fn local(&self) -> Addr {
        Addr {
            guest: self.local_guest(),
            port: self.local_port,
        }
    }

    /// Own guest id in the connection's group.
    pub(crate) fn local_guest(&self) -> GuestId {
        self.device.guest_id()
    }

    /// The peer's address.
    pub(crate) fn remote(&self) -> Addr {
        Addr {
            guest: self.channel.guest(),
            port: self.remote_port,
        }
    }

    /// The memory that both ends see.
    pub(crate) fn view(&self) -> View<'_, SlotMem, GroupMem> {
        self.channel.view(&self.device)
    }

    /// Where it is in its life.
    pub(crate) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Whether its user is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether bytes can flow.
    pub(crate) fn is_open(&self) -> bool {
        self.phase() == Phase::Open
    }

    /// Whether the answer to CONNECT is awaited.
    pub(crate) fn is_opening(&self) -> bool {
        self.phase() == Phase::Opening
    }

    /// Whether it has ever been open.
    pub(crate) fn was_open(&self) -> bool {
        self.state.lock().opened
    }

    /// Why it died, once.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.state.lock().error.take()
    }

    /// Runs `f` on the protocol's state. A rule that the peer broke ends the channel.
    ///
    /// # Errors
    ///
    /// `ECONNRESET` when the peer broke a rule, now or before.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(&mut Conn, &View<'_, SlotMem, GroupMem>) -> Result<R, Reason>,
    ) -> Result<R> {
        self.with_phase(|proto, view, _| f(proto, view))
    }

    /// As [`Connection::with`], with the phase beside it.
    pub(crate) fn with_phase<R>(
        &self,
        f: impl FnOnce(&mut Conn, &View<'_, SlotMem, GroupMem>, Phase) -> Result<R, Reason>,
    ) -> Result<R> {
        let view = self.view();
        let mut state = self.state.lock();
        if self.is_over(&state) {
            drop(state);
            return Err(self.over());
        }
        let phase = state.phase;
        let result = f(&mut state.proto, &view, phase);
        drop(state);
        result.map_err(|reason| self.broken(reason))
    }

    /// As [`Connection::with`], for what needs the peer's accepted extents, too.
    pub(crate) fn with_rx<R>(
        &self,
        f: impl FnOnce(&mut Conn, &View<'_, SlotMem, GroupMem>, u32) -> Result<R, Reason>,
    ) -> Result<R> {
        self.with_rx_phase(|proto, view, avail, _| f(proto, view, avail))
    }

    /// As [`Connection::with_rx`], with the phase beside it.
    pub(crate) fn with_rx_phase<R>(
        &self,
        f: impl FnOnce(&mut Conn, &View<'_, SlotMem, GroupMem>, u32, Phase) -> Result<R, Reason>,
    ) -> Result<R> {
        self.with_phase(|proto, view, phase| {
            let avail = proto.rx_avail(view, &self.channel.accepted)?;
            f(proto, view, avail, phase)
        })
    }

    /// Whether the own entry may belong to another connection, and the peer's rings to anybody. Who
    /// ends the channel takes the lock of each connection's state after the channel's death.
    fn is_over(&self, state: &State) -> bool {
        state.retired || self.channel.is_dead()
    }

    fn over(&self) -> Error {
        self.die(Errno::ConnReset.into());
        Errno::ConnReset.into()
    }

    fn broken(&self, reason: Reason) -> Error {
        self.device.break_channel(&self.channel, reason);
        self.die(Errno::ConnReset.into());
        Errno::ConnReset.into()
    }

    /// How long a call of `sk` looks before it sleeps.
    pub(crate) fn patience(&self, sk: &AnySock) -> Patience {
        if self.device.is_loopback() && task::is_uniprocessor() {
            // The peer needs this CPU to answer.
            return Patience::default();
        }
        Patience {
            always: busy_poll_usec(sk),
            if_short: self.device.stack.spin_usec,
        }
    }

    /// Makes `user` the one that is woken and told.
    pub(crate) fn serve(&self, user: User) {
        let old = self.user.lock().replace(user);
        drop(old);
    }

    /// Makes `sk` the one that is woken.
    pub(crate) fn attach(&self, sk: &Sock<AfFgdp>) {
        let old = self.user.lock().replace(User::Fgdp(ARef::from(sk)));
        drop(old);
        // The peer may have died before there was a socket to tell.
        let error = self.state.lock().error.take();
        if let Some(error) = error {
            sk.set_state(TCP_CLOSE);
            sk.report_error(error);
        }
    }

    fn user(&self) -> Option<User> {
        self.user.lock().clone()
    }

    /// Ends the connection for its user with `error`: refused, reset, channel gone. Any context.
    pub(crate) fn die(&self, error: Error) {
        let mut state = self.state.lock();
        if state.phase == Phase::Dead {
            return;
        }
        state.phase = Phase::Dead;
        let user = self.user();
        // Under the lock: who sees the end finds its error.
        match &user {
            Some(user) => user.fail(error),
            None => state.error = Some(error),
        }
        drop(state);
        if let Some(user) = user {
            user.died();
        }
    }

    /// No more bytes will be sent (`shutdown(SHUT_WR)`). Bytes sent before still arrive.
    pub(crate) fn finish(&self) {
        let notify = self.with(|proto, view| Ok(proto.tx_fin(view)));
        self.notify_data(notify);
    }

    /// The user is gone. Unread bytes, or `reset`, abort; else what was sent is still delivered.
    pub(crate) fn close(&self, reset: bool) {
        let unread = self.readable() > 0;
        let user = self.user.lock().take();
        let view = self.view();
        let mut state = self.state.lock();
        if !state.closed {
            // With the flags, under one lock: whoever sees the close finds the flags that let it
            // advance.
            state.closed = true;
            if self.is_over(&state) {
                return;
            }
            let abort = reset || unread;
            let proto = &mut state.proto;
            let data = if abort {
                proto.tx_reset(&view)
            } else {
                proto.tx_fin(&view)
            };
            let space = proto.shut_rx(&view);
            drop(state);
            self.notify_data(Ok(data));
            self.notify_space(Ok(space));
            self.advance_close();
        }
        drop(user);
    }

    /// Says DONE when that is possible, forgets the connection when both sides did. Any context.
    pub(crate) fn advance_close(&self) {
        if self.channel.is_dead() {
            self.device.forget(self);
            return;
        }
        if self.peer_id().is_none() {
            // Without an answer to CONNECT there is nobody to tell: a refusal has ended it, an
            // acceptance comes back here.
            return;
        }
        // Each turn sees a change that the peer made, and there are two that matter: FIN or RST,
        // and the last byte read. The bound is for a peer that goes on changing.
        for _ in 0..8 {
            let step = self.with_rx(|proto, view, _| {
                let done = proto.poll_done(view)?.is_some();
                let again = !done && !proto.done_sent() && proto.arm_close(view)?;
                Ok((done, again, proto.is_free()))
            });
            let Ok((done, again, free)) = step else {
                self.device.forget(self);
                return;
            };
            if done {
                self.post(pending::DONE);
            }
            if free && !self.pending.any() {
                self.device.forget(self);
            }
            if !again {
                return;
            }
        }
    }

    /// Bytes that can be read.
    pub(crate) fn readable(&self) -> u32 {
        self.with_rx(|_, _, avail| Ok(avail)).unwrap_or(0)
    }

    /// Bytes sent that the peer has not read.
    pub(crate) fn unacked(&self) -> u32 {
        let in_ring = self.with(|proto, view| proto.tx_unacked(view)).unwrap_or(0);
        in_ring.saturating_add(self.granted())
    }

    /// Whether more has come than the last look saw; else asks to be woken when it comes.
    pub(crate) fn arm_data(&self) -> bool {
        self.with_rx(|proto, view, _| proto.arm_data(view))
            .unwrap_or(false)
    }

    /// Whether the peer has read everything; else asks to be woken when it has.
    pub(crate) fn arm_drained(&self) -> bool {
        self.phase() == Phase::Dead
            || self
                .with(|proto, view| proto.arm_drained(view))
                .unwrap_or(true)
                && self.unacked() == 0
    }

    /// Wakes the socket, for whatever reason it sleeps.
    pub(crate) fn wake(&self) {
        if let Some(user) = self.user() {
            user.wake();
        }
    }

    /// Gives the frames of all rings back to the channel's pool. The peer does not look any more.
    pub(crate) fn free_rings(&self) {
        let mut state = self.state.lock();
        state.retired = true;
        let rings = state.proto.take_tx_rings();
        self.end_grants(&mut state);
        drop(state);
        self.tell_notices();
        for ring in rings.into_iter().flatten() {
            self.device.free_ring(&self.channel, ring);
        }
    }

    /// Waits for copies that began before the connection died: then rings of either side may be
    /// used anew. They do not wait for user memory, so this is short. `peer_is_there`: its memory
    /// is as it was. Sleeps.
    pub(crate) fn quiesce(&self, peer_is_there: bool) {
        drop(self.tx.lock());
        drop(self.rx.lock());
        if peer_is_there && self.is_carried() {
            // TCP goes on, and these bytes of its stream were read.
            self.keep_window();
        } else {
            self.revoke_window();
        }
    }

    /// Gives the ring back if nothing is in it: others are short of frames.
    pub(crate) fn release_idle_ring(&self) {
        // Not under a sender's hands.
        let Some(_tx) = self.tx.try_lock() else {
            return;
        };
        if let Ok(Some(ring)) = self.with(|proto, view| proto.release_tx_ring(view)) {
            self.device.free_ring(&self.channel, ring);
        }
    }

    /// Size of the ring that is written to, in bytes.
    pub(crate) fn tx_ring_bytes(&self) -> u32 {
        self.state.lock().proto.tx_ring().map_or(0, |r| r.bytes())
    }
}
