// SPDX-License-Identifier: GPL-2.0

//! What may sleep: calls to the host, its events, channels that come and go, frames.
//!
//! One run at a time per device, under `Device::ctl`.

use crate::addr::GuestId;
use crate::announce::Announced;
use crate::channel::{Channel, Peering};
use crate::device::{Device, CHANNEL_TIMEOUT_MS, CTL};
use crate::peer::Peer;
use crate::proto::ctrl::{self, Action, Input};
use crate::proto::grant::{Accepted, Extent};
use crate::proto::ring;
use crate::proto::wire::{
    self, ChanHdr, ChanState, DirEntry, DirError, Event, Frames, FramesOp, Hello, PeerState, Range,
    Ranges, Reason, Request, SlotHdr, Status, ABI, MAX_RANGES, MAX_SLOTS, NO_IVSHMEM,
};
use crate::sys::net::errno::Errno;
use crate::sys::task;
use crate::transport::CallError;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// Something to do in process context.
pub(crate) enum Job {
    /// The host said something.
    Event(KVec<u8>),
    /// Read the whole directory.
    Scan,
    /// This guest's IP addresses may have changed.
    Addresses,
    /// Somebody wants the channel to the member in this slot.
    Want(u32),
    /// Somebody has waited for the channel to the member in this slot for too long.
    Overdue(u32),
}

/// Broken channels of one generation of a peer that the log tells of.
const WARNINGS: u32 = 10;

struct PeerCtl {
    chan: ctrl::Channel,
    /// When this side last began to open.
    since: u64,
    /// Rules that this generation of the peer broke.
    violations: u32,
    /// The round that is opening or up.
    channel: Option<Arc<Channel>>,
}

/// State that only `ctl` work uses.
pub(crate) struct Ctl {
    peers: KVec<PeerCtl>,
    announced: Announced,
}

impl Ctl {
    /// No channel to anybody.
    pub(crate) fn new() -> Result<Self> {
        let mut peers = KVec::with_capacity(MAX_SLOTS as usize, GFP_KERNEL)?;
        for _ in 0..MAX_SLOTS {
            let peer = PeerCtl {
                chan: ctrl::Channel::new(),
                since: 0,
                violations: 0,
                channel: None,
            };
            peers.push(peer, GFP_KERNEL)?;
        }
        Ok(Self {
            peers,
            announced: Announced::default(),
        })
    }

    fn peer(&mut self, slot: u32) -> Option<&mut PeerCtl> {
        self.peers.get_mut(slot as usize)
    }
}

impl_has_work! {
    impl HasWork<Self, 0> for Device { self.ctl_work }
}

impl WorkItem<CTL> for Device {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.run_ctl();
    }
}

impl Device {
    /// Presents this guest to the host and looks for peers.
    ///
    /// # Errors
    ///
    /// `EIO` when the host does not answer or refuses, with a line in the log.
    pub(crate) fn hello(self: &Arc<Self>) -> Result {
        let hello = Hello {
            abi: ABI,
            generation: self.identity.generation,
            lanes: self.identity.lanes as u16,
            ivshmem_id: self.transport.bell_id().unwrap_or(NO_IVSHMEM),
        };
        self.call(&Request::Hello(hello)).map_err(|e| {
            pr_err!(
                "{}: the host refused HELLO: {:?}\n",
                self.transport.name(),
                e
            );
            EIO
        })?;
        self.add_job(Job::Scan)?;
        self.add_job(Job::Addresses)
    }

    fn call(&self, request: &Request<'_>) -> Result<(), CallError> {
        let mut reply = [0u8; 64];
        let result = self.transport.call(request, &mut reply).map(|_| ());
        if result.is_err() {
            self.counters.calls_refused.add(1, Relaxed);
        }
        result
    }

    /// Makes a call that has no answer but its status. `None`: no answer came, and the host may do
    /// the call or not.
    pub(crate) fn status(&self, request: &Request<'_>) -> Option<Status> {
        match self.call(request) {
            Ok(()) => Some(Status::Ok),
            Err(CallError::Status(status)) => Some(status),
            Err(_) => None,
        }
    }

    fn run_ctl(self: &Arc<Self>) {
        let mut ctl = self.ctl.lock();
        if self.gone.load(Acquire) {
            self.last_words(&mut ctl);
            return;
        }
        loop {
            let jobs = core::mem::replace(&mut *self.jobs.lock(), KVec::new());
            let idle = jobs.is_empty();
            for job in jobs {
                match job {
                    Job::Event(bytes) => self.event(&mut ctl, &bytes),
                    Job::Scan => self.scan(&mut ctl),
                    Job::Addresses => self.announce(&mut ctl.announced),
                    Job::Want(slot) => self.feed(&mut ctl, slot, Input::Want),
                    Job::Overdue(slot) => self.overdue(&mut ctl, slot),
                }
            }
            if self.lost.xchg(false, Full) {
                self.start_over(&mut ctl);
            }
            self.look_after(&mut ctl);
            if idle {
                return;
            }
        }
    }

