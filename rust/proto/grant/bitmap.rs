// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Runs of bits in a map of 64-bit words.

use core::ops::Range;

const BITS: usize = u64::BITS as usize;

/// The words that `run` touches, with its bits in each.
pub fn masks(run: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let words = run.start / BITS..run.end.div_ceil(BITS);
    words.filter_map(move |word| {
        let start = word.saturating_mul(BITS);
        let from = run.start.saturating_sub(start);
        let to = run.end.saturating_sub(start).min(BITS);
        // An empty run may touch a word.
        let unused = BITS.checked_sub(to.checked_sub(from).filter(|&bits| bits != 0)?)?;
        let shift = u32::try_from(from).ok()?;
        let mask = u64::MAX.checked_shr(u32::try_from(unused).ok()?)?;
        Some((word, mask.checked_shl(shift)?))
    })
}

/// True if all bits of `run` are set; false if one is outside.
pub fn all(map: &[u64], run: Range<usize>) -> bool {
    masks(run).all(|(n, mask)| map.get(n).is_some_and(|word| word & mask == mask))
}

/// True if no bit of `run` is set; false if one is outside.
pub fn none(map: &[u64], run: Range<usize>) -> bool {
    masks(run).all(|(n, mask)| map.get(n).is_some_and(|word| word & mask == 0))
}

/// Sets the bits of `run` that are not set, and clears the others.
pub fn flip(map: &mut [u64], run: Range<usize>) {
    for (n, mask) in masks(run) {
        if let Some(word) = map.get_mut(n) {
            *word ^= mask;
        }
    }
}

/// Clears the bits of `run`.
pub fn clear(map: &mut [u64], run: Range<usize>) {
    for (n, mask) in masks(run) {
        if let Some(word) = map.get_mut(n) {
            *word &= !mask;
        }
    }
}
