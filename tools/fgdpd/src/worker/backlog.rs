// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events that wait for a guest, and which of them may be lost (H-6).
//!
//! A guest that lost events ends its channels to all others. So no peer may make it lose some: what one member can
//! have waiting for another is bounded, and all of that fits.

use super::calls::Event;
use super::group::{Group, Presence};

/// Events that wait for a guest at most: of each peer one of its entry, three of its channel (C-5), its offers and as
/// many revocations. What peers answer to the guest comes on top: if that is too much, it is its own doing.
const MAX_EVENTS: usize = 640;
/// Ranges in these events at most: what waits is kept at each change, and shall not be large.
const MAX_RANGES: usize = 2048;
/// Offers of one member that may wait for another, and ranges in them.
const MAX_OFFERS: usize = 8;
const MAX_OFFERED_RANGES: usize = 64;

impl Group {
    /// An event for the member in `slot`, if it is ready.
    pub(super) fn tell(&mut self, slot: u32, event: Event) {
        let Some(m) = self
            .state
            .members
            .get_mut(&slot)
            .filter(|m| m.presence == Presence::Ready)
        else {
            return;
        };
        let of_channel = matches!(event, Event::Channel { .. });
        // It reads the directory anew and ends its channels when it finds LOST, so this is nothing new to it by then.
        let covered = !of_channel && m.events.contains(&Event::Lost);
        // One that still waits will make it read the entry as it is then.
        let repeated = matches!(event, Event::Peer { .. }) && m.events.contains(&event);
        if covered || repeated {
            return;
        }
        m.events.push_back(event);
        let ranges: usize = m.events.iter().map(Event::ranges).sum();
        if !self.resuming && (m.events.len() > MAX_EVENTS || ranges > MAX_RANGES) {
            self.lose(slot);
        }
    }

    /// Whether an offer of `slot` with so many ranges may wait for `peer`.
    pub(super) fn may_offer(&self, slot: u32, peer: u32, ranges: usize) -> bool {
        let Some(m) = self.state.members.get(&peer) else {
            return false;
        };
        let of_slot = m.events.iter().filter(|e| e.peer() == Some(slot));
        let waiting: Vec<usize> = of_slot.map(Event::ranges).filter(|n| *n > 0).collect();
        waiting.len() < MAX_OFFERS && waiting.iter().sum::<usize>() + ranges <= MAX_OFFERED_RANGES
    }

    /// `slot` goes, or begins anew: what it did until then is void for those who have not heard of it (C-6).
    pub(super) fn forget_events_of(&mut self, slot: u32) {
        if self.resuming {
            return;
        }
        for m in self.state.members.values_mut() {
            m.events.retain(|e| e.peer() != Some(slot));
        }
    }

