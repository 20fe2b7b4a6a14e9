// SPDX-License-Identifier: GPL-2.0

//! One round of the channel to a peer: its lanes, and what the peer lent.
//!
//! A channel that died stays dead; the next round is another object, with connections of its own.
//!
//! Lock order: a lane's `rx`, then nothing (messages are dispatched without it); `tx`, `accepted`
//! and `deferred` are innermost.

use crate::addr::GuestId;
use crate::conn::Connection;
use crate::device::Device;
use crate::extents::Extents;
use crate::proto::grant::Accepted;
use crate::proto::mem::View;
use crate::proto::ring::{LaneRx, LaneTx, PushError};
use crate::proto::wire::{Msg, Reason};
use crate::sys::atomic::load_acquire;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::shm::{GroupMem, SlotMem};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::Arc;

/// REFUSE messages that may wait for space in a lane.
const MAX_DEFERRED: usize = 1024;

#[pin_data]
struct Lane {
    #[pin]
    tx: BhLock<LaneTx>,
    #[pin]
    rx: BhLock<LaneRx>,
    #[pin]
    deferred: BhLock<KVec<Msg>>,
    backlog: Atomic<bool>,
}

/// What the directory says about the peer of a channel.
#[derive(Clone, Copy)]
pub(crate) struct Peering {
    /// The peer's slot.
    pub(crate) slot: u32,
    /// Where it is in the group.
    pub(crate) base: u64,
    /// How long it is.
    pub(crate) size: u64,
    /// Its generation.
    pub(crate) generation: u32,
    /// The peer's id.
    pub(crate) guest: GuestId,
    /// Lanes that both sides drain.
    pub(crate) lanes: u32,
}

/// One round of the channel to a peer.
#[pin_data]
pub(crate) struct Channel {
    /// Who the peer is.
    pub(crate) peering: Peering,
    lanes: KVec<Arc<Lane>>,
    /// What the peer lent.
    #[pin]
    pub(crate) accepted: Extents,
    /// Reason number plus one when dead.
    dead: Atomic<u32>,
    /// Units of 2 MiB that an allocation misses.
    pub(crate) need_units: Atomic<u32>,
    /// Somebody waits for frames.
    pub(crate) starved: Atomic<bool>,
    /// Frames came back since somebody was woken for them.
    pub(crate) freed: Atomic<bool>,
    /// Connections that have an id.
    pub(crate) conns: Atomic<i32>,
    /// CONNECTs that wait for an answer.
    pub(crate) connects: Atomic<i32>,
}