    /// The channel does not come up (C-7): the next one who wants it tries again.
    fn overdue(self: &Arc<Self>, ctl: &mut Ctl, slot: u32) {
        let Some(peer) = ctl.peer(slot) else {
            return;
        };
        let waited = task::clock_ns().saturating_sub(peer.since) / 1_000_000;
        // Not one that was opened anew meanwhile.
        if peer.chan.is_opening() && waited >= u64::from(CHANNEL_TIMEOUT_MS) {
            self.feed(ctl, slot, Input::Timeout);
        }
    }

    /// Reads the whole directory.
    fn scan(self: &Arc<Self>, ctl: &mut Ctl) {
        for slot in 1..self.host.dir_entries.min(MAX_SLOTS) {
            self.read_entry(ctl, slot);
        }
    }

    /// Events were lost: a channel whose events may be among them starts over.
    fn start_over(self: &Arc<Self>, ctl: &mut Ctl) {
        for slot in 1..MAX_SLOTS {
            if ctl.peer(slot).is_some_and(|p| p.channel.is_some()) {
                self.feed(ctl, slot, Input::End(Reason::Host));
            }
        }
        self.scan(ctl);
    }

    fn read_entry(self: &Arc<Self>, ctl: &mut Ctl, slot: u32) {
        // A guest is no peer of itself, but for the loopback, which has nobody else.
        let own = slot == self.identity.slot;
        if own && self.guest_id() != GuestId::LOOPBACK {
            return;
        }
        let Some(peer) = self.peer(slot) else {
            return;
        };
        let entry = match DirEntry::read(self.group(), self.host.dir_offset, slot) {
            Ok(entry) => entry,
            // The event that follows the write brings us back.
            Err(DirError::Busy) => return,
            Err(DirError::Invalid) => DirEntry::default(),
        };
        if entry.generation != peer.entry().generation {
            if let Some(state) = ctl.peer(slot) {
                state.violations = 0;
            }
        }
        peer.set_entry(&entry);
        self.ready.put(slot, entry.state == PeerState::Ready);
        let bell = (entry.ivshmem_id != NO_IVSHMEM).then_some(entry.ivshmem_id);
        self.transport.set_peer_bell(slot, bell);
        let input = Input::Directory {
            state: entry.state,
            generation: entry.generation,
        };
        self.feed(ctl, slot, input);
        if entry.state == PeerState::Ready {
            self.feed(ctl, slot, Input::Want);
        }
        self.notify_waiters();
    }

    fn event(self: &Arc<Self>, ctl: &mut Ctl, bytes: &[u8]) {
        match Event::parse(bytes) {
            Ok(Event::Peer { peer, .. }) => self.read_entry(ctl, peer),
            Ok(Event::Channel {
                peer,
                generation,
                open,
                reason,
            }) => {
                // The directory may have changed before: its event comes first, but may be lost.
                let input = if open {
                    Input::PeerOpened { generation }
                } else {
                    Input::PeerClosed { generation, reason }
                };
                self.feed(ctl, peer, input);
            }
            Ok(Event::Frames(frames)) => self.frames(ctl, &frames),
            Ok(Event::Lost) => self.lost.store(true, Release),
            Err(_) => self.counters.bad_events.add(1, Relaxed),
        }
    }

    /// Feeds the state machine of the channel to `slot` and does what it says, until it is content.
    fn feed(self: &Arc<Self>, ctl: &mut Ctl, slot: u32, input: Input) {
        // Each action gives at most one input back, and the machine settles after a few. One list
        // can give two: the answer to OPEN, and that the peer's slot is not valid.
        let mut inputs = [const { None }; 8];
        inputs[0] = Some(input);
        while let Some(input) = inputs[0].take() {
            inputs.rotate_left(1);
            let Some(peer) = ctl.peer(slot) else {
                return;
            };
            let actions = peer.chan.handle(input);
            for action in actions.iter() {
                let input = self.act(ctl, slot, action);
                if let Some(place) = inputs.iter_mut().find(|i| i.is_none()) {
                    *place = input;
                }
            }
        }
    }

