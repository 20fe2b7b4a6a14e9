// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Channels between two members, and the frames they lend each other.

use std::collections::BTreeMap;

use fgdp_proto::proto::ctrl::{Member as Side, Pair};
use fgdp_proto::proto::wire::{Channel, Frames, FramesOp, Status};
use serde::{Deserialize, Serialize};

use super::calls::{Event, Range};
use super::grants::{Bounds, Key};
use super::group::{Group, Presence};
use crate::abi;

/// What the lower slot of a pair called in this round; the higher one's bits are one place up.
const OPENED: u8 = 1;
const CLOSED: u8 = 4;

/// The rounds of all pairs that have one. The rules are those of [`Pair`]; here is only what it takes to keep them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs(BTreeMap<(u32, u32), u8>);

fn key(slot: u32, peer: u32) -> ((u32, u32), Side) {
    if slot < peer {
        ((slot, peer), Side::First)
    } else {
        ((peer, slot), Side::Second)
    }
}

fn bits(calls: u8, side: Side) -> u8 {
    match side {
        Side::First => calls,
        Side::Second => calls << 1,
    }
}

impl Pairs {
    fn pair(&self, key: (u32, u32)) -> Result<(Pair, u8), Status> {
        let calls = self.0.get(&key).copied().unwrap_or(0);
        let mut pair = Pair::new();
        for side in [Side::First, Side::Second] {
            if calls & bits(OPENED, side) != 0 {
                pair.open(side)?;
            }
        }
        for side in [Side::First, Side::Second] {
            if calls & bits(CLOSED, side) != 0 {
                pair.close(side)?;
            }
        }
        Ok((pair, calls))
    }

    fn open(&mut self, slot: u32, peer: u32) -> Result<(), Status> {
        let (key, side) = key(slot, peer);
        let (mut pair, calls) = self.pair(key)?;
        pair.open(side)?;
        self.0.insert(key, calls | bits(OPENED, side));
        Ok(())
    }

    /// True if the round is over.
    fn close(&mut self, slot: u32, peer: u32) -> Result<bool, Status> {
        let (key, side) = key(slot, peer);
        let (mut pair, calls) = self.pair(key)?;
        let over = pair.close(side)?;
        if over {
            self.0.remove(&key);
        } else {
            self.0.insert(key, calls | bits(CLOSED, side));
        }
        Ok(over)
    }

    fn is_up(&self, slot: u32, peer: u32) -> bool {
        self.pair(key(slot, peer).0)
            .is_ok_and(|(pair, _)| pair.is_up())
    }

    /// Whether `slot` opened the channel to `peer` and did not close it.
    fn is_open(&self, slot: u32, peer: u32) -> bool {
        let (key, side) = key(slot, peer);
        let calls = self.0.get(&key).copied().unwrap_or(0);
        calls & bits(OPENED | CLOSED, side) == bits(OPENED, side)
    }

    /// The slot lost its generation.
    pub fn forget(&mut self, slot: u32) {
        self.0.retain(|(a, b), _| *a != slot && *b != slot);
    }

    /// Those to which `slot` opened a channel.
    pub fn opened_by(&self, slot: u32) -> Vec<u32> {
        (1..abi::MAX_SLOTS as u32)
            .filter(|peer| *peer != slot && self.is_open(slot, *peer))
            .collect()
    }
}

impl Group {
    /// Checks that `peer` is another member that is ready and of this generation.
    fn ready_peer(&self, slot: u32, peer: u32, generation: u32) -> Result<(), Status> {
        if peer == slot {
            return Err(Status::BadValue);
        }
        let m = self.state.members.get(&peer).ok_or(Status::NoPeer)?;
        if m.presence != Presence::Ready || m.generation != generation {
            return Err(Status::NoPeer);
        }
        Ok(())
    }

    fn generation(&self, slot: u32) -> u32 {
        self.state.members.get(&slot).map_or(0, |m| m.generation)
    }

    /// CHANNEL_OPEN.
    pub(super) fn open(&mut self, slot: u32, channel: &Channel) -> Result<(), Status> {
        let peer = channel.peer;
        self.ready_peer(slot, peer, channel.peer_generation)?;
        self.state.pairs.open(slot, peer)?;
        let generation = self.generation(slot);
        self.tell(
            peer,
            Event::Channel {
                peer: slot,
                generation,
                open: true,
                reason: 0,
            },
        );
        Ok(())
    }

