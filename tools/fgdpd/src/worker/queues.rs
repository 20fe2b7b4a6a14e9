// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtqueues' traffic: calls and doorbells in, events and doorbells out.

use anyhow::Result;
use fgdp_proto::proto::wire::{Doorbell, Request};
use tracing::debug;

use super::device::Device;
use super::{calls, Worker, BUDGET};
use crate::abi;

impl Worker {
    /// Serves every queue that was rung, then delivers what that led to.
    pub(super) fn work(&mut self) -> Result<()> {
        let devs: Vec<u32> = self.devices.keys().copied().collect();
        for dev in devs {
            let Some(device) = self.devices.get_mut(&dev) else {
                continue;
            };
            let queues = (1 << abi::VQ_CONTROL) | (1 << abi::VQ_DOORBELL);
            let kicked = std::mem::take(&mut device.kicked) & queues;
            if kicked == 0 {
                continue;
            }
            self.store.begin(dev)?;
            if (kicked >> abi::VQ_CONTROL) & 1 != 0 {
                self.serve_calls(dev)?;
            }
            if (kicked >> abi::VQ_DOORBELL) & 1 != 0 {
                self.serve_doorbells(dev);
            }
            self.store.end(dev)?;
        }
        self.settle()?;
        self.deliver()
    }

    fn serve_calls(&mut self, dev: u32) -> Result<()> {
        for _ in 0..BUDGET {
            let Some(device) = self.devices.get_mut(&dev) else {
                return Ok(());
            };
            let Some(taken) = device.take_request() else {
                return Ok(());
            };
            let Some(g) = self.groups.get_mut(device.group) else {
                return Ok(());
            };
            let parsed = Request::parse(&taken.request);
            let cookie = match &parsed {
                Ok((cookie, _)) => *cookie,
                Err(bad) => bad.cookie,
            };
            let result = g
                .group
                .call(device.slot, parsed.map(|(_, request)| request));
            if let Err(status) = &result {
                debug!(guest = %device.label, ?status, "call refused");
            }
            let reply = calls::reply(cookie, &result);
            device.state.reply = Some(reply.clone());
            self.changed = true;
            self.settle()?;
            if let Some(device) = self.devices.get_mut(&dev) {
                device.answer(taken, &reply);
                device.state.reply = None;
            }
        }
        // There may be more: the others first.
        if let Some(device) = self.devices.get_mut(&dev) {
            device.kicked |= 1 << abi::VQ_CONTROL;
        }
        Ok(())
    }

    fn serve_doorbells(&mut self, dev: u32) {
        for _ in 0..BUDGET {
            let Some(device) = self.devices.get_mut(&dev) else {
                return;
            };
            let Some(bytes) = device.take_doorbell() else {
                return;
            };
            let (group, slot) = (device.group, device.slot);
            let Some(g) = self.groups.get_mut(group) else {
                return;
            };
            let Ok(bell) = Doorbell::parse(&bytes) else {
                g.group.bad_ring(slot);
                continue;
            };
            if !g.group.may_ring(slot, bell.peer, bell.lane) {
                continue;
            }
            let peer = self
                .devices
                .values_mut()
                .find(|d| d.group == group && d.slot == bell.peer);
            if let Some(rung) = peer.and_then(|d| d.rung.get_mut(bell.lane as usize)) {
                *rung |= 1 << slot;
            }
        }
        if let Some(device) = self.devices.get_mut(&dev) {
            device.kicked |= 1 << abi::VQ_DOORBELL;
        }
    }

    /// Events and rings to those that have buffers for them.
    pub(super) fn deliver(&mut self) -> Result<()> {
        for (dev, device) in &mut self.devices {
            let Some(m) = self
                .groups
                .get_mut(device.group)
                .and_then(|g| g.group.member(device.slot))
            else {
                continue;
            };
            if m.events.is_empty() && device.rung.iter().all(|r| *r == 0) {
                continue;
            }
            self.store.begin(*dev)?;
            while let Some(event) = m.events.front() {
                let bytes = event.bytes().unwrap_or_default();
                if !device.deliver(abi::VQ_EVENT, &bytes) {
                    break;
                }
                m.events.pop_front();
                self.changed = true;
            }
            deliver_rings(device);
            self.store.end(*dev)?;
        }
        Ok(())
    }
}

fn deliver_rings(device: &mut Device) {
    for lane in 0..abi::MAX_LANES as u32 {
        while let Some(rung) = device.rung.get(lane as usize).copied().filter(|r| *r != 0) {
            let peer = rung.trailing_zeros();
            if !device.deliver(abi::VQ_LANE0 + lane, &Doorbell { peer, lane }.encode()) {
                break;
            }
            if let Some(word) = device.rung.get_mut(lane as usize) {
                *word &= !(1 << peer);
            }
        }
    }
}
