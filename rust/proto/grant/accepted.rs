// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The extents of a peer that this side accepted.

use crate::proto::wire::{Reason, CONN_OFFSET, CONN_SIZE, EXTENT_FRAMES, FRAME_SHIFT};

/// Extents of one peer that can be accepted at a time.
pub const MAX_EXTENTS: usize = 128;

/// A run of frames in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The id that the owner chose, unique per peer.
    pub id: u32,
    /// First frame, in the group.
    pub pfn: u32,
    /// Number of frames.
    pub frames: u32,
}

impl Extent {
    const fn end(&self) -> u64 {
        self.pfn as u64 + self.frames as u64
    }
}

/// What the consumer of a connection asks of the extents that its peer lent.
pub trait Lent {
    /// As [`Accepted::version`]. What is asked afterwards counts for this version, or
    /// a later one.
    fn version(&self) -> u32;
    /// As [`Accepted::contains`].
    fn contains(&self, pfn: u32, frames: u32) -> bool;
}

impl Lent for Accepted {
    fn version(&self) -> u32 {
        self.version()
    }

    fn contains(&self, pfn: u32, frames: u32) -> bool {
        self.contains(pfn, frames)
    }
}

/// The accepted extents of one peer (G-4): what its rings may lie in.
///
/// # Invariants
///
/// The first `len` entries are sorted by PFN, do not overlap, and lie in the
/// peer's slot behind its connection table.
#[derive(Debug)]
pub struct Accepted {
    entries: [Extent; MAX_EXTENTS],
    len: usize,
    first: u64,
    end: u64,
    version: u32,
}

impl Accepted {
    /// No extents yet, of the peer whose slot is at `peer_base`, `peer_size`
    /// bytes long, with `conns` connection entries.
    pub fn new(peer_base: u64, peer_size: u64, conns: u32) -> Self {
        let table = CONN_OFFSET.wrapping_add(u64::from(conns).wrapping_mul(CONN_SIZE));
        let bytes = peer_base.saturating_add(table);
        Self {
            entries: [Extent::default(); MAX_EXTENTS],
            len: 0,
            first: bytes.div_ceil(1 << FRAME_SHIFT),
            end: peer_base.saturating_add(peer_size) >> FRAME_SHIFT,
            version: 0,
        }
    }

    fn live(&self) -> &[Extent] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    /// Changes when an extent goes: what was validated before is to be
    /// validated anew.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no extent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of frames in all extents.
    pub fn frames(&self) -> u64 {
        self.live().iter().map(|e| u64::from(e.frames)).sum()
    }

    /// Adds an offered extent. Several ranges may carry the same id.
    ///
    /// # Errors
    ///
    /// [`Reason::BadExtent`] if it is empty, not aligned, not in the part of the
    /// peer's slot behind the connection table, or overlaps an accepted one (in
    /// all these cases the peer broke a rule); [`Reason::NoFrames`] if the table
    /// is full.
    pub fn insert(&mut self, extent: Extent) -> Result<(), Reason> {
        if extent.frames == 0
            || extent.pfn % EXTENT_FRAMES != 0
            || u64::from(extent.pfn) < self.first
            || extent.end() > self.end
        {
            return Err(Reason::BadExtent);
        }
        let at = self.live().partition_point(|e| e.pfn < extent.pfn);
        let next = self.live().get(at);
        let before = at.checked_sub(1).and_then(|i| self.live().get(i));
        if next.is_some_and(|e| u64::from(e.pfn) < extent.end())
            || before.is_some_and(|e| e.end() > u64::from(extent.pfn))
        {
            return Err(Reason::BadExtent);
        }
        // Shifts the tail of the table by one; the entry behind it must exist.
        let tail = self.len.wrapping_add(1);
        let Some(room) = self.entries.get_mut(at..tail) else {
            return Err(Reason::NoFrames);
        };
        room.rotate_right(1);
        if let Some(place) = room.first_mut() {
            *place = extent;
        }
        // INVARIANT: sorted by `partition_point`, checked above.
        self.len = tail;
        Ok(())
    }

    /// Removes all ranges of extent `id`; returns the number of their frames,
    /// or `None` if there are none.
    pub fn remove(&mut self, id: u32) -> Option<u64> {
        let mut kept = 0usize;
        let mut frames = 0u64;
        for i in 0..self.len {
            let Some(entry) = self.entries.get(i).copied() else {
                break;
            };
            if entry.id == id {
                frames = frames.wrapping_add(u64::from(entry.frames));
            } else if let Some(place) = self.entries.get_mut(kept) {
                *place = entry;
                kept = kept.wrapping_add(1);
            }
        }
        if kept == self.len {
            return None;
        }
        // INVARIANT: a part of a sorted list is sorted.
        self.len = kept;
        self.version = self.version.wrapping_add(1);
        Some(frames)
    }

    /// True if all of `frames` frames from `pfn` on are accepted; neighbouring
    /// extents count as one.
    pub fn contains(&self, pfn: u32, frames: u32) -> bool {
        let end = u64::from(pfn).wrapping_add(u64::from(frames));
        let from = self.live().partition_point(|e| e.end() <= u64::from(pfn));
        let mut at = u64::from(pfn);
        for extent in self.live().iter().skip(from) {
            if at >= end || u64::from(extent.pfn) > at {
                break;
            }
            at = extent.end();
        }
        frames != 0 && at >= end
    }
}
