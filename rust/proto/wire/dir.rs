// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The peer directory.

use super::layout::{EXTENT_SIZE, ID_LEN, MAX_ADDRS, MAX_LANES, MIN_SLOT_SIZE, NO_IVSHMEM};
use crate::proto::mem::{load64, load_bytes, store64, store_bytes, Mem, MemMut};

/// Reads of an entry that is being written, before the reader gives up.
const TRIES: u32 = 64;

const SEQ: u64 = 0;
const STATE: u64 = 4;
const GENERATION: u64 = 8;
const CLASS_LANES: u64 = 12;
const GUEST_ID: u64 = 16;
const SLOT_OFFSET: u64 = 32;
const SLOT_SIZE: u64 = 40;
const IVSHMEM_ID: u64 = 48;
const NUM_ADDRS: u64 = 52;
const ADDRS: u64 = 56;
const NAME: u64 = 184;
const RESERVED: u64 = 216;

/// A guest's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum PeerState {
    /// No guest.
    #[default]
    Absent = 0,
    /// It has the device and said no HELLO yet.
    Attached = 1,
    /// HELLO answered: channels can be opened.
    Ready = 2,
}

/// Where a guest is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum PeerClass {
    /// Same host, same memory.
    #[default]
    Local = 0,
    /// Behind the host daemon (not in this version).
    Cluster = 1,
}

/// `struct fgdp_dir_entry`: what the host says about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The guest's state.
    pub state: PeerState,
    /// Generation of the slot.
    pub generation: u32,
    /// Where the guest is.
    pub class: PeerClass,
    /// Lanes that the guest drains.
    pub lanes: u16,
    /// The guest's id.
    pub guest_id: [u8; ID_LEN],
    /// Offset of the slot in the group.
    pub slot_offset: u64,
    /// Size of the slot.
    pub slot_size: u64,
    /// Doorbell id, or [`NO_IVSHMEM`].
    pub ivshmem_id: u32,
    /// How many of `addrs` are used.
    pub num_addrs: u32,
    /// Addresses: IPv6, or IPv4 as `::ffff:a.b.c.d`.
    pub addrs: [[u8; 16]; MAX_ADDRS],
    /// NUL-padded, for people.
    pub name: [u8; 32],
}

impl Default for DirEntry {
    fn default() -> Self {
        Self {
            state: PeerState::Absent,
            generation: 0,
            class: PeerClass::Local,
            lanes: 0,
            guest_id: [0; ID_LEN],
            slot_offset: 0,
            slot_size: 0,
            ivshmem_id: NO_IVSHMEM,
            num_addrs: 0,
            addrs: [[0; 16]; MAX_ADDRS],
            name: [0; 32],
        }
    }
}

/// Why an entry could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirError {
    /// It was being written each time; the event that follows the write brings
    /// the reader back.
    Busy,
    /// It has a value that it must not have.
    Invalid,
}

impl DirEntry {
    /// Size of the structure.
    pub const SIZE: u64 = 248;

    /// The guest's addresses.
    pub fn addrs(&self) -> &[[u8; 16]] {
        let used = usize::try_from(self.num_addrs).unwrap_or(usize::MAX);
        self.addrs.get(..used).unwrap_or(&self.addrs)
    }

