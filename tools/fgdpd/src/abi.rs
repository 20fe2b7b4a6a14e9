// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers of the device that only its host side needs, beside those of `fgdp-proto`.

pub use fgdp_proto::proto::wire::{
    ABI, CONN_OFFSET, EXTENT_SIZE, FRAME_SHIFT, MAX_ADDRS, MAX_RANGES, MIN_SLOT_SIZE, NO_IVSHMEM,
    VIRTIO_ID, VQ_CONTROL, VQ_DOORBELL, VQ_EVENT, VQ_LANE0,
};

/// Slots of a group, the host's included.
pub const MAX_SLOTS: usize = fgdp_proto::proto::wire::MAX_SLOTS as usize;
/// Lanes of a channel.
pub const MAX_LANES: usize = fgdp_proto::proto::wire::MAX_LANES as usize;
/// Largest size of a virtqueue.
pub const QUEUE_SIZE: u16 = 256;
/// Bytes of slot 0.
pub const HOST_SLOT_SIZE: u64 = EXTENT_SIZE;
/// Interrupt vectors the device offers.
pub const VECTORS: u16 = 16;

/// Trapped: virtio's structures and the MSI-X table.
pub const BAR0_SIZE: u64 = 0x8000;
/// Common configuration in BAR0.
pub const COMMON_OFFSET: u64 = 0;
/// Interrupt status in BAR0.
pub const ISR_OFFSET: u64 = 0x1000;
/// Device configuration in BAR0.
pub const DEVICE_OFFSET: u64 = 0x2000;
/// Notifications in BAR0.
pub const NOTIFY_OFFSET: u64 = 0x3000;
/// Bytes between two queues' notification addresses.
pub const NOTIFY_MULTIPLIER: u64 = 4;
/// MSI-X table in BAR0.
pub const MSIX_TABLE_OFFSET: u64 = 0x4000;
/// MSI-X pending bits in BAR0.
pub const MSIX_PBA_OFFSET: u64 = 0x5000;
/// Bytes of each of the structures in BAR0.
pub const STRUCT_SIZE: u64 = 0x1000;
