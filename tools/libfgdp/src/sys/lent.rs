// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the memory is that sockets lend to their peers.
//!
//! TCP that is carried no more takes `MSG_ZEROCOPY` of other memory as it always did: it sends what is there later, also what
//! was written since. So by TCP only lent memory is sent so, of which that is not true.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Address ranges, as start and end; none touches another's bytes.
#[derive(Default)]
pub(super) struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn add(&mut self, start: usize, len: usize) {
        self.0.insert(start, start.saturating_add(len));
    }

    pub(super) fn remove(&mut self, start: usize, len: usize) {
        let end = start.saturating_add(len);
        while let Some((&first, &last)) = self.0.range(..end).next_back() {
            if last <= start {
                break;
            }
            self.0.remove(&first);
            if last > end {
                self.0.insert(end, last);
            }
            if first < start {
                self.0.insert(first, start);
            }
        }
    }

    /// Whether all of the bytes are in one of the ranges.
    pub(super) fn have(&self, start: usize, len: usize) -> bool {
        let before = self.0.range(..=start).next_back();
        let end = start.checked_add(len);
        matches!((before, end), (Some((_, last)), Some(end)) if end <= *last)
    }
}

static LENT: RwLock<Ranges> = RwLock::new(Ranges::new());

// Nobody panics while they are changed.
fn read() -> RwLockReadGuard<'static, Ranges> {
    LENT.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Ranges> {
    LENT.write().unwrap_or_else(PoisonError::into_inner)
}

/// Memory was mapped.
pub(super) fn add(start: *const u8, len: usize) {
    write().add(start.addr(), len);
}

/// Memory is about to be unmapped: another mapping may be there next.
pub(super) fn remove(start: *const u8, len: usize) {
    write().remove(start.addr(), len);
}

/// Whether all of the bytes are lent.
pub(super) fn has(start: *const u8, len: usize) -> bool {
    read().have(start.addr(), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Ranges {
        let mut ranges = Ranges::default();
        ranges.add(100, 50);
        ranges.add(150, 50);
        ranges.add(300, 10);
        ranges
    }

    #[test]
    fn bytes_are_in_one_range_or_in_none() {
        let ranges = some();
        for (start, len, lent) in [
            (100, 50, true),
            (120, 30, true),
            (199, 1, true),
            (199, 0, true),
            (99, 2, false),
            (140, 20, false),
            (200, 1, false),
            (305, usize::MAX, false),
            (0, 1, false),
        ] {
            assert_eq!(ranges.have(start, len), lent, "{start}, {len}");
        }
    }

    #[test]
    fn what_is_left_of_a_range_stays() {
        let mut ranges = some();
        ranges.remove(110, 10);
        let left: Vec<_> = ranges.0.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(left, [(100, 110), (120, 150), (150, 200), (300, 310)]);
        ranges.remove(140, 165);
        let left: Vec<_> = ranges.0.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(left, [(100, 110), (120, 140), (305, 310)]);
        ranges.remove(0, usize::MAX);
        assert!(ranges.0.is_empty());
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let mut ranges = some();
        ranges.remove(200, 100);
        ranges.remove(310, 5);
        ranges.remove(0, 100);
        assert_eq!(ranges.0.len(), 3);
    }
}
