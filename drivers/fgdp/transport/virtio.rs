// SPDX-License-Identifier: GPL-2.0

//! The hypervisor as transport: the virtio device, and the doorbell device beside it.
//!
//! A [`VirtioTransport`] lives from probe until the device layer drops it. `sink` is set between
//! attach and removal only; interrupts and events find it there, so that taking it out ends the
//! upcalls. Who holds whom: transport -> sink (device layer) -> transport, and transport -> bell ->
//! transport; removal cuts both.
//!
//! Lock order: that of [`HostRings`] before a queue's lock; `sink` is innermost but for what
//! `Upcalls::doorbell` takes.

use super::rings::HostRings;
use super::{CallError, Doorbells, Identity, Transport, Upcalls};
use crate::proto::wire::{
    self, Config, Reply, Request, CALL_HDR, EVENT_SIZE, MAX_LANES, MAX_REQUEST, MAX_SLOTS,
    VQ_CONTROL, VQ_DOORBELL, VQ_EVENT, VQ_LANE0,
};
use crate::sys::irqlock::{new_irqlock, IrqLock};
use crate::sys::pci::{self, Bell, Bells};
use crate::sys::shm::{GroupMem, SlotMem};
use crate::sys::virtio::{self, Buffer, NoAnswer, Queue, Setup};
use crate::sys::work;
use kernel::{
    cpu,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
    time::msecs_to_jiffies,
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};

/// How long the host may take to answer a call.
const CALL_TIMEOUT_MS: u32 = 10_000;
/// How long after it did not answer one: then the next ones only look whether it is back.
const SILENT_TIMEOUT_MS: u32 = 500;
/// Buffers on the event queue.
const EVENT_BUFFERS: usize = 16;
/// Buffers on each lane's queue.
const LANE_BUFFERS: usize = 4;

const EVENT_WORK: u64 = 1;
const RING_WORK: u64 = 2;

/// How peers are rung.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoorbellMode {
    /// Through the doorbell device where both sides have one, else through the host.
    Auto,
    /// As `Auto`, but its absence is worth a warning.
    Ivshmem,
    /// Through the host.
    Trap,
}

impl DoorbellMode {
    /// The value of the module parameter `doorbell`.
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Auto),
            1 => Some(Self::Ivshmem),
            2 => Some(Self::Trap),
            _ => None,
        }
    }
}

struct Counters {
    rung_ivshmem: Atomic<u64>,
    received_ivshmem: Atomic<u64>,
    received_trap: Atomic<u64>,
}

impl Counters {
    fn new() -> Self {
        Self {
            rung_ivshmem: Atomic::new(0),
            received_ivshmem: Atomic::new(0),
            received_trap: Atomic::new(0),
        }
    }
}

fn count(counter: &Atomic<u64>) {
    counter.fetch_add(1, Relaxed);
}

/// One attachment to a group through the hypervisor.
#[pin_data]
pub(crate) struct VirtioTransport {
    config: Config,
    lanes: u32,
    slot: SlotMem,
    group: GroupMem,
    control: Queue,
    events: Queue,
    lane_queues: KVec<Queue>,
    cookie: Atomic<u64>,
    /// The host did not answer the last call.
    silent: Atomic<bool>,
    doorbell: DoorbellMode,
    bell: SetOnce<Arc<Bell>>,
    /// Doorbell ids of the members by slot; `NO_IVSHMEM`: none.
    peer_bells: [Atomic<u32>; MAX_SLOTS as usize],
    counters: Counters,
    #[pin]
    rings: HostRings,
    #[pin]
    sink: IrqLock<Option<Arc<dyn Upcalls>>>,
    #[pin]
    event_work: Work<VirtioTransport, EVENT_WORK>,
    #[pin]
    ring_work: Work<VirtioTransport, RING_WORK>,
}

impl_has_work! {
    impl HasWork<Self, 1> for VirtioTransport { self.event_work }
    impl HasWork<Self, 2> for VirtioTransport { self.ring_work }
}

