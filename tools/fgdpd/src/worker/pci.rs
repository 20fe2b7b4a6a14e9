// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The PCI configuration space of the device.
//!
//! QEMU emulates BAR addresses and MSI-X itself; what reaches us is the rest, of which the command register and
//! virtio's configuration access capability can be written.

use serde::{Deserialize, Serialize};

use crate::abi;

/// Bytes of the space.
const SIZE: usize = 256;

const COMMAND: u64 = 0x04;
const CAP_MSIX: u8 = 0x40;
const CAP_COMMON: u8 = 0x4c;
const CAP_ISR: u8 = 0x5c;
const CAP_DEVICE: u8 = 0x6c;
const CAP_NOTIFY: u8 = 0x7c;
const CAP_SLOT: u8 = 0x90;
const CAP_GROUP: u8 = 0xa8;
const CAP_ACCESS: u8 = 0xc0;
const ACCESS_BAR: u64 = CAP_ACCESS as u64 + 4;
const ACCESS_OFFSET: u64 = CAP_ACCESS as u64 + 8;
const ACCESS_LENGTH: u64 = CAP_ACCESS as u64 + 12;
const ACCESS_DATA: u64 = CAP_ACCESS as u64 + 16;

const ID_VENDOR: u8 = 0x09;
const ID_MSIX: u8 = 0x11;
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_ACCESS: u8 = 5;
const TYPE_SHARED_MEMORY: u8 = 8;

/// What the guest wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciState {
    command: u16,
    access_bar: u8,
    access_offset: u32,
    access_length: u32,
}

/// An access to a BAR through the configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Offset in BAR0.
    pub offset: u64,
    /// Bytes: 1, 2 or 4.
    pub len: usize,
}

struct Space([u8; SIZE]);

impl Space {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.0.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// A virtio capability at `at`, followed by the one at `next`.
    fn cap(&mut self, at: u8, next: u8, cap: &Cap) {
        let base = usize::from(at);
        let len = if cap.kind == TYPE_SHARED_MEMORY {
            24
        } else {
            16
        };
        self.put(
            base,
            &[ID_VENDOR, next, len, cap.kind, cap.bar, cap.id, 0, 0],
        );
        let halves = |word: u64| ((word & 0xffff_ffff) as u32, (word >> 32) as u32);
        let (offset, length) = (halves(cap.offset), halves(cap.length));
        self.put(base + 8, &offset.0.to_le_bytes());
        self.put(base + 12, &length.0.to_le_bytes());
        if cap.kind == TYPE_SHARED_MEMORY {
            self.put(base + 16, &offset.1.to_le_bytes());
            self.put(base + 20, &length.1.to_le_bytes());
        }
    }
}

/// A virtio capability: where a structure is.
struct Cap {
    kind: u8,
    bar: u8,
    id: u8,
    offset: u64,
    length: u64,
}

impl Cap {
    /// A structure in BAR0.
    fn registers(kind: u8, offset: u64) -> Self {
        Self {
            kind,
            bar: 0,
            id: 0,
            offset,
            length: abi::STRUCT_SIZE,
        }
    }

    /// A shared memory region that is a whole BAR.
    fn memory(id: u8, bar: u8, length: u64) -> Self {
        Self {
            kind: TYPE_SHARED_MEMORY,
            bar,
            id,
            offset: 0,
            length,
        }
    }
}

impl PciState {
    /// The whole space of a device with a slot and a group of these sizes.
    fn space(&self, slot_size: u64, group_size: u64) -> Space {
        let mut s = Space([0; SIZE]);
        s.put(0x00, &0x1af4u16.to_le_bytes());
        s.put(0x02, &(0x1040 + abi::VIRTIO_ID as u16).to_le_bytes());
        s.put(0x04, &self.command.to_le_bytes());
        // Status: there is a capability list.
        s.put(0x06, &0x0010u16.to_le_bytes());
        // Revision 1, class: other system peripheral.
        s.put(0x08, &[1, 0x00, 0x80, 0x08]);
        // BAR2 and BAR4: 64-bit, prefetchable.
        s.put(0x18, &[0x0c]);
        s.put(0x20, &[0x0c]);
        s.put(0x2c, &0x1af4u16.to_le_bytes());
        s.put(0x2e, &(0x1040 + abi::VIRTIO_ID as u16).to_le_bytes());
        s.put(0x34, &[CAP_MSIX]);

        let msix = usize::from(CAP_MSIX);
        s.put(msix, &[ID_MSIX, CAP_COMMON]);
        s.put(msix + 2, &(abi::VECTORS - 1).to_le_bytes());
        s.put(msix + 4, &(abi::MSIX_TABLE_OFFSET as u32).to_le_bytes());
        s.put(msix + 8, &(abi::MSIX_PBA_OFFSET as u32).to_le_bytes());

        s.cap(
            CAP_COMMON,
            CAP_ISR,
            &Cap::registers(TYPE_COMMON, abi::COMMON_OFFSET),
        );
        s.cap(
            CAP_ISR,
            CAP_DEVICE,
            &Cap::registers(TYPE_ISR, abi::ISR_OFFSET),
        );
        s.cap(
            CAP_DEVICE,
            CAP_NOTIFY,
            &Cap::registers(TYPE_DEVICE, abi::DEVICE_OFFSET),
        );
        s.cap(
            CAP_NOTIFY,
            CAP_SLOT,
            &Cap::registers(TYPE_NOTIFY, abi::NOTIFY_OFFSET),
        );
        s.put(usize::from(CAP_NOTIFY) + 2, &[20]);
        s.put(
            usize::from(CAP_NOTIFY) + 16,
            &(abi::NOTIFY_MULTIPLIER as u32).to_le_bytes(),
        );
        s.cap(CAP_SLOT, CAP_GROUP, &Cap::memory(0, 2, slot_size));
        s.cap(CAP_GROUP, CAP_ACCESS, &Cap::memory(1, 4, group_size));
        let (offset, length) = (self.access_offset.into(), self.access_length.into());
        s.cap(
            CAP_ACCESS,
            0,
            &Cap {
                kind: TYPE_ACCESS,
                bar: self.access_bar,
                id: 0,
                offset,
                length,
            },
        );
        s.put(usize::from(CAP_ACCESS) + 2, &[20]);
        s
    }

