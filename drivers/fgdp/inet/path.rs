// SPDX-License-Identifier: GPL-2.0

//! One TCP connection that may be carried: which way its bytes go.
//!
//! References: the socket holds it (see `sys::net::inet`), the list in [`Inet`] and the
//! connection's user do, and calls that run. It holds the socket until [`Path::leave`].

use super::why::First;
use super::{Inet, Why};
use crate::bits::Bits;
use crate::conn::Connection;
use crate::device::Device;
use crate::proto::stream::{Endpoint, Source, TxPath};
use crate::snapshot::count;
use crate::sys::atomic::load_acquire;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::net::inet::RingBytes;
use crate::sys::net::tcp::TcpSock;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};
use kernel::workqueue::{new_work, Work};

/// What is still to be done when bytes have gone.
pub(super) mod todo {
    /// TCP's FIN.
    pub(in crate::inet) const FIN: u32 = 1 << 0;
    /// TCP's close: the user is gone.
    pub(in crate::inet) const CLOSE: u32 = 1 << 1;
    /// Both directions go back to TCP.
    pub(in crate::inet) const BACK: u32 = 1 << 2;
    /// The peer is to be asked.
    pub(in crate::inet) const PROPOSE: u32 = 1 << 3;
    /// The socket is to be given back to TCP.
    pub(in crate::inet) const LEAVE: u32 = 1 << 4;
    /// There was no memory: a moment later once more.
    pub(in crate::inet) const AGAIN: u32 = 1 << 5;
}

/// Bytes of a ring whose channel ended, for TCP.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) bytes: KVVec<u8>,
    pub(super) sent: usize,
}

/// One TCP connection to a peer.
#[pin_data]
pub(crate) struct Path {
    pub(super) inet: Arc<Inet>,
    /// The group in which the peer is.
    pub(crate) device: Arc<Device>,
    /// The peer's slot.
    pub(crate) peer: u32,
    /// Both ends.
    pub(crate) ends: Endpoint,
    /// This side opened it.
    pub(super) active: bool,
    /// It was opened here, or accepted.
    has_user: Atomic<bool>,
    #[pin]
    sk: BhLock<Option<ARef<TcpSock>>>,
    conn: SetOnce<Arc<Connection>>,
    why: First,
    /// Nothing goes through rings, now and for ever.
    plain: Atomic<bool>,
    /// The peer agreed.
    agreed: Atomic<bool>,
    pub(super) todo: Bits,
    /// The socket's reference, for a grace period after it was left.
    #[pin]
    late: BhLock<Option<Arc<Path>>>,
    /// Calls that are inside.
    pub(super) inside: Atomic<i32>,
    /// Mappings of memory that belongs to the connection.
    pub(super) mappings: Atomic<i32>,
    /// Somebody waits until both sides agree.
    pub(super) awaited: Atomic<bool>,
    /// What the channel's end left for TCP.
    #[pin]
    pub(super) rest: Mutex<Option<Rest>>,
    /// There is some, and no byte may overtake it.
    pub(super) rest_left: Atomic<bool>,
    #[pin]
    pub(super) work: Work<Path>,
}

impl Path {
    pub(super) fn new(
        inet: Arc<Inet>,
        device: Arc<Device>,
        peer: u32,
        ends: Endpoint,
        active: bool,
        sk: &TcpSock,
    ) -> Result<Arc<Self>> {
        let sk = ARef::from(sk);
        Arc::pin_init(
            pin_init!(Self {
                inet,
                device,
                peer,
                ends,
                has_user: Atomic::new(active),
                active,
                sk <- new_bhlock!(Some(sk), "fgdp_path_sk"),
                conn: SetOnce::new(),
                why: First::new(),
                plain: Atomic::new(false),
                agreed: Atomic::new(false),
                todo: Bits::new(),
                late <- new_bhlock!(None, "fgdp_path_late"),
                inside: Atomic::new(0),
                mappings: Atomic::new(0),
                awaited: Atomic::new(false),
                rest <- new_mutex!(None, "fgdp_path_rest"),
                rest_left: Atomic::new(false),
                work <- new_work!("fgdp_path"),
            }),
            GFP_ATOMIC,
        )
    }

    /// The socket, until it is left.
    pub(crate) fn sk(&self) -> Option<ARef<TcpSock>> {
        self.sk.lock().clone()
    }

    /// The connection whose rings carry it.
    pub(crate) fn conn(&self) -> Option<&Arc<Connection>> {
        self.conn.as_ref()
    }

    /// Whether it was opened here, or accepted: else it waits at its listener, and its lock is not
    /// to be taken.
    pub(super) fn has_user(&self) -> bool {
        self.has_user.load(Acquire)
    }

    /// It was accepted: what waited for that goes on. Any context.
    pub(super) fn on_accept(self: &Arc<Self>) {
        self.has_user.store(true, Release);
        self.on_ready(false, false, false);
    }

    /// Made once: for the one proposal that there is. False if the socket has left: then nobody
    /// would close it. Any context.
    pub(super) fn set_conn(&self, conn: Arc<Connection>) -> bool {
        // Who leaves takes the socket first, under the lock, and then looks for the connection.
        let sk = self.sk.lock();
        sk.is_some() && self.conn.populate(conn)
    }

