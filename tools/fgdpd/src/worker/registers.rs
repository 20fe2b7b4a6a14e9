// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio registers: common configuration, as the guest programs it.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use crate::abi;

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;
/// What the device offers.
pub const FEATURES: u64 = (1 << VIRTIO_F_VERSION_1) | (1 << VIRTIO_RING_F_INDIRECT_DESC);

/// Bytes of the common configuration.
const COMMON_SIZE: usize = 60;

/// A queue as programmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRegs {
    /// Entries.
    pub size: u16,
    /// Its vector.
    pub vector: u16,
    /// In use.
    pub enabled: bool,
    /// Descriptor table.
    pub desc: u64,
    /// Driver area.
    pub driver: u64,
    /// Device area.
    pub device: u64,
}

impl Default for QueueRegs {
    fn default() -> Self {
        Self {
            size: abi::QUEUE_SIZE,
            vector: NO_VECTOR,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
        }
    }
}

/// The registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Of the device.
    pub status: u8,
    /// What the driver takes.
    pub driver_features: u64,
    /// Vector of configuration changes.
    pub config_vector: u16,
    /// Counts configuration changes.
    pub config_generation: u8,
    /// The queues.
    pub queues: Vec<QueueRegs>,
    device_select: u32,
    driver_select: u32,
    queue_select: u16,
}

/// What a write leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The device is to be reset.
    Reset,
    /// This queue was enabled.
    QueueEnabled(usize),
    /// The driver is ready.
    DriverOk,
}

impl Registers {
    /// After a reset.
    pub fn new(queues: usize) -> Self {
        Self {
            status: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            config_generation: 0,
            queues: vec![QueueRegs::default(); queues],
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
        }
    }

