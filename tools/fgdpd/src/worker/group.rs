// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules of a group: who is there, who may say what, who is told.
//!
//! No descriptors and no memory here: a change marks directory entries to publish, slots to clear and events to
//! deliver, and the worker does that after the new state is kept.

use std::collections::{BTreeMap, VecDeque};

use fgdp_proto::proto::wire::{
    BadRequest, DirEntry, Hello, HostStats, PeerState, ReplyBody, Request, Status,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::calls::Event;
use super::channels::Pairs;
use super::grants::Grants;
use crate::abi;
use crate::plan::{GroupPlan, MemberPlan};

/// State of a member, as in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Presence {
    /// No QEMU.
    #[default]
    Absent,
    /// A QEMU, no HELLO yet.
    Attached,
    /// HELLO answered.
    Ready,
    /// BYE answered: nothing before a reset. So a member is ready at most once in a generation, and who is told late
    /// cannot take what it is now for what it was.
    Left,
}

/// Counters of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Calls.
    pub calls: u64,
    /// Of these, not answered with OK.
    pub refused: u64,
    /// Of these, because of identity.
    pub addr_refused: u64,
    /// Rings through the daemon.
    pub doorbells: u64,
    /// Rings for nobody.
    pub doorbells_bad: u64,
    /// Times that events were lost.
    pub lost: u64,
    /// HELLO answered with OK.
    pub hellos: u64,
    /// HELLO refused for its doorbell device.
    pub doorbells_refused: u64,
}

/// A member's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// There or not.
    pub presence: Presence,
    /// Of its slot.
    pub generation: u32,
    /// Its slot must be cleared.
    pub clear: bool,
    /// Number of its connection.
    pub serial: u64,
    /// Its QEMU.
    pub pid: i32,
    /// Lanes granted.
    pub lanes: u16,
    /// Its doorbell device.
    pub ivshmem_id: Option<u32>,
    /// Addresses it claimed.
    pub addrs: Vec<[u8; 16]>,
    /// For it, oldest first.
    pub events: VecDeque<Event>,
    /// Since the daemon runs.
    pub counters: Counters,
}

/// What is kept of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupState {
    /// By slot.
    pub members: BTreeMap<u32, Member>,
    /// Channels.
    pub pairs: Pairs,
    /// Frames lent.
    pub grants: Grants,
}

/// A group.
#[derive(Debug, Clone)]
pub struct Group {
    /// What the configuration says.
    pub plan: GroupPlan,
    /// What has become of it.
    pub state: GroupState,
    /// Slots whose directory entry must be published.
    pub dirty: u32,
    /// Doorbell devices: id and process.
    pub doorbells: Vec<(u32, i32)>,
    /// The oldest events may have reached their guests already: none is taken out until that is known.
    pub resuming: bool,
}

/// Whether the log gets a line for something that a guest did for the `count`th time: no guest can fill it.
pub fn worth_a_line(count: u64) -> bool {
    count <= 8 || count.is_power_of_two()
}

fn bit(slot: u32) -> u32 {
    1u32.checked_shl(slot).unwrap_or(0)
}

impl Group {
    /// A group with nobody in it.
    pub fn new(plan: GroupPlan) -> Self {
        let mut group = Self {
            plan,
            state: GroupState::default(),
            dirty: 0,
            doorbells: Vec::new(),
            resuming: false,
        };
        group.state_for_plan();
        group
    }

    /// The plan after a reload: members come and go, addresses that are no longer allowed are withdrawn.
    pub fn replan(&mut self, plan: GroupPlan) {
        self.plan = plan;
        self.state_for_plan();
        let slots: Vec<u32> = self.state.members.keys().copied().collect();
        for slot in slots {
            let Some(allowed) = self.member_plan(slot).map(|p| p.addrs.clone()) else {
                self.leave(slot, Presence::Absent);
                self.dirty |= bit(slot);
                continue;
            };
            let Some(m) = self.state.members.get_mut(&slot) else {
                continue;
            };
            let before = m.addrs.len();
            m.addrs.retain(|a| allowed.contains(a));
            if m.addrs.len() != before {
                self.changed(slot);
            }
        }
    }

    fn state_for_plan(&mut self) {
        for member in &self.plan.members {
            self.state.members.entry(member.slot).or_default();
        }
        self.dirty = u32::MAX;
    }

    /// The configuration of the member in `slot`.
    pub fn member_plan(&self, slot: u32) -> Option<&MemberPlan> {
        self.plan.members.iter().find(|m| m.slot == slot)
    }

    /// The member in `slot`.
    pub fn member(&mut self, slot: u32) -> Option<&mut Member> {
        self.state.members.get_mut(&slot)
    }

