// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that does the work: the devices' registers and queues, the rules of the groups, the control socket.
//!
//! It can be killed at any instruction. What it must not forget is kept before anybody outside can have seen its
//! effect: a call's answer, with the state it led to, before it is written to the guest; a generation before its slot
//! is cleared. What was in flight is found again in guest memory (used indices) or simply done again (interrupts,
//! directory entries, slots half cleared).

mod backlog;
mod calls;
mod channels;
mod control;
mod device;
mod grants;
mod group;
mod guest_memory;
mod pci;
mod queues;
mod registers;
mod requests;
mod store;

pub use group::worth_a_line;

use std::collections::{btree_map::Entry, BTreeMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{bail, Context, Result};
use fgdp_proto::proto::wire::Config;
use serde::{Deserialize, Serialize};
use tracing::{error, info};
use vm_memory::{FileOffset, MmapRegion};

use crate::layout::HostSlot;
use crate::link::{Link, ToSupervisor, ToWorker};
use crate::plan::GroupPlan;
use crate::sys::{self, Poller};
use crate::{abi, link};
use control::Control;
use device::{Device, DeviceState};
use group::{Group, GroupState};
use store::Store;

const LINK: u64 = 0;
const CONTROL_LISTENER: u64 = 1;
/// Control connections are numbered from here.
const CONTROL: u64 = 2;

/// Requests, doorbells or messages taken from one guest before the others get their turn.
const BUDGET: usize = 64;

/// A group with its memory.
#[derive(Debug)]
struct GroupMemory {
    group: Group,
    memory: OwnedFd,
    host: HostSlot,
}

/// Everything that is kept. The order of groups and devices does not change while the daemon runs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    groups: BTreeMap<u32, GroupState>,
    devices: BTreeMap<u32, DeviceState>,
}

/// The worker.
#[derive(Debug)]
pub struct Worker {
    link: Link,
    poller: Poller,
    store: Store,
    control: Control,
    groups: Vec<GroupMemory>,
    devices: BTreeMap<u32, Device>,
    kept: Kept,
    /// The state changed since it was kept.
    changed: bool,
    restarts: u32,
    started: bool,
    stop: bool,
}

/// Runs the worker on the link that is its standard input.
pub fn run() -> Result<()> {
    let sock = io::stdin().as_fd().try_clone_to_owned()?;
    let mut link = Link::new(sock);
    let poller = Poller::new()?;
    poller.add(&link, LINK, false)?;
    let mut ready = Vec::new();
    let (restarts, mut fds) = loop {
        match link.receive::<ToWorker>() {
            Ok(Some((ToWorker::Hello { restarts }, fds))) => break (restarts, fds.into_iter()),
            Ok(Some(_)) => bail!("the worker is started by the supervisor only"),
            Ok(None) => poller.wait(&mut ready, None)?,
            Err(e) => return Err(e).context("the worker is started by the supervisor only"),
        }
    };
    let (Some(state), Some(listener)) = (fds.next(), fds.next()) else {
        bail!("descriptors missing")
    };
    let mut store = Store::new(state)?;
    let kept = store.load().unwrap_or_default();
    let control = Control::new(listener);
    poller.add(&control, CONTROL_LISTENER, false)?;
    let mut worker = Worker {
        link,
        poller,
        store,
        control,
        groups: Vec::new(),
        devices: BTreeMap::new(),
        kept,
        changed: false,
        restarts,
        started: false,
        stop: false,
    };
    worker.serve()
}

