// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The headers that a member keeps in its slot.

use super::layout::{
    chan_area, chan_hdr, slot_hdr, ABI, CONN_OFFSET, CONN_SIZE, MAX_CONNS, MAX_LANES, SLOT_MAGIC,
};
use super::reason::Reason;
use crate::proto::mem::{load64, store64, Mem, MemMut, View};

/// `struct fgdp_slot_hdr`: what a member says about its slot (M-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHdr {
    /// Generation of the slot.
    pub generation: u32,
    /// Lanes that the member drains, 1 to [`MAX_LANES`].
    pub lanes: u32,
    /// Entries of the connection table, 1 to [`MAX_CONNS`].
    pub conns: u32,
}

impl SlotHdr {
    /// Writes the header; the magic last, so that a reader sees all or nothing.
    pub fn write<S: MemMut + ?Sized>(&self, slot: &S) {
        slot.store(slot_hdr::ABI, ABI);
        slot.store(slot_hdr::GENERATION, self.generation);
        slot.store(slot_hdr::LANES, self.lanes);
        slot.store(slot_hdr::CONNS, self.conns);
        slot.store(slot_hdr::CONN_OFFSET, CONN_OFFSET as u32);
        slot.fence();
        store64(slot, slot_hdr::MAGIC, SLOT_MAGIC);
    }

    /// Fetches and validates the header of the slot of `size` bytes that starts
    /// at `base` in `mem`.
    ///
    /// # Errors
    ///
    /// [`Reason::Abi`] for another version, [`Reason::BadSlot`] for anything
    /// else that is not as M-6 says.
    pub fn read<M: Mem + ?Sized>(mem: &M, base: u64, size: u64) -> Result<Self, Reason> {
        let end = base.checked_add(size).ok_or(Reason::BadSlot)?;
        if size < slot_hdr::SIZE || end > mem.size() {
            return Err(Reason::BadSlot);
        }
        let word = |off: u64| mem.load_acquire(base.wrapping_add(off));
        if load64(mem, base) != SLOT_MAGIC {
            return Err(Reason::BadSlot);
        }
        if word(slot_hdr::ABI) != ABI {
            return Err(Reason::Abi);
        }
        let hdr = Self {
            generation: word(slot_hdr::GENERATION),
            lanes: word(slot_hdr::LANES),
            conns: word(slot_hdr::CONNS),
        };
        if u64::from(word(slot_hdr::CONN_OFFSET)) != CONN_OFFSET
            || hdr.lanes == 0
            || hdr.lanes > MAX_LANES
            || !conns_fit(hdr.conns, size)
        {
            return Err(Reason::BadSlot);
        }
        Ok(hdr)
    }

    /// Fetches and validates the peer's header, which must be of `generation`.
    ///
    /// # Errors
    ///
    /// As [`SlotHdr::read`], and [`Reason::Generation`].
    pub fn read_peer<S: MemMut + ?Sized, W: Mem + ?Sized>(
        v: &View<'_, S, W>,
        generation: u32,
    ) -> Result<Self, Reason> {
        let hdr = Self::read(v.window, v.peer_base, v.peer_size)?;
        if hdr.generation != generation {
            return Err(Reason::Generation);
        }
        Ok(hdr)
    }
}

/// True if a connection table of `conns` entries is allowed in a slot of `size`
/// bytes.
pub(crate) fn conns_fit(conns: u32, size: u64) -> bool {
    let bytes = u64::from(conns).wrapping_mul(CONN_SIZE);
    conns != 0 && conns <= MAX_CONNS && CONN_OFFSET.wrapping_add(bytes) <= size
}

/// Public state of one side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChanState {
    /// Not open, or closed in order.
    Closed = 0,
    /// Open: the lanes of this side may be read.
    Open = 1,
    /// This side found the peer at fault.
    Broken = 2,
}

/// `struct fgdp_chan_hdr`: one side's word on a channel (C-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChanHdr {
    /// Public state.
    pub state: ChanState,
    /// Generation of the peer's slot that this channel is to.
    pub peer_generation: u32,
    /// Why, when broken or closed.
    pub reason: Reason,
}

impl ChanHdr {
    /// Writes the header of the channel to `peer_slot`; the state last.
    pub fn write<S: MemMut + ?Sized>(&self, slot: &S, peer_slot: u32) {
        let at = chan_area(peer_slot);
        slot.store(
            at.wrapping_add(chan_hdr::PEER_GENERATION),
            self.peer_generation,
        );
        slot.store(at.wrapping_add(chan_hdr::REASON), self.reason.as_u32());
        slot.store_release(at.wrapping_add(chan_hdr::STATE), self.state as u32);
    }

    /// Fetches the peer's header of the channel to `own_slot`. A reason of
    /// unknown number reads as [`Reason::None`]: it is for people.
    ///
    /// # Errors
    ///
    /// [`Reason::BadSlot`] if the state is unknown.
    pub fn read_peer<S: MemMut + ?Sized, W: Mem + ?Sized>(
        v: &View<'_, S, W>,
        own_slot: u32,
    ) -> Result<Self, Reason> {
        let at = chan_area(own_slot);
        let state = match v.peer_load_acquire(at.wrapping_add(chan_hdr::STATE)) {
            0 => ChanState::Closed,
            1 => ChanState::Open,
            2 => ChanState::Broken,
            _ => return Err(Reason::BadSlot),
        };
        let reason = v.peer_load(at.wrapping_add(chan_hdr::REASON));
        Ok(Self {
            state,
            peer_generation: v.peer_load(at.wrapping_add(chan_hdr::PEER_GENERATION)),
            reason: Reason::from_u32(reason).unwrap_or(Reason::None),
        })
    }
}
