// SPDX-License-Identifier: GPL-2.0

//! One attachment to a group: its peers, its connections, its frames.
//!
//! References: the stack's list and the transport's upcalls hold the device, and so do its
//! connections, until [`Device::gone`]. Work that is queued holds it while it runs.
//!
//! Lock order: `table`, `jobs`, `connects`, `pool` are innermost. `ctl` (see `ctl.rs`) is taken first.

use crate::accept::Connect;
use crate::addr::GuestId;
use crate::channel::Channel;
use crate::conn::Connection;
use crate::ctl::{Ctl, Job};
use crate::family::AfFgdp;
use crate::peer::Peer;
use crate::proto::ctrl::{IdSlot, Ids};
use crate::proto::grant::{FramePool, NoRun, Unit};
use crate::proto::mem::Mem;
use crate::proto::stream::{Endpoint, Ring};
use crate::proto::wire::{
    Call, CallTable, HostHdr, Kind, Reason, SlotHdr, CONN_INDEX_MASK, MAX_CONNS, MAX_SLOTS,
    RING_MIN_FRAMES,
};
use crate::stack::Stack;
use crate::storage::Storage;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::net::errno::Errno;
use crate::sys::net::sock::Sock;
use crate::sys::shm::{GroupMem, SlotMem};
use crate::sys::work;
use crate::transport::{Identity, Transport, Upcalls};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, CondVarTimeoutResult, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{new_work, Work};

/// Connections of a device at most.
const CONNS: u32 = 16384;

/// How long `connect` waits for a channel that comes up, in milliseconds.
pub(crate) const CHANNEL_TIMEOUT_MS: u32 = 5_000;

/// How long a device that goes waits for peers to take the last heads of carried connections and say theirs (T-13, T-14),
/// and how often it looks.
const LAST_WORDS_MS: i64 = 1_000;
const LAST_WORDS_STEP_MS: i64 = 10;

/// Connections of one peer at most, so that others find some.
const CONNS_OF_PEER: i32 = CONNS as i32 / 2;

/// Work that may sleep, and make calls.
pub(crate) const CTL: u64 = 0;
/// Work that answers CONNECTs.
pub(crate) const ACCEPT: u64 = 5;

struct Table {
    ids: Ids<Storage<IdSlot>>,
    conns: KVVec<Option<Arc<Connection>>>,
}

impl Table {
    fn place(&mut self, id: u32) -> Option<&mut Option<Arc<Connection>>> {
        self.conns.get_mut((id & CONN_INDEX_MASK) as usize)
    }
}

/// Numbers for listings.
pub(crate) struct Counters {
    /// Lane messages sent.
    pub(crate) messages_sent: Atomic<i64>,
    /// Lane messages received.
    pub(crate) messages_received: Atomic<i64>,
    /// Messages that needed no doorbell.
    pub(crate) suppressed: Atomic<i64>,
    /// Runs of a lane's work.
    pub(crate) lane_runs: Atomic<i64>,
    /// Connections opened by this guest.
    pub(crate) connects: Atomic<i64>,
    /// Connections opened by peers.
    pub(crate) accepts: Atomic<i64>,
    /// Connections that this guest refused.
    pub(crate) refusals: Atomic<i64>,
    /// Channels that ended, by reason.
    pub(crate) down: [Atomic<i64>; Reason::ALL.len()],
    /// Addresses that the host did not let this guest claim.
    pub(crate) addr_refused: Atomic<i64>,
    /// Calls that the host refused.
    pub(crate) calls_refused: Atomic<i64>,
    /// Events that made no sense.
    pub(crate) bad_events: Atomic<i64>,
}

impl Counters {
    fn new() -> Self {
        Self {
            messages_sent: Atomic::new(0),
            messages_received: Atomic::new(0),
            suppressed: Atomic::new(0),
            lane_runs: Atomic::new(0),
            connects: Atomic::new(0),
            accepts: Atomic::new(0),
            refusals: Atomic::new(0),
            down: core::array::from_fn(|_| Atomic::new(0)),
            addr_refused: Atomic::new(0),
            calls_refused: Atomic::new(0),
            bad_events: Atomic::new(0),
        }
    }
}