    /// CHANNEL_CLOSE.
    pub(super) fn close(&mut self, slot: u32, channel: &Channel) -> Result<(), Status> {
        let peer = channel.peer;
        self.ready_peer(slot, peer, channel.peer_generation)?;
        if self.state.pairs.close(slot, peer)? {
            let round = [(slot, peer), (peer, slot)];
            self.state
                .grants
                .remove_all(|k| round.contains(&(k.owner, k.peer)));
        }
        let (generation, reason) = (self.generation(slot), channel.reason.as_u32());
        self.tell(
            peer,
            Event::Channel {
                peer: slot,
                generation,
                open: false,
                reason,
            },
        );
        Ok(())
    }

    /// FRAMES.
    pub(super) fn frames(&mut self, slot: u32, f: &Frames<'_>) -> Result<(), Status> {
        self.ready_peer(slot, f.peer, f.peer_generation)?;
        let key = match f.op {
            FramesOp::Offer | FramesOp::Revoke => Key {
                owner: slot,
                peer: f.peer,
                extent: f.extent,
            },
            FramesOp::Accept | FramesOp::Release => Key {
                owner: f.peer,
                peer: slot,
                extent: f.extent,
            },
        };
        let up = self.state.pairs.is_up(slot, f.peer);
        if !up && matches!(f.op, FramesOp::Offer | FramesOp::Accept) {
            return Err(Status::State);
        }
        let ranges: Vec<Range> = f
            .ranges
            .iter()
            .map(|r| Range {
                pfn: r.pfn,
                frames: r.frames,
            })
            .collect();
        match f.op {
            FramesOp::Offer if !self.may_offer(slot, f.peer, ranges.len()) => {
                return Err(Status::Quota)
            }
            FramesOp::Offer => {
                let plan = self.member_plan(slot).ok_or(Status::State)?;
                let bounds = Bounds {
                    first: (plan.offset + abi::CONN_OFFSET) >> abi::FRAME_SHIFT,
                    end: (plan.offset + plan.size) >> abi::FRAME_SHIFT,
                    quota: plan.quota,
                };
                self.state.grants.offer(key, &ranges, bounds)?;
            }
            FramesOp::Accept => {
                let grant = self.state.grants.get_mut(&key).ok_or(Status::BadValue)?;
                if grant.accepted || grant.revoked {
                    return Err(Status::State);
                }
                grant.accepted = true;
            }
            FramesOp::Release => {
                self.state.grants.remove(&key).ok_or(Status::BadValue)?;
            }
            FramesOp::Revoke => {
                let grant = self.state.grants.get_mut(&key).ok_or(Status::BadValue)?;
                if grant.revoked {
                    return Err(Status::State);
                }
                grant.revoked = true;
                // Frames that the peer never took come back at once; the owner hears it as from the peer.
                if !grant.accepted {
                    self.state.grants.remove(&key);
                    let (op, generation) = (FramesOp::Release as u16, f.peer_generation);
                    self.tell(
                        slot,
                        Event::Frames {
                            op,
                            peer: f.peer,
                            generation,
                            extent: f.extent,
                            ranges: Vec::new(),
                        },
                    );
                }
            }
        }
        let generation = self.generation(slot);
        self.tell(
            f.peer,
            Event::Frames {
                op: f.op as u16,
                peer: slot,
                generation,
                extent: f.extent,
                ranges,
            },
        );
        Ok(())
    }

    /// A ring of `slot` for `lane` of `peer`, through the daemon: whether the peer is to be rung.
    pub fn may_ring(&mut self, slot: u32, peer: u32, lane: u32) -> bool {
        let lanes = self.state.members.get(&peer).map_or(0, |m| m.lanes);
        let ok = peer != slot && self.state.pairs.is_open(slot, peer) && lane < u32::from(lanes);
        if let Some(m) = self.member(slot) {
            let counter = if ok {
                &mut m.counters.doorbells
            } else {
                &mut m.counters.doorbells_bad
            };
            *counter += 1;
        }
        ok
    }

    /// Slots that may ring `slot`.
    pub fn ringers(&self, slot: u32) -> u32 {
        let others = self
            .state
            .members
            .keys()
            .filter(|s| self.state.pairs.is_open(**s, slot));
        others.fold(0, |mask, s| mask | 1u32.checked_shl(*s).unwrap_or(0))
    }
}