impl VirtioTransport {
    fn new(setup: &mut Setup<'_>, doorbell: DoorbellMode) -> Result<Arc<Self>> {
        let mut bytes = [0u8; Config::SIZE];
        setup.read_config(&mut bytes)?;
        let config = Config::parse(&bytes).map_err(|err| {
            dev_err!(
                setup.device(),
                "attach refused, reason {}: {}; is fgdpd of this module's version?\n",
                err.number(),
                err.name()
            );
            ENODEV
        })?;
        let slot = setup.map_slot(wire::SHM_SLOT as u8, config.slot_size)?;
        let group = setup.map_group(wire::SHM_GROUP as u8, config.group_size)?;

        let lanes = u32::from(config.max_lanes).min(cpu::nr_cpu_ids()).max(1);
        const NAMES: [&CStr; (VQ_LANE0 + MAX_LANES) as usize] = [
            c"control",
            c"event",
            c"doorbell",
            c"lane0",
            c"lane1",
            c"lane2",
            c"lane3",
        ];
        let names = NAMES.get(..(VQ_LANE0 + lanes) as usize).ok_or(EINVAL)?;
        let queues = setup.find_queues(names)?;
        let queue = |n: u32| queues.get(n as usize).cloned().ok_or(ENXIO);
        let (control, events, doorbells) =
            (queue(VQ_CONTROL)?, queue(VQ_EVENT)?, queue(VQ_DOORBELL)?);
        let mut lane_queues = KVec::with_capacity(lanes as usize, GFP_KERNEL)?;
        for lane in 0..lanes {
            lane_queues.push(queue(VQ_LANE0 + lane)?, GFP_KERNEL)?;
        }
        Arc::pin_init(
            try_pin_init!(Self {
                config,
                lanes,
                slot,
                group,
                control,
                events,
                lane_queues,
                cookie: Atomic::new(1),
                silent: Atomic::new(false),
                doorbell,
                bell: SetOnce::new(),
                peer_bells: core::array::from_fn(|_| Atomic::new(wire::NO_IVSHMEM)),
                counters: Counters::new(),
                rings <- HostRings::new(doorbells),
                sink <- new_irqlock!(None),
                event_work <- new_work!("fgdp::events"),
                ring_work <- new_work!("fgdp::rings"),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives the device what it needs to reach us.
    fn fill(&self) -> Result {
        self.rings.quiet();
        for _ in 0..EVENT_BUFFERS {
            if self.events.add(Buffer::new(&[], EVENT_SIZE)?).is_err() {
                break;
            }
        }
        self.events.kick();
        for queue in &self.lane_queues {
            for _ in 0..LANE_BUFFERS {
                if queue.add(Buffer::new(&[], wire::Doorbell::SIZE)?).is_err() {
                    break;
                }
            }
            queue.kick();
        }
        Ok(())
    }

    /// From here on the device layer hears of events and doorbells.
    fn open(self: &Arc<Self>, sink: Arc<dyn Upcalls>) {
        *self.sink.lock() = Some(sink);
        // What came in meanwhile waits in the event queue, or was a doorbell that nobody heard.
        self.queue_events();
        for lane in 0..self.lanes {
            self.upcall(lane);
        }
    }

    fn close(self: &Arc<Self>) {
        let sink = self.sink.lock().clone();
        if let Some(sink) = sink {
            // Events still come in: what peers say at the end counts.
            sink.gone();
        }
        pci::unlisten(&self.config.group_id);
        let sink = self.sink.lock().take();
        work::flush_process();
        work::flush_bh();
        drop(sink);
    }

    fn upcall(&self, lane: u32) {
        if let Some(sink) = &*self.sink.lock() {
            sink.doorbell(lane);
        }
    }

    fn queue_events(self: &Arc<Self>) {
        if let Some(queue) = work::process() {
            // Already queued is as good.
            let _queued = queue.enqueue::<_, EVENT_WORK>(self.clone());
        }
    }

    fn lane_interrupt(&self, lane: u32) {
        let Some(queue) = self.lane_queues.get(lane as usize) else {
            return;
        };
        // No more than were posted, as none is posted again meanwhile.
        let mut taken = [const { None }; LANE_BUFFERS];
        let mut any = false;
        for place in &mut taken {
            *place = queue.take();
            any |= place.is_some();
        }
        if !any {
            return;
        }
        count(&self.counters.received_trap);
        self.upcall(lane);
        for buffer in taken.into_iter().flatten() {
            // A queue that refuses what it just returned is broken or stopped: the buffer goes.
            drop(queue.add(buffer));
        }
        queue.kick();
    }

    fn peer_bell(&self, peer: u32) -> Option<(&Bell, u16)> {
        if self.doorbell == DoorbellMode::Trap {
            return None;
        }
        let id = self.peer_bells.get(peer as usize)?.load(Relaxed);
        Some((self.bell.as_ref()?, u16::try_from(id).ok()?))
    }
}

impl Transport for VirtioTransport {
    fn name(&self) -> &'static CStr {
        c"virtio"
    }

    fn identity(&self) -> Identity {
        Identity {
            slot: self.config.slot,
            slot_offset: self.config.slot_offset,
            generation: self.config.generation,
            guest_id: self.config.guest_id,
            lanes: self.lanes,
        }
    }

    fn slot(&self) -> &SlotMem {
        &self.slot
    }

    fn group(&self) -> &GroupMem {
        &self.group
    }

    fn call(&self, request: &Request<'_>, reply: &mut [u8]) -> Result<usize, CallError> {
        let cookie = self.cookie.fetch_add(1, Relaxed);
        let mut bytes = [0u8; MAX_REQUEST];
        let out = request
            .encode(cookie, &mut bytes)
            .and_then(|len| bytes.get(..len))
            .ok_or(CallError::Malformed)?;
        let buffer = Buffer::new(out, CALL_HDR + reply.len()).map_err(|_| CallError::NoMemory)?;
        let timeout = if self.silent.load(Relaxed) {
            SILENT_TIMEOUT_MS
        } else {
            CALL_TIMEOUT_MS
        };
        let answer = self.control.call(buffer, msecs_to_jiffies(timeout));
        self.silent
            .store(matches!(answer, Err(NoAnswer::Timeout)), Relaxed);
        let answer = answer.map_err(|why| match why {
            NoAnswer::Dead | NoAnswer::Timeout => CallError::Dead,
            NoAnswer::Killed => CallError::Killed,
            NoAnswer::NoMemory => CallError::NoMemory,
        })?;
        let answer = Reply::parse(answer.received()).map_err(|_| CallError::Malformed)?;
        if answer.cookie != cookie {
            return Err(CallError::Malformed);
        }
        if answer.status != wire::Status::Ok {
            return Err(CallError::Status(answer.status));
        }
        let to = reply
            .get_mut(..answer.body.len())
            .ok_or(CallError::Malformed)?;
        to.copy_from_slice(answer.body);
        Ok(answer.body.len())
    }

    fn ring(&self, peer: u32, lane: u32) {
        if lane >= MAX_LANES {
            return;
        }
        if let Some((bell, id)) = self.peer_bell(peer) {
            if bell.ring(id, lane) {
                count(&self.counters.rung_ivshmem);
                return;
            }
        }
        self.rings.ring(peer, lane);
    }

    fn bell_id(&self) -> Option<u32> {
        let bell = self.bell.as_ref()?;
        (bell.vectors() >= self.lanes).then_some(u32::from(bell.id()))
    }

    fn set_peer_bell(&self, peer: u32, id: Option<u32>) {
        if let Some(place) = self.peer_bells.get(peer as usize) {
            place.store(id.unwrap_or(wire::NO_IVSHMEM), Relaxed);
        }
    }

    fn doorbells(&self) -> Doorbells {
        let c = &self.counters;
        Doorbells {
            rung_ivshmem: c.rung_ivshmem.load(Relaxed),
            rung_trap: self.rings.rung.load(Relaxed),
            coalesced: self.rings.coalesced.load(Relaxed),
            received_ivshmem: c.received_ivshmem.load(Relaxed),
            received_trap: c.received_trap.load(Relaxed),
        }
    }
}

impl pci::Listener for VirtioTransport {
    fn rung(&self, lane: u32) {
        if lane < self.lanes {
            count(&self.counters.received_ivshmem);
            self.upcall(lane);
        }
    }

    fn bell(&self, bell: Arc<Bell>) {
        if !self.bell.populate(bell) {
            pr_warn!("a new doorbell device is used after the module was loaded again\n");
        }
    }
}

impl WorkItem<EVENT_WORK> for VirtioTransport {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A device that never stops talking must not keep others from this work queue.
        for _ in 0..4 * EVENT_BUFFERS {
            let Some(sink) = this.sink.lock().clone() else {
                return;
            };
            let Some(buffer) = this.events.take() else {
                this.events.kick();
                return;
            };
            sink.event(buffer.received());
            drop(this.events.add(buffer));
        }
        this.events.kick();
        this.queue_events();
    }
}

impl WorkItem<RING_WORK> for VirtioTransport {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.rings.pump();
    }
}

/// Makes the device layer's part of a device that was found.
pub(crate) trait Attach: Send + Sync + 'static {
    /// The device's queues run: calls can be made. Events and doorbells come after this returned.
    fn attach(&self, transport: Arc<VirtioTransport>) -> Result<Arc<dyn Upcalls>>;
}

