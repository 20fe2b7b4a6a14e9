// SPDX-License-Identifier: GPL-2.0

//! What all sockets and devices of the module share.

use crate::addr::GuestId;
use crate::device::Device;
use crate::inet::Inet;
use crate::peer::Peer;
use crate::port::Ports;
use crate::sys::lock::{new_bhlock, BhLock};
use kernel::prelude::*;
use kernel::sync::Arc;

/// The devices, the ports and the settings.
///
/// Lock order: `devices` and `ports` are innermost; nothing is called under them.
#[pin_data]
pub(crate) struct Stack {
    /// The socket family's number.
    pub(crate) family: u8,
    /// How long a consumer looks before it sleeps, in microseconds.
    pub(crate) spin_usec: u32,
    #[pin]
    pub(crate) ports: BhLock<Ports>,
    /// The hook into TCP, while it is in place.
    #[pin]
    inet: BhLock<Option<Arc<Inet>>>,
    #[pin]
    devices: BhLock<KVVec<Arc<Device>>>,
}

impl Stack {
    /// No device, no port.
    pub(crate) fn new(family: u8, spin_usec: u32) -> Result<Arc<Self>> {
        let devices = KVVec::with_capacity(MAX_DEVICES, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                family,
                spin_usec,
                ports <- new_bhlock!(Ports::new(), "fgdp_ports"),
                inet <- new_bhlock!(None, "fgdp_inet"),
                devices <- new_bhlock!(devices, "fgdp_devices"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes `device` one that connections can go through.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when there are too many.
    pub(crate) fn add(&self, device: Arc<Device>) -> Result {
        let refused = self.devices.lock().push_within_capacity(device);
        refused.map_err(|_| ENOSPC)
    }

    /// Takes `device` away.
    pub(crate) fn remove(&self, device: &Device) {
        let mut devices = self.devices.lock();
        let at = devices.iter().position(|d| core::ptr::eq(&**d, device));
        let removed = at.and_then(|at| devices.remove(at).ok());
        drop(devices);
        drop(removed);
    }

    /// The device at place `at`, for listings.
    pub(crate) fn device(&self, at: usize) -> Option<Arc<Device>> {
        self.devices.lock().get(at).cloned()
    }

    /// The place of `device`, for listings.
    pub(crate) fn number(&self, device: &Device) -> Option<u32> {
        let devices = self.devices.lock();
        let at = devices.iter().position(|d| d.is(device))?;
        u32::try_from(at).ok()
    }

    /// Finds the guest in the peer directories of all groups.
    pub(crate) fn find(&self, guest: GuestId) -> Option<(Arc<Device>, Arc<Peer>)> {
        let mut at = 0;
        while let Some(device) = self.device(at) {
            if let Some(peer) = device.find(guest) {
                return Some((device, peer));
            }
            at += 1;
        }
        None
    }

    /// The device and slot of the peer that has an address. Any context.
    pub(crate) fn find_address(&self, addr: &[u8; 16]) -> Option<(Arc<Device>, u32)> {
        let devices = self.devices.lock();
        devices.iter().find_map(|device| {
            let slot = device.find_address(addr)?;
            Some((device.clone(), slot))
        })
    }

    /// The device and slot of this guest itself. Any context.
    pub(crate) fn loopback(&self) -> Option<(Arc<Device>, u32)> {
        let devices = self.devices.lock();
        let device = devices.iter().find(|d| d.guest_id() == GuestId::LOOPBACK)?;
        Some((device.clone(), device.identity.slot))
    }

    /// The hook into TCP, if it is in place.
    pub(crate) fn inet(&self) -> Option<Arc<Inet>> {
        self.inet.lock().clone()
    }

    /// Puts the hook into TCP in place, or takes it out.
    pub(crate) fn set_inet(&self, inet: Option<Arc<Inet>>) {
        let old = core::mem::replace(&mut *self.inet.lock(), inet);
        drop(old);
    }

    /// Whether `guest` names this guest in one of its groups.
    pub(crate) fn is_own(&self, guest: GuestId) -> bool {
        let devices = self.devices.lock();
        devices.iter().any(|d| d.guest_id() == guest)
    }
}

/// Groups that a guest can be in, its own loopback included.
pub(crate) const MAX_DEVICES: usize = 16;