    /// The entry of `slot` changed: publish it and tell the others.
    fn changed(&mut self, slot: u32) {
        self.dirty |= bit(slot);
        let Some(generation) = self.state.members.get(&slot).map(|m| m.generation) else {
            return;
        };
        let others: Vec<u32> = self
            .state
            .members
            .keys()
            .copied()
            .filter(|s| *s != slot)
            .collect();
        for other in others {
            self.tell(
                other,
                Event::Peer {
                    peer: slot,
                    generation,
                },
            );
        }
    }

    /// Ends all that a member had with others.
    fn leave(&mut self, slot: u32, presence: Presence) {
        self.state
            .grants
            .remove_all(|k| k.owner == slot || k.peer == slot);
        self.state.pairs.forget(slot);
        self.forget_events_of(slot);
        if let Some(m) = self.state.members.get_mut(&slot) {
            m.presence = presence;
            m.addrs.clear();
            m.events.clear();
            m.lanes = 0;
            m.ivshmem_id = None;
        }
    }

    /// A QEMU connected: the slot begins anew.
    pub fn attach(&mut self, slot: u32, serial: u64, pid: i32) {
        self.renew(slot, Presence::Attached);
        if let Some(m) = self.member(slot) {
            m.serial = serial;
            m.pid = pid;
        }
    }

    /// QEMU is gone. The slot keeps its contents until the next attach, since peers may be reading it.
    pub fn detach(&mut self, slot: u32) {
        self.leave(slot, Presence::Absent);
        if let Some(m) = self.member(slot) {
            m.serial = 0;
        }
        self.changed(slot);
    }

    /// The device was reset.
    pub fn reset(&mut self, slot: u32) {
        self.renew(slot, Presence::Attached);
    }

    /// The generation is counted up, and published before the slot is cleared: a peer that finds its generation
    /// unchanged after it copied knows that it copied no zeros.
    fn renew(&mut self, slot: u32, presence: Presence) {
        self.leave(slot, presence);
        if let Some(m) = self.member(slot) {
            m.generation = m.generation.wrapping_add(1).max(1);
            m.clear = true;
        }
        self.changed(slot);
    }

    /// The doorbell devices connected now.
    pub fn set_doorbells(&mut self, ids: Vec<(u32, i32)>) {
        self.doorbells = ids;
        let live: Vec<u32> = self.doorbells.iter().map(|(id, _)| *id).collect();
        let slots: Vec<u32> = self.state.members.keys().copied().collect();
        for slot in slots {
            let Some(m) = self.state.members.get_mut(&slot) else {
                continue;
            };
            if m.ivshmem_id.is_some_and(|id| !live.contains(&id)) {
                m.ivshmem_id = None;
                self.changed(slot);
            }
        }
    }

    /// Does what the guest in `slot` asks; the payload of the answer.
    pub fn call(
        &mut self,
        slot: u32,
        request: Result<Request<'_>, BadRequest>,
    ) -> Result<ReplyBody, Status> {
        let result = request
            .map_err(|bad| bad.status)
            .and_then(|request| self.dispatch(slot, request));
        if let Some(m) = self.member(slot) {
            m.counters.calls += 1;
            m.counters.refused += u64::from(result.is_err());
        }
        result
    }

    fn dispatch(&mut self, slot: u32, request: Request<'_>) -> Result<ReplyBody, Status> {
        let presence = self.member(slot).map(|m| m.presence).ok_or(Status::State)?;
        match request {
            Request::Stats => return Ok(ReplyBody::Stats(self.stats(slot))),
            Request::Hello(_) if presence != Presence::Attached => return Err(Status::State),
            Request::Hello(hello) => return self.hello(slot, hello).map(ReplyBody::Hello),
            _ if presence != Presence::Ready => return Err(Status::State),
            Request::Bye => self.bye(slot),
            Request::AddrAdd(addr) => self.addr_add(slot, addr)?,
            Request::AddrDel(addr) => {
                let m = self.member(slot).ok_or(Status::State)?;
                let at = m
                    .addrs
                    .iter()
                    .position(|a| *a == addr)
                    .ok_or(Status::BadValue)?;
                m.addrs.remove(at);
                self.changed(slot);
            }
            Request::ChannelOpen(channel) => self.open(slot, &channel)?,
            Request::ChannelClose(channel) => self.close(slot, &channel)?,
            Request::Frames(frames) => self.frames(slot, &frames)?,
        }
        Ok(ReplyBody::None)
    }

    fn hello(&mut self, slot: u32, hello: Hello) -> Result<Hello, Status> {
        if hello.abi != abi::ABI {
            return Err(Status::BadAbi);
        }
        let name = self
            .member_plan(slot)
            .map(|p| p.name.clone())
            .unwrap_or_default();
        let bell = (hello.ivshmem_id != abi::NO_IVSHMEM).then_some(hello.ivshmem_id);
        self.check_doorbell(slot, bell, &name)?;
        let granted = hello.lanes.min(self.plan.lanes);
        let m = self.member(slot).ok_or(Status::State)?;
        m.presence = Presence::Ready;
        m.lanes = granted;
        m.ivshmem_id = bell;
        let generation = m.generation;
        m.counters.hellos += 1;
        if worth_a_line(m.counters.hellos) {
            info!(guest = %name, slot, generation, lanes = granted, doorbell = ?bell, "hello");
        }
        self.changed(slot);
        Ok(Hello {
            abi: abi::ABI,
            generation,
            lanes: granted,
            ivshmem_id: hello.ivshmem_id,
        })
    }

