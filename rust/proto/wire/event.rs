// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Event queue and doorbells.

use super::bytes::{Reader, Writer};
use super::call::slot_number;
use super::frames::{Frames, ParseError};
use super::layout::MAX_LANES;
use super::reason::Reason;

/// Bytes of `struct fgdp_event`.
pub const EVENT_HDR: usize = 24;

const PEER: u16 = 1;
const CHANNEL: u16 = 2;
const FRAMES: u16 = 3;
const LOST: u16 = 4;

/// What the host tells a guest (H-5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// The directory entry of slot `peer` changed.
    Peer {
        /// Slot.
        peer: u32,
        /// Generation of the slot.
        generation: u32,
    },
    /// The peer opened or closed its side of the channel.
    Channel {
        /// Slot.
        peer: u32,
        /// Generation of the slot.
        generation: u32,
        /// Opened, or closed.
        open: bool,
        /// Why it was closed.
        reason: Reason,
    },
    /// The peer did something with an extent.
    Frames(Frames<'a>),
    /// Events were dropped: read everything anew.
    Lost,
}

impl<'a> Event<'a> {
    /// Parses the private copy of an event: header and payload and nothing but
    /// that.
    ///
    /// # Errors
    ///
    /// `Length`; `Value` for a slot, reason or frame list that cannot be;
    /// `Unknown` for another type, to be counted and skipped.
    pub fn parse(buf: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let hdr = (|| {
            let hdr = (r.u16()?, r.u16()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?);
            r.u32()?;
            Some(hdr)
        })();
        let (kind, len, peer, generation, arg, reason) = hdr.ok_or(ParseError::Length)?;
        let wanted = if kind == FRAMES { r.0.len() } else { 0 };
        if usize::from(len) != r.0.len() || r.0.len() != wanted {
            return Err(ParseError::Length);
        }
        Ok(match kind {
            PEER => Self::Peer {
                peer: slot_number(peer)?,
                generation,
            },
            CHANNEL if arg <= 1 => Self::Channel {
                peer: slot_number(peer)?,
                generation,
                open: arg == 1,
                reason: Reason::from_u32(reason).ok_or(ParseError::Value)?,
            },
            CHANNEL => return Err(ParseError::Value),
            FRAMES => {
                let frames = Frames::parse(r.0)?;
                if frames.peer != slot_number(peer)? || frames.peer_generation != generation {
                    return Err(ParseError::Value);
                }
                Self::Frames(frames)
            }
            LOST => Self::Lost,
            _ => return Err(ParseError::Unknown),
        })
    }

    /// Writes the event; returns the number of bytes, or `None` if `buf` is too
    /// short ([`EVENT_SIZE`](super::layout::EVENT_SIZE) is always enough).
    pub fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let (kind, len, peer, generation, arg, reason) = match self {
            Self::Peer { peer, generation } => (PEER, 0, *peer, *generation, 0, Reason::None),
            Self::Channel {
                peer,
                generation,
                open,
                reason,
            } => (CHANNEL, 0, *peer, *generation, u32::from(*open), *reason),
            Self::Frames(f) => (FRAMES, f.size(), f.peer, f.peer_generation, 0, Reason::None),
            Self::Lost => (LOST, 0, 0, 0, 0, Reason::None),
        };
        let mut w = Writer::new(buf);
        w.u16(kind)?;
        w.u16(u16::try_from(len).ok()?)?;
        w.u32(peer)?;
        w.u32(generation)?;
        w.u32(arg)?;
        w.u32(reason.as_u32())?;
        w.u32(0)?;
        if let Self::Frames(frames) = self {
            frames.put(&mut w)?;
        }
        Some(w.at)
    }
}

/// `struct fgdp_doorbell`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// Slot to ring; from the device: slot that rang.
    pub peer: u32,
    /// Lane.
    pub lane: u32,
}

impl Doorbell {
    /// Size of the structure.
    pub const SIZE: usize = 8;

    /// Parses a doorbell and nothing but that.
    ///
    /// # Errors
    ///
    /// `Length`; `Value` if slot or lane cannot be.
    pub fn parse(buf: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let fields = (|| {
            let fields = (r.u32()?, r.u32()?);
            r.done()?;
            Some(fields)
        })();
        let (peer, lane) = fields.ok_or(ParseError::Length)?;
        if lane >= MAX_LANES {
            return Err(ParseError::Value);
        }
        Ok(Self {
            peer: slot_number(peer)?,
            lane,
        })
    }

    /// The bytes of the doorbell.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let value = u64::from(self.peer) | (u64::from(self.lane) << 32);
        value.to_le_bytes()
    }
}
