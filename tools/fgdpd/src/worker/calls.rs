// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events as they are kept until the guest takes them, and answers as bytes.

use fgdp_proto::proto::wire::{
    self, encode_reply, FramesOp, Ranges, Reason, ReplyBody, Status, EVENT_SIZE, MAX_REPLY,
};
use serde::{Deserialize, Serialize};

/// A run of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first, in the group.
    pub pfn: u32,
    /// How many.
    pub frames: u32,
}

/// What the host tells a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A directory entry changed.
    Peer {
        /// Slot.
        peer: u32,
        /// Generation now.
        generation: u32,
    },
    /// A peer opened or closed a channel.
    Channel {
        /// Slot.
        peer: u32,
        /// Its generation.
        generation: u32,
        /// Or closed.
        open: bool,
        /// Number of the reason why closed.
        reason: u32,
    },
    /// A peer did something with frames.
    Frames {
        /// Number of the operation.
        op: u16,
        /// Slot.
        peer: u32,
        /// Its generation.
        generation: u32,
        /// Id of the extent.
        extent: u32,
        /// With an offer.
        ranges: Vec<Range>,
    },
    /// Events were dropped.
    Lost,
}

impl Event {
    /// The slot of which it is.
    pub fn peer(&self) -> Option<u32> {
        match self {
            Event::Peer { peer, .. } | Event::Channel { peer, .. } | Event::Frames { peer, .. } => {
                Some(*peer)
            }
            Event::Lost => None,
        }
    }

    /// How many ranges it has.
    pub fn ranges(&self) -> usize {
        match self {
            Event::Frames { ranges, .. } => ranges.len(),
            _ => 0,
        }
    }

    /// As the driver reads it; `None` for an event that no call can have made.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let mut buf = [0; EVENT_SIZE];
        let own: Vec<wire::Range>;
        let event = match self {
            Event::Peer { peer, generation } => wire::Event::Peer {
                peer: *peer,
                generation: *generation,
            },
            Event::Channel {
                peer,
                generation,
                open,
                reason,
            } => wire::Event::Channel {
                peer: *peer,
                generation: *generation,
                open: *open,
                reason: Reason::from_u32(*reason)?,
            },
            Event::Frames {
                op,
                peer,
                generation,
                extent,
                ranges,
            } => {
                own = ranges
                    .iter()
                    .map(|r| wire::Range {
                        pfn: r.pfn,
                        frames: r.frames,
                    })
                    .collect();
                wire::Event::Frames(wire::Frames {
                    op: FramesOp::from_u16(*op)?,
                    peer: *peer,
                    peer_generation: *generation,
                    extent: *extent,
                    ranges: Ranges::new(&own)?,
                })
            }
            Event::Lost => wire::Event::Lost,
        };
        let len = event.encode(&mut buf)?;
        buf.get(..len).map(<[u8]>::to_vec)
    }
}

/// A reply as the driver reads it.
pub fn reply(cookie: u64, result: &Result<ReplyBody, Status>) -> Vec<u8> {
    let (status, body) = match result {
        Ok(body) => (Status::Ok, *body),
        Err(status) => (*status, ReplyBody::None),
    };
    let mut buf = [0; MAX_REPLY];
    let len = encode_reply(status, cookie, &body, &mut buf).unwrap_or(0);
    buf.get(..len).map(<[u8]>::to_vec).unwrap_or_default()
}