    fn act(self: &Arc<Self>, ctl: &mut Ctl, slot: u32, action: Action) -> Option<Input> {
        let peer = self.peer(slot)?.clone();
        let state = ctl.peer(slot)?;
        match action {
            Action::Prepare => {
                state.since = task::clock_ns();
                state.channel = self.prepare(&peer, state.chan.generation()?);
                None
            }
            Action::CallOpen { generation } => {
                let channel = wire::Channel {
                    peer: slot,
                    peer_generation: generation,
                    reason: Reason::None,
                };
                Some(match self.status(&Request::ChannelOpen(channel)) {
                    Some(status) => Input::OpenReply(status),
                    None => Input::OpenLost,
                })
            }
            Action::CallClose { generation, reason } => {
                let channel = wire::Channel {
                    peer: slot,
                    peer_generation: generation,
                    reason,
                };
                Some(match self.status(&Request::ChannelClose(channel)) {
                    Some(status) => Input::CloseReply(status),
                    None => Input::CloseLost,
                })
            }
            Action::PeerReady => {
                let Some(channel) = state.channel.clone() else {
                    return Some(Input::End(Reason::NoFrames));
                };
                let p = channel.peering;
                match SlotHdr::read_peer(&channel.view(self), p.generation) {
                    Ok(hdr) => {
                        *channel.accepted.lock() = Accepted::new(p.base, p.size, hdr.conns);
                        None
                    }
                    Err(reason) => Some(Input::End(reason)),
                }
            }
            Action::Up => {
                let channel = state.channel.clone()?;
                self.offer(&channel, 1);
                peer.set_channel(channel.clone());
                self.up_channels.put(slot, true);
                for lane in 0..channel.lanes() {
                    self.kick_lane(lane);
                }
                self.notify_waiters();
                None
            }
            Action::Down(reason) => {
                let channel = state.channel.take();
                state.violations = state
                    .violations
                    .saturating_add(u32::from(reason.is_violation()));
                // A peer that breaks rules all the time does not fill the log.
                let quiet = state.violations > WARNINGS;
                let closed = state.chan.peer_closed();
                self.down(&peer, channel, reason, quiet);
                if closed {
                    // The peer has said its last word, and has not begun anything new.
                    self.settle(slot, true);
                }
                None
            }
            Action::Reclaim => {
                // Both sides closed, or the generation that might have said more is gone.
                let known = state.chan.peer_closed() && state.chan.generation().is_some();
                self.settle(slot, known);
                self.reclaim(slot);
                None
            }
        }
    }

    fn prepare(&self, peer: &Peer, generation: u32) -> Option<Arc<Channel>> {
        let entry = peer.entry();
        ring::reset(self.slot(), peer.number);
        let hdr = ChanHdr {
            state: ChanState::Open,
            peer_generation: generation,
            reason: Reason::None,
        };
        hdr.write(self.slot(), peer.number);
        let peering = Peering {
            slot: peer.number,
            base: entry.slot_offset,
            size: entry.slot_size,
            generation,
            guest: GuestId(entry.guest_id),
            lanes: self.identity.lanes.min(u32::from(entry.lanes)).max(1),
        };
        Channel::new(peering, self.identity.slot).ok()
    }

    fn down(
        self: &Arc<Self>,
        peer: &Peer,
        channel: Option<Arc<Channel>>,
        reason: Reason,
        quiet: bool,
    ) {
        if let Some(count) = self.counters.down.get(reason.as_u32() as usize) {
            count.add(1, Relaxed);
        }
        if reason.is_violation() && !quiet {
            pr_warn!(
                "{}: channel to slot {} broken: {}\n",
                self.transport.name(),
                peer.number,
                reason.name()
            );
        }
        self.up_channels.put(peer.number, false);
        peer.clear_channel(reason);
        let state = if reason.is_violation() {
            ChanState::Broken
        } else {
            ChanState::Closed
        };
        let generation = peer.entry().generation;
        ChanHdr {
            state,
            peer_generation: generation,
            reason,
        }
        .write(self.slot(), peer.number);
        if let Some(channel) = channel {
            channel.kill(reason);
            channel.silence();
            let gone = matches!(reason, Reason::PeerGone | Reason::Generation);
            self.each_connection(&channel, |conn| {
                conn.cut();
                conn.die(Errno::ConnReset.into());
                conn.quiesce(!gone);
            });
        }
        self.notify_waiters();
    }

    /// Offers `units` times 2 MiB of the own slot to the peer of `channel`.
    fn offer(self: &Arc<Self>, channel: &Channel, units: u32) {
        let p = channel.peering;
        let Some(extent) = self.pool.lock().offer(p.slot, units) else {
            return;
        };
        let range = [Range {
            pfn: extent.pfn,
            frames: extent.frames,
        }];
        let Some(ranges) = Ranges::new(&range) else {
            return;
        };
        let frames = Frames {
            op: FramesOp::Offer,
            peer: p.slot,
            peer_generation: p.generation,
            extent: extent.id,
            ranges,
        };
        if self.status(&Request::Frames(frames)) != Some(Status::Ok) {
            self.pool.lock().refused(p.slot, extent.id);
        }
    }