    /// The guest's name, without padding.
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|&b| b == 0);
        end.and_then(|end| self.name.get(..end))
            .unwrap_or(&self.name)
    }

    fn at(dir_offset: u32, slot: u32) -> u64 {
        u64::from(dir_offset).wrapping_add(u64::from(slot).wrapping_mul(Self::SIZE))
    }

    /// Fetches and validates the entry of `slot` under its sequence count
    /// (H-4). The directory's range was validated with the host's header.
    ///
    /// # Errors
    ///
    /// See [`DirError`].
    pub fn read<M: Mem + ?Sized>(group: &M, dir_offset: u32, slot: u32) -> Result<Self, DirError> {
        let at = Self::at(dir_offset, slot);
        for _ in 0..TRIES {
            // Pairs with the releases in `write`: acquire loads keep their order,
            // so the count fetched last is not older than the words before it.
            let seq = group.load_acquire(at);
            if seq & 1 != 0 {
                continue;
            }
            let entry = Self::fetch(group, at);
            if group.load_acquire(at) == seq {
                return entry;
            }
        }
        Err(DirError::Busy)
    }

    fn fetch<M: Mem + ?Sized>(group: &M, at: u64) -> Result<Self, DirError> {
        let word = |off: u64| group.load_acquire(at.wrapping_add(off));
        let class_lanes = word(CLASS_LANES);
        let state = word(STATE);
        let mut entry = Self {
            generation: word(GENERATION),
            lanes: (class_lanes >> 16) as u16,
            slot_offset: load64(group, at.wrapping_add(SLOT_OFFSET)),
            slot_size: load64(group, at.wrapping_add(SLOT_SIZE)),
            ivshmem_id: word(IVSHMEM_ID),
            num_addrs: word(NUM_ADDRS),
            ..Self::default()
        };
        load_bytes(group, at.wrapping_add(GUEST_ID), &mut entry.guest_id);
        load_bytes(group, at.wrapping_add(NAME), &mut entry.name);
        let mut off = ADDRS;
        for addr in &mut entry.addrs {
            load_bytes(group, at.wrapping_add(off), addr);
            off = off.wrapping_add(16);
        }
        entry.class = match class_lanes & 0xffff {
            0 => PeerClass::Local,
            1 => PeerClass::Cluster,
            _ => return Err(DirError::Invalid),
        };
        entry.state = match state {
            0 => return Ok(entry),
            1 => PeerState::Attached,
            2 => PeerState::Ready,
            _ => return Err(DirError::Invalid),
        };
        entry
            .is_valid(group.size())
            .then_some(entry)
            .ok_or(DirError::Invalid)
    }

    fn is_valid(&self, group_size: u64) -> bool {
        let lanes = u32::from(self.lanes);
        slot_fits(self.slot_offset, self.slot_size, group_size)
            && usize::try_from(self.num_addrs).is_ok_and(|n| n <= MAX_ADDRS)
            && lanes <= MAX_LANES
            && (self.state != PeerState::Ready || lanes != 0)
    }

    /// Writes the entry of `slot` under its sequence count. One writer; one that
    /// died in the middle leaves the count odd, which the next write mends.
    pub fn write<S: MemMut + ?Sized>(&self, slot0: &S, dir_offset: u32, slot: u32) {
        let at = Self::at(dir_offset, slot);
        let odd = slot0.load(at.wrapping_add(SEQ)).wrapping_add(1) | 1;
        slot0.store(at.wrapping_add(SEQ), odd);
        // Nobody sees a word of the new entry before the odd count.
        slot0.fence();
        let class_lanes = u32::from(self.class as u16) | (u32::from(self.lanes) << 16);
        slot0.store(at.wrapping_add(STATE), self.state as u32);
        slot0.store(at.wrapping_add(GENERATION), self.generation);
        slot0.store(at.wrapping_add(CLASS_LANES), class_lanes);
        store_bytes(slot0, at.wrapping_add(GUEST_ID), &self.guest_id);
        store64(slot0, at.wrapping_add(SLOT_OFFSET), self.slot_offset);
        store64(slot0, at.wrapping_add(SLOT_SIZE), self.slot_size);
        slot0.store(at.wrapping_add(IVSHMEM_ID), self.ivshmem_id);
        slot0.store(at.wrapping_add(NUM_ADDRS), self.num_addrs);
        store_bytes(slot0, at.wrapping_add(ADDRS), self.addrs.as_flattened());
        store_bytes(slot0, at.wrapping_add(NAME), &self.name);
        store_bytes(slot0, at.wrapping_add(RESERVED), &[0; 32]);
        // Pairs with the first acquire in `read`: the entry is complete.
        slot0.store_release(at.wrapping_add(SEQ), odd.wrapping_add(1));
    }
}

/// True if a member's slot can be there in a group of `group_size` bytes: a
/// multiple of 2 MiB in place and size, not at the group's start.
pub(super) fn slot_fits(offset: u64, size: u64, group_size: u64) -> bool {
    offset % EXTENT_SIZE == 0
        && size % EXTENT_SIZE == 0
        && offset >= EXTENT_SIZE
        && size >= MIN_SLOT_SIZE
        && offset
            .checked_add(size)
            .is_some_and(|end| end <= group_size)
}
