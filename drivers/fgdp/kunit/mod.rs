// SPDX-License-Identifier: GPL-2.0

//! Boundary tables, run by KUnit when the module is loaded into a kernel that has it.
//!
//! The core has its own tests outside the kernel. What is tried here is the kernel's build of it,
//! over the memory, the allocator and the addresses of the module.

mod addr;
mod frames;
mod host;
mod ids;
mod memory;
mod ring;
mod stream;

use crate::proto::mem::View;
use crate::proto::wire::{EXTENT_SIZE, MIN_SLOT_SIZE};
use crate::sys::shm::{GroupMem, LocalGroup, SlotMem};
use kernel::prelude::*;

/// Number of the one slot.
const SLOT: u32 = 1;
/// Bytes before the slot.
const BASE: u64 = EXTENT_SIZE;
const SIZE: u64 = MIN_SLOT_SIZE;

/// A group of one member, which is its own peer.
fn group() -> Result<LocalGroup> {
    LocalGroup::new(BASE, SIZE)
}

fn view(group: &LocalGroup) -> View<'_, SlotMem, GroupMem> {
    View {
        slot: &group.slot,
        window: &group.group,
        slot_base: BASE,
        peer_base: BASE,
        peer_size: SIZE,
    }
}
