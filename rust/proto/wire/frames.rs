// SPDX-License-Identifier: GPL-2.0 OR MIT
//! `struct fgdp_frames`: PFN lists.

use super::bytes::{Reader, Writer};
use super::layout::{EXTENT_FRAMES, MAX_RANGES};

const RANGE_SIZE: usize = 8;

/// What is done with an extent (G-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FramesOp {
    /// The owner lends it to the peer.
    Offer = 1,
    /// The peer takes it.
    Accept = 2,
    /// The peer gives it back.
    Release = 3,
    /// The owner takes it back.
    Revoke = 4,
}

impl FramesOp {
    /// The operation of that number, if there is one.
    pub const fn from_u16(value: u16) -> Option<Self> {
        match value {
            1 => Some(Self::Offer),
            2 => Some(Self::Accept),
            3 => Some(Self::Release),
            4 => Some(Self::Revoke),
            _ => None,
        }
    }
}

/// A run of frames in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First frame.
    pub pfn: u32,
    /// Number of frames.
    pub frames: u32,
}

impl Range {
    /// True if the range is as G-1 says: not empty, its first PFN a multiple of
    /// [`EXTENT_FRAMES`], its end a PFN.
    pub const fn is_valid(&self) -> bool {
        self.frames != 0
            && self.pfn % EXTENT_FRAMES == 0
            && self.pfn.checked_add(self.frames).is_some()
    }
}

/// A list of ranges: parsed from bytes, or the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a>(List<'a>);

#[derive(Clone, Copy, Debug)]
enum List<'a> {
    Wire(&'a [u8]),
    Own(&'a [Range]),
}

impl<'a> Ranges<'a> {
    /// No ranges.
    pub const NONE: Self = Self(List::Own(&[]));

    /// The caller's ranges; `None` if there are more than [`MAX_RANGES`] or one
    /// is invalid.
    pub fn new(ranges: &'a [Range]) -> Option<Self> {
        let good = ranges.len() <= MAX_RANGES && ranges.iter().all(Range::is_valid);
        good.then_some(Self(List::Own(ranges)))
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        match self.0 {
            List::Wire(bytes) => bytes.len() / RANGE_SIZE,
            List::Own(ranges) => ranges.len(),
        }
    }

    /// True if there are no ranges.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = Range> + 'a {
        let (bytes, own): (&[u8], &[Range]) = match self.0 {
            List::Wire(bytes) => (bytes, &[]),
            List::Own(ranges) => (&[], ranges),
        };
        let wire = bytes.chunks_exact(RANGE_SIZE).map(|chunk| {
            let mut r = Reader(chunk);
            Range {
                pfn: r.u32().unwrap_or(0),
                frames: r.u32().unwrap_or(0),
            }
        });
        wire.chain(own.iter().copied())
    }

    /// Number of frames in all ranges.
    pub fn frames(&self) -> u64 {
        self.iter().map(|r| u64::from(r.frames)).sum()
    }
}

impl PartialEq for Ranges<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Call and event payload about an extent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames<'a> {
    /// What is done.
    pub op: FramesOp,
    /// Slot of the other party.
    pub peer: u32,
    /// Generation of the other party's slot.
    pub peer_generation: u32,
    /// Extent id, chosen by the owner.
    pub extent: u32,
    /// The frames: at least one range for an offer, none otherwise.
    pub ranges: Ranges<'a>,
}

impl<'a> Frames<'a> {
    /// Size of the structure without ranges.
    pub const SIZE: usize = 16;

    /// Parses a payload and nothing but that.
    ///
    /// # Errors
    ///
    /// `Length` if the buffer is shorter or longer than the number of ranges
    /// says, `Value` for an unknown operation, a wrong number of ranges or an
    /// invalid range.
    pub fn parse(buf: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let fixed = (|| Some((r.u16()?, r.u16()?, r.u32()?, r.u32()?, r.u32()?)))();
        let (op, num, peer, peer_generation, extent) = fixed.ok_or(ParseError::Length)?;
        let num = usize::from(num);
        if num > MAX_RANGES {
            return Err(ParseError::Value);
        }
        if r.0.len() != num.wrapping_mul(RANGE_SIZE) {
            return Err(ParseError::Length);
        }
        let op = FramesOp::from_u16(op).ok_or(ParseError::Value)?;
        let ranges = Ranges(List::Wire(r.0));
        if (op == FramesOp::Offer) == ranges.is_empty() || !ranges.iter().all(|r| r.is_valid()) {
            return Err(ParseError::Value);
        }
        Ok(Self {
            op,
            peer,
            peer_generation,
            extent,
            ranges,
        })
    }

    /// Bytes that the payload takes.
    pub fn size(&self) -> usize {
        Self::SIZE.wrapping_add(self.ranges.len().wrapping_mul(RANGE_SIZE))
    }

    pub(super) fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        w.u16(self.op as u16)?;
        w.u16(u16::try_from(self.ranges.len()).ok()?)?;
        w.u32(self.peer)?;
        w.u32(self.peer_generation)?;
        w.u32(self.extent)?;
        for range in self.ranges.iter() {
            w.u32(range.pfn)?;
            w.u32(range.frames)?;
        }
        Some(())
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter or longer than the message.
    Length,
    /// A field has a value that it must not have.
    Value,
    /// The type is unknown: a message of a later version.
    Unknown,
}
