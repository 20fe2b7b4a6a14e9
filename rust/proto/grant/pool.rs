// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The frames of the own slot: which are lent to whom, and which are in use.

use super::Extent;
use crate::proto::wire::{
    CONN_OFFSET, CONN_SIZE, EXTENT_FRAMES, EXTENT_SIZE, FRAME_SHIFT, MAX_SLOTS, RING_MAX_FRAMES,
};

const WORDS: usize = EXTENT_FRAMES as usize / 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody's.
    #[default]
    Free,
    /// Offered to a peer, which has not answered.
    Offered,
    /// The peer accepted: runs can be allocated.
    Accepted,
    /// Taken back; the peer has not given it up yet.
    Revoked,
    /// The peer is gone; programs map frames of it.
    Orphan,
}

/// Private bookkeeping for [`EXTENT_FRAMES`] frames of the own slot. The caller
/// provides one per 2 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub(super) used: [u64; WORDS],
    /// Those of them that programs map.
    pub(super) mapped: [u64; WORDS],
    /// How many grants each of them is in.
    pub(super) grants: [u16; EXTENT_FRAMES as usize],
    pub(super) state: State,
    pub(super) peer: u32,
    id: u32,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            used: [0; WORDS],
            mapped: [0; WORDS],
            grants: [0; EXTENT_FRAMES as usize],
            state: State::Free,
            peer: 0,
            id: 0,
        }
    }
}

impl Unit {
    fn is_idle(&self) -> bool {
        self.used.iter().all(|&w| w == 0)
    }

    fn is(&self, peer: u32, state: State) -> bool {
        self.state == state && self.peer == peer
    }

    /// First frame of a free run of `frames` (a power of two) that starts at a
    /// multiple of its length.
    fn find(&self, frames: u32) -> Option<u32> {
        let (mask, step) = run_mask(frames)?;
        if frames > 64 {
            let words = usize::try_from(frames / 64).ok()?;
            let mut runs = self.used.chunks_exact(words);
            let at = runs.position(|run| run.iter().all(|&w| w == 0))?;
            return u32::try_from(at).ok()?.checked_mul(frames);
        }
        for (n, &word) in (0u32..).zip(&self.used) {
            let mut shift = 0;
            while shift < 64 {
                if word & mask.wrapping_shl(shift) == 0 {
                    return Some(n.wrapping_mul(64).wrapping_add(shift));
                }
                shift = shift.wrapping_add(step);
            }
        }
        None
    }

    /// Marks the run of `frames` from frame `at` on as used or free. False, and
    /// nothing marked, if it is no possible run or not wholly in the other state.
    fn mark(&mut self, at: u32, frames: u32, used: bool) -> bool {
        let Some((mask, _)) = run_mask(frames) else {
            return false;
        };
        // `frames` is a power of two.
        if at & frames.wrapping_sub(1) != 0 {
            return false;
        }
        let mask = mask.wrapping_shl(at % 64);
        let words = frames.div_ceil(64) as usize;
        let first = (at / 64) as usize;
        let Some(run) = self.used.get_mut(first..first.saturating_add(words)) else {
            return false;
        };
        let wanted = if used { 0 } else { mask };
        if run.iter().any(|&w| w & mask != wanted) {
            return false;
        }
        for word in run {
            *word ^= mask;
        }
        true
    }
}

/// The bits of a run in one word, and the distance of possible starts.
fn run_mask(frames: u32) -> Option<(u64, u32)> {
    if !frames.is_power_of_two() || frames > EXTENT_FRAMES {
        return None;
    }
    match frames {
        64.. => Some((u64::MAX, 64)),
        _ => Some((1u64.wrapping_shl(frames).wrapping_sub(1), frames)),
    }
}

/// Why there is no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRun {
    /// The peer needs another extent of this many units: [`FramePool::offer`].
    NeedExtent(u32),
    /// An extent is offered; try again when the peer has accepted it.
    Wait,
    /// Slot or quota is exhausted: wait until something is freed, or use less.
    Exhausted,
    /// Not a power of two up to [`RING_MAX_FRAMES`].
    Size,
}

/// Allocator of frame runs in the own slot (G-5).
///
/// A unit of 2 MiB belongs to one peer at a time. Runs are powers of two, at
/// multiples of their length inside a unit; the longest takes two neighbouring
/// units. `U` is the caller's storage of [`FramePool::units`] entries.
///
/// # Invariants
///
/// A frame is marked used only in a unit that is accepted, revoked or an orphan's;
/// a mapped frame is in use, and so is one in a grant.
#[derive(Debug)]
pub struct FramePool<U> {
    pub(super) units: U,
    pub(super) first: u32,
    pub(super) quota: u32,
    next_id: u32,
}

