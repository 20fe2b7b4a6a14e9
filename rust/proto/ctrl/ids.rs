// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Connection ids.

use crate::proto::wire::{CONN_INDEX_MASK, MAX_CONNS};

const NONE: u32 = u32::MAX;

/// Private bookkeeping for one index; the caller provides one per entry of the
/// connection table.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdSlot {
    serial: u16,
    used: bool,
    next: u32,
}

/// Allocator of connection ids (S-1): index and serial. Free indices are
/// reused in the order in which they were freed, so that a serial comes back as
/// late as possible.
///
/// # Invariants
///
/// The indices that are not used form a list from `first` to `last`.
#[derive(Debug)]
pub struct Ids<B> {
    slots: B,
    first: u32,
    last: u32,
    used: u32,
}

impl<B: AsRef<[IdSlot]> + AsMut<[IdSlot]>> Ids<B> {
    /// All ids of the table that `slots` stands for are free. Entries beyond
    /// [`MAX_CONNS`] are not used.
    pub fn new(mut slots: B) -> Self {
        let table = slots.as_mut();
        let count = u32::try_from(table.len()).unwrap_or(NONE).min(MAX_CONNS);
        for (n, slot) in (0..count).zip(table) {
            let next = n.wrapping_add(1);
            *slot = IdSlot {
                serial: 0,
                used: false,
                next: if next < count { next } else { NONE },
            };
        }
        let (first, last) = match count.checked_sub(1) {
            Some(last) => (0, last),
            None => (NONE, NONE),
        };
        Self {
            slots,
            first,
            last,
            used: 0,
        }
    }

    fn slot(&self, index: u32) -> Option<&IdSlot> {
        self.slots.as_ref().get(usize::try_from(index).ok()?)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut IdSlot> {
        self.slots.as_mut().get_mut(usize::try_from(index).ok()?)
    }

    /// Ids in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// A free id, never 0; `None` if all are in use.
    pub fn alloc(&mut self) -> Option<u32> {
        let index = self.first;
        let slot = self.slot_mut(index)?;
        // Serial 0 is left out, so that no id is 0.
        slot.serial = slot.serial.checked_add(1).unwrap_or(1);
        slot.used = true;
        let id = index | (u32::from(slot.serial) << 16);
        let next = slot.next;
        self.first = next;
        if next == NONE {
            self.last = NONE;
        }
        self.used = self.used.wrapping_add(1);
        Some(id)
    }

    /// True if `id`, index and serial, is in use.
    pub fn contains(&self, id: u32) -> bool {
        self.slot(id & CONN_INDEX_MASK)
            .is_some_and(|s| s.used && u32::from(s.serial) == id >> 16)
    }

    /// Frees `id`; false if it is not in use.
    pub fn free(&mut self, id: u32) -> bool {
        if !self.contains(id) {
            return false;
        }
        let index = id & CONN_INDEX_MASK;
        if let Some(slot) = self.slot_mut(index) {
            slot.used = false;
            slot.next = NONE;
        }
        match self.last {
            NONE => self.first = index,
            last => {
                if let Some(slot) = self.slot_mut(last) {
                    slot.next = index;
                }
            }
        }
        self.last = index;
        self.used = self.used.wrapping_sub(1);
        true
    }
}