    fn frames(self: &Arc<Self>, ctl: &mut Ctl, frames: &Frames<'_>) {
        let slot = frames.peer;
        let Some(state) = ctl.peer(slot) else {
            return;
        };
        let Some(channel) = state.channel.clone() else {
            return;
        };
        if channel.peering.generation != frames.peer_generation {
            return;
        }
        match frames.op {
            FramesOp::Offer if state.chan.takes_frames() => {
                if let Err(reason) = self.accept_frames(&channel, frames) {
                    self.feed(ctl, slot, Input::End(reason));
                }
            }
            FramesOp::Accept => {
                if self.pool.lock().accepted(slot, frames.extent) {
                    self.feed_starved(&channel);
                }
            }
            FramesOp::Release => {
                if !self.pool.lock().released(slot, frames.extent) {
                    self.feed(ctl, slot, Input::End(Reason::BadExtent));
                }
            }
            FramesOp::Revoke => {
                channel.accepted.remove(frames.extent);
                let mut shown = false;
                self.each_connection(&channel, |conn| {
                    if conn.shows_others() {
                        conn.revoke_window();
                        shown = true;
                    }
                });
                self.answer(&channel, FramesOp::Release, frames.extent);
                if shown {
                    self.feed(ctl, slot, Input::End(Reason::BadGrant));
                }
            }
            FramesOp::Offer => {}
        }
    }

    fn accept_frames(&self, channel: &Channel, frames: &Frames<'_>) -> Result<(), Reason> {
        let mut accepted = channel.accepted.lock();
        for range in frames.ranges.iter().take(MAX_RANGES) {
            let extent = Extent {
                id: frames.extent,
                pfn: range.pfn,
                frames: range.frames,
            };
            accepted.insert(extent)?;
        }
        drop(accepted);
        self.answer(channel, FramesOp::Accept, frames.extent);
        Ok(())
    }

    fn answer(&self, channel: &Channel, op: FramesOp, extent: u32) {
        let frames = Frames {
            op,
            peer: channel.peering.slot,
            peer_generation: channel.peering.generation,
            extent,
            ranges: Ranges::NONE,
        };
        // A refusal means that the host has forgotten the channel: its event is on the way.
        let _status = self.status(&Request::Frames(frames));
    }

    /// Wakes who waits for frames of `channel`.
    fn feed_starved(self: &Arc<Self>, channel: &Channel) {
        if !channel.starved.xchg(false, Full) {
            return;
        }
        self.each_connection(channel, |conn| {
            if conn.wants_frames.xchg(false, Full) {
                conn.wake();
            }
        });
    }

    /// Ends channels that broke, offers frames that are missed, wakes who waits for them.
    fn look_after(self: &Arc<Self>, ctl: &mut Ctl) {
        for slot in 1..MAX_SLOTS {
            let Some(channel) = ctl.peer(slot).and_then(|p| p.channel.clone()) else {
                continue;
            };
            if let Some(reason) = channel.death() {
                self.feed(ctl, slot, Input::End(reason));
                continue;
            }
            let units = channel.need_units.xchg(0, Full);
            if units != 0 {
                self.offer(&channel, units);
            } else if channel.starved.load(Acquire) {
                self.each_connection(&channel, |conn| conn.release_idle_ring());
                // Woken for nothing they would come back here at once.
                if channel.freed.xchg(false, Full) {
                    self.feed_starved(&channel);
                }
            }
        }
    }

    /// What still counts when the device goes: that a peer closed its side, as its final heads are
    /// there then (T-14).
    fn last_words(self: &Arc<Self>, ctl: &mut Ctl) {
        let jobs = core::mem::replace(&mut *self.jobs.lock(), KVec::new());
        for job in jobs {
            let Job::Event(bytes) = job else {
                continue;
            };
            if let Ok(Event::Channel { open: false, .. }) = Event::parse(&bytes) {
                self.event(ctl, &bytes);
            }
        }
    }

    /// Closes all channels in order. Process context.
    pub(crate) fn end_channels(self: &Arc<Self>) {
        let mut ctl = self.ctl.lock();
        for slot in 1..MAX_SLOTS {
            self.feed(&mut ctl, slot, Input::End(Reason::Unload));
        }
    }

    /// Says good-bye. Process context.
    pub(crate) fn bye(self: &Arc<Self>) {
        let mut ctl = self.ctl.lock();
        for peer in &mut ctl.peers {
            peer.channel = None;
        }
        // The device may be gone already; nothing depends on the answer.
        let _status = self.status(&Request::Bye);
        self.jobs.lock().clear();
    }
}