impl Channel {
    /// A channel whose lanes were just reset.
    pub(crate) fn new(peering: Peering, own_slot: u32) -> Result<Arc<Self>> {
        let mut lanes = KVec::with_capacity(peering.lanes as usize, GFP_KERNEL)?;
        for n in 0..peering.lanes {
            let lane = Arc::pin_init(
                pin_init!(Lane {
                    tx <- new_bhlock!(LaneTx::new(peering.slot, own_slot, n), "fgdp_lane_tx"),
                    rx <- new_bhlock!(LaneRx::new(peering.slot, own_slot, n), "fgdp_lane_rx"),
                    deferred <- new_bhlock!(KVec::new(), "fgdp_lane_deferred"),
                    backlog: Atomic::new(false),
                }),
                GFP_KERNEL,
            )?;
            lanes.push(lane, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                peering,
                lanes,
                accepted <- Extents::new(Accepted::new(peering.base, peering.size, 1)),
                dead: Atomic::new(0),
                need_units: Atomic::new(0),
                starved: Atomic::new(false),
                freed: Atomic::new(false),
                conns: Atomic::new(0),
                connects: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The memory that both ends see.
    pub(crate) fn view<'a>(&self, device: &'a Device) -> View<'a, SlotMem, GroupMem> {
        View {
            slot: device.slot(),
            window: device.group(),
            slot_base: device.slot_base(),
            peer_base: self.peering.base,
            peer_size: self.peering.size,
        }
    }

    /// The peer's id.
    pub(crate) fn guest(&self) -> GuestId {
        self.peering.guest
    }

    /// Lanes that both sides drain, at least 1.
    pub(crate) fn lanes(&self) -> u32 {
        self.peering.lanes.max(1)
    }

    /// Whether it is over.
    pub(crate) fn is_dead(&self) -> bool {
        load_acquire(&self.dead) != 0
    }

    /// Why it is over.
    pub(crate) fn death(&self) -> Option<Reason> {
        Reason::from_u32(self.dead.load(Acquire).checked_sub(1)?)
    }

    /// Ends it; true for the first who does. Any context.
    pub(crate) fn kill(&self, reason: Reason) -> bool {
        self.dead.cmpxchg(0, reason.as_u32() + 1, Full).is_ok()
    }

    /// Waits for whoever uses a lane of a dead channel: from then on nobody touches either side's
    /// words (C-5), which the next round makes new.
    pub(crate) fn silence(&self) {
        for lane in &self.lanes {
            drop(lane.tx.lock());
            drop(lane.rx.lock());
        }
    }

    fn lane(&self, n: u32) -> Option<&Lane> {
        self.lanes.get(n as usize).map(|lane| &**lane)
    }

    /// Sends `msg` over lane `n`; false when it has no space. Any context.
    pub(crate) fn send(&self, device: &Arc<Device>, n: u32, msg: &Msg) -> bool {
        let Some(lane) = self.lane(n) else {
            return true;
        };
        let mut tx = lane.tx.lock();
        // Under the lock, as everywhere: see `silence`.
        if self.is_dead() {
            return true;
        }
        let pushed = tx.push(&self.view(device), msg);
        drop(tx);
        match pushed {
            Ok(ring) => {
                device.counters.messages_sent.add(1, Relaxed);
                if ring {
                    device.ring(self.peering.slot, n);
                } else {
                    device.counters.suppressed.add(1, Relaxed);
                }
                true
            }
            Err(PushError::Full) => false,
            Err(PushError::Broken(reason)) => {
                device.break_channel(self, reason);
                true
            }
        }
    }

    /// Asks to be rung when lane `n` has space; what waits is flushed then. Any context.
    pub(crate) fn backlog(&self, device: &Arc<Device>, n: u32) {
        let Some(lane) = self.lane(n) else {
            return;
        };
        lane.backlog.store(true, Release);
        let mut tx = lane.tx.lock();
        if self.is_dead() {
            return;
        }
        let armed = tx.arm_space(&self.view(device));
        drop(tx);
        match armed {
            Ok(true) => device.kick_lane(n),
            Ok(false) => {}
            Err(reason) => device.break_channel(self, reason),
        }
    }

    /// Sends `msg`, now or when there is space. Process context.
    pub(crate) fn send_later(&self, device: &Arc<Device>, n: u32, msg: &Msg) {
        if self.send(device, n, msg) {
            return;
        }
        if let Some(lane) = self.lane(n) {
            let mut deferred = lane.deferred.lock();
            let full = deferred.len() >= MAX_DEFERRED || deferred.push(*msg, GFP_ATOMIC).is_err();
            drop(deferred);
            if full {
                // A peer that floods us and does not drain what we answer.
                device.break_channel(self, Reason::BadLane);
                return;
            }
        }
        self.backlog(device, n);
    }

    /// Sends what waits for space in lane `n`. Bottom half.
    pub(crate) fn flush(&self, device: &Arc<Device>, n: u32) {
        let Some(lane) = self.lane(n) else {
            return;
        };
        if !lane.backlog.xchg(false, Full) {
            return;
        }
        let deferred = core::mem::replace(&mut *lane.deferred.lock(), KVec::new());
        for msg in deferred {
            if !self.send(device, n, &msg) {
                if lane.deferred.lock().push(msg, GFP_ATOMIC).is_err() {
                    device.break_channel(self, Reason::BadLane);
                    return;
                }
                lane.backlog.store(true, Release);
            }
        }
        device.each_connection(self, |conn: &Connection| {
            if conn.lane() == n && conn.has_pending() {
                conn.flush();
            }
        });
        if lane.backlog.load(Acquire) {
            self.backlog(device, n);
        }
    }

    /// The next message of lane `n`; the lane is not rung from now on.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub(crate) fn pop(&self, device: &Arc<Device>, n: u32) -> Result<Option<Msg>, Reason> {
        let Some(lane) = self.lane(n) else {
            return Ok(None);
        };
        let view = self.view(device);
        let mut rx = lane.rx.lock();
        if self.is_dead() {
            return Ok(None);
        }
        rx.suppress(&view);
        rx.pop(&view)
    }

    /// Gives the places of taken messages back and asks to be rung; true if there is more already.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub(crate) fn rest(&self, device: &Arc<Device>, n: u32) -> Result<bool, Reason> {
        let Some(lane) = self.lane(n) else {
            return Ok(false);
        };
        let view = self.view(device);
        let mut rx = lane.rx.lock();
        if self.is_dead() {
            return Ok(false);
        }
        let ring = rx.publish_head(&view)?;
        let more = rx.arm(&view)?;
        drop(rx);
        if ring {
            device.ring(self.peering.slot, n);
        }
        Ok(more)
    }

    /// Gives the places of taken messages back. As [`Channel::rest`], without sleeping after it.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub(crate) fn publish(&self, device: &Arc<Device>, n: u32) -> Result<(), Reason> {
        if let Some(lane) = self.lane(n) {
            let mut rx = lane.rx.lock();
            if self.is_dead() {
                return Ok(());
            }
            let ring = rx.publish_head(&self.view(device))?;
            drop(rx);
            if ring {
                device.ring(self.peering.slot, n);
            }
        }
        Ok(())
    }
}