    /// Whether the driver runs.
    pub fn driver_ok(&self) -> bool {
        u32::from(self.status)
            & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)
            == VIRTIO_CONFIG_S_DRIVER_OK
    }

    /// The device cannot go on: only a reset helps.
    pub fn set_needs_reset(&mut self) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET as u8;
    }

    fn selected(&self) -> Option<&QueueRegs> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// Reads from the common configuration.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let mut c = [0u8; COMMON_SIZE];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = c.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        let half = |word: u64, select: u32| match select {
            0 => (word & 0xffff_ffff) as u32,
            1 => (word >> 32) as u32,
            _ => 0,
        };
        put(0, &self.device_select.to_le_bytes());
        put(4, &half(FEATURES, self.device_select).to_le_bytes());
        put(8, &self.driver_select.to_le_bytes());
        put(
            12,
            &half(self.driver_features, self.driver_select).to_le_bytes(),
        );
        put(16, &self.config_vector.to_le_bytes());
        put(
            18,
            &u16::try_from(self.queues.len()).unwrap_or(0).to_le_bytes(),
        );
        put(20, &[self.status, self.config_generation]);
        put(22, &self.queue_select.to_le_bytes());
        // A queue that is not there has size 0.
        if let Some(q) = self.selected() {
            put(24, &q.size.to_le_bytes());
            put(26, &q.vector.to_le_bytes());
            put(28, &u16::from(q.enabled).to_le_bytes());
            put(30, &self.queue_select.to_le_bytes());
            put(32, &q.desc.to_le_bytes());
            put(40, &q.driver.to_le_bytes());
            put(48, &q.device.to_le_bytes());
        } else {
            put(26, &NO_VECTOR.to_le_bytes());
        }
        for (byte, at) in data
            .iter_mut()
            .zip(usize::try_from(offset).unwrap_or(COMMON_SIZE)..)
        {
            *byte = c.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes to the common configuration.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut word = [0u8; 8];
        let Some(to) = word.get_mut(..data.len()) else {
            return Effect::None;
        };
        to.copy_from_slice(data);
        let value = u64::from_le_bytes(word);
        let (v32, v16) = ((value & 0xffff_ffff) as u32, (value & 0xffff) as u16);
        let vector = if v16 < abi::VECTORS { v16 } else { NO_VECTOR };
        match (offset, data.len()) {
            (0, 4) => self.device_select = v32,
            (8, 4) => self.driver_select = v32,
            (12, 4) => self.set_features(v32),
            (16, 2) => self.config_vector = vector,
            (20, 1) => return self.set_status((value & 0xff) as u8),
            (22, 2) => self.queue_select = v16,
            (24..=55, _) => return self.write_queue(offset, data.len(), value, v16, vector),
            _ => (),
        }
        Effect::None
    }

    fn set_features(&mut self, word: u32) {
        if u32::from(self.status) & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        let word = u64::from(word);
        match self.driver_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | word,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | (word << 32),
            _ => (),
        }
    }

    fn set_status(&mut self, new: u8) -> Effect {
        if new == 0 {
            return Effect::Reset;
        }
        let features_ok = VIRTIO_CONFIG_S_FEATURES_OK as u8;
        let driver_ok = VIRTIO_CONFIG_S_DRIVER_OK as u8;
        // Bits are only set, except those the device does not agree to.
        let mut status = self.status | new;
        let agreed = self.driver_features & !FEATURES == 0
            && (self.driver_features >> VIRTIO_F_VERSION_1) & 1 != 0;
        if self.status & features_ok == 0 && !agreed {
            status &= !features_ok;
        }
        if status & features_ok == 0 {
            status &= !driver_ok;
        }
        let starts = self.status & driver_ok == 0 && status & driver_ok != 0;
        self.status = status;
        if starts {
            Effect::DriverOk
        } else {
            Effect::None
        }
    }

    fn write_queue(
        &mut self,
        offset: u64,
        len: usize,
        value: u64,
        v16: u16,
        vector: u16,
    ) -> Effect {
        let at = usize::from(self.queue_select);
        let Some(q) = self.queues.get_mut(at) else {
            return Effect::None;
        };
        let half = |word: &mut u64, high: bool| match (high, len) {
            (false, 8) => *word = value,
            (false, 4) => *word = *word & !0xffff_ffff | value & 0xffff_ffff,
            (true, 4) => *word = *word & 0xffff_ffff | (value << 32),
            _ => (),
        };
        if offset == 26 && len == 2 {
            q.vector = vector;
            return Effect::None;
        }
        if q.enabled {
            // The rest is fixed until the next reset.
            return Effect::None;
        }
        match offset {
            24 if v16.is_power_of_two() && v16 <= abi::QUEUE_SIZE => q.size = v16,
            28 if v16 == 1 => {
                q.enabled = true;
                return Effect::QueueEnabled(at);
            }
            32 | 36 => half(&mut q.desc, offset == 36),
            40 | 44 => half(&mut q.driver, offset == 44),
            48 | 52 => half(&mut q.device, offset == 52),
            _ => (),
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_need_version_1_and_nothing_unknown() {
        for (low, high, ok) in [
            (0, 1, true),
            (1 << 28, 1, true),
            (0, 0, false),
            (1, 1, false),
            (0, 3, false),
        ] {
            let mut r = Registers::new(5);
            r.write(8, &0u32.to_le_bytes());
            r.write(12, &u32::to_le_bytes(low));
            r.write(8, &1u32.to_le_bytes());
            r.write(12, &u32::to_le_bytes(high));
            r.write(20, &[11]);
            assert_eq!(r.status & 8 != 0, ok, "{low:x} {high:x}");
            assert_eq!(r.write(20, &[15]) == Effect::DriverOk, ok);
            assert_eq!(r.driver_ok(), ok);
        }
    }

    #[test]
    fn an_enabled_queue_is_fixed() {
        let mut r = Registers::new(5);
        r.write(22, &3u16.to_le_bytes());
        r.write(24, &64u16.to_le_bytes());
        r.write(32, &0x1000u32.to_le_bytes());
        r.write(36, &1u32.to_le_bytes());
        assert_eq!(r.write(28, &1u16.to_le_bytes()), Effect::QueueEnabled(3));
        r.write(24, &128u16.to_le_bytes());
        r.write(32, &0x2000u64.to_le_bytes());
        let q = &r.queues[3];
        assert_eq!((q.size, q.desc), (64, 0x1_0000_1000));
    }

    #[test]
    fn an_absent_queue_reads_as_size_0() {
        let mut r = Registers::new(5);
        r.write(22, &5u16.to_le_bytes());
        let mut size = [1u8; 2];
        r.read(24, &mut size);
        assert_eq!((size, r.write(28, &[1, 0])), ([0, 0], Effect::None));
    }
}