struct FgdpDriver<A: Attach> {
    attach: A,
    doorbell: DoorbellMode,
}

impl<A: Attach> virtio::Driver for FgdpDriver<A> {
    type Bound = VirtioTransport;
    const NAME: &'static CStr = c"fgdp";
    const ID: u32 = wire::VIRTIO_ID;

    fn probe(&self, setup: &mut Setup<'_>) -> Result<Arc<VirtioTransport>> {
        VirtioTransport::new(setup, self.doorbell)
    }

    fn start(&self, bound: &Arc<VirtioTransport>) -> Result {
        bound.fill()?;
        if pci::listen(bound.config.group_id, bound.clone()).is_err() {
            pr_warn!("no doorbells for a second device of the same group\n");
        }
        if self.doorbell == DoorbellMode::Ivshmem && bound.bell.as_ref().is_none() {
            pr_warn!("no ivshmem-doorbell device of this group: ringing through the host\n");
        }
        match self.attach.attach(bound.clone()) {
            Ok(sink) => {
                bound.open(sink);
                Ok(())
            }
            Err(err) => {
                bound.close();
                Err(err)
            }
        }
    }

    fn interrupt(bound: &Arc<VirtioTransport>, queue: u32) {
        match queue {
            VQ_CONTROL => bound.control.complete_calls(),
            VQ_EVENT => bound.queue_events(),
            VQ_DOORBELL => {
                bound.rings.quiet();
                if let Some(queue) = work::process() {
                    // Already queued is as good.
                    let _queued = queue.enqueue::<_, RING_WORK>(bound.clone());
                }
            }
            lane => bound.lane_interrupt(lane.wrapping_sub(VQ_LANE0)),
        }
    }

    fn remove(&self, bound: &Arc<VirtioTransport>) {
        bound.close();
    }
}

/// The drivers' registration. Dropping it detaches all devices.
pub(crate) struct Registration<A: Attach> {
    // Dropped first: a device that goes takes its listener off its bell.
    _virtio: Pin<KBox<virtio::Registration<FgdpDriver<A>>>>,
    _bells: Bells,
}

/// Registers the drivers; devices that are present are attached before this returns.
///
/// The work queues must exist, and outlive what is returned.
pub(crate) fn register<A: Attach>(
    module: &'static ThisModule,
    doorbell: DoorbellMode,
    attach: A,
) -> Result<Registration<A>> {
    // Before the devices, so that their HELLO can tell the doorbell's id.
    let bells = Bells::new(module)?;
    let driver = FgdpDriver { attach, doorbell };
    Ok(Registration {
        _virtio: KBox::pin_init(virtio::Registration::new(module, driver), GFP_KERNEL)?,
        _bells: bells,
    })
}
