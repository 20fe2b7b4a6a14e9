// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two slots whose words loom watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use fgdp_proto::proto::mem::{Mem, MemMut, View};
use fgdp_proto::proto::wire::{slot_hdr, CONN_OFFSET, MIN_SLOT_SIZE, MSG_SIZE};
use loom::sync::atomic::{fence, AtomicU32, Ordering};

pub const SLOT: u64 = MIN_SLOT_SIZE;

/// The group: member 1 at 0, member 2 behind it. Only the words that a test
/// names exist for loom; others are constant.
pub struct Group {
    words: BTreeMap<u64, AtomicU32>,
    fences: bool,
    /// A word that neither acquires nor releases.
    loose: Option<u64>,
}

impl Group {
    /// `words` are offsets in the group, with their first values.
    pub fn new(words: &[(u64, u32)], fences: bool) -> Arc<Self> {
        Self::with(words, fences, None)
    }

    /// Nothing is ordered by the word at `off`.
    pub fn loose(words: &[(u64, u32)], off: u64) -> Arc<Self> {
        Self::with(words, true, Some(off))
    }

    fn with(words: &[(u64, u32)], fences: bool, loose: Option<u64>) -> Arc<Self> {
        let words = words.iter().map(|&(off, v)| (off, AtomicU32::new(v)));
        Arc::new(Group {
            words: words.collect(),
            fences,
            loose,
        })
    }

    /// `order`, where the word at `off` has one.
    fn order(&self, off: u64, order: Ordering) -> Ordering {
        if self.loose == Some(off) {
            Ordering::Relaxed
        } else {
            order
        }
    }

    fn get(&self, off: u64, order: Ordering) -> u32 {
        match self.words.get(&off) {
            Some(word) => word.load(self.order(off, order)),
            None => constant(off),
        }
    }
}

/// Words that loom does not watch: the size of the connection table, and lane
/// messages that all are DONE.
fn constant(off: u64) -> u32 {
    match off % SLOT {
        slot_hdr::CONNS => 8,
        at if at < CONN_OFFSET && at % MSG_SIZE == 0 => 5,
        _ => 0,
    }
}

impl Mem for Group {
    fn size(&self) -> u64 {
        2 * SLOT
    }
    fn load(&self, off: u64) -> u32 {
        self.get(off, Ordering::Relaxed)
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.get(off, Ordering::Acquire)
    }
    fn fence(&self) {
        if self.fences {
            fence(Ordering::SeqCst);
        }
    }
}

/// The slot of one member.
pub struct Slot {
    pub group: Arc<Group>,
    pub base: u64,
}

impl Mem for Slot {
    fn size(&self) -> u64 {
        SLOT
    }
    fn load(&self, off: u64) -> u32 {
        self.group.load(self.base + off)
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.group.load_acquire(self.base + off)
    }
    fn fence(&self) {
        self.group.fence();
    }
}

impl MemMut for Slot {
    fn store(&self, off: u64, value: u32) {
        if let Some(word) = self.group.words.get(&(self.base + off)) {
            word.store(value, Ordering::Relaxed);
        }
    }
    fn store_release(&self, off: u64, value: u32) {
        let at = self.base + off;
        if let Some(word) = self.group.words.get(&at) {
            word.store(value, self.group.order(at, Ordering::Release));
        }
    }
}

/// Where a member's slot begins.
pub fn base(member: u32) -> u64 {
    u64::from(member - 1) * SLOT
}

pub fn slot(group: &Arc<Group>, member: u32) -> Slot {
    Slot {
        group: group.clone(),
        base: base(member),
    }
}

pub fn view(slot: &Slot) -> View<'_, Slot, Group> {
    View {
        slot,
        window: &slot.group,
        slot_base: slot.base,
        peer_base: SLOT - slot.base,
        peer_size: SLOT,
    }
}

/// Runs a test under every interleaving with at most `switches` forced ones.
pub fn explore(switches: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 20_000;
    builder.check(test);
}
