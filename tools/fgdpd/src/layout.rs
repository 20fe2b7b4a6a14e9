// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Slot 0 as the host writes it, and the header of doorbell memory.

use std::sync::atomic::{fence, Ordering};

use fgdp_proto::proto::mem::{Mem, MemMut};
use fgdp_proto::proto::wire::{
    BellHdr, Call, CallEntry, DirEntry, HostHdr, CALL_F_REQUIRED, CALL_VERSION,
};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::abi;

/// Where the hypercall table is in the group.
const TABLE_OFFSET: u32 = 4096;
/// Where the peer directory is in the group.
const DIR_OFFSET: u32 = 8192;

/// Header of a doorbell device's memory.
pub fn bell_header(group_id: &[u8; 16]) -> Vec<u8> {
    BellHdr {
        group_id: *group_id,
    }
    .encode()
    .to_vec()
}

/// Slot 0, mapped.
#[derive(Debug)]
pub struct HostSlot(MmapRegion);

impl HostSlot {
    /// Takes over a mapping of slot 0.
    pub fn new(region: MmapRegion) -> Self {
        Self(region)
    }

    /// Writes the hypercall table, then the header that leads to it.
    pub fn init(&self, frames_quota: u64) {
        let lines = [
            (Call::Hello, CALL_F_REQUIRED, 0),
            (Call::AddrAdd, 0, abi::MAX_ADDRS as u64),
            (Call::AddrDel, 0, 0),
            (Call::ChannelOpen, CALL_F_REQUIRED, 0),
            (Call::ChannelClose, CALL_F_REQUIRED, 0),
            (Call::Frames, CALL_F_REQUIRED, frames_quota),
            (Call::Stats, 0, 0),
            (Call::Bye, 0, 0),
        ];
        for ((call, flags, quota), index) in lines.into_iter().zip(0..) {
            CallEntry {
                nr: call.nr(),
                version: CALL_VERSION,
                flags,
                quota,
            }
            .write(self, TABLE_OFFSET, index);
        }
        let header = HostHdr {
            table_offset: TABLE_OFFSET,
            table_entries: lines.len() as u32,
            dir_offset: DIR_OFFSET,
            dir_entries: abi::MAX_SLOTS as u32,
        };
        header.write(self);
    }

    /// Writes a member's entry.
    pub fn publish(&self, slot: u32, entry: &DirEntry) {
        entry.write(self, DIR_OFFSET, slot);
    }

    fn put(&self, off: u64, value: u32, order: Ordering) {
        let stored = usize::try_from(off)
            .map(|off| self.0.as_volatile_slice().store(value.to_le(), off, order));
        debug_assert!(matches!(stored, Ok(Ok(()))), "slot 0 ends before {off}");
    }

    fn get(&self, off: u64, order: Ordering) -> u32 {
        let word = usize::try_from(off)
            .ok()
            .and_then(|off| self.0.as_volatile_slice().load(off, order).ok());
        u32::from_le(word.unwrap_or(0))
    }
}

impl Mem for HostSlot {
    fn size(&self) -> u64 {
        self.0.size() as u64
    }

    fn load(&self, off: u64) -> u32 {
        self.get(off, Ordering::Relaxed)
    }

    fn load_acquire(&self, off: u64) -> u32 {
        self.get(off, Ordering::Acquire)
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl MemMut for HostSlot {
    fn store(&self, off: u64, value: u32) {
        self.put(off, value, Ordering::Relaxed);
    }

    fn store_release(&self, off: u64, value: u32) {
        self.put(off, value, Ordering::Release);
    }
}