    /// Whether the doorbell device that the guest in `slot` names is its own, and there if it has to be.
    fn check_doorbell(&mut self, slot: u32, bell: Option<u32>, name: &str) -> Result<(), Status> {
        let problem = match bell {
            None if self.plan.doorbell_required => {
                "it has no doorbell device: add the one that fgdpd --print-qemu-args shows, or set doorbell = \"auto\""
            }
            None => return Ok(()),
            Some(id) => {
                let pid = self.state.members.get(&slot).map_or(0, |m| m.pid);
                let mut live = self.doorbells.iter();
                let own = live.any(|(i, p)| *i == id && (*p == pid || *p == 0 || pid == 0));
                let taken = self.state.members.iter().any(|(s, m)| *s != slot && m.ivshmem_id == bell);
                if own && !taken {
                    return Ok(());
                }
                "its doorbell id is not that of its QEMU's doorbell device"
            }
        };
        let m = self.member(slot).ok_or(Status::State)?;
        m.counters.doorbells_refused += 1;
        let times = m.counters.doorbells_refused;
        if worth_a_line(times) {
            warn!(guest = %name, group = %self.plan.name, id = ?bell, times, "guest refused: {problem}");
        }
        Err(Status::BadValue)
    }

    fn bye(&mut self, slot: u32) {
        self.leave(slot, Presence::Left);
        self.changed(slot);
    }

    fn addr_add(&mut self, slot: u32, addr: [u8; 16]) -> Result<(), Status> {
        let plan = self.member_plan(slot).ok_or(Status::State)?;
        let (allowed, name) = (plan.addrs.contains(&addr), plan.name.clone());
        let m = self.state.members.get_mut(&slot).ok_or(Status::State)?;
        if !allowed {
            m.counters.addr_refused += 1;
            if worth_a_line(m.counters.addr_refused) {
                let ip = std::net::Ipv6Addr::from(addr).to_canonical();
                warn!(guest = %name, %ip, times = m.counters.addr_refused, "address refused: not in this guest's `addresses`");
            }
            return Err(Status::NotAllowed);
        }
        if !m.addrs.contains(&addr) {
            m.addrs.push(addr);
            self.changed(slot);
        }
        Ok(())
    }

    fn stats(&self, slot: u32) -> HostStats {
        let c = self
            .state
            .members
            .get(&slot)
            .map_or_else(Counters::default, |m| m.counters);
        HostStats {
            calls: c.calls,
            refused: c.refused,
            addr_refused: c.addr_refused,
            doorbells: c.doorbells,
            frames_offered: self.state.grants.offered_by(slot),
            frames_accepted: self.state.grants.accepted_by(slot),
        }
    }

    /// A ring that could not be understood.
    pub fn bad_ring(&mut self, slot: u32) {
        if let Some(m) = self.member(slot) {
            m.counters.doorbells_bad += 1;
        }
    }

    /// The directory entry of `slot`; of an unused slot, an empty one.
    pub fn entry(&self, slot: u32) -> DirEntry {
        let mut entry = DirEntry::default();
        let (Some(plan), Some(m)) = (self.member_plan(slot), self.state.members.get(&slot)) else {
            return entry;
        };
        entry.state = match m.presence {
            Presence::Absent => PeerState::Absent,
            Presence::Attached | Presence::Left => PeerState::Attached,
            Presence::Ready => PeerState::Ready,
        };
        entry.generation = m.generation;
        entry.lanes = m.lanes;
        entry.guest_id = plan.guest_id;
        entry.slot_offset = plan.offset;
        entry.slot_size = plan.size;
        entry.ivshmem_id = m.ivshmem_id.unwrap_or(abi::NO_IVSHMEM);
        for (to, from) in entry.addrs.iter_mut().zip(&m.addrs) {
            *to = *from;
            entry.num_addrs += 1;
        }
        // The last byte stays NUL.
        for (to, from) in entry.name.iter_mut().take(31).zip(plan.name.bytes()) {
            *to = from;
        }
        entry
    }

    /// Everybody goes: the daemon ends.
    pub fn shut_down(&mut self) {
        let slots: Vec<u32> = self.state.members.keys().copied().collect();
        // All are told before the first is marked, as only those that are ready are told.
        for slot in &slots {
            self.changed(*slot);
        }
        for m in self.state.members.values_mut() {
            m.presence = Presence::Absent;
        }
    }
}