/// One attachment to a group.
#[pin_data]
pub(crate) struct Device {
    pub(crate) stack: Arc<Stack>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) identity: Identity,
    pub(crate) host: HostHdr,
    pub(crate) calls: CallTable,
    peers: KVec<Arc<Peer>>,
    #[pin]
    table: BhLock<Table>,
    #[pin]
    pub(crate) pool: BhLock<FramePool<Storage<Unit>>>,
    #[pin]
    pub(crate) jobs: BhLock<KVec<Job>>,
    #[pin]
    pub(crate) connects: BhLock<KVec<Connect>>,
    #[pin]
    pub(crate) ctl: Mutex<Ctl>,
    #[pin]
    up_lock: Mutex<()>,
    #[pin]
    up: CondVar,
    /// Bit n: the channel to slot n is up. What lanes are drained of.
    up_mask: Atomic<u32>,
    pub(crate) gone: Atomic<bool>,
    /// An event found no memory: everything is to be read anew.
    pub(crate) lost: Atomic<bool>,
    /// Numbers for listings.
    pub(crate) counters: Counters,
    #[pin]
    pub(crate) ctl_work: Work<Device, CTL>,
    #[pin]
    pub(crate) lane0: Work<Device, 1>,
    #[pin]
    pub(crate) lane1: Work<Device, 2>,
    #[pin]
    pub(crate) lane2: Work<Device, 3>,
    #[pin]
    pub(crate) lane3: Work<Device, 4>,
    #[pin]
    pub(crate) accept_work: Work<Device, ACCEPT>,
}

impl Device {
    /// Reads what the host tells and lays the own slot out. No call is made yet.
    ///
    /// # Errors
    ///
    /// `ENODEV`, with a line in the log, when the host's table is not one that this version can
    /// work with; `ENOMEM`.
    pub(crate) fn new(stack: Arc<Stack>, transport: Arc<dyn Transport>) -> Result<Arc<Self>> {
        let identity = transport.identity();
        let read = HostHdr::read(transport.group())
            .and_then(|host| Ok((host, CallTable::read(transport.group(), &host)?)));
        let (host, calls) = read.map_err(|e| {
            pr_err!("attach refused, reason {}: {}\n", e.number(), e.name());
            ENODEV
        })?;
        let size = transport.slot().size();
        let conns = CONNS.min(MAX_CONNS);
        let (first, units) = FramePool::<Storage<Unit>>::units(identity.slot_offset, size, conns);
        let quota = calls.quota(Call::Frames).unwrap_or(u64::MAX);
        let pool = FramePool::new(Storage::new(units)?, first, quota);

        let mut peers = KVec::with_capacity(MAX_SLOTS as usize, GFP_KERNEL)?;
        for slot in 0..MAX_SLOTS {
            peers.push(Peer::new(slot)?, GFP_KERNEL)?;
        }
        let mut table = Table {
            ids: Ids::new(Storage::new(conns as usize)?),
            conns: KVVec::with_capacity(conns as usize, GFP_KERNEL)?,
        };
        for _ in 0..conns {
            table.conns.push(None, GFP_KERNEL)?;
        }
        let ctl = Ctl::new()?;
        SlotHdr {
            generation: identity.generation,
            lanes: identity.lanes,
            conns,
        }
        .write(transport.slot());
        Arc::pin_init(
            pin_init!(Self {
                stack,
                transport,
                identity,
                host,
                calls,
                peers,
                table <- new_bhlock!(table, "fgdp_table"),
                pool <- new_bhlock!(pool, "fgdp_pool"),
                jobs <- new_bhlock!(KVec::new(), "fgdp_jobs"),
                connects <- new_bhlock!(KVec::new(), "fgdp_connects"),
                ctl <- new_mutex!(ctl, "fgdp_ctl"),
                up_lock <- new_mutex!((), "fgdp_up"),
                up <- new_condvar!("fgdp_up"),
                up_mask: Atomic::new(0),
                gone: Atomic::new(false),
                lost: Atomic::new(false),
                counters: Counters::new(),
                ctl_work <- new_work!("fgdp_ctl"),
                lane0 <- new_work!("fgdp_lane0"),
                lane1 <- new_work!("fgdp_lane1"),
                lane2 <- new_work!("fgdp_lane2"),
                lane3 <- new_work!("fgdp_lane3"),
                accept_work <- new_work!("fgdp_accept"),
            }),
            GFP_KERNEL,
        )
    }

    /// The own slot.
    pub(crate) fn slot(&self) -> &SlotMem {
        self.transport.slot()
    }

    /// The window on the group.
    pub(crate) fn group(&self) -> &GroupMem {
        self.transport.group()
    }

    /// Where the own slot is in the group.
    pub(crate) fn slot_base(&self) -> u64 {
        self.identity.slot_offset
    }

