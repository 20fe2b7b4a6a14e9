// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Where bytes of a stream are.

/// A run of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte: in the own slot for a producer, in the group for a consumer.
    pub off: u64,
    /// Number of bytes, never 0 in [`Spans`].
    pub len: u32,
}

/// Up to four runs, in the order of the stream: a ring wraps once, and during a
/// ring move there are two rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    spans: [Span; 4],
    used: usize,
}

impl Spans {
    /// No bytes.
    pub const EMPTY: Self = Self {
        spans: [Span { off: 0, len: 0 }; 4],
        used: 0,
    };

    pub(super) fn push(&mut self, span: Span) {
        if span.len == 0 {
            return;
        }
        if let Some(place) = self.spans.get_mut(self.used) {
            *place = span;
            self.used = self.used.wrapping_add(1);
        }
    }

    /// The runs.
    pub fn as_slice(&self) -> &[Span] {
        self.spans.get(..self.used).unwrap_or(&[])
    }

    /// The runs, one after the other.
    pub fn iter(&self) -> core::slice::Iter<'_, Span> {
        self.as_slice().iter()
    }

    /// Number of bytes in all runs.
    pub fn bytes(&self) -> u32 {
        self.iter().fold(0, |sum, s| sum.wrapping_add(s.len))
    }
}

impl<'a> IntoIterator for &'a Spans {
    type Item = &'a Span;
    type IntoIter = core::slice::Iter<'a, Span>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
