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

use super::pool::{FramePool, State, Unit};
use crate::proto::wire::EXTENT_FRAMES;

impl Unit {
    fn bit(&self, frame: u32) -> Option<(usize, u64)> {
        let word = usize::try_from(frame / 64).ok()?;
        (word < self.used.len()).then(|| (word, 1 << (frame % 64)))
    }

    fn get(map: &[u64], at: (usize, u64)) -> bool {
        map.get(at.0).is_some_and(|w| w & at.1 != 0)
    }

    fn flip(map: &mut [u64], at: (usize, u64)) {
        if let Some(word) = map.get_mut(at.0) {
            *word ^= at.1;
        }
    }

    fn grants_of(&mut self, frame: u32) -> Option<&mut u16> {
        self.grants.get_mut(usize::try_from(frame).ok()?)
    }

    /// True if one of `frames` frames from `at` on is mapped or granted.
    pub(super) fn is_alive(&self, at: u32, frames: u32) -> bool {
        let end = at.saturating_add(frames);
        (at..end).any(|frame| {
            let granted = usize::try_from(frame)
                .ok()
                .and_then(|n| self.grants.get(n))
                .is_some_and(|&n| n != 0);
            let mapped = self.bit(frame).is_some_and(|b| Self::get(&self.mapped, b));
            granted || mapped
        })
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

    fn free_one(&mut self, bit: (usize, u64)) {
        Self::flip(&mut self.used, bit);
        if self.state == State::Orphan && self.used.iter().all(|&w| w == 0) {
            *self = Self::default();
        }
    }
}

impl<U: AsRef<[Unit]> + AsMut<[Unit]>> FramePool<U> {
    fn place(&self, pfn: u32) -> Option<(usize, u32)> {
        let at = pfn.checked_sub(self.first)?;
        let unit = usize::try_from(at / EXTENT_FRAMES).ok()?;
        Some((unit, at % EXTENT_FRAMES))
    }

    /// Runs `f` on each of `frames` frames from `pfn` on: its unit, its number there
    /// and its bit. False, at the first for which `f` says so.
    fn each(
        &mut self,
        pfn: u32,
        frames: u32,
        f: impl Fn(&mut Unit, u32, (usize, u64)) -> bool,
    ) -> bool {
        let end = pfn.saturating_add(frames);
        (pfn..end).all(|pfn| {
            let Some((unit, frame)) = self.place(pfn) else {
                return false;
            };
            let Some(unit) = self.units.as_mut().get_mut(unit) else {
                return false;
            };
            match unit.bit(frame) {
                Some(bit) => f(unit, frame, bit),
                None => false,
            }
        })
    }

    /// A program maps frames in use that nobody has mapped or granted. False, and
    /// nothing done, if they are not such.
    pub fn map(&mut self, pfn: u32, frames: u32) -> bool {
        let fit = self.each(pfn, frames, |unit, frame, bit| {
            Unit::get(&unit.used, bit) && !unit.is_alive(frame, 1)
        });
        fit && self.each(pfn, frames, |unit, _, bit| {
            Unit::flip(&mut unit.mapped, bit);
            true
        })
    }

    /// Mapped frames are granted to the peer that they are lent to. False, and
    /// nothing done, if they are not mapped, or `peer` is not that peer.
    pub fn grant(&mut self, peer: u32, pfn: u32, frames: u32) -> bool {
        let fit = self.each(pfn, frames, |unit, frame, bit| {
            let lent = unit.peer == peer && unit.state == State::Accepted;
            let room = unit.grants_of(frame).is_some_and(|n| *n != u16::MAX);
            lent && room && Unit::get(&unit.mapped, bit)
        });
        fit && self.each(pfn, frames, |unit, frame, _| {
            unit.grants_of(frame)
                .map(|n| *n = n.saturating_add(1))
                .is_some()
        })
    }

    /// The peer released a grant, or it is void. False, and nothing done, if the
    /// frames are not granted.
    pub fn release(&mut self, pfn: u32, frames: u32) -> bool {
        let fit = self.each(pfn, frames, |unit, frame, _| {
            unit.grants_of(frame).is_some_and(|n| *n != 0)
        });
        fit && self.each(pfn, frames, |unit, frame, bit| {
            let Some(n) = unit.grants_of(frame) else {
                return false;
            };
            *n = n.saturating_sub(1);
            if *n == 0 && !Unit::get(&unit.mapped, bit) {
                unit.free_one(bit);
            }
            true
        })
    }

    /// The program does not map the frames any more. False, and nothing done, if it
    /// did not.
    pub fn unmap(&mut self, pfn: u32, frames: u32) -> bool {
        let fit = self.each(pfn, frames, |unit, _, bit| Unit::get(&unit.mapped, bit));
        fit && self.each(pfn, frames, |unit, frame, bit| {
            Unit::flip(&mut unit.mapped, bit);
            if unit.grants_of(frame).is_some_and(|n| *n == 0) {
                unit.free_one(bit);
            }
            true
        })
    }

    /// True if a peer may read the frame because it was granted: nobody may write to
    /// it.
    pub fn is_granted(&self, pfn: u32) -> bool {
        let grants = self.place(pfn).and_then(|(unit, frame)| {
            let unit = self.units.as_ref().get(unit)?;
            unit.grants.get(usize::try_from(frame).ok()?)
        });
        grants.is_some_and(|&n| n != 0)
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