    /// Own guest id in the group.
    pub(crate) fn guest_id(&self) -> GuestId {
        GuestId(self.identity.guest_id)
    }

    /// The member in slot `slot`.
    pub(crate) fn peer(&self, slot: u32) -> Option<&Arc<Peer>> {
        self.peers.get(slot as usize)
    }

    /// The channel to slot `number` is up, or not any more.
    pub(crate) fn set_up(&self, number: u32, up: bool) {
        let bit = 1u32.wrapping_shl(number);
        // Written by `ctl` alone.
        let old = self.up_mask.load(Relaxed);
        self.up_mask
            .store(if up { old | bit } else { old & !bit }, Release);
    }

    /// Channels that are up. Any context.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Arc<Channel>> + '_ {
        let mut mask = self.up_mask.load(Acquire);
        core::iter::from_fn(move || {
            let number = mask.trailing_zeros();
            mask &= mask.wrapping_sub(1);
            (number < MAX_SLOTS).then_some(number)
        })
        .filter_map(|number| self.peer(number)?.channel())
    }

    /// All slots, used or not.
    pub(crate) fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// The member with id `guest`, if it is ready.
    pub(crate) fn find(&self, guest: GuestId) -> Option<Arc<Peer>> {
        self.peers.iter().find(|p| p.is_ready(guest)).cloned()
    }

    /// Rings lane `lane` of `peer`.
    pub(crate) fn ring(&self, peer: u32, lane: u32) {
        self.transport.ring(peer, lane);
    }

    /// Waits until the channel to `peer` is up. May sleep.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH` when it is gone, `ETIMEDOUT`, or a restart when a signal came.
    fn channel(self: &Arc<Self>, peer: &Peer) -> Result<Arc<Channel>> {
        if let Some(channel) = peer.channel() {
            return Ok(channel);
        }
        self.add_job(Job::Want(peer.number))?;
        let mut left = kernel::time::msecs_to_jiffies(CHANNEL_TIMEOUT_MS);
        let mut guard = self.up_lock.lock();
        loop {
            if let Some(channel) = peer.channel() {
                return Ok(channel);
            }
            if self.gone.load(Acquire) || self.find(GuestId(peer.entry().guest_id)).is_none() {
                return Err(Errno::HostUnreach.into());
            }
            match self.up.wait_interruptible_timeout(&mut guard, left) {
                CondVarTimeoutResult::Woken { jiffies } => left = jiffies,
                CondVarTimeoutResult::Timeout => {
                    drop(guard);
                    self.add_job(Job::Overdue(peer.number))?;
                    return Err(ETIMEDOUT);
                }
                CondVarTimeoutResult::Signal { .. } => return Err(ERESTARTSYS),
            }
        }
    }

    /// Something that [`Device::channel`] waits for has changed. Process context.
    pub(crate) fn notify_waiters(&self) {
        let _guard = self.up_lock.lock();
        self.up.notify_all();
    }

    /// Makes a connection to `dst_port` of `peer`; [`Connection::start`] opens it. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Device::channel`]; `ENOBUFS` when all connection ids are in use; `ENOMEM`.
    pub(crate) fn connect(
        self: &Arc<Self>,
        peer: &Peer,
        kind: Kind,
        src_port: u32,
        dst_port: u32,
        sk: &Sock<AfFgdp>,
    ) -> Result<Arc<Connection>> {
        let channel = self.channel(peer)?;
        let conn = self.add_connection(&channel, kind, src_port, dst_port, None)?;
        conn.attach(sk);
        self.counters.connects.add(1, Relaxed);
        Ok(conn)
    }

    /// Makes a connection with a new id. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when all connection ids are in use, or the peer has its share; `ENOMEM`.
    pub(crate) fn add_connection(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        kind: Kind,
        local_port: u32,
        remote_port: u32,
        endpoint: Option<Endpoint>,
    ) -> Result<Arc<Connection>> {
        let mut table = self.table.lock();
        // Counted under the lock, as everywhere.
        if channel.conns.load(Relaxed) >= CONNS_OF_PEER {
            return Err(Errno::NoBufs.into());
        }
        let id = table.ids.alloc().ok_or(Errno::NoBufs)?;
        channel.conns.add(1, Relaxed);
        drop(table);
        let conn = Connection::new(self, channel, id, kind, local_port, remote_port, endpoint);
        let mut table = self.table.lock();
        match conn {
            Ok(conn) => {
                if let Some(place) = table.place(id) {
                    *place = Some(conn.clone());
                }
                drop(table);
                if channel.is_dead() {
                    // Whoever ended it may have looked at this place before. The peer does not know
                    // the id.
                    self.remove(id);
                    return Err(Errno::ConnReset.into());
                }
                Ok(conn)
            }
            Err(e) => {
                table.ids.free(id);
                channel.conns.add(-1, Relaxed);
                Err(e)
            }
        }
    }

    /// Makes a connection that is to carry a TCP connection. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Device::add_connection`].
    pub(crate) fn add_carried(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        ends: Endpoint,
    ) -> Result<Arc<Connection>> {
        let (port, peer_port) = (u32::from(ends.port), u32::from(ends.peer_port));
        self.add_connection(channel, Kind::Stream, port, peer_port, Some(ends))
    }

    /// Whether the two are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }

    /// Whether the host says that `addr` is the peer's.
    pub(crate) fn has_address(&self, channel: &Channel, addr: &[u8; 16]) -> bool {
        let loopback = self.guest_id() == GuestId::LOOPBACK;
        let peer = self.peer(channel.peering.slot);
        loopback || peer.is_some_and(|peer| peer.has_address(addr))
    }

    /// The connection with own id `id`.
    pub(crate) fn connection(&self, id: u32) -> Option<Arc<Connection>> {
        let mut table = self.table.lock();
        table.place(id)?.as_ref().filter(|c| c.id() == id).cloned()
    }

    /// The connection at place `at`, for listings.
    pub(crate) fn connection_at(&self, at: usize) -> Option<Arc<Connection>> {
        self.table.lock().conns.get(at)?.clone()
    }

    /// Places in the connection table.
    pub(crate) const TABLE_LEN: usize = CONNS as usize;

    /// Runs `f` on all connections of `channel`. `f` is called without locks.
    pub(crate) fn each_connection(&self, channel: &Channel, mut f: impl FnMut(&Connection)) {
        for conn in self.connections() {
            if core::ptr::eq(&*conn.channel, channel) {
                f(&conn);
            }
        }
    }

    /// All connections; the table is not locked between two of them.
    fn connections(&self) -> impl Iterator<Item = Arc<Connection>> + '_ {
        (0..Self::TABLE_LEN).filter_map(|at| self.connection_at(at))
    }

    /// Connections of channels to `slot` that have ended.
    fn ended(&self, slot: u32) -> impl Iterator<Item = Arc<Connection>> + '_ {
        self.connections()
            .filter(move |c| c.channel.is_dead() && c.channel.peering.slot == slot)
    }

    /// Both sides are done with `conn`: its id and frames are free. When the channel is dead that is
    /// for [`Device::reclaim`]: the peer may still look.
    pub(crate) fn forget(self: &Arc<Self>, conn: &Connection) {
        // Of one that carries TCP the last bytes may still be needed: TCP's side comes back here.
        if conn.channel.is_dead() || conn.keeps_bytes() {
            return;
        }
        conn.free_rings();
        self.remove(conn.id());
    }

    fn remove(&self, id: u32) {
        let mut table = self.table.lock();
        let old = match table.place(id) {
            Some(place) if place.as_ref().is_some_and(|c| c.id() == id) => place.take(),
            _ => None,
        };
        if let Some(conn) = &old {
            table.ids.free(id);
            conn.channel.conns.add(-1, Relaxed);
        }
        drop(table);
        drop(old);
    }

    /// The channel to `slot` has ended: what its TCP connections have not delivered goes by TCP. `known`: the peer's
    /// last words can be read. Process context.
    pub(crate) fn settle(&self, slot: u32, known: bool) {
        self.ended(slot).for_each(|conn| conn.end_carrying(known));
    }

    /// The peer in `slot` does not look at the own slot any more. Process context.
    pub(crate) fn reclaim(&self, slot: u32) {
        self.ended(slot).for_each(|conn| self.remove(conn.id()));
        self.pool.lock().reclaim(slot);
    }

    /// Frames for a ring that the peer of `channel` can read: `frames`, or fewer when they are
    /// short but more than `have`. `None`: somebody will be woken when there are more.
    pub(crate) fn alloc_ring(
        self: &Arc<Self>,
        channel: &Channel,
        frames: u32,
        have: u32,
    ) -> Option<Ring> {
        let slot = channel.peering.slot;
        let mut want = frames;
        while want >= RING_MIN_FRAMES && want > have {
            let mut pool = self.pool.lock();
            if channel.is_dead() {
                return None;
            }
            let run = pool.alloc(slot, want);
            drop(pool);
            match run {
                Ok(pfn) => return Some(Ring { pfn, frames: want }),
                Err(NoRun::NeedExtent(units)) => {
                    // A smaller ring does until the peer has accepted more.
                    channel.need_units.store(units, Release);
                    self.kick_ctl();
                    want /= 2;
                }
                Err(NoRun::Wait | NoRun::Exhausted | NoRun::Size) => want /= 2,
            }
        }
        if have == 0 {
            channel.starved.store(true, Release);
            if want < RING_MIN_FRAMES {
                // Idle connections may have rings that others need.
                self.kick_ctl();
            }
        }
        None
    }

    /// Gives the frames of a ring back.
    pub(crate) fn free_ring(self: &Arc<Self>, channel: &Channel, ring: Ring) {
        let mut pool = self.pool.lock();
        // Under the lock: a channel dies before its frames are reclaimed, and may be somebody else's.
        if channel.is_dead() {
            return;
        }
        pool.free(ring.pfn, ring.frames);
        drop(pool);
        channel.freed.store(true, Release);
        if channel.starved.load(Acquire) {
            self.kick_ctl();
        }
    }

    /// The peer of `channel` broke a rule, or something else ended it. Any context.
    pub(crate) fn break_channel(self: &Arc<Self>, channel: &Channel, reason: Reason) {
        if channel.kill(reason) {
            // `ctl` finds it by its death; no job that could fail to be queued.
            self.kick_ctl();
        }
    }

    /// Queues `job` for process context. Any context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add_job(self: &Arc<Self>, job: Job) -> Result {
        self.jobs.lock().push(job, GFP_ATOMIC)?;
        self.kick_ctl();
        Ok(())
    }

    /// Runs `ctl` soon. Any context.
    pub(crate) fn kick_ctl(self: &Arc<Self>) {
        if let Some(queue) = work::process() {
            // Queued already is as good.
            let _queued = queue.enqueue::<_, CTL>(self.clone());
        }
    }

    /// Answers CONNECTs soon. Any context.
    pub(crate) fn kick_accept(self: &Arc<Self>) {
        if let Some(queue) = work::process() {
            // Queued already is as good.
            let _queued = queue.enqueue::<_, ACCEPT>(self.clone());
        }
    }

    /// Drains lane `n` soon. Any context.
    pub(crate) fn kick_lane(self: &Arc<Self>, n: u32) {
        let Some(queue) = work::bh() else {
            return;
        };
        // Queued already is as good.
        let _queued = match n {
            0 => queue.enqueue::<_, 1>(self.clone()),
            1 => queue.enqueue::<_, 2>(self.clone()),
            2 => queue.enqueue::<_, 3>(self.clone()),
            3 => queue.enqueue::<_, 4>(self.clone()),
            _ => return,
        };
    }

    /// Ends all channels and connections, and what refers to the device. Process context.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stack.remove(self);
        self.gone.store(true, Release);
        if let Some(inet) = self.stack.inet() {
            inet.forget_device(self);
        }
        self.end_channels();
        self.notify_waiters();
        // Those whose channels both sides have closed are not there any more.
        for _ in 0..LAST_WORDS_MS / LAST_WORDS_STEP_MS {
            if !self.connections().any(|conn| conn.is_carried()) {
                break;
            }
            fsleep(Delta::from_millis(LAST_WORDS_STEP_MS));
        }
        self.bye();
        work::flush_bh();
        for conn in self.connections() {
            conn.cut();
            conn.end_carrying(false);
            conn.die(Errno::ConnReset.into());
            self.remove(conn.id());
        }
    }
}

/// What the transport holds of the device.
pub(crate) struct Port(pub(crate) Arc<Device>);

impl Upcalls for Port {
    fn doorbell(&self, lane: u32) {
        self.0.kick_lane(lane);
    }

    fn event(&self, event: &[u8]) {
        let mut bytes = KVec::new();
        let queued = match bytes.extend_from_slice(event, GFP_KERNEL) {
            Ok(()) => self.0.add_job(Job::Event(bytes)),
            Err(_) => Err(ENOMEM),
        };
        if queued.is_err() {
            // As if the host had had no place for it.
            self.0.lost.store(true, Release);
            self.0.kick_ctl();
        }
    }

    fn gone(&self) {
        self.0.stop();
    }
}
