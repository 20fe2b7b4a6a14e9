// SPDX-License-Identifier: GPL-2.0

//! What carries a device's calls and doorbells: the hypervisor, or this guest itself.

pub(crate) mod loopback;
mod rings;
pub(crate) mod virtio;

use crate::proto::wire::{Request, Status};
use crate::sys::shm::{GroupMem, SlotMem};
use kernel::prelude::*;

/// Why a call on the control queue failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The host refused.
    Status(Status),
    /// No answer in time, or the device is gone.
    Dead,
    /// The caller was killed while it waited; the host may have done the call or not.
    Killed,
    /// No memory for the request.
    NoMemory,
    /// The answer broke the protocol.
    Malformed,
}

/// What the device configuration says, read once at attach.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// Own slot number.
    pub(crate) slot: u32,
    /// Offset of the own slot in the group.
    pub(crate) slot_offset: u64,
    /// Generation of the own slot.
    pub(crate) generation: u32,
    /// Own guest id.
    pub(crate) guest_id: [u8; 16],
    /// Lanes this guest drains.
    pub(crate) lanes: u32,
}

/// One attachment to a group.
pub(crate) trait Transport: Send + Sync {
    /// For people.
    fn name(&self) -> &'static CStr;
    /// Who this guest is in the group.
    fn identity(&self) -> Identity;
    /// The own slot, which this guest alone writes.
    fn slot(&self) -> &SlotMem;
    /// The whole group, read-only.
    fn group(&self) -> &GroupMem;
    /// Sends `request` and waits for the answer; returns the length of its payload in `reply`.
    ///
    /// May sleep; process context only.
    fn call(&self, request: &Request<'_>, reply: &mut [u8]) -> Result<usize, CallError>;
    /// Rings lane `lane` of the member in slot `peer`. Any context but hard interrupt.
    fn ring(&self, peer: u32, lane: u32);
    /// The own doorbell id, which HELLO tells, if all lanes can be rung by it.
    fn bell_id(&self) -> Option<u32> {
        None
    }
    /// The directory says that the member in slot `peer` has doorbell id `id`.
    fn set_peer_bell(&self, _peer: u32, _id: Option<u32>) {}
    /// Doorbells so far.
    fn doorbells(&self) -> Doorbells {
        Doorbells::default()
    }
}

/// Doorbells of a transport since it attached.
#[derive(Clone, Copy, Default)]
pub(crate) struct Doorbells {
    /// Rung through the doorbell device.
    pub(crate) rung_ivshmem: u64,
    /// Rung through the host.
    pub(crate) rung_trap: u64,
    /// Not sent because one to the same lane was still to be sent.
    pub(crate) coalesced: u64,
    /// Received through the doorbell device.
    pub(crate) received_ivshmem: u64,
    /// Received through the host.
    pub(crate) received_trap: u64,
}

/// What a transport tells the device above it.
pub(crate) trait Upcalls: Send + Sync {
    /// A doorbell for `lane` came in. Hard interrupt context.
    fn doorbell(&self, lane: u32);
    /// One entry of the event queue: `struct fgdp_event` and what follows it. Process context.
    fn event(&self, event: &[u8]);
    /// The device goes. Events come in until this returns, and are void behind it. Process context.
    fn gone(&self);
}