    /// Whether TCP alone carries it, for good.
    pub(crate) fn is_plain(&self) -> bool {
        load_acquire(&self.plain)
    }

    /// Whether both sides agreed to carry it.
    pub(crate) fn is_agreed(&self) -> bool {
        load_acquire(&self.agreed)
    }

    /// Whether both sides agreed to carry it, and still do.
    pub(crate) fn is_carried(&self) -> bool {
        self.is_agreed() && !self.is_plain()
    }

    pub(super) fn set_plain(&self) {
        self.plain.store(true, Release);
    }

    /// Why it is not carried, or not any more.
    pub(super) fn why(&self) -> Option<Why> {
        self.why.get()
    }

    /// Says why it is not carried from here on; the first reason counts. Any context.
    pub(super) fn because(&self, why: Why) {
        if self.why.set(why) {
            self.inet.counters.whys.count(why);
            if let Some(sk) = self.sk() {
                sk.trace_carry(why as u32);
            }
        }
    }

    /// Both sides know the connection: directions may switch. Any context.
    pub(crate) fn agree(self: &Arc<Self>) {
        self.inet.counters.carried.add(1, Relaxed);
        self.agreed.store(true, Release);
        // The peer may have switched before this side knew it (T-4). Nobody is woken for nothing:
        // that would be an edge for epoll.
        let Some(sk) = self.sk() else {
            return;
        };
        sk.trace_carry(0);
        let switched = !matches!(self.source(&sk), Source::Tcp);
        self.on_ready(switched || self.awaited.load(Acquire), false, false);
    }

    /// Which way the next byte goes that is sent. `Wait` while that is being found out.
    pub(crate) fn tx_path(&self, sk: &TcpSock) -> TxPath {
        if self.is_plain() {
            return TxPath::Back;
        }
        let Some(conn) = self.conn().filter(|_| self.is_agreed()) else {
            return TxPath::Tcp;
        };
        let way = conn.carried(|proto, view, _| proto.tx_path(view, sk.write_seq()));
        match way {
            Ok(TxPath::Back) if self.rest_left.load(Acquire) => TxPath::Wait,
            Ok(way) => way,
            Err(_) => TxPath::Wait,
        }
    }

    /// Whether TCP sends the next byte, and so its FIN may go.
    pub(super) fn tx_is_tcp(&self, sk: &TcpSock) -> bool {
        matches!(self.tx_path(sk), TxPath::Back | TxPath::Tcp)
    }

    /// The channel ended: no byte goes by TCP before [`Path::on_channel_end`] says which ones are
    /// first.
    pub(crate) fn hold_back(&self) {
        self.because(Why::Ended);
        self.rest_left.store(true, Release);
    }

    /// The channel ended and left `bytes` for TCP to send; none if it had left them before. Process
    /// context.
    pub(crate) fn on_channel_end(self: &Arc<Self>, bytes: KVVec<u8>) {
        let mut rest = self.rest.lock();
        if !bytes.is_empty() {
            *rest = Some(Rest { bytes, sent: 0 });
        }
        self.rest_left.store(rest.is_some(), Release);
        drop(rest);
        self.kick();
    }

    /// The peer refused. Any context.
    pub(crate) fn on_refusal(&self) {
        self.inet.counters.refused.add(1, Relaxed);
        self.because(Why::Refused);
        self.set_plain();
    }

    /// The peer's entry changed; if it `goes_on`, then bytes came or went and nothing else. Bottom
    /// half, or as one.
    pub(crate) fn on_ready(self: &Arc<Self>, data: bool, space: bool, goes_on: bool) {
        let Some(sk) = self.sk() else {
            return;
        };
        if self.todo.any() || !(goes_on || self.is_steady(&sk)) {
            self.kick();
        }
        if data {
            sk.data_ready();
        }
        if space {
            sk.wake_writers();
        }
    }

    /// Where the next byte comes from that is read.
    pub(crate) fn source(&self, sk: &TcpSock) -> Source {
        if self.is_plain() {
            return Source::Back;
        }
        let Some(conn) = self.conn().filter(|_| self.is_agreed()) else {
            return Source::Tcp;
        };
        let seqs = sk.seqs();
        conn.carried(|proto, view, accepted| {
            proto.rx_source(view, accepted, seqs.copied, seqs.rcv_nxt)
        })
        .unwrap_or(Source::Stop)
    }

    /// Whether both directions go on as they are, or switch to rings when a call sees to it.
    fn is_steady(&self, sk: &TcpSock) -> bool {
        if self.is_plain() {
            return false;
        }
        let Some(conn) = self.conn().filter(|_| self.is_agreed()) else {
            return true;
        };
        let seqs = sk.seqs();
        let ways = conn.carried(|proto, view, accepted| {
            let source = proto.rx_source(view, accepted, seqs.copied, seqs.rcv_nxt)?;
            Ok((proto.tx_path(view, seqs.write)?, source))
        });
        let Ok((TxPath::Tcp | TxPath::Ring, source)) = ways else {
            return false;
        };
        !matches!(source, Source::Stop | Source::Reset)
    }

