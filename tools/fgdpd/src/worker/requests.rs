// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What QEMU asks: accesses to BARs and configuration space, memory, interrupts, reset.

use std::os::fd::OwnedFd;

use anyhow::Result;
use tracing::{debug, warn};

use super::link::{Request, ToSupervisor};
use super::Worker;
use crate::vfio::wire::REGION_CONFIG;

const BAR0: u32 = 0;

impl Worker {
    /// Serves a request and sends the answer.
    pub(super) fn request(
        &mut self,
        dev: u32,
        id: u64,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let result = self.serve_request(dev, request, fds);
        // The state is kept before QEMU can know that it changed.
        self.settle()?;
        self.link
            .send(&ToSupervisor::Reply { dev, id, result }, &[])?;
        Ok(())
    }

    fn serve_request(
        &mut self,
        dev: u32,
        request: Request,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Vec<u8>, i32> {
        let device = self.devices.get_mut(&dev).ok_or(nix::libc::ENODEV)?;
        match request {
            Request::Read {
                region,
                offset,
                count,
            } => self.read_region(dev, region, offset, count),
            Request::Write {
                region,
                offset,
                data,
            } => self.write_region(dev, region, offset, &data),
            Request::Map(dma) => {
                let fd = fds.pop().ok_or(nix::libc::EINVAL)?;
                device
                    .memory
                    .map(&dma, fd)
                    .map(|()| Vec::new())
                    .map_err(|e| {
                        warn!(guest = %device.label, ?dma, "guest memory not mapped: {e}");
                        nix::libc::EINVAL
                    })
            }
            Request::Unmap { addr, size, all } => {
                if all {
                    device.memory.clear();
                } else {
                    device.memory.unmap(addr, size);
                }
                Ok(Vec::new())
            }
            Request::Irqs {
                start,
                count,
                present,
            } => {
                device.set_vectors(start, count, present, fds);
                Ok(Vec::new())
            }
            Request::Reset => {
                self.reset(dev);
                Ok(Vec::new())
            }
        }
    }

    fn sizes(&self, dev: u32) -> Option<(u64, u64)> {
        let config = self.config(self.devices.get(&dev)?)?;
        Some((config.slot_size, config.group_size))
    }

    fn read_region(
        &mut self,
        dev: u32,
        region: u32,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, i32> {
        let mut data = vec![0; count as usize];
        match region {
            BAR0 => self.read_bar(dev, offset, &mut data)?,
            REGION_CONFIG => {
                let (slot_size, group_size) = self.sizes(dev).ok_or(nix::libc::ENODEV)?;
                let pci = &self.devices.get(&dev).ok_or(nix::libc::ENODEV)?.state.pci;
                pci.read(offset, &mut data, slot_size, group_size);
                if let Some(window) = pci.window(offset) {
                    let len = window.len.min(data.len());
                    self.read_bar(dev, window.offset, data.get_mut(..len).unwrap_or_default())?;
                }
            }
            // What is beyond the mapped part of BAR2 and BAR4 reads as zero.
            _ => (),
        }
        Ok(data)
    }

    fn read_bar(&mut self, dev: u32, offset: u64, data: &mut [u8]) -> Result<(), i32> {
        let config = self
            .devices
            .get(&dev)
            .and_then(|d| self.config(d))
            .ok_or(nix::libc::ENODEV)?;
        let device = self.devices.get_mut(&dev).ok_or(nix::libc::ENODEV)?;
        device.read_bar(offset, data, &config);
        Ok(())
    }

    fn write_region(
        &mut self,
        dev: u32,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<Vec<u8>, i32> {
        let device = self.devices.get_mut(&dev).ok_or(nix::libc::ENODEV)?;
        self.changed = true;
        let reset = match region {
            BAR0 => device.write_bar(offset, data),
            REGION_CONFIG => {
                device.state.pci.write(offset, data);
                match device.state.pci.window(offset) {
                    Some(window) => {
                        device.write_bar(window.offset, data.get(..window.len).unwrap_or(data))
                    }
                    None => false,
                }
            }
            _ => false,
        };
        if reset {
            // The driver's reset: PCI configuration and interrupts are not virtio's.
            let pci = device.state.pci.clone();
            let used = device.state.regs.status != 0;
            if used {
                self.reset(dev);
                if let Some(device) = self.devices.get_mut(&dev) {
                    device.state.pci = pci;
                }
            }
        }
        Ok(Vec::new())
    }

    /// The device is as after power-on, and what the guest wrote into its slot is gone.
    fn reset(&mut self, dev: u32) {
        let Some(device) = self.devices.get_mut(&dev) else {
            return;
        };
        debug!(guest = %device.label, "reset");
        device.reset();
        if let Some(g) = self.groups.get_mut(device.group) {
            g.group.reset(device.slot);
        }
        self.changed = true;
    }
}
