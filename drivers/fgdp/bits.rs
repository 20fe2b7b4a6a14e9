// SPDX-License-Identifier: GPL-2.0

//! A word of flags that any context sets and clears.

use crate::sys::atomic::load_acquire;
use kernel::sync::atomic::{ordering::*, Atomic};

/// Flags that say what is still to be done.
pub(crate) struct Bits(Atomic<u32>);

impl Bits {
    /// None is set.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Sets `bits`.
    pub(crate) fn set(&self, bits: u32) {
        self.change(|old| old | bits);
    }

    /// Clears `bits`.
    pub(crate) fn clear(&self, bits: u32) {
        self.change(|old| old & !bits);
    }

    /// All that were set; none is any more.
    pub(crate) fn take(&self) -> u32 {
        self.0.xchg(0, Full)
    }

    /// Sets bit `place`, or clears it.
    pub(crate) fn put(&self, place: u32, on: bool) {
        let bit = 1u32.checked_shl(place).unwrap_or(0);
        if on {
            self.set(bit);
        } else {
            self.clear(bit);
        }
    }

    /// The places of those that are set now.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> {
        let mut left = load_acquire(&self.0);
        core::iter::from_fn(move || {
            let place = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (place < u32::BITS).then_some(place)
        })
    }

    /// Whether one of `bits` is set.
    pub(crate) fn has(&self, bits: u32) -> bool {
        load_acquire(&self.0) & bits != 0
    }

    /// Whether any is set.
    pub(crate) fn any(&self) -> bool {
        self.has(u32::MAX)
    }

    fn change(&self, f: impl Fn(u32) -> u32) {
        let mut old = load_acquire(&self.0);
        while let Err(now) = self.0.cmpxchg(old, f(old), Full) {
            old = now;
        }
    }
}
