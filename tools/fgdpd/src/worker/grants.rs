// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The grant table of a group: which frames a member lent to whom.
//!
//! Frames are in at most one grant. They stay in it until the peer releases them, also when the owner wants them
//! back earlier; only the end of the channel or of a member takes them without asking.

use std::collections::BTreeMap;

use fgdp_proto::proto::wire::Status;
use serde::{Deserialize, Serialize};

use super::calls::Range;

/// Ranges that one member may have in all its grants.
const MAX_RANGES_PER_OWNER: usize = 4096;

/// Who lends to whom, under which id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Slot of the owner.
    pub owner: u32,
    /// Slot of the peer.
    pub peer: u32,
    /// Id chosen by the owner.
    pub extent: u32,
}

/// Frames lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which.
    pub ranges: Vec<Range>,
    /// The peer took them.
    pub accepted: bool,
    /// The owner wants them back.
    pub revoked: bool,
}

impl Grant {
    /// Number of frames.
    pub fn frames(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.frames)).sum()
    }
}

/// The part of a slot that may be offered: PFNs in the group.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The first.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// Frames that may be offered to one peer.
    pub quota: u64,
}

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    grants: BTreeMap<Key, Grant>,
    /// By owner: first PFN and length of all it lends.
    lent: BTreeMap<u32, BTreeMap<u32, u32>>,
}

impl Grants {
    /// Enters an offer.
    pub fn offer(&mut self, key: Key, ranges: &[Range], bounds: Bounds) -> Result<(), Status> {
        if self.grants.contains_key(&key) {
            return Err(Status::Overlap);
        }
        let lent = self.lent.entry(key.owner).or_default();
        if lent.len() + ranges.len() > MAX_RANGES_PER_OWNER {
            return Err(Status::Quota);
        }
        let mut next = lent.clone();
        let mut frames = 0u64;
        for range in ranges {
            let (first, len) = (u64::from(range.pfn), u64::from(range.frames));
            if len == 0 || first < bounds.first || first + len > bounds.end {
                return Err(Status::BadValue);
            }
            let before = next.range(..=range.pfn).next_back();
            let after = next.range(range.pfn..).next();
            let hits_before = before.is_some_and(|(p, l)| u64::from(*p) + u64::from(*l) > first);
            if hits_before || after.is_some_and(|(p, _)| u64::from(*p) < first + len) {
                return Err(Status::Overlap);
            }
            next.insert(range.pfn, range.frames);
            frames += len;
        }
        if self.offered(key.owner, key.peer) + frames > bounds.quota {
            return Err(Status::Quota);
        }
        self.lent.insert(key.owner, next);
        self.grants.insert(
            key,
            Grant {
                ranges: ranges.to_vec(),
                accepted: false,
                revoked: false,
            },
        );
        Ok(())
    }

    /// The grant.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Grant> {
        self.grants.get_mut(key)
    }

    /// Ends a grant.
    pub fn remove(&mut self, key: &Key) -> Option<Grant> {
        let grant = self.grants.remove(key)?;
        if let Some(lent) = self.lent.get_mut(&key.owner) {
            for range in &grant.ranges {
                lent.remove(&range.pfn);
            }
        }
        Some(grant)
    }

    /// Ends all grants for which `gone` is true.
    pub fn remove_all(&mut self, gone: impl Fn(&Key) -> bool) {
        let keys: Vec<Key> = self.grants.keys().filter(|k| gone(k)).copied().collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// All grants.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Grant)> {
        self.grants.iter()
    }

    /// Frames that `owner` lends to `peer`.
    pub fn offered(&self, owner: u32, peer: u32) -> u64 {
        let first = Key {
            owner,
            peer,
            extent: 0,
        };
        let last = Key {
            owner,
            peer,
            extent: u32::MAX,
        };
        self.grants
            .range(first..=last)
            .map(|(_, g)| g.frames())
            .sum()
    }

    /// Frames that `owner` lends to all.
    pub fn offered_by(&self, owner: u32) -> u64 {
        self.lent
            .get(&owner)
            .map_or(0, |lent| lent.values().map(|l| u64::from(*l)).sum())
    }

    /// Frames that `peer` took.
    pub fn accepted_by(&self, peer: u32) -> u64 {
        self.grants
            .iter()
            .filter(|(k, g)| k.peer == peer && g.accepted)
            .map(|(_, g)| g.frames())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        first: 1000,
        end: 5000,
        quota: 2000,
    };

    fn key(extent: u32) -> Key {
        Key {
            owner: 1,
            peer: 2,
            extent,
        }
    }

    fn run(pfn: u32, frames: u32) -> Range {
        Range { pfn, frames }
    }

    #[test]
    fn offers_are_inside_the_slot() {
        let mut grants = Grants::default();
        for bad in [
            run(999, 1),
            run(1000, 0),
            run(4999, 2),
            run(u32::MAX, u32::MAX),
            run(1000, u32::MAX),
        ] {
            assert_eq!(
                grants.offer(key(1), &[bad], BOUNDS),
                Err(Status::BadValue),
                "{bad:?}"
            );
        }
        assert_eq!(grants.offer(key(1), &[run(4999, 1)], BOUNDS), Ok(()));
        assert_eq!(grants, {
            let mut same = Grants::default();
            same.offer(key(1), &[run(4999, 1)], BOUNDS).unwrap();
            same
        });
    }

    #[test]
    fn frames_are_lent_once() {
        let mut grants = Grants::default();
        grants
            .offer(key(1), &[run(2000, 10), run(2010, 5)], BOUNDS)
            .unwrap();
        for bad in [run(1995, 6), run(2005, 1), run(2014, 9), run(1999, 100)] {
            assert_eq!(
                grants.offer(key(2), &[bad], BOUNDS),
                Err(Status::Overlap),
                "{bad:?}"
            );
        }
        // Overlap inside one offer, with nothing left behind.
        assert_eq!(
            grants.offer(key(2), &[run(3000, 4), run(3003, 1)], BOUNDS),
            Err(Status::Overlap)
        );
        grants
            .offer(key(2), &[run(3000, 4), run(2015, 1)], BOUNDS)
            .unwrap();
        grants.remove(&key(1)).unwrap();
        grants.offer(key(3), &[run(2000, 15)], BOUNDS).unwrap();
        assert_eq!(grants.offered_by(1), 20);
    }

    #[test]
    fn quota_counts_what_one_peer_holds() {
        let mut grants = Grants::default();
        grants.offer(key(1), &[run(1000, 1999)], BOUNDS).unwrap();
        assert_eq!(
            grants.offer(key(2), &[run(3000, 2)], BOUNDS),
            Err(Status::Quota)
        );
        grants
            .offer(Key { peer: 3, ..key(1) }, &[run(3000, 2000)], BOUNDS)
            .unwrap();
        grants.remove_all(|k| k.peer == 2);
        assert_eq!((grants.offered(1, 2), grants.offered(1, 3)), (0, 2000));
    }
}
