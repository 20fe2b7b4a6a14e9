// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The life of a frame that programs write and peers read (Z-10).
//!
//! A frame in use is the protocol's (a ring's, say) until a program *maps* it.
//! Mapped frames can be *granted*, more than once. A grant ends by *release*; a
//! mapping ends, by itself or because the program writes to a granted frame and
//! gets another one, and a frame that nobody maps and no grant holds is free. What
//! was granted and is not mapped any more is held by its grants alone: it was split
//! off by a write, or given away.
//!
//! When a peer is gone, grants to it are void; what is mapped stays the program's.

use core::ops::Range;

use super::bitmap;
use super::pool::{FramePool, State, Unit};
use crate::proto::wire::EXTENT_FRAMES;

/// A run of frames inside one unit: which one, and the frames there.
#[derive(Clone, Copy)]
struct Part {
    unit: usize,
    first: usize,
    end: usize,
}

const UNIT: usize = EXTENT_FRAMES as usize;

impl Part {
    fn frames(self) -> Range<usize> {
        self.first..self.end
    }
}

impl Unit {
    fn grants_of(&self, part: Part) -> &[u16] {
        self.grants.get(part.frames()).unwrap_or(&[])
    }

    fn grants_of_mut(&mut self, part: Part) -> &mut [u16] {
        self.grants.get_mut(part.frames()).unwrap_or(&mut [])
    }

    /// True if one of the frames `run` is mapped or granted.
    pub(super) fn is_alive(&self, run: Range<usize>) -> bool {
        let granted = self.grants.get(run.clone()).unwrap_or(&[]);
        !bitmap::none(&self.mapped, run) || granted.iter().any(|&n| n != 0)
    }

    /// The peer is gone: what is mapped stays, nothing is granted.
    pub(super) fn orphan(&mut self) {
        if self.mapped.iter().all(|&w| w == 0) {
            *self = Self::default();
            return;
        }
        self.used = self.mapped;
        self.grants.fill(0);
        self.peer = u32::MAX;
        self.state = State::Orphan;
    }

    /// Frees those frames of `part` that are neither mapped nor granted.
    fn free_idle(&mut self, part: Part) {
        for (n, mask) in bitmap::masks(part.frames()) {
            let first = n.saturating_mul(64);
            let grants = self.grants.get(first..first.saturating_add(64));
            let granted = (0u32..)
                .zip(grants.unwrap_or(&[]))
                .fold(0, |word, (bit, &n)| {
                    word | u64::from(n != 0).wrapping_shl(bit)
                });
            let mapped = self.mapped.get(n).copied().unwrap_or(u64::MAX);
            if let Some(used) = self.used.get_mut(n) {
                *used &= !(mask & !mapped & !granted);
            }
        }
        if self.state == State::Orphan && self.used.iter().all(|&w| w == 0) {
            *self = Self::default();
        }
    }
}

impl<U: AsRef<[Unit]> + AsMut<[Unit]>> FramePool<U> {
    /// The parts of `frames` frames from `pfn` on; `None` if some are outside.
    fn parts(&self, pfn: u32, frames: u32) -> Option<impl Iterator<Item = Part>> {
        let first = usize::try_from(pfn.checked_sub(self.first)?).ok()?;
        let end = first.checked_add(usize::try_from(frames).ok()?)?;
        if end > self.units.as_ref().len().saturating_mul(UNIT) {
            return None;
        }
        let units = first / UNIT..end.div_ceil(UNIT);
        Some(units.map(move |unit| {
            let start = unit.saturating_mul(UNIT);
            Part {
                unit,
                first: first.saturating_sub(start),
                end: end.saturating_sub(start).min(UNIT),
            }
        }))
    }

