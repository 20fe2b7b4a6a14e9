// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Memory that the fuzzer writes, also between two fetches.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use fgdp_proto::proto::grant::{Accepted, Extent};
use fgdp_proto::proto::mem::{Mem, MemMut, View};
use fgdp_proto::proto::wire::{SlotHdr, EXTENT_FRAMES, FRAME_SHIFT, MIN_SLOT_SIZE};

/// The host's slot, then members 1 (the victim) and 2 (the peer).
pub const HOST: u64 = 2 << 20;
pub const SLOT: u64 = MIN_SLOT_SIZE;
pub const CONNS: u32 = 16;

pub const fn base(member: u64) -> u64 {
    HOST + (member - 1) * SLOT
}

/// First frame behind a member's tables.
pub const fn first_extent(member: u64) -> u32 {
    ((base(member) + (10 << 20)) >> FRAME_SHIFT) as u32
}

/// The group: words that were written, and lies about those to be fetched next.
pub struct Group {
    words: RefCell<BTreeMap<u64, u32>>,
    /// After so many fetches, the next one gives this value.
    lie: Cell<Option<(u32, u32)>>,
}

impl Group {
    pub fn new() -> Self {
        let group = Group {
            words: RefCell::default(),
            lie: Cell::new(None),
        };
        let hdr = SlotHdr {
            generation: 1,
            lanes: 1,
            conns: CONNS,
        };
        for member in 1..=2 {
            hdr.write(&group.slot(base(member)));
        }
        group
    }

    pub fn slot(&self, base: u64) -> Slot<'_> {
        Slot { group: self, base }
    }

    pub fn poke(&self, off: u64, value: u32) {
        self.words.borrow_mut().insert(off, value);
    }

    pub fn peek(&self, off: u64) -> u32 {
        self.words.borrow().get(&off).copied().unwrap_or(0)
    }

    /// One fetch, after `skip` others, gives `value`.
    pub fn lie(&self, skip: u32, value: u32) {
        self.lie.set(Some((skip, value)));
    }

    /// Puts `data` word by word from `off` on.
    pub fn overlay(&self, off: u64, data: &[u8]) {
        for (n, chunk) in (0u64..).zip(data.chunks_exact(4)) {
            self.poke(off + n * 4, u32::from_le_bytes(chunk.try_into().unwrap()));
        }
    }
}

impl Mem for Group {
    fn size(&self) -> u64 {
        base(3)
    }
    fn load(&self, off: u64) -> u32 {
        assert!(off % 4 == 0 && off + 4 <= self.size(), "fetch at {off:#x}");
        match self.lie.take() {
            Some((0, value)) => value,
            Some((skip, value)) => {
                self.lie.set(Some((skip - 1, value)));
                self.peek(off)
            }
            None => self.peek(off),
        }
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.load(off)
    }
    fn fence(&self) {}
}

/// A member's slot. A store outside it fails.
pub struct Slot<'a> {
    group: &'a Group,
    pub base: u64,
}

impl Mem for Slot<'_> {
    fn size(&self) -> u64 {
        SLOT
    }
    fn load(&self, off: u64) -> u32 {
        self.group.peek(self.base + off)
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.load(off)
    }
    fn fence(&self) {}
}

impl MemMut for Slot<'_> {
    fn store(&self, off: u64, value: u32) {
        assert!(off % 4 == 0 && off + 4 <= SLOT, "store at {off:#x}");
        self.group.poke(self.base + off, value);
    }
    fn store_release(&self, off: u64, value: u32) {
        self.store(off, value);
    }
}

/// What the victim sees.
pub fn view<'a>(slot: &'a Slot<'a>, group: &'a Group) -> View<'a, Slot<'a>, Group> {
    View {
        slot,
        window: group,
        slot_base: base(1),
        peer_base: base(2),
        peer_size: SLOT,
    }
}

/// 4 MiB and 64 KiB of the peer, with a hole between them.
pub fn accepted() -> Accepted {
    let mut accepted = Accepted::new(base(2), SLOT, CONNS);
    let pfn = first_extent(2);
    for (id, pfn, frames) in [(1, pfn, EXTENT_FRAMES), (2, pfn + 2 * EXTENT_FRAMES, 16)] {
        accepted.insert(Extent { id, pfn, frames }).unwrap();
    }
    accepted
}
