// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events that wait for a guest, and which of them may be lost (H-6).

use super::calls::Event;
use super::group::{Group, Presence};

/// Events that wait for a guest at most. What it needs is far below: three of each peer's channel (C-5).
const MAX_EVENTS: usize = 512;
/// Ranges in these events at most: what waits is kept at each change, and shall not be large.
const MAX_RANGES: usize = 2048;

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
        // One that still waits will make it read the entry as it is then. So nobody can fill this with changes of
        // its own entry.
        let of_peer = m.events.iter().rev().find(|e| e.peer() == event.peer());
        let repeated = matches!(event, Event::Peer { .. }) && of_peer == Some(&event);
        if covered || repeated {
            return;
        }
        m.events.push_back(event);
        let ranges: usize = m.events.iter().map(Event::ranges).sum();
        if m.events.len() > MAX_EVENTS || ranges > MAX_RANGES {
            self.lose(slot);
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

    /// More offers and revocations of `B` than are kept.
    fn flood(group: &mut Group) {
        let peer_generation = group.member(DEAF).unwrap().generation;
        let range = Range {
            pfn: (B << 12) + 2048,
            frames: 512,
        };
        for extent in 0..MAX_EVENTS as u32 {
            for (op, ranges) in [
                (FramesOp::Offer, [range].as_slice()),
                (FramesOp::Revoke, &[]),
            ] {
                let frames = Frames {
                    op,
                    peer: DEAF,
                    peer_generation,
                    extent,
                    ranges: Ranges::new(ranges).unwrap(),
                };
                call(group, B, Request::Frames(frames)).unwrap();
            }
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
            assert!(waiting(&mut group).len() <= MAX_EVENTS);
        }
        assert!(lost(&mut group) > 1);
        channel(&mut group, A, DEAF, true).unwrap();
        let open = told(&mut group, A, true);
        assert_eq!(waiting(&mut group).back(), Some(&open));
        // A member that is not there has no channel, though its generation is still that.
        channel(&mut group, B, DEAF, false).unwrap();
        let close = told(&mut group, B, false);
        group.detach(A);
        group.lose(DEAF);
        assert_eq!(*waiting(&mut group), [close, Event::Lost]);
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
        // Not across what else it did.
        channel(&mut group, A, DEAF, true).unwrap();
        call(&mut group, A, Request::AddrAdd([A as u8; 16])).unwrap();
        let open = told(&mut group, A, true);
        assert_eq!(*waiting(&mut group), [a.clone(), b, open, a]);
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
