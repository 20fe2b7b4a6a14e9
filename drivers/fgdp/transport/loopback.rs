// SPDX-License-Identifier: GPL-2.0

//! A group of one: this guest talks to itself through memory of its own.
//!
//! The device above sees what a host would show: slot 0, the directory, answers and events. So the
//! whole stack runs where there is no host.

use super::{CallError, Identity, Transport, Upcalls};
use crate::addr::GuestId;
use crate::proto::wire::{
    Call, CallEntry, DirEntry, Event, Frames, HostHdr, PeerClass, PeerState, Request,
    CALL_F_REQUIRED, CALL_VERSION, EVENT_SIZE, EXTENT_SIZE, MAX_LANES, MAX_SLOTS, MIN_SLOT_SIZE,
    NO_IVSHMEM,
};
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::shm::{GroupMem, LocalGroup, SlotMem};
use kernel::prelude::*;
use kernel::sync::Arc;

const SLOT: u32 = 1;
const TABLE_OFFSET: u32 = 64;
const DIR_OFFSET: u32 = 4096;
const GENERATION: u32 = 1;
/// Slot 0: as a host's, aligned for extents behind it.
const HOST_SIZE: u64 = EXTENT_SIZE;

/// This guest, as its own and only peer.
#[pin_data]
pub(crate) struct Loopback {
    memory: LocalGroup,
    slot_size: u64,
    lanes: u32,
    #[pin]
    upcalls: BhLock<Option<Arc<dyn Upcalls>>>,
}

impl Loopback {
    /// A group whose one member has a slot of `slot_size` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a size that no slot may have, `ENOMEM`.
    pub(crate) fn new(slot_size: u64, lanes: u32) -> Result<Arc<Self>> {
        if slot_size < MIN_SLOT_SIZE || slot_size % EXTENT_SIZE != 0 {
            return Err(EINVAL);
        }
        let lanes = lanes.clamp(1, MAX_LANES);
        let memory = LocalGroup::new(HOST_SIZE, slot_size)?;
        let calls = [
            Call::Hello,
            Call::ChannelOpen,
            Call::ChannelClose,
            Call::Frames,
        ];
        for (index, call) in (0u32..).zip(calls) {
            let entry = CallEntry {
                nr: call.nr(),
                version: CALL_VERSION,
                flags: CALL_F_REQUIRED,
                quota: 0,
            };
            entry.write(&memory.host, TABLE_OFFSET, index);
        }
        HostHdr {
            table_offset: TABLE_OFFSET,
            table_entries: calls.len() as u32,
            dir_offset: DIR_OFFSET,
            dir_entries: MAX_SLOTS,
        }
        .write(&memory.host);
        let this = Arc::pin_init(
            pin_init!(Self {
                memory,
                slot_size,
                lanes,
                upcalls <- new_bhlock!(None, "fgdp_loopback"),
            }),
            GFP_KERNEL,
        )?;
        this.write_entry(PeerState::Attached);
        Ok(this)
    }

    /// Who gets events and doorbells from now on.
    pub(crate) fn set_upcalls(&self, upcalls: Option<Arc<dyn Upcalls>>) {
        let old = core::mem::replace(&mut *self.upcalls.lock(), upcalls);
        drop(old);
    }

    fn write_entry(&self, state: PeerState) {
        DirEntry {
            state,
            generation: GENERATION,
            class: PeerClass::Local,
            lanes: self.lanes as u16,
            guest_id: GuestId::LOOPBACK.0,
            slot_offset: HOST_SIZE,
            slot_size: self.slot_size,
            ivshmem_id: NO_IVSHMEM,
            ..DirEntry::default()
        }
        .write(&self.memory.host, DIR_OFFSET, SLOT);
    }

    fn event(&self, event: &Event<'_>) -> Result<(), CallError> {
        let mut buf =
            KVec::from_elem(0u8, EVENT_SIZE, GFP_KERNEL).map_err(|_| CallError::NoMemory)?;
        let len = event.encode(&mut buf).ok_or(CallError::Malformed)?;
        let upcalls = self.upcalls.lock().clone();
        if let (Some(upcalls), Some(bytes)) = (upcalls, buf.get(..len)) {
            upcalls.event(bytes);
        }
        Ok(())
    }
}

impl Transport for Loopback {
    fn name(&self) -> &'static CStr {
        c"loopback"
    }

    fn identity(&self) -> Identity {
        Identity {
            slot: SLOT,
            slot_offset: HOST_SIZE,
            generation: GENERATION,
            guest_id: GuestId::LOOPBACK.0,
            lanes: self.lanes,
        }
    }

    fn slot(&self) -> &SlotMem {
        &self.memory.slot
    }

    fn group(&self) -> &GroupMem {
        &self.memory.group
    }

    fn call(&self, request: &Request<'_>, _reply: &mut [u8]) -> Result<usize, CallError> {
        match *request {
            Request::Hello(_) => {
                self.write_entry(PeerState::Ready);
                self.event(&Event::Peer {
                    peer: SLOT,
                    generation: GENERATION,
                })?;
            }
            Request::ChannelOpen(channel) | Request::ChannelClose(channel) => {
                self.event(&Event::Channel {
                    peer: SLOT,
                    generation: GENERATION,
                    open: matches!(request, Request::ChannelOpen(_)),
                    reason: channel.reason,
                })?;
            }
            // Offered by this guest and accepted by this guest: nothing to check for anybody else.
            Request::Frames(frames) => {
                self.event(&Event::Frames(Frames {
                    peer_generation: GENERATION,
                    ..frames
                }))?;
            }
            _ => {}
        }
        Ok(0)
    }

    fn ring(&self, _peer: u32, lane: u32) {
        let upcalls = self.upcalls.lock().clone();
        if let Some(upcalls) = upcalls {
            upcalls.doorbell(lane);
        }
    }
}