    /// Drops what may be dropped and says so. What is kept are the channels' events of members that are ready and in
    /// the generation that the event is of: of others the directory says that their channels are gone.
    fn lose(&mut self, slot: u32) {
        let members = &self.state.members;
        let present: Vec<(u32, u32)> = members
            .iter()
            .filter(|(_, m)| m.presence == Presence::Ready)
            .map(|(peer, m)| (*peer, m.generation))
            .collect();
        let Some(m) = self.member(slot) else {
            return;
        };
        m.events.retain(|event| match event {
            Event::Channel {
                peer, generation, ..
            } => present.contains(&(*peer, *generation)),
            _ => false,
        });
        // Only by its own calls, made without looking at what the others did, can a guest come to this.
        if m.events.len() >= MAX_EVENTS {
            m.events.clear();
        }
        m.events.push_back(Event::Lost);
        m.counters.lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use crate::plan::{GroupPlan, MemberPlan};
    use fgdp_proto::proto::wire::{
        Channel, Frames, FramesOp, Hello, Range, Ranges, Reason, Request, Status,
    };

    const A: u32 = 1;
    const B: u32 = 2;
    /// Never takes its events.
    const DEAF: u32 = 3;

    /// `B` has a channel to the deaf one.
    fn group() -> Group {
        let member = |slot: u32| MemberPlan {
            dev: slot,
            name: slot.to_string(),
            guest_id: [slot as u8; 16],
            slot,
            offset: u64::from(slot) << 24,
            size: 1 << 24,
            quota: 4096,
            addrs: vec![[slot as u8; 16]],
            socket: slot.to_string().into(),
        };
        let mut group = Group::new(GroupPlan {
            index: 0,
            name: "g".into(),
            id: [9; 16],
            size: 1 << 26,
            lanes: 1,
            huge: None,
            doorbell_socket: None,
            doorbell_required: false,
            members: [A, B, DEAF].map(member).into(),
        });
        for slot in [A, B, DEAF] {
            group.attach(slot, u64::from(slot), 0);
            hello(&mut group, slot).unwrap();
        }
        channel(&mut group, B, DEAF, true).unwrap();
        channel(&mut group, DEAF, B, true).unwrap();
        waiting(&mut group).clear();
        group
    }

    fn waiting(group: &mut Group) -> &mut std::collections::VecDeque<Event> {
        &mut group.member(DEAF).unwrap().events
    }

    fn call(group: &mut Group, slot: u32, request: Request<'_>) -> Result<(), Status> {
        group.call(slot, Ok(request)).map(|_| ())
    }

    fn hello(group: &mut Group, slot: u32) -> Result<(), Status> {
        let hello = Hello {
            abi: abi::ABI,
            generation: 0,
            lanes: 1,
            ivshmem_id: abi::NO_IVSHMEM,
        };
        call(group, slot, Request::Hello(hello))
    }

    fn channel(group: &mut Group, slot: u32, peer: u32, open: bool) -> Result<(), Status> {
        let channel = Channel {
            peer,
            peer_generation: group.member(peer).unwrap().generation,
            reason: Reason::PeerClosed,
        };
        let request = if open {
            Request::ChannelOpen(channel)
        } else {
            Request::ChannelClose(channel)
        };
        call(group, slot, request)
    }

    /// What the deaf guest is told by a peer that opened or closed.
    fn told(group: &mut Group, peer: u32, open: bool) -> Event {
        Event::Channel {
            peer,
            generation: group.member(peer).unwrap().generation,
            open,
            reason: if open { 0 } else { Reason::PeerClosed.as_u32() },
        }
    }

    fn frames(group: &mut Group, op: FramesOp, slots: [u32; 2], extent: u32) -> Result<(), Status> {
        let range = Range {
            pfn: (slots[0] << 12) + 2048,
            frames: 512,
        };
        let ranges: &[Range] = if op == FramesOp::Offer { &[range] } else { &[] };
        let frames = Frames {
            op,
            peer: slots[1],
            peer_generation: group.member(slots[1]).unwrap().generation,
            extent,
            ranges: Ranges::new(ranges).unwrap(),
        };
        call(group, slots[0], Request::Frames(frames))
    }

    /// The deaf guest makes `B` answer until that is more than is kept.
    fn flood(group: &mut Group) {
        for extent in 0..MAX_EVENTS as u32 {
            frames(group, FramesOp::Offer, [DEAF, B], extent).unwrap();
            frames(group, FramesOp::Accept, [B, DEAF], extent).unwrap();
            frames(group, FramesOp::Release, [B, DEAF], extent).unwrap();
            group.member(B).unwrap().events.clear();
        }
    }

    fn lost(group: &mut Group) -> u64 {
        group.member(DEAF).unwrap().counters.lost
    }

    #[test]
    fn h_6_events_of_channels_are_kept_in_order() {
        let mut group = group();
        // All that a peer can do while the deaf guest does nothing (C-5).
        channel(&mut group, DEAF, A, true).unwrap();
        channel(&mut group, A, DEAF, true).unwrap();
        flood(&mut group);
        channel(&mut group, A, DEAF, false).unwrap();
        assert_eq!(channel(&mut group, A, DEAF, true), Err(Status::State));
        channel(&mut group, B, DEAF, false).unwrap();
        let [open, a, b] = [(A, true), (A, false), (B, false)].map(|(p, o)| told(&mut group, p, o));
        // What comes behind LOST is kept, too, and nothing else comes there.
        assert_eq!(*waiting(&mut group), [open, Event::Lost, a, b]);
        assert_eq!(lost(&mut group), 1);
    }

    #[test]
    fn h_6_older_generations_are_purged() {
        let mut group = group();
        channel(&mut group, DEAF, A, true).unwrap();
        for _ in 0..4 * MAX_EVENTS {
            channel(&mut group, A, DEAF, true).unwrap();
            channel(&mut group, A, DEAF, false).unwrap();
            group.reset(A);
            hello(&mut group, A).unwrap();
            assert!(waiting(&mut group).len() <= 4);
        }
        assert_eq!(
            lost(&mut group),
            0,
            "no peer can make another one lose events"
        );
        let peer = Event::Peer {
            peer: A,
            generation: group.member(A).unwrap().generation,
        };
        channel(&mut group, A, DEAF, true).unwrap();
        let open = told(&mut group, A, true);
        assert_eq!(*waiting(&mut group), [peer.clone(), open]);
        group.detach(A);
        assert_eq!(*waiting(&mut group), [peer]);
    }

    #[test]
    fn a_peer_cannot_fill_the_queue_with_offers() {
        let mut group = group();
        let mut refused = 0;
        for extent in 0..MAX_EVENTS as u32 {
            match frames(&mut group, FramesOp::Offer, [B, DEAF], extent) {
                Ok(()) => frames(&mut group, FramesOp::Revoke, [B, DEAF], extent).unwrap(),
                Err(status) => {
                    assert_eq!(status, Status::Quota);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, MAX_EVENTS - MAX_OFFERS);
        assert_eq!(waiting(&mut group).len(), 2 * MAX_OFFERS);
        assert_eq!(
            group.state.grants.offered_by(B),
            0,
            "refused, yet in the table"
        );
        assert_eq!(lost(&mut group), 0);
        // Each of the others may have as much: it fits.
        let most = (abi::MAX_SLOTS - 2) * (1 + 3 + 2 * MAX_OFFERS);
        assert!(most <= MAX_EVENTS && (abi::MAX_SLOTS - 2) * MAX_OFFERED_RANGES <= MAX_RANGES);
        // Taken, there is room again.
        waiting(&mut group).clear();
        frames(&mut group, FramesOp::Offer, [B, DEAF], 1).unwrap();
    }

    /// How many of the oldest were delivered is counted from the front.
    #[test]
    fn a_new_worker_takes_nothing_out_before_it_knows_what_was_delivered() {
        let mut group = group();
        channel(&mut group, A, DEAF, true).unwrap();
        channel(&mut group, B, DEAF, false).unwrap();
        let before = waiting(&mut group).clone();
        group.resuming = true;
        group.detach(A);
        group.reset(A);
        assert!(waiting(&mut group).iter().take(2).eq(&before));
        group.resuming = false;
        group.detach(B);
        assert_eq!(*waiting(&mut group).front().unwrap(), before[0]);
        assert!(!waiting(&mut group).contains(&before[1]));
    }

    #[test]
    fn changes_of_one_entry_wait_once() {
        let mut group = group();
        for _ in 0..MAX_EVENTS {
            for slot in [A, B] {
                call(&mut group, slot, Request::AddrAdd([slot as u8; 16])).unwrap();
                call(&mut group, slot, Request::AddrDel([slot as u8; 16])).unwrap();
            }
        }
        let [a, b] = [A, B].map(|peer| Event::Peer {
            peer,
            generation: group.member(peer).unwrap().generation,
        });
        assert_eq!(*waiting(&mut group), [a.clone(), b.clone()]);
        channel(&mut group, A, DEAF, true).unwrap();
        call(&mut group, A, Request::AddrAdd([A as u8; 16])).unwrap();
        let open = told(&mut group, A, true);
        assert_eq!(*waiting(&mut group), [a, b, open]);
    }

    #[test]
    fn c_5_a_member_is_ready_once_in_a_generation() {
        let mut group = group();
        call(&mut group, A, Request::Bye).unwrap();
        assert_eq!(hello(&mut group, A), Err(Status::State));
        assert_eq!(channel(&mut group, A, DEAF, true), Err(Status::State));
        assert!(call(&mut group, A, Request::Stats).is_ok());
        group.reset(A);
        hello(&mut group, A).unwrap();
    }

    /// Who calls and does not listen can make its own events as many as it likes.
    #[test]
    fn a_guest_that_only_talks_hurts_itself() {
        let mut group = group();
        for _ in 0..MAX_EVENTS {
            channel(&mut group, A, DEAF, true).unwrap();
            channel(&mut group, A, DEAF, false).unwrap();
            channel(&mut group, DEAF, A, false).unwrap();
            assert!(waiting(&mut group).len() <= MAX_EVENTS);
        }
        assert!(waiting(&mut group).contains(&Event::Lost));
    }
}
