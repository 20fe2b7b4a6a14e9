// SPDX-License-Identifier: GPL-2.0

//! Numbers that nobody can guess.

use super::ffi;

/// 64 random bits. Any context.
pub(crate) fn random() -> u64 {
    // SAFETY: No requirement.
    unsafe { ffi::get_random_u64() }
}
