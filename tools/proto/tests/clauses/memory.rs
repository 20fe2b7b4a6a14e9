// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Memory for tests: a group that several sides share, plain or hostile.

use std::sync::atomic::{fence, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use fgdp_proto::proto::grant::{Accepted, Extent};
use fgdp_proto::proto::mem::{Mem, MemMut, View};
use fgdp_proto::proto::wire::{SlotHdr, EXTENT_FRAMES, FRAME_SHIFT, MIN_SLOT_SIZE};

pub const SLOT: u64 = MIN_SLOT_SIZE;
/// Slot 0 is 2 MiB long, then come the members.
pub const HOST: u64 = 2 << 20;
pub const CONNS: u32 = 64;

type Page = [AtomicU32; 1024];

/// The memory of a group; pages come into being when they are written.
#[derive(Clone)]
pub struct Group(Arc<Vec<OnceLock<Box<Page>>>>);

impl Group {
    pub fn new(members: u64) -> Self {
        let pages = (HOST + members * SLOT) / 4096;
        Group(Arc::new((0..pages).map(|_| OnceLock::new()).collect()))
    }

    fn page(&self, off: u64) -> Option<&OnceLock<Box<Page>>> {
        assert_eq!(off % 4, 0, "misaligned access at {off:#x}");
        self.0.get(usize::try_from(off / 4096).ok()?)
    }

    /// The word, if it was ever written.
    fn find(&self, off: u64) -> Option<&AtomicU32> {
        self.page(off)?.get()?.get((off % 4096 / 4) as usize)
    }

    fn word(&self, off: u64) -> Option<&AtomicU32> {
        let page = self.page(off)?;
        let page = page.get_or_init(|| Box::new([const { AtomicU32::new(0) }; 1024]));
        page.get((off % 4096 / 4) as usize)
    }

    pub fn slot(&self, n: u32) -> Slot {
        Slot {
            group: self.clone(),
            base: slot_base(n),
        }
    }

    pub fn poke(&self, off: u64, value: u32) {
        self.word(off).unwrap().store(value, Ordering::SeqCst);
    }

    pub fn peek(&self, off: u64) -> u32 {
        self.word(off).unwrap().load(Ordering::SeqCst)
    }
}

impl Mem for Group {
    fn size(&self) -> u64 {
        self.0.len() as u64 * 4096
    }
    fn load(&self, off: u64) -> u32 {
        self.find(off).map_or(0, |w| w.load(Ordering::Relaxed))
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.find(off).map_or(0, |w| w.load(Ordering::Acquire))
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A member's slot. A store outside it fails the test.
#[derive(Clone)]
pub struct Slot {
    pub group: Group,
    pub base: u64,
}

impl Slot {
    fn word(&self, off: u64) -> &AtomicU32 {
        assert!(off + 4 <= SLOT, "store outside the slot at {off:#x}");
        self.group.word(self.base + off).unwrap()
    }
}

impl Mem for Slot {
    fn size(&self) -> u64 {
        SLOT
    }
    fn load(&self, off: u64) -> u32 {
        self.word(off).load(Ordering::Relaxed)
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.word(off).load(Ordering::Acquire)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl MemMut for Slot {
    fn store(&self, off: u64, value: u32) {
        self.word(off).store(value, Ordering::Relaxed);
    }
    fn store_release(&self, off: u64, value: u32) {
        self.word(off).store(value, Ordering::Release);
    }
}

/// Offset in the group of member slot `n` (from 1).
pub fn slot_base(n: u32) -> u64 {
    HOST + u64::from(n - 1) * SLOT
}

/// First PFN behind the tables of member slot `n`, at an extent's start.
pub fn first_extent(n: u32) -> u32 {
    let tables = slot_base(n) + (10 << 20);
    let pfn = u32::try_from(tables >> FRAME_SHIFT).unwrap();
    assert_eq!(pfn % EXTENT_FRAMES, 0);
    pfn
}

/// What member `own` sees of a channel to member `peer`.
pub fn view<'a>(slot: &'a Slot, group: &'a Group, peer: u32) -> View<'a, Slot, Group> {
    View {
        slot,
        window: group,
        slot_base: slot.base,
        peer_base: slot_base(peer),
        peer_size: SLOT,
    }
}

/// Writes the slot header of member `n`.
pub fn attach(group: &Group, n: u32) -> Slot {
    let slot = group.slot(n);
    SlotHdr {
        generation: n,
        lanes: 1,
        conns: CONNS,
    }
    .write(&slot);
    slot
}

/// The frames behind the tables of member `n`, 6 MiB, accepted by its peer.
pub fn accepted(n: u32) -> Accepted {
    let mut accepted = Accepted::new(slot_base(n), SLOT, CONNS);
    accepted
        .insert(Extent {
            id: 1,
            pfn: first_extent(n),
            frames: 3 * EXTENT_FRAMES,
        })
        .unwrap();
    accepted
}