/// Units that a run of `frames` takes, if it can be allocated at all.
fn units_for(frames: u32) -> Option<u32> {
    let good = frames.is_power_of_two() && frames <= RING_MAX_FRAMES;
    good.then_some(frames.div_ceil(EXTENT_FRAMES))
}

impl<U: AsRef<[Unit]> + AsMut<[Unit]>> FramePool<U> {
    /// First frame that can be lent, and number of units, of a slot at
    /// `slot_base` of `slot_size` bytes with `conns` connection entries.
    pub fn units(slot_base: u64, slot_size: u64, conns: u32) -> (u32, usize) {
        let table = CONN_OFFSET.saturating_add(u64::from(conns).saturating_mul(CONN_SIZE));
        let first = slot_base.saturating_add(table).div_ceil(EXTENT_SIZE);
        let end = slot_base.saturating_add(slot_size) / EXTENT_SIZE;
        let frames_per_unit = EXTENT_SIZE >> FRAME_SHIFT;
        let pfn = u32::try_from(first.saturating_mul(frames_per_unit)).unwrap_or(u32::MAX);
        let units = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        (pfn, units)
    }

    /// A pool of all units from frame `first` on, each peer limited to `quota`
    /// frames.
    pub fn new(mut units: U, first: u32, quota: u64) -> Self {
        units.as_mut().fill(Unit::default());
        let quota = quota / u64::from(EXTENT_FRAMES);
        Self {
            units,
            first,
            quota: u32::try_from(quota).unwrap_or(u32::MAX),
            next_id: 1,
        }
    }

    fn pfn_of(&self, unit: usize) -> u32 {
        let n = u32::try_from(unit).unwrap_or(u32::MAX);
        self.first.wrapping_add(n.wrapping_mul(EXTENT_FRAMES))
    }

