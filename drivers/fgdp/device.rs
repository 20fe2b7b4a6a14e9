// SPDX-License-Identifier: GPL-2.0

//! One attachment to a group: its peers, its connections, its frames.
//!
//! References: the stack's list and the transport's upcalls hold the device, and so do its
//! connections, until [`Device::gone`]. Work that is queued holds it while it runs.
//!
//! Lock order: `table`, `jobs`, `connects`, `pool` are innermost. `ctl` (see `ctl.rs`) is taken
//! first.

use crate::accept::Connect;
use crate::addr::GuestId;
use crate::bits::Bits;
use crate::channel::Channel;
use crate::connections::{Table, CONNS};
use crate::ctl::{Ctl, Job};
use crate::grant::Lender;
use crate::peer::Peer;
use crate::proto::grant::{FramePool, NoRun, Unit};
use crate::proto::mem::Mem;
use crate::proto::stream::Ring;
use crate::proto::wire::{Call, CallTable, HostHdr, Reason, SlotHdr, MAX_SLOTS, RING_MIN_FRAMES};
use crate::stack::Stack;
use crate::storage::Storage;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::mm::Area;
use crate::sys::net::errno::Errno;
use crate::sys::shm::{GroupMem, SlotMem};
use crate::sys::work;
use crate::transport::{Identity, Transport, Upcalls};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, CondVarTimeoutResult, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{new_work, Work};

/// How long `connect` waits for a channel that comes up, in milliseconds.
pub(crate) const CHANNEL_TIMEOUT_MS: u32 = 5_000;

/// How long a device that goes waits for peers to take the last heads of carried connections and
/// say theirs (T-13, T-14), and how often it looks.
const LAST_WORDS_MS: i64 = 1_000;
const LAST_WORDS_STEP_MS: i64 = 10;

/// Work that may sleep, and make calls.
pub(crate) const CTL: u64 = 0;
/// Work that answers CONNECTs.
pub(crate) const ACCEPT: u64 = 5;

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
    // The transport's memory: asking it for each access would be an indirect call.
    own: SlotMem,
    window: GroupMem,
    pub(crate) identity: Identity,
    pub(crate) host: HostHdr,
    pub(crate) calls: CallTable,
    peers: KVec<Arc<Peer>>,
    #[pin]
    pub(crate) table: BhLock<Table>,
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
    pub(crate) up_channels: Bits,
    /// Bit n: the member in slot n is ready, so its addresses count.
    pub(crate) ready: Bits,
    pub(crate) gone: Atomic<bool>,
    /// What programs have mapped of the own slot.
    #[pin]
    pub(crate) areas: Mutex<KVec<Arc<Area<Lender>>>>,
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
        let (first, units) = FramePool::<Storage<Unit>>::units(identity.slot_offset, size, CONNS);
        let quota = calls.quota(Call::Frames).unwrap_or(u64::MAX);
        let pool = FramePool::new(Storage::new(units)?, first, quota);

        let mut peers = KVec::with_capacity(MAX_SLOTS as usize, GFP_KERNEL)?;
        for slot in 0..MAX_SLOTS {
            peers.push(Peer::new(slot)?, GFP_KERNEL)?;
        }
        let table = Table::new()?;
        let ctl = Ctl::new()?;
        let (own, window) = (transport.slot().share(), transport.group().share());
        SlotHdr {
            generation: identity.generation,
            lanes: identity.lanes,
            conns: CONNS,
        }
        .write(transport.slot());
        Arc::pin_init(
            pin_init!(Self {
                stack,
                own,
                window,
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
                up_channels: Bits::new(),
                ready: Bits::new(),
                gone: Atomic::new(false),
                areas <- new_mutex!(KVec::new(), "fgdp_areas"),
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
        &self.own
    }

    /// The window on the group.
    pub(crate) fn group(&self) -> &GroupMem {
        &self.window
    }

    /// Where the own slot is in the group.
    pub(crate) fn slot_base(&self) -> u64 {
        self.identity.slot_offset
    }

    /// Own guest id in the group.
    pub(crate) fn guest_id(&self) -> GuestId {
        GuestId(self.identity.guest_id)
    }

    /// Whether this guest is the only member.
    pub(crate) fn is_loopback(&self) -> bool {
        self.guest_id() == GuestId::LOOPBACK
    }

    /// The member in slot `slot`.
    pub(crate) fn peer(&self, slot: u32) -> Option<&Arc<Peer>> {
        self.peers.get(slot as usize)
    }

    /// Channels that are up. Any context.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Arc<Channel>> + '_ {
        let up = self.up_channels.places();
        up.filter_map(|number| self.peer(number)?.channel())
    }

    /// All slots, used or not.
    pub(crate) fn peers(&self) -> &[Arc<Peer>] {
        &self.peers
    }

    /// The slot of the member that has an address. Any context.
    pub(crate) fn find_address(&self, addr: &[u8; 16]) -> Option<u32> {
        let has = |slot: &u32| self.peer(*slot).is_some_and(|p| p.has_address(addr));
        self.ready.places().find(has)
    }

    /// The member with id `guest`, if it is ready.
    pub(crate) fn find(&self, guest: GuestId) -> Option<Arc<Peer>> {
        self.peers.iter().find(|p| p.is_ready(guest)).cloned()
    }

    /// Rings lane `lane` of `peer`.
    pub(crate) fn ring(&self, peer: u32, lane: u32) {
        self.transport.ring(peer, lane);
    }

    /// Brings the channel to `peer` up and waits for that. Process context, without a socket's
    /// lock; sleeps.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH` when it is gone, `ETIMEDOUT`, or a restart when a signal came.
    pub(crate) fn channel(self: &Arc<Self>, peer: &Peer) -> Result<Arc<Channel>> {
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

    /// Whether the two are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }

    /// Whether the host says that `addr` is the peer's.
    pub(crate) fn has_address(&self, channel: &Channel, addr: &[u8; 16]) -> bool {
        let peer = self.peer(channel.peering.slot);
        self.is_loopback() || peer.is_some_and(|peer| peer.has_address(addr))
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
        // Under the lock: a channel dies before its frames are reclaimed, and may be somebody
        // else's.
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
            conn.void_grants();
            conn.revoke_window();
            self.remove(conn.id());
        }
        self.leave_areas();
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
            // As if the host had no place for it.
            self.0.lost.store(true, Release);
            self.0.kick_ctl();
        }
    }

    fn gone(&self) {
        self.0.stop();
    }
}
