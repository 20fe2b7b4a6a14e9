// SPDX-License-Identifier: GPL-2.0

//! Loads of atomics where each call counts.

use super::shm::acquire_barrier;
use kernel::sync::atomic::{Atomic, AtomicType};

/// As `word.load(Acquire)`, which calls into C each time.
#[inline(always)]
pub(crate) fn load_acquire<T: AtomicType>(word: &Atomic<T>) -> T {
    // SAFETY: The pointer is valid and aligned; a volatile read is READ_ONCE(), which is how the
    // kernel's own atomics are read.
    let value = unsafe { word.as_ptr().read_volatile() };
    acquire_barrier();
    value
}
