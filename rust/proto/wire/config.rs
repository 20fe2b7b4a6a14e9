// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The device's configuration space, and why a driver refuses a device.

use super::bytes::{Reader, Writer};
use super::call::Call;
use super::dir::slot_fits;
use super::layout::{ABI, BELL_MAGIC, ID_LEN, MAX_LANES, MAX_SLOTS};

/// Why a driver refuses to start on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// Another ABI version.
    Abi,
    /// The configuration space is too short.
    Length,
    /// The own slot's number cannot be.
    Slot,
    /// Place or size of the own slot cannot be.
    SlotRange,
    /// The number of lanes cannot be.
    Lanes,
    /// Slot 0 has no header.
    HostMagic,
    /// Place or content of the hypercall table cannot be.
    HostTable,
    /// Place of the peer directory cannot be.
    HostDirectory,
    /// The host requires a call, by number, that this version does not know.
    UnknownCall(u16),
    /// The host lacks a call that the driver cannot do without.
    MissingCall(Call),
}

impl AttachError {
    /// The number of the refusal.
    pub const fn number(self) -> u32 {
        match self {
            Self::Abi => 1,
            Self::Length => 2,
            Self::Slot => 3,
            Self::SlotRange => 4,
            Self::Lanes => 5,
            Self::HostMagic => 6,
            Self::HostTable => 7,
            Self::HostDirectory => 8,
            Self::UnknownCall(_) => 9,
            Self::MissingCall(_) => 10,
        }
    }

    /// The refusal in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abi => "device and driver have different ABI versions",
            Self::Length => "configuration space too short",
            Self::Slot => "invalid slot number",
            Self::SlotRange => "invalid slot range",
            Self::Lanes => "invalid number of lanes",
            Self::HostMagic => "slot 0 has no header",
            Self::HostTable => "invalid hypercall table",
            Self::HostDirectory => "invalid peer directory",
            Self::UnknownCall(_) => "the host requires an unknown call",
            Self::MissingCall(_) => "the host lacks a needed call",
        }
    }
}

/// `struct virtio_fgdp_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Own slot.
    pub slot: u32,
    /// Size of the group's memory.
    pub group_size: u64,
    /// Offset of the own slot in the group.
    pub slot_offset: u64,
    /// Size of the own slot.
    pub slot_size: u64,
    /// The guest's id.
    pub guest_id: [u8; ID_LEN],
    /// Generation of the own slot.
    pub generation: u32,
    /// Lanes at most.
    pub max_lanes: u16,
    /// The group's id.
    pub group_id: [u8; ID_LEN],
}

impl Config {
    /// Size of the structure.
    pub const SIZE: usize = 72;

    /// Parses and validates the structure; bytes behind it are ignored.
    ///
    /// # Errors
    ///
    /// Which part is wrong.
    pub fn parse(buf: &[u8]) -> Result<Self, AttachError> {
        let mut r = Reader(buf);
        let parsed = (|| {
            let abi = r.u32()?;
            let config = Self {
                slot: r.u32()?,
                group_size: r.u64()?,
                slot_offset: r.u64()?,
                slot_size: r.u64()?,
                guest_id: r.array()?,
                generation: r.u32()?,
                max_lanes: {
                    let lanes = r.u16()?;
                    r.u16()?;
                    lanes
                },
                group_id: r.array()?,
            };
            Some((abi, config))
        })();
        let (abi, config) = parsed.ok_or(AttachError::Length)?;
        if abi != ABI {
            return Err(AttachError::Abi);
        }
        if config.slot == 0 || config.slot >= MAX_SLOTS {
            return Err(AttachError::Slot);
        }
        if !slot_fits(config.slot_offset, config.slot_size, config.group_size) {
            return Err(AttachError::SlotRange);
        }
        if config.max_lanes == 0 || u32::from(config.max_lanes) > MAX_LANES {
            return Err(AttachError::Lanes);
        }
        Ok(config)
    }

    /// The bytes of the structure.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut buf = [0; Self::SIZE];
        let mut w = Writer::new(&mut buf);
        // The buffer has the structure's size: nothing is cut off.
        let _complete = (|| {
            w.u32(ABI)?;
            w.u32(self.slot)?;
            w.u64(self.group_size)?;
            w.u64(self.slot_offset)?;
            w.u64(self.slot_size)?;
            w.bytes(&self.guest_id)?;
            w.u32(self.generation)?;
            w.u16(self.max_lanes)?;
            w.u16(0)?;
            w.bytes(&self.group_id)
        })();
        buf
    }
}

/// `struct fgdp_bell_hdr`: to which group a doorbell device belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BellHdr {
    /// The group's id.
    pub group_id: [u8; ID_LEN],
}

impl BellHdr {
    /// Size of the structure.
    pub const SIZE: usize = 32;

    /// Parses and validates the structure; bytes behind it are ignored. `None`
    /// if it is another device's memory or of another ABI version.
    pub fn parse(buf: &[u8]) -> Option<Self> {
        let mut r = Reader(buf);
        if r.u64()? != BELL_MAGIC || r.u32()? != ABI {
            return None;
        }
        r.u32()?;
        Some(Self {
            group_id: r.array()?,
        })
    }

    /// The bytes of the structure.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut buf = [0; Self::SIZE];
        let mut w = Writer::new(&mut buf);
        // The buffer has the structure's size: nothing is cut off.
        let _complete = (|| {
            w.u64(BELL_MAGIC)?;
            w.u32(ABI)?;
            w.u32(0)?;
            w.bytes(&self.group_id)
        })();
        buf
    }
}