    /// Reads; a read of the access capability's data must be served with [`Self::window`].
    pub fn read(&self, offset: u64, data: &mut [u8], slot_size: u64, group_size: u64) {
        let space = self.space(slot_size, group_size);
        for (byte, at) in data
            .iter_mut()
            .zip(usize::try_from(offset).unwrap_or(SIZE)..)
        {
            *byte = space.0.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes; others than those to the registers above change nothing.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (byte, at) in data.iter().zip(offset..) {
            let put = |word: &mut u32, start: u64| {
                let shift = (at - start) * 8;
                *word = *word & !(0xff << shift) | (u32::from(*byte) << shift);
            };
            match at {
                COMMAND => self.command = self.command & 0xff00 | u16::from(*byte) & 0x47,
                0x05 => self.command = self.command & 0x00ff | ((u16::from(*byte) & 0x05) << 8),
                ACCESS_BAR => self.access_bar = *byte,
                _ if (ACCESS_OFFSET..ACCESS_OFFSET + 4).contains(&at) => {
                    put(&mut self.access_offset, ACCESS_OFFSET)
                }
                _ if (ACCESS_LENGTH..ACCESS_LENGTH + 4).contains(&at) => {
                    put(&mut self.access_length, ACCESS_LENGTH)
                }
                _ => (),
            }
        }
    }

    /// If a configuration access at `offset` is one to the access capability's data: what it means.
    pub fn window(&self, offset: u64) -> Option<Window> {
        let len = self.access_length as usize;
        let inside =
            u64::from(self.access_offset) + u64::from(self.access_length) <= abi::BAR0_SIZE;
        let good = self.access_bar == 0 && matches!(len, 1 | 2 | 4) && inside;
        (offset == ACCESS_DATA && good).then_some(Window {
            offset: self.access_offset.into(),
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the list as a driver does; (virtio type, shared memory id, offset, length).
    fn caps(pci: &PciState) -> Vec<(u8, u8, u64, u64)> {
        let mut space = [0u8; SIZE];
        pci.read(0, &mut space, 256 << 20, 5 << 30);
        let word = |at: usize| u64::from(u32::from_le_bytes(space[at..at + 4].try_into().unwrap()));
        let (mut at, mut found) = (usize::from(space[0x34]), Vec::new());
        while at != 0 {
            if space[at] == ID_VENDOR {
                let (mut offset, mut length) = (word(at + 8), word(at + 12));
                if space[at + 3] == TYPE_SHARED_MEMORY {
                    offset |= word(at + 16) << 32;
                    length |= word(at + 20) << 32;
                }
                found.push((space[at + 3], space[at + 5], offset, length));
            }
            assert!(
                usize::from(space[at + 1]) > at || space[at + 1] == 0,
                "list does not advance"
            );
            at = usize::from(space[at + 1]);
        }
        found
    }

    #[test]
    fn capability_list_is_complete() {
        let found = caps(&PciState::default());
        let kinds: Vec<u8> = found.iter().map(|c| c.0).collect();
        assert_eq!(kinds, [1, 3, 4, 2, 8, 8, 5]);
        assert!(found.contains(&(8, 0, 0, 256 << 20)));
        assert!(
            found.contains(&(8, 1, 0, 5 << 30)),
            "length needs its high word"
        );
    }

    #[test]
    fn access_capability_reaches_bar0_only() {
        let mut pci = PciState::default();
        pci.write(ACCESS_LENGTH, &4u32.to_le_bytes());
        pci.write(ACCESS_OFFSET, &0x2000u32.to_le_bytes());
        assert_eq!(
            pci.window(ACCESS_DATA),
            Some(Window {
                offset: 0x2000,
                len: 4
            })
        );
        assert_eq!(pci.window(ACCESS_DATA + 1), None);
        pci.write(ACCESS_BAR, &[2]);
        assert_eq!(pci.window(ACCESS_DATA), None);
        pci.write(ACCESS_BAR, &[0]);
        pci.write(ACCESS_OFFSET, &u32::MAX.to_le_bytes());
        assert_eq!(pci.window(ACCESS_DATA), None);
        pci.write(ACCESS_OFFSET, &0u32.to_le_bytes());
        pci.write(ACCESS_LENGTH, &3u32.to_le_bytes());
        assert_eq!(pci.window(ACCESS_DATA), None);
    }
}
