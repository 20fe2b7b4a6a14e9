// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Sets of places for the records of grants.

use crate::proto::wire::GRANTS;

const WORDS: usize = GRANTS as usize / 32;

/// A set of places of a direction's records; a place is a `u8`, as there are
/// [`GRANTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places([u32; WORDS]);

const _: () = assert!(GRANTS == u8::MAX as u32 + 1);

impl Places {
    const fn at(place: u8) -> (usize, u32) {
        ((place / 32) as usize, 1 << (place % 32))
    }

    /// Whether `place` is in the set.
    pub fn has(&self, place: u8) -> bool {
        let (word, bit) = Self::at(place);
        self.word(word) & bit != 0
    }

    /// Adds `place`, or takes it out.
    pub fn flip(&mut self, place: u8) {
        let (word, bit) = Self::at(place);
        if let Some(w) = self.0.get_mut(word) {
            *w ^= bit;
        }
    }

    /// Whether there is no place in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&w| w == 0)
    }

    /// Word `n` of the set, which is stored as 8 words.
    pub fn word(&self, n: usize) -> u32 {
        self.0.get(n).copied().unwrap_or(0)
    }

    /// The set whose words `f` gives, each asked for once.
    pub fn from_words(f: impl FnMut(usize) -> u32) -> Self {
        Self(core::array::from_fn(f))
    }

    /// The places that are in one of both.
    pub fn differ(&self, other: &Self) -> Self {
        Self::from_words(|n| self.word(n) ^ other.word(n))
    }

    /// The places that are in either, or in both.
    pub fn either(&self, other: &Self) -> Self {
        Self::from_words(|n| self.word(n) | other.word(n))
    }

    /// The places that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self::from_words(|n| self.word(n) & !other.word(n))
    }

    /// The places in the set.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&place| self.has(place))
    }
}