impl Worker {
    fn serve(&mut self) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            let busy = self.started && self.devices.values().any(|d| d.kicked != 0);
            self.poller.wait(&mut ready, busy.then_some(0))?;
            for (token, _) in std::mem::take(&mut ready) {
                match token {
                    LINK => (),
                    CONTROL_LISTENER => self.control.accept(&self.poller, CONTROL),
                    client => self.serve_control(client - CONTROL)?,
                }
            }
            if !self.read_link()? {
                return Ok(());
            }
            if self.started {
                self.work()?;
            }
            if self.stop {
                return self.shut_down();
            }
            self.link.flush()?;
            self.poller
                .modify(&self.link, LINK, true, self.link.wants_out())?;
        }
    }

    /// Takes messages; false when the supervisor is gone.
    fn read_link(&mut self) -> Result<bool> {
        for _ in 0..BUDGET {
            match self.link.receive::<ToWorker>() {
                Ok(Some((message, fds))) => self.message(message, fds)?,
                Ok(None) => break,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn message(&mut self, message: ToWorker, mut fds: Vec<OwnedFd>) -> Result<()> {
        match message {
            ToWorker::Hello { .. } => bail!("greeted twice"),
            ToWorker::Group(plan) => {
                self.set_group(plan, fds.pop().context("group without memory")?)?
            }
            ToWorker::Doorbells { group, ids } => {
                if let Some(g) = self.groups.get_mut(group as usize) {
                    g.group.set_doorbells(ids);
                    self.changed = true;
                }
            }
            ToWorker::Attached { dev, serial, pid } => self.attached(dev, serial, pid),
            ToWorker::Detached { dev } => self.detached(dev),
            ToWorker::Mapped { dev, dma } => {
                if let (Some(device), Some(fd)) = (self.devices.get_mut(&dev), fds.pop()) {
                    if let Err(e) = device.memory.map(&dma, fd) {
                        error!(guest = %device.label, "guest memory not mapped again: {e}");
                    }
                }
            }
            ToWorker::Vectors { dev, present } => {
                if let Some(device) = self.devices.get_mut(&dev) {
                    device.set_vectors(0, abi::VECTORS.into(), present, fds);
                }
            }
            ToWorker::Start => self.start()?,
            ToWorker::Request { dev, id, request } => self.request(dev, id, request, fds)?,
            ToWorker::Kick { dev, queues } => {
                if let Some(device) = self.devices.get_mut(&dev) {
                    device.kicked |= queues;
                }
            }
            ToWorker::Ping => {
                self.link.send(&ToSupervisor::Pong, &[])?;
                self.control.listen(&self.poller);
            }
            ToWorker::Stop => self.stop = true,
        }
        Ok(())
    }

    fn set_group(&mut self, plan: GroupPlan, memory: OwnedFd) -> Result<()> {
        let index = plan.index as usize;
        let lanes = plan.lanes;
        let members: Vec<_> = plan
            .members
            .iter()
            .map(|m| (m.dev, m.slot, format!("{}/{}", m.name, plan.name)))
            .collect();
        // The table has one quota for all; the largest, since each member's own is checked as well.
        let quota = plan.members.iter().map(|m| m.quota).max().unwrap_or(0);
        match self.groups.get_mut(index) {
            Some(g) => {
                g.group.replan(plan);
                g.host.init(quota);
            }
            None => {
                let file = FileOffset::new(memory.try_clone()?.into(), 0);
                let size = usize::try_from(abi::HOST_SLOT_SIZE)?;
                let host = HostSlot::new(MmapRegion::from_file(file, size).context("slot 0")?);
                host.init(quota);
                let mut group = Group::new(plan);
                if let Some(state) = self.kept.groups.remove(&group.plan.index) {
                    group.state = state;
                    group.resuming = true;
                    let plan = group.plan.clone();
                    group.replan(plan);
                }
                self.groups.push(GroupMemory {
                    group,
                    memory,
                    host,
                });
            }
        }
        self.devices
            .retain(|dev, d| d.group != index || members.iter().any(|(m, ..)| m == dev));
        for (dev, slot, label) in members {
            if let Entry::Vacant(entry) = self.devices.entry(dev) {
                let mut device = Device::new(dev, index, slot, label, lanes);
                if let Some(state) = self.kept.devices.remove(&dev) {
                    device.state = state;
                }
                entry.insert(device);
            }
        }
        self.changed = true;
        Ok(())
    }

    fn attached(&mut self, dev: u32, serial: u64, pid: i32) {
        let Some(device) = self.devices.get_mut(&dev) else {
            return;
        };
        let Some(g) = self.groups.get_mut(device.group) else {
            return;
        };
        device.attached = true;
        let known = g
            .group
            .member(device.slot)
            .is_some_and(|m| m.serial == serial);
        if !known {
            device.reset();
            g.group.attach(device.slot, serial, pid);
        }
        self.changed = true;
    }

    fn detached(&mut self, dev: u32) {
        let Some(device) = self.devices.get_mut(&dev) else {
            return;
        };
        device.detach();
        if let Some(g) = self.groups.get_mut(device.group) {
            g.group.detach(device.slot);
        }
        self.changed = true;
    }

    /// Everything has been told: go on where the last worker was.
    fn start(&mut self) -> Result<()> {
        for device in self.devices.values_mut().filter(|d| d.attached) {
            let Some(g) = self.groups.get_mut(device.group) else {
                continue;
            };
            let delivered = device.resume();
            let rings = g.group.ringers(device.slot);
            device.rung = [rings; abi::MAX_LANES];
            if let Some(m) = g.group.member(device.slot) {
                m.events.drain(..delivered.min(m.events.len()));
            }
        }
        for g in &mut self.groups {
            g.group.resuming = false;
        }
        // Whose QEMU went while nobody worked.
        for device in self.devices.values_mut().filter(|d| !d.attached) {
            let Some(g) = self.groups.get_mut(device.group) else {
                continue;
            };
            if g.group.member(device.slot).is_some_and(|m| m.serial != 0) {
                device.detach();
                g.group.detach(device.slot);
            }
        }
        if let Some(device) = self
            .store
            .culprit()?
            .and_then(|dev| self.devices.get_mut(&dev))
        {
            error!(guest = %device.label, "every worker dies of this guest: its device stops until it is reset");
            device.state.regs.set_needs_reset();
        }
        self.kept = Kept::default();
        self.started = true;
        self.changed = true;
        if self.restarts > 0 {
            info!(restarts = self.restarts, "worker resumes");
        }
        self.settle()?;
        self.link.send(&ToSupervisor::Started, &[])?;
        Ok(())
    }

    /// Keeps the state, then lets its consequences out: directory entries, cleared slots.
    fn settle(&mut self) -> Result<()> {
        loop {
            self.keep()?;
            let mut cleared = false;
            for g in &mut self.groups {
                let dirty = std::mem::take(&mut g.group.dirty);
                for slot in (1..abi::MAX_SLOTS as u32).filter(|s| (dirty >> s) & 1 != 0) {
                    g.host.publish(slot, &g.group.entry(slot));
                }
                let plans = g.group.plan.members.clone();
                for plan in plans {
                    if !g.group.member(plan.slot).is_some_and(|m| m.clear) {
                        continue;
                    }
                    sys::punch_hole(g.memory.as_fd(), plan.offset, plan.size)
                        .with_context(|| format!("slot of guest `{}` not cleared", plan.name))?;
                    if let Some(m) = g.group.member(plan.slot) {
                        m.clear = false;
                        cleared = true;
                    }
                }
            }
            if !cleared {
                return Ok(());
            }
            self.changed = true;
        }
    }

    fn keep(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        #[derive(Serialize)]
        struct KeptRef<'a> {
            groups: BTreeMap<u32, &'a GroupState>,
            devices: BTreeMap<u32, &'a DeviceState>,
        }
        for device in self.devices.values_mut() {
            device.note_indices();
        }
        let kept = KeptRef {
            groups: self
                .groups
                .iter()
                .map(|g| (g.group.plan.index, &g.group.state))
                .collect(),
            devices: self
                .devices
                .iter()
                .map(|(dev, d)| (*dev, &d.state))
                .collect(),
        };
        self.store.save(&kept).context("state not kept")
    }

    fn config(&self, device: &Device) -> Option<Config> {
        let g = &self.groups.get(device.group)?.group;
        let plan = g.member_plan(device.slot)?;
        let generation = g.state.members.get(&device.slot)?.generation;
        Some(Config {
            slot: device.slot,
            group_size: g.plan.size,
            slot_offset: plan.offset,
            slot_size: plan.size,
            guest_id: plan.guest_id,
            generation,
            max_lanes: g.plan.lanes,
            group_id: g.plan.id,
        })
    }

    fn shut_down(&mut self) -> Result<()> {
        for g in &mut self.groups {
            g.group.shut_down();
        }
        self.changed = true;
        self.settle()?;
        self.deliver()?;
        info!("worker ends");
        Ok(())
    }

    fn serve_control(&mut self, client: u64) -> Result<()> {
        for command in self.control.read(&self.poller, client) {
            let answer = self.command(&command);
            self.control.answer(&self.poller, client, &answer);
        }
        self.link.flush().map_err(Into::into)
    }
}