    /// Bytes that rings have carried.
    pub(super) fn bytes(&self) -> RingBytes {
        let (received, sent) = self.conn().map_or((0, 0), |conn| {
            let c = &conn.counters;
            (
                count(c.rx_bytes.load(Relaxed)),
                count(c.tx_bytes.load(Relaxed)),
            )
        });
        let unread = self.conn().filter(|_| !self.is_plain());
        let unread = unread.map_or(0, |conn| conn.unacked());
        RingBytes {
            received,
            sent,
            acked: sent.saturating_sub(unread.into()),
        }
    }

    /// Bytes that can be read beside those that TCP has, and whether the end has come behind them.
    pub(super) fn unread(&self, sk: &TcpSock) -> (u32, bool) {
        match self.source(sk) {
            Source::Ring(n) => (n, false),
            // Those that TCP does not have yet come first.
            Source::TcpUntil(n) if sk.rcv_nxt().wrapping_sub(sk.copied_seq()) >= n => {
                (self.conn().map_or(0, |conn| conn.readable()), false)
            }
            source => (0, source == Source::End),
        }
    }

    /// As [`Path::unread`]; if there are none, whoever waits for the socket's events is told of
    /// more without asking again.
    pub(super) fn unread_or_arm(&self, sk: &TcpSock) -> (u32, bool) {
        let seen = self.unread(sk);
        let conn = self.conn().filter(|_| seen == (0, false));
        if conn.is_some_and(|conn| conn.arm_data()) {
            self.unread(sk)
        } else {
            seen
        }
    }

    /// Bytes in rings: unread here, unread there.
    pub(super) fn queued(&self, sk: &TcpSock) -> (u32, u32) {
        let inq = self.unread(sk).0;
        let outq = self.conn().filter(|_| !self.is_plain());
        (inq, outq.map_or(0, |conn| conn.unacked()))
    }

    /// Has to be done. Any context.
    pub(super) fn ask(self: &Arc<Self>, what: u32) {
        self.todo.set(what);
        self.kick();
    }

    /// Runs `work` soon. Any context.
    pub(crate) fn kick(self: &Arc<Self>) {
        if let Some(queue) = crate::sys::work::process() {
            // Queued already is as good.
            let _queued = queue.enqueue::<_, 0>(self.clone());
        }
    }

    /// Goes back to TCP, for good. Any context.
    pub(super) fn go_back(self: &Arc<Self>, why: Why) {
        self.because(why);
        self.ask(todo::BACK | todo::LEAVE);
    }

    /// Goes back to TCP and waits until it is. The socket is not locked.
    pub(super) fn step_aside(self: &Arc<Self>, sk: &TcpSock) {
        self.because(Why::Program);
        self.ask(todo::BACK);
        // As long as a reset takes to be noticed at the latest; what follows sees TCP's state in
        // any case.
        let mut timeo = kernel::time::msecs_to_jiffies(STEP_ASIDE_MS) as isize;
        let _ = sk.wait(&mut timeo, || self.is_plain().then_some(()));
        let _guard = sk.lock();
        self.try_leave(sk);
    }

    /// Something changed that calls may wait for. Any context.
    pub(crate) fn wake(&self) {
        if let Some(sk) = self.sk() {
            sk.data_ready();
            sk.wake_writers();
        }
    }

    /// Gives the socket back to TCP if it alone carries it, and neither a call is inside nor memory
    /// of the connection mapped. The socket's lock is held.
    pub(super) fn try_leave(&self, sk: &TcpSock) {
        let used = self.inside.load(Acquire) != 0 || self.is_mapped();
        if self.is_plain() && !used {
            sk.leave::<Inet>();
        }
    }

    /// Whether programs map memory of the connection.
    pub(super) fn is_mapped(&self) -> bool {
        self.mappings.load(Acquire) != 0
    }

    /// The socket is gone, or TCP's alone. With `grace` this reference stays a little. Any context.
    pub(super) fn leave(self: Arc<Self>, grace: bool) {
        self.set_plain();
        self.inet.remove(&self);
        let sk = self.sk.lock().take();
        if let Some(conn) = self.conn() {
            // What a socket that is destroyed has not delivered is void, as TCP has told the peer.
            conn.close(!grace && self.is_agreed());
        }
        drop(sk);
        if grace {
            *self.late.lock() = Some(self.clone());
            self.kick();
        }
    }

    /// Drops the reference that [`Path::leave`] kept, when nobody can be about to take one of it.
    /// Sleeps.
    pub(super) fn drop_late(&self) {
        if self.late.lock().is_some() {
            crate::sys::task::synchronize_rcu();
            let late = self.late.lock().take();
            drop(late);
        }
    }
}

/// How long an option that needs plain TCP waits for the peer to agree.
const STEP_ASIDE_MS: u32 = 1000;

/// A call that is inside.
pub(super) struct Inside<'a>(&'a Path);

impl<'a> Inside<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        let _before = path.inside.fetch_add(1, Full);
        Self(path)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let _before = self.0.inside.fetch_add(-1, Full);
    }
}