    /// Changes all parts of a run if `fits` says so of each; false, and nothing done,
    /// if not.
    fn change_run(
        &mut self,
        pfn: u32,
        frames: u32,
        fits: impl Fn(&Unit, Part) -> bool,
        change: impl Fn(&mut Unit, Part),
    ) -> bool {
        let (Some(mut seen), Some(parts)) = (self.parts(pfn, frames), self.parts(pfn, frames))
        else {
            return false;
        };
        let units = self.units.as_ref();
        if !seen.all(|part| units.get(part.unit).is_some_and(|unit| fits(unit, part))) {
            return false;
        }
        for part in parts {
            if let Some(unit) = self.units.as_mut().get_mut(part.unit) {
                change(unit, part);
            }
        }
        true
    }

    /// A program maps frames in use that nobody has mapped or granted. False, and
    /// nothing done, if they are not such.
    pub fn map(&mut self, pfn: u32, frames: u32) -> bool {
        self.change_run(
            pfn,
            frames,
            |unit, part| bitmap::all(&unit.used, part.frames()) && !unit.is_alive(part.frames()),
            |unit, part| bitmap::flip(&mut unit.mapped, part.frames()),
        )
    }

    /// Mapped frames are granted to the peer that they are lent to. False, and
    /// nothing done, if they are not mapped, or `peer` is not that peer.
    pub fn grant(&mut self, peer: u32, pfn: u32, frames: u32) -> bool {
        self.change_run(
            pfn,
            frames,
            |unit, part| {
                let lent = unit.peer == peer && unit.state == State::Accepted;
                let room = unit.grants_of(part).iter().all(|&n| n != u16::MAX);
                lent && room && bitmap::all(&unit.mapped, part.frames())
            },
            |unit, part| {
                for n in unit.grants_of_mut(part) {
                    *n = n.saturating_add(1);
                }
            },
        )
    }

    /// The peer released a grant, or it is void. False, and nothing done, if the
    /// frames are not granted.
    pub fn release(&mut self, pfn: u32, frames: u32) -> bool {
        self.change_run(
            pfn,
            frames,
            |unit, part| unit.grants_of(part).iter().all(|&n| n != 0),
            |unit, part| {
                for n in unit.grants_of_mut(part) {
                    *n = n.saturating_sub(1);
                }
                unit.free_idle(part);
            },
        )
    }

    /// The program does not map the frames any more. False, and nothing done, if it
    /// did not.
    pub fn unmap(&mut self, pfn: u32, frames: u32) -> bool {
        self.change_run(
            pfn,
            frames,
            |unit, part| bitmap::all(&unit.mapped, part.frames()),
            |unit, part| {
                bitmap::flip(&mut unit.mapped, part.frames());
                unit.free_idle(part);
            },
        )
    }

    /// How many of `frames` frames from `pfn` on come before the first that was
    /// granted: nobody may write to that one.
    pub fn not_granted(&self, pfn: u32, frames: u32) -> u32 {
        let mut count = 0u32;
        for part in self.parts(pfn, frames).into_iter().flatten() {
            let unit = self.units.as_ref().get(part.unit);
            for &grants in unit.map_or(&[][..], |unit| unit.grants_of(part)) {
                if grants != 0 {
                    return count;
                }
                count = count.saturating_add(1);
            }
        }
        count
    }

    /// True if a peer may read the frame because it was granted.
    pub fn is_granted(&self, pfn: u32) -> bool {
        self.parts(pfn, 1).is_some() && self.not_granted(pfn, 1) == 0
    }

    /// Frames lent to `peer` that programs map.
    pub fn mapped(&self, peer: u32) -> u64 {
        let of_peer = |u: &&Unit| u.state != State::Free && u.peer == peer;
        let units = self.units.as_ref().iter().filter(of_peer);
        units
            .flat_map(|u| &u.mapped)
            .map(|w| u64::from(w.count_ones()))
            .sum()
    }

    /// Frames that can be lent to one peer at most.
    pub fn limit(&self) -> u64 {
        let units = u32::try_from(self.units.as_ref().len()).unwrap_or(u32::MAX);
        u64::from(units.min(self.quota)).wrapping_mul(u64::from(EXTENT_FRAMES))
    }
}