    fn lent_units(&self, peer: u32) -> u32 {
        let lent = |u: &&Unit| u.state != State::Free && u.peer == peer;
        let count = self.units.as_ref().iter().filter(lent).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Frames that are lent to `peer`, in use or not.
    pub fn lent(&self, peer: u32) -> u64 {
        u64::from(self.lent_units(peer)).wrapping_mul(u64::from(EXTENT_FRAMES))
    }

    /// Frames of `peer`'s extents that are in use.
    pub fn in_use(&self, peer: u32) -> u64 {
        let of_peer = |u: &&Unit| u.state != State::Free && u.peer == peer;
        let units = self.units.as_ref().iter().filter(of_peer);
        units
            .flat_map(|u| &u.used)
            .map(|w| u64::from(w.count_ones()))
            .sum()
    }

    /// Allocates a run of `frames` frames that `peer` can read; its first PFN.
    ///
    /// # Errors
    ///
    /// See [`NoRun`].
    pub fn alloc(&mut self, peer: u32, frames: u32) -> Result<u32, NoRun> {
        let need = units_for(frames).ok_or(NoRun::Size)?;
        let found = if need == 1 {
            self.alloc_in_unit(peer, frames)
        } else {
            self.alloc_units(peer, need)
        };
        if let Some(pfn) = found {
            return Ok(pfn);
        }
        let mut units = self.units.as_ref().iter();
        if units.any(|u| u.is(peer, State::Offered)) {
            return Err(NoRun::Wait);
        }
        let room = self.quota.saturating_sub(self.lent_units(peer));
        if room >= need && self.find_free(need).is_some() {
            return Err(NoRun::NeedExtent(need));
        }
        Err(NoRun::Exhausted)
    }

    fn alloc_in_unit(&mut self, peer: u32, frames: u32) -> Option<u32> {
        let first = self.first;
        for (n, unit) in (0u32..).zip(self.units.as_mut()) {
            if !unit.is(peer, State::Accepted) {
                continue;
            }
            if let Some(at) = unit.find(frames) {
                if unit.mark(at, frames, true) {
                    let base = first.wrapping_add(n.wrapping_mul(EXTENT_FRAMES));
                    return Some(base.wrapping_add(at));
                }
            }
        }
        None
    }

    fn alloc_units(&mut self, peer: u32, need: u32) -> Option<u32> {
        let need = usize::try_from(need).ok()?;
        let idle = |u: &Unit| u.is(peer, State::Accepted) && u.is_idle();
        let mut runs = self.units.as_ref().windows(need);
        let at = runs.position(|run| run.iter().all(idle))?;
        let run = self.units.as_mut().get_mut(at..at.checked_add(need)?)?;
        for unit in run {
            unit.mark(0, EXTENT_FRAMES, true);
        }
        Some(self.pfn_of(at))
    }

    /// Frees a run as it was allocated. False, and nothing freed, if there is no
    /// such run in use, or a frame of it is mapped or granted.
    pub fn free(&mut self, pfn: u32, frames: u32) -> bool {
        let Some(need) = units_for(frames) else {
            return false;
        };
        let Some(at) = pfn.checked_sub(self.first) else {
            return false;
        };
        let (unit, frame) = (at / EXTENT_FRAMES, at % EXTENT_FRAMES);
        let last = unit.saturating_add(need);
        let range = usize::try_from(unit).unwrap_or(usize::MAX)
            ..usize::try_from(last).unwrap_or(usize::MAX);
        let Some(run) = self.units.as_mut().get_mut(range) else {
            return false;
        };
        let last = frame.saturating_add(frames.min(EXTENT_FRAMES));
        let alive = run
            .iter()
            .any(|u| u.is_alive(frame as usize..last as usize));
        if need > 1 {
            let full = |u: &Unit| u.used.iter().all(|&w| w == u64::MAX);
            if frame != 0 || !run.iter().all(full) || alive {
                return false;
            }
            return run.iter_mut().all(|u| u.mark(0, EXTENT_FRAMES, false));
        }
        !alive && run.iter_mut().all(|u| u.mark(frame, frames, false))
    }

    fn find_free(&self, need: u32) -> Option<usize> {
        let need = usize::try_from(need).ok().filter(|&n| n != 0)?;
        let mut runs = self.units.as_ref().windows(need);
        runs.position(|run| run.iter().all(|u| u.state == State::Free))
    }

    /// Takes `units` neighbouring free units for `peer`: what to offer to it.
    /// `None` if slot or quota has not as many.
    pub fn offer(&mut self, peer: u32, units: u32) -> Option<Extent> {
        let room = self.quota.saturating_sub(self.lent_units(peer));
        if units > room || peer >= MAX_SLOTS {
            return None;
        }
        let at = self.find_free(units)?;
        let id = self.next_id;
        let count = usize::try_from(units).ok()?;
        let run = self.units.as_mut().get_mut(at..at.checked_add(count)?)?;
        for unit in run {
            *unit = Unit {
                state: State::Offered,
                peer,
                id,
                ..Unit::default()
            };
        }
        self.next_id = id.wrapping_add(1);
        Some(Extent {
            id,
            pfn: self.pfn_of(at),
            frames: units.saturating_mul(EXTENT_FRAMES),
        })
    }

    /// Changes all units of extent `id` of `peer` from one state to another;
    /// false if there are none.
    fn change(&mut self, peer: u32, id: u32, from: State, to: State) -> bool {
        let mut found = false;
        for unit in self.units.as_mut() {
            if unit.is(peer, from) && unit.id == id {
                unit.state = to;
                found = true;
            }
        }
        found
    }

    /// The peer accepted extent `id`. False if it is not on offer to it.
    pub fn accepted(&mut self, peer: u32, id: u32) -> bool {
        self.change(peer, id, State::Offered, State::Accepted)
    }

    /// The host refused the offer: the units are free again.
    pub fn refused(&mut self, peer: u32, id: u32) -> bool {
        self.change(peer, id, State::Offered, State::Free)
    }

    /// Takes an accepted extent without used frames back, if `peer` has one: its
    /// id, for the REVOKE call. It is reusable after [`FramePool::released`].
    pub fn revoke_idle(&mut self, peer: u32) -> Option<u32> {
        let units = self.units.as_ref();
        let busy = |id: u32| {
            let mut of_id = units.iter().filter(|u| u.peer == peer && u.id == id);
            of_id.any(|u| u.state != State::Accepted || !u.is_idle())
        };
        let accepted = units.iter().filter(|u| u.is(peer, State::Accepted));
        let id = accepted.map(|u| u.id).find(|&id| !busy(id))?;
        self.change(peer, id, State::Accepted, State::Revoked);
        Some(id)
    }

    /// The peer gave extent `id` up: after REVOKE, or because it does not want
    /// the offer. False, and nothing done, if there is none or frames of it are in
    /// use: then the peer broke a rule.
    pub fn released(&mut self, peer: u32, id: u32) -> bool {
        let of_id = |u: &Unit| u.state != State::Free && u.peer == peer && u.id == id;
        let units = self.units.as_mut();
        let mut found = false;
        for unit in units.iter().filter(|u| of_id(u)) {
            found = true;
            if !unit.is_idle() {
                return false;
            }
        }
        for unit in units.iter_mut().filter(|u| of_id(u)) {
            *unit = Unit::default();
        }
        found
    }

    /// The peer reads nothing any more (it closed its side of the channel, or is
    /// gone): all that was lent to it is free (G-6), but for what programs map, and no
    /// grant to it counts.
    pub fn reclaim(&mut self, peer: u32) {
        for unit in self.units.as_mut() {
            if unit.peer == peer {
                unit.orphan();
            }
        }
    }
}
