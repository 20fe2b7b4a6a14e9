// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a connection has granted: which frames lie at which place, and which calls
//! wait for their release.

use super::Places;

/// A run of frames that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First frame, in the group.
    pub pfn: u32,
    /// Number of frames.
    pub frames: u32,
}

/// Storage for what lies at one place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry(Option<(Run, u32)>);

/// Storage for one call, or several that are told as one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    first: u32,
    last: u32,
    /// Grants that are not released, and one while the call runs.
    waits: u32,
    copied: bool,
}

/// Calls whose frames are the caller's again (`SO_EE_ORIGIN_ZEROCOPY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The first call.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// All their bytes were copied.
    pub copied: bool,
}

/// The grants of a connection that are not released, and the calls that made them.
///
/// `E` and `C` are the caller's storage: an [`Entry`] for each place, and as many
/// [`Call`]s as may be unfinished or untold at a time.
///
/// # Invariants
///
/// The first `len` calls are in use, in the order of their numbers, which neither
/// overlap nor leave a gap but for those that were told.
#[derive(Debug)]
pub struct Ledger<E, C> {
    entries: E,
    calls: C,
    len: usize,
    reserved: usize,
    next: u32,
    bytes: u64,
}

impl<E, C> Ledger<E, C>
where
    E: AsRef<[Entry]> + AsMut<[Entry]>,
    C: AsRef<[Call]> + AsMut<[Call]>,
{
    /// Nothing is granted.
    pub fn new(entries: E, calls: C) -> Self {
        Self {
            entries,
            calls,
            len: 0,
            reserved: 0,
            next: 0,
            bytes: 0,
        }
    }

    /// Room for a call that may begin; false at the limit.
    pub fn reserve(&mut self) -> bool {
        let room = self.len.saturating_add(self.reserved) < self.calls.as_ref().len();
        if room {
            self.reserved = self.reserved.saturating_add(1);
        }
        room
    }

    /// Gives the room of a call that did not begin back.
    pub fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// A call begins, in the room that was reserved for it: its number.
    pub fn begin(&mut self) -> u32 {
        let number = self.next;
        if let Some(place) = self.calls.as_mut().get_mut(self.len) {
            *place = Call {
                first: number,
                last: number,
                waits: 1,
                copied: true,
            };
            self.len = self.len.saturating_add(1);
        }
        self.unreserve();
        self.next = number.wrapping_add(1);
        number
    }

    fn find(&self, number: u32) -> Option<usize> {
        let calls = self.calls.as_ref().get(..self.len)?;
        calls
            .iter()
            .position(|c| number.wrapping_sub(c.first) <= c.last.wrapping_sub(c.first))
    }

    /// Call `number` granted `run`, whose record is at `place`. False, and nothing
    /// noted, if there is a grant already or the call has ended.
    pub fn put(&mut self, place: u8, run: Run, number: u32) -> bool {
        let Some(at) = self.find(number) else {
            return false;
        };
        let entry = self.entries.as_mut().get_mut(usize::from(place));
        let Some(entry) = entry.filter(|e| e.0.is_none()) else {
            return false;
        };
        let Some(call) = self.calls.as_mut().get_mut(at).filter(|c| c.waits != 0) else {
            return false;
        };
        *entry = Entry(Some((run, number)));
        call.waits = call.waits.saturating_add(1);
        call.copied = false;
        self.bytes = self.bytes.saturating_add(run.bytes());
        true
    }

    /// The grant at `place` was released: its frames.
    pub fn take(&mut self, place: u8) -> Option<Run> {
        let entry = self.entries.as_mut().get_mut(usize::from(place))?;
        let (run, number) = entry.0.take()?;
        self.bytes = self.bytes.saturating_sub(run.bytes());
        self.step(number);
        Some(run)
    }

    /// The places of all grants.
    pub fn places(&self) -> Places {
        let mut places = Places::default();
        for (place, entry) in (0..=u8::MAX).zip(self.entries.as_ref()) {
            if entry.0.is_some() {
                places.flip(place);
            }
        }
        places
    }

    /// Bytes in all grants.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Call `number` grants no more.
    pub fn end(&mut self, number: u32) {
        self.step(number);
    }

    /// One thing less that call `number` waits for.
    fn step(&mut self, number: u32) {
        let Some(at) = self.find(number) else {
            return;
        };
        let Some(call) = self.calls.as_mut().get_mut(at) else {
            return;
        };
        call.waits = call.waits.saturating_sub(1);
        if call.waits == 0 {
            self.merge(at);
            if let Some(before) = at.checked_sub(1) {
                self.merge(before);
            }
        }
    }

    /// Makes one of the call at `at` and the next one, if both can be told as one.
    fn merge(&mut self, at: usize) {
        let next = at.saturating_add(1);
        let Some([a, b]) = self
            .calls
            .as_mut()
            .get_mut(..self.len)
            .and_then(|calls| calls.get_mut(at..=next))
        else {
            return;
        };
        let done = a.waits == 0 && b.waits == 0;
        if done && a.copied == b.copied && a.last.wrapping_add(1) == b.first {
            a.last = b.last;
            self.remove(next);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(rest) = self.calls.as_mut().get_mut(at..self.len) {
            rest.rotate_left(1);
            self.len = self.len.saturating_sub(1);
        }
    }

    /// Whether there is something to tell.
    pub fn has_notice(&self) -> bool {
        let calls = self.calls.as_ref().get(..self.len).unwrap_or(&[]);
        calls.iter().any(|c| c.waits == 0)
    }

    /// The first calls that have ended and whose grants are released; told once.
    pub fn notice(&mut self) -> Option<Notice> {
        let calls = self.calls.as_ref().get(..self.len)?;
        let at = calls.iter().position(|c| c.waits == 0)?;
        let call = calls.get(at)?;
        let notice = Notice {
            first: call.first,
            last: call.last,
            copied: call.copied,
        };
        self.remove(at);
        Some(notice)
    }
}

impl Run {
    /// Bytes in all frames.
    pub fn bytes(&self) -> u64 {
        u64::from(self.frames) << crate::proto::wire::FRAME_SHIFT
    }
}
