// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Constants, sizes and offsets of the shared layouts.

/// Version of the whole contract.
pub const ABI: u32 = 1;
/// Virtio device id.
pub const VIRTIO_ID: u32 = 61;

/// Shared memory region: the own slot.
pub const SHM_SLOT: u32 = 0;
/// Shared memory region: the whole group.
pub const SHM_GROUP: u32 = 1;

/// Virtqueue: control requests.
pub const VQ_CONTROL: u32 = 0;
/// Virtqueue: events from the host.
pub const VQ_EVENT: u32 = 1;
/// Virtqueue: doorbells from the driver.
pub const VQ_DOORBELL: u32 = 2;
/// Virtqueue: doorbells to lane 0; lane n has the n-th after it.
pub const VQ_LANE0: u32 = 3;

/// Binary logarithm of the frame size.
pub const FRAME_SHIFT: u32 = 12;
/// Bytes in a frame.
pub const FRAME_SIZE: u32 = 1 << FRAME_SHIFT;
/// The first PFN of an extent is a multiple of this.
pub const EXTENT_FRAMES: u32 = 512;
/// Bytes in [`EXTENT_FRAMES`] frames.
pub const EXTENT_SIZE: u64 = (EXTENT_FRAMES as u64) << FRAME_SHIFT;

/// Slots in a group, the host's included.
pub const MAX_SLOTS: u32 = 32;
/// Lanes of a channel.
pub const MAX_LANES: u32 = 4;
/// Addresses of a guest.
pub const MAX_ADDRS: usize = 8;
/// Bytes in a guest or group id.
pub const ID_LEN: usize = 16;
/// No doorbell device.
pub const NO_IVSHMEM: u32 = 0xffff_ffff;

/// "FGDPHOST".
pub const HOST_MAGIC: u64 = 0x5453_4f48_5044_4746;
/// "FGDPSLOT".
pub const SLOT_MAGIC: u64 = 0x544f_4c53_5044_4746;
/// "FGDPBELL".
pub const BELL_MAGIC: u64 = 0x4c4c_4542_5044_4746;

/// Lines of the hypercall table.
pub const MAX_CALLS: u32 = 64;
/// Call flag: the driver must know the call or refuse to start.
pub const CALL_F_REQUIRED: u32 = 1 << 0;
/// Ranges in one frames message.
pub const MAX_RANGES: usize = 64;
/// Bytes that an event buffer holds at least.
pub const EVENT_SIZE: usize = 1024;

/// Offset of the first channel area in a slot.
pub const CHAN_OFFSET: u64 = 4096;
/// Bytes in a channel area.
pub const CHAN_SIZE: u64 = 131_072;
/// Offset of lane 0 in a channel area.
pub const LANE_OFFSET: u64 = 4096;
/// Bytes in a lane.
pub const LANE_SIZE: u64 = 20_480;
/// Offset of the messages in a lane.
pub const LANE_MSGS_OFFSET: u64 = 4096;
/// Messages in a lane, a power of two.
pub const LANE_MSGS: u32 = 256;
/// Bytes in a message.
pub const MSG_SIZE: u64 = 64;
/// Offset of the connection table in a slot.
pub const CONN_OFFSET: u64 = CHAN_OFFSET + (MAX_SLOTS as u64) * CHAN_SIZE;
/// Bytes in a connection entry.
pub const CONN_SIZE: u64 = 128;
/// Entries in a connection table at most.
pub const MAX_CONNS: u32 = 32_768;
/// Bytes in a slot at least.
pub const MIN_SLOT_SIZE: u64 = 16 << 20;
/// The part of a connection id that is the index of the entry.
pub const CONN_INDEX_MASK: u32 = 0xffff;

/// `READY`: tail or tx_flags moved.
pub const READY_DATA: u32 = 1 << 0;
/// `READY`: head or rx_flags moved.
pub const READY_SPACE: u32 = 1 << 1;

/// Frames in a ring at least.
pub const RING_MIN_FRAMES: u32 = 4;
/// Frames in a ring at most.
pub const RING_MAX_FRAMES: u32 = 1024;

/// No byte after tail will follow.
pub const TX_FIN: u32 = 1 << 0;
/// Aborted: unread bytes are void.
pub const TX_RST: u32 = 1 << 1;
/// The ring carries the TCP connection from `tcp_seq` on.
pub const TX_RING: u32 = 1 << 2;
/// The producer wants back to TCP: no byte after tail will follow in the ring.
pub const TX_BACK: u32 = 1 << 3;
/// Nobody will read any more.
pub const RX_SHUT: u32 = 1 << 0;
/// Back to TCP: head is final.
pub const RX_STOP: u32 = 1 << 1;

/// Grants of a direction that are not released, at most.
pub const GRANTS: u32 = 256;
/// Bytes of the record of a grant.
pub const GRANT_SIZE: u64 = 16;
/// Where in `ring_serial` the count of grants begins.
pub const GRANTS_SHIFT: u32 = 16;
/// Frames of a grant at most.
pub const GRANT_MAX_FRAMES: u32 = 1024;
/// Where in `grant_head` the count of grants that were read begins.
pub const GRANT_HEAD_SHIFT: u32 = 22;

