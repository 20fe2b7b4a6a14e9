// SPDX-License-Identifier: GPL-2.0

//! Telling the host which IP addresses this guest has, so that peers find it by address.
//!
//! The host knows which addresses a guest may claim and refuses others: that is its business, the
//! guest tells what it has.

use crate::ctl::Job;
use crate::device::Device;
use crate::policy::POLICIES;
use crate::proto::wire::{Call, Request, Status, MAX_ADDRS};
use crate::stack::Stack;
use crate::sys::net::addr::{addresses, IpAddr, Watcher};
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// Addresses that are looked at: more than a guest can claim, as it may have some that it may not.
const MAX_OWN: usize = 32;

impl Watcher for Stack {
    fn changed(&self) {
        let mut at = 0;
        while let Some(device) = self.device(at) {
            // Without memory the next change, or HELLO, announces.
            let _queued = device.add_job(Job::Addresses);
            at += 1;
        }
    }
}

/// What the host was told and took.
#[derive(Default)]
pub(crate) struct Announced {
    list: [Option<IpAddr>; MAX_ADDRS],
}

impl Announced {
    fn has(&self, addr: &IpAddr) -> bool {
        self.list.iter().flatten().any(|a| a == addr)
    }
}

impl Device {
    /// Tells the host of addresses that came and went. Process context.
    pub(crate) fn announce(self: &Arc<Self>, announced: &mut Announced) {
        if !self.calls.has(Call::AddrAdd) || !self.calls.has(Call::AddrDel) {
            return;
        }
        let mut own = [[0u8; 16]; MAX_OWN];
        let mut count = 0;
        POLICIES.each(|net, policy| {
            if net.is_initial() || policy.level() > 0 {
                let room = own.get_mut(count..).unwrap_or(&mut []);
                count += addresses(net, room).min(room.len());
            }
        });
        let own = own.get(..count).unwrap_or(&[]);
        for place in &mut announced.list {
            if let Some(addr) = place.filter(|a| !own.contains(a)) {
                self.status(&Request::AddrDel(addr));
                *place = None;
            }
        }
        for addr in own {
            if announced.has(addr) {
                continue;
            }
            let Some(place) = announced.list.iter_mut().find(|p| p.is_none()) else {
                return;
            };
            match self.status(&Request::AddrAdd(*addr)) {
                Some(Status::Ok) => *place = Some(*addr),
                Some(Status::NotAllowed) => self.counters.addr_refused.add(1, Relaxed),
                _ => {}
            }
        }
    }
}
