// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Slot 0: its header and the hypercall table.

use super::call::{Call, CALL_VERSION};
use super::config::AttachError;
use super::dir::DirEntry;
use super::layout::{ABI, CALL_F_REQUIRED, HOST_MAGIC, MAX_CALLS, MAX_SLOTS};
use crate::proto::mem::{load64, store64, Mem, MemMut};

/// Bytes of `struct fgdp_call_entry`.
pub const CALL_ENTRY: u64 = 16;

/// `struct fgdp_host_hdr` at the group's start (H-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostHdr {
    /// Offset of the hypercall table in the group.
    pub table_offset: u32,
    /// Its entries.
    pub table_entries: u32,
    /// Offset of the peer directory in the group.
    pub dir_offset: u32,
    /// Its entries; entry n is slot n.
    pub dir_entries: u32,
}

impl HostHdr {
    /// Size of the structure.
    pub const SIZE: u64 = 32;

    /// Writes the header, the magic last.
    pub fn write<S: MemMut + ?Sized>(&self, slot0: &S) {
        slot0.store(8, ABI);
        slot0.store(12, self.table_offset);
        slot0.store(16, self.table_entries);
        slot0.store(20, self.dir_offset);
        slot0.store(24, self.dir_entries);
        slot0.store(28, 0);
        slot0.fence();
        store64(slot0, 0, HOST_MAGIC);
    }

    /// Fetches and validates the header.
    ///
    /// # Errors
    ///
    /// Which part is wrong.
    pub fn read<M: Mem + ?Sized>(group: &M) -> Result<Self, AttachError> {
        if load64(group, 0) != HOST_MAGIC {
            return Err(AttachError::HostMagic);
        }
        if group.load_acquire(8) != ABI {
            return Err(AttachError::Abi);
        }
        let hdr = Self {
            table_offset: group.load_acquire(12),
            table_entries: group.load_acquire(16),
            dir_offset: group.load_acquire(20),
            dir_entries: group.load_acquire(24),
        };
        let inside = |off: u32, count: u32, max: u32, size: u64| {
            let off = u64::from(off);
            count != 0
                && count <= max
                && off % 8 == 0
                && off >= Self::SIZE
                && off.wrapping_add(u64::from(count).wrapping_mul(size)) <= group.size()
        };
        if !inside(hdr.table_offset, hdr.table_entries, MAX_CALLS, CALL_ENTRY) {
            return Err(AttachError::HostTable);
        }
        if !inside(hdr.dir_offset, hdr.dir_entries, MAX_SLOTS, DirEntry::SIZE) {
            return Err(AttachError::HostDirectory);
        }
        Ok(hdr)
    }
}

/// One line of the hypercall table, `struct fgdp_call_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEntry {
    /// Number of the call; it may be one that this version does not know.
    pub nr: u16,
    /// Version of the call.
    pub version: u16,
    /// `CALL_F_*`.
    pub flags: u32,
    /// What it bounds is said at the call; 0: none.
    pub quota: u64,
}

impl CallEntry {
    /// Writes line `index` of the table at `table_offset`.
    pub fn write<S: MemMut + ?Sized>(&self, slot0: &S, table_offset: u32, index: u32) {
        let at = Self::at(table_offset, index);
        slot0.store(at, u32::from(self.nr) | (u32::from(self.version) << 16));
        slot0.store(at.wrapping_add(4), self.flags);
        store64(slot0, at.wrapping_add(8), self.quota);
    }

    fn read<M: Mem + ?Sized>(group: &M, table_offset: u32, index: u32) -> Self {
        let at = Self::at(table_offset, index);
        let first = group.load_acquire(at);
        Self {
            nr: first as u16,
            version: (first >> 16) as u16,
            flags: group.load_acquire(at.wrapping_add(4)),
            quota: load64(group, at.wrapping_add(8)),
        }
    }

    fn at(table_offset: u32, index: u32) -> u64 {
        u64::from(table_offset).wrapping_add(u64::from(index).wrapping_mul(CALL_ENTRY))
    }
}

/// The calls that the host offers and this version knows (H-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTable {
    quotas: [Option<u64>; Call::ALL.len()],
}

impl CallTable {
    /// What a driver cannot do without.
    pub const NEEDED: [Call; 4] = [
        Call::Hello,
        Call::ChannelOpen,
        Call::ChannelClose,
        Call::Frames,
    ];

    /// Fetches the table that `hdr` names. Lines that this version does not know
    /// are skipped if the host does not require them.
    ///
    /// # Errors
    ///
    /// [`AttachError::UnknownCall`] for a required call that is unknown or of
    /// another version, [`AttachError::MissingCall`] for one of
    /// [`CallTable::NEEDED`], [`AttachError::HostTable`] for a call listed twice.
    pub fn read<M: Mem + ?Sized>(group: &M, hdr: &HostHdr) -> Result<Self, AttachError> {
        let mut table = Self {
            quotas: [None; Call::ALL.len()],
        };
        for index in 0..hdr.table_entries.min(MAX_CALLS) {
            let entry = CallEntry::read(group, hdr.table_offset, index);
            let known = Call::from_u16(entry.nr).filter(|_| entry.version == CALL_VERSION);
            let Some(call) = known else {
                if entry.flags & CALL_F_REQUIRED != 0 {
                    return Err(AttachError::UnknownCall(entry.nr));
                }
                continue;
            };
            match table.place(call) {
                Some(place @ None) => *place = Some(entry.quota),
                _ => return Err(AttachError::HostTable),
            }
        }
        for call in Self::NEEDED {
            if !table.has(call) {
                return Err(AttachError::MissingCall(call));
            }
        }
        Ok(table)
    }

    fn place(&mut self, call: Call) -> Option<&mut Option<u64>> {
        self.quotas.get_mut(usize::from(call.nr()).wrapping_sub(1))
    }

    /// True if the host offers the call.
    pub fn has(&self, call: Call) -> bool {
        self.entry(call).is_some()
    }

    /// The call's quota; `None` if the call is missing or has none.
    pub fn quota(&self, call: Call) -> Option<u64> {
        self.entry(call).filter(|&quota| quota != 0)
    }

    fn entry(&self, call: Call) -> Option<u64> {
        let at = usize::from(call.nr()).wrapping_sub(1);
        self.quotas.get(at).copied().flatten()
    }
}