/// Bytes of the header of a record.
pub const RECORD_HDR: u32 = 8;

/// Word offsets in `struct fgdp_slot_hdr`.
pub mod slot_hdr {
    /// `magic`, 64 bit.
    pub const MAGIC: u64 = 0;
    /// `abi`.
    pub const ABI: u64 = 8;
    /// `generation`.
    pub const GENERATION: u64 = 12;
    /// `lanes`.
    pub const LANES: u64 = 16;
    /// `conns`.
    pub const CONNS: u64 = 20;
    /// `conn_offset`.
    pub const CONN_OFFSET: u64 = 24;
    /// Size of the structure.
    pub const SIZE: u64 = 32;
}

/// Word offsets in `struct fgdp_chan_hdr`.
pub mod chan_hdr {
    /// `state`.
    pub const STATE: u64 = 0;
    /// `peer_generation`.
    pub const PEER_GENERATION: u64 = 4;
    /// `reason`.
    pub const REASON: u64 = 8;
    /// Size of the structure.
    pub const SIZE: u64 = 16;
}

/// Word offsets in `struct fgdp_lane`.
pub mod lane {
    /// `tail`.
    pub const TAIL: u64 = 0;
    /// `space_event`.
    pub const SPACE_EVENT: u64 = 4;
    /// `head`.
    pub const HEAD: u64 = 64;
    /// `msg_event`.
    pub const MSG_EVENT: u64 = 68;
    /// Size of the structure.
    pub const SIZE: u64 = 128;
}

/// Word offsets in `struct fgdp_conn`.
pub mod conn {
    /// `tail`.
    pub const TAIL: u64 = 0;
    /// `tx_flags`.
    pub const TX_FLAGS: u64 = 4;
    /// `space_event`.
    pub const SPACE_EVENT: u64 = 8;
    /// `ring_serial`.
    pub const RING_SERIAL: u64 = 12;
    /// `ring_pfn`.
    pub const RING_PFN: u64 = 16;
    /// `ring_frames`.
    pub const RING_FRAMES: u64 = 20;
    /// `ring_base`.
    pub const RING_BASE: u64 = 24;
    /// `id`.
    pub const ID: u64 = 28;
    /// `tcp_seq`.
    pub const TCP_SEQ: u64 = 32;
    /// `grant_pfn`.
    pub const GRANT_PFN: u64 = 36;
    /// `head`.
    pub const HEAD: u64 = 64;
    /// `data_event`.
    pub const DATA_EVENT: u64 = 68;
    /// `rx_flags`.
    pub const RX_FLAGS: u64 = 72;
    /// `released`: the first of its words.
    pub const RELEASED: u64 = 76;
    /// `grant_head`.
    pub const GRANT_HEAD: u64 = 108;
    /// Size of the structure.
    pub const SIZE: u64 = 128;
}

/// Word offsets in `struct fgdp_grant`.
pub mod grant {
    /// `position`.
    pub const POSITION: u64 = 0;
    /// `pfn`.
    pub const PFN: u64 = 4;
    /// `frames`.
    pub const FRAMES: u64 = 8;
    /// `flags`.
    pub const FLAGS: u64 = 12;
}

/// Offset in a slot of the channel area for peer `slot`. Slots count modulo
/// [`MAX_SLOTS`], so the area is inside every slot.
pub const fn chan_area(slot: u32) -> u64 {
    CHAN_OFFSET + (slot % MAX_SLOTS) as u64 * CHAN_SIZE
}

/// Offset in a slot of lane `lane` of the channel to peer `slot`. Lanes count
/// modulo [`MAX_LANES`].
pub const fn lane_area(slot: u32, lane: u32) -> u64 {
    chan_area(slot) + LANE_OFFSET + (lane % MAX_LANES) as u64 * LANE_SIZE
}

/// Offset in a slot of the entry of connection `id`.
pub const fn conn_entry(id: u32) -> u64 {
    CONN_OFFSET + (id & CONN_INDEX_MASK) as u64 * CONN_SIZE
}

const _: () = {
    assert!(LANE_MSGS.is_power_of_two());
    assert!(LANE_MSGS_OFFSET + LANE_MSGS as u64 * MSG_SIZE == LANE_SIZE);
    assert!(LANE_OFFSET + MAX_LANES as u64 * LANE_SIZE <= CHAN_SIZE);
    assert!(CONN_OFFSET + MAX_CONNS as u64 * CONN_SIZE < MIN_SLOT_SIZE);
    assert!(conn::SIZE == CONN_SIZE);
    assert!(lane::SIZE <= LANE_MSGS_OFFSET);
    assert!(GRANTS as u64 * GRANT_SIZE == FRAME_SIZE as u64);
    assert!(conn::RELEASED + GRANTS as u64 / 8 == conn::GRANT_HEAD);
    assert!(GRANT_MAX_FRAMES << FRAME_SHIFT == 1 << GRANT_HEAD_SHIFT);
};
