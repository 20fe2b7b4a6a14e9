// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest's memory, as far as QEMU announced it with descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

use crate::link::Dma;

/// The memory.
#[derive(Debug, Clone, Default)]
pub struct GuestMemory(Arc<GuestMemoryMmap>);

impl GuestMemory {
    /// What virtqueues work on.
    pub fn get(&self) -> &GuestMemoryMmap {
        &self.0
    }

    /// A shared handle for descriptor chains.
    pub fn handle(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.0)
    }

    /// Adds a piece.
    pub fn map(&mut self, dma: &Dma, fd: OwnedFd) -> Result<(), String> {
        let size = usize::try_from(dma.size).map_err(|e| e.to_string())?;
        let file = FileOffset::new(File::from(fd), dma.offset);
        let region = MmapRegion::from_file(file, size).map_err(|e| e.to_string())?;
        let region =
            GuestRegionMmap::new(region, GuestAddress(dma.addr)).ok_or("address overflow")?;
        self.0 = Arc::new(
            self.0
                .insert_region(Arc::new(region))
                .map_err(|e| e.to_string())?,
        );
        Ok(())
    }

    /// Takes out every piece that has a byte in the range.
    pub fn unmap(&mut self, addr: u64, size: u64) {
        let end = addr.saturating_add(size);
        let hit: Vec<(GuestAddress, u64)> = self
            .0
            .iter()
            .map(|r| (r.start_addr(), r.len()))
            .filter(|(start, len)| start.0 < end && start.0.saturating_add(*len) > addr)
            .collect();
        for (start, len) in hit {
            if let Ok((rest, _)) = self.0.remove_region(start, len) {
                self.0 = Arc::new(rest);
            }
        }
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.0 = Arc::default();
    }
}
