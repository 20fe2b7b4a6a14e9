// SPDX-License-Identifier: GPL-2.0

//! The IP addresses of this guest, and being told when they change.

use super::super::ffi;
use super::namespace::Net;
use core::pin::Pin;
use kernel::ffi::{c_int, c_ulong, c_void};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;

/// An IPv6 address, or an IPv4 one as `::ffff:a.b.c.d`.
pub(crate) type IpAddr = [u8; 16];

/// Fills `out` with the addresses of a namespace; returns how many there are, which may be more.
/// Those of loopback devices and link-local ones do not count. Any context.
pub(crate) fn addresses(net: &Net, out: &mut [IpAddr]) -> usize {
    let max = u32::try_from(out.len()).unwrap_or(u32::MAX);
    // SAFETY: `out` has room for `max` addresses.
    unsafe { ffi::fgdp_helper_addresses(net.raw(), out.as_mut_ptr().cast(), max) as usize }
}

/// Is told when an address comes or goes.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Addresses changed. May be called under a spin lock.
    fn changed(&self);
}

/// Both notifier chains' blocks, and whom they tell.
///
/// # Invariants
///
/// While registered, the blocks do not move and `watcher` lives.
#[repr(C)]
struct Blocks<W: Watcher> {
    v4: Block<W>,
    v6: Block<W>,
}

#[repr(C)]
struct Block<W: Watcher> {
    // First, so that a pointer to it is one to the whole.
    raw: Opaque<ffi::notifier_block>,
    watcher: Arc<W>,
}

impl<W: Watcher> Block<W> {
    fn new(watcher: Arc<W>) -> Self {
        let raw = ffi::notifier_block {
            notifier_call: Some(Self::notify),
            ..Default::default()
        };
        Self {
            raw: Opaque::new(raw),
            watcher,
        }
    }

    /// # Safety
    ///
    /// Called by a notifier chain with the first field of a live `Block<W>`.
    unsafe extern "C" fn notify(
        nb: *mut ffi::notifier_block,
        _action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: The chain holds only blocks that are the first field of a live `Block<W>`.
        let block = unsafe { &*nb.cast::<Self>() };
        block.watcher.changed();
        // NOTIFY_DONE.
        0
    }
}

/// A registration on both chains. Dropping it ends the calls.
pub(crate) struct Watch<W: Watcher>(Pin<KBox<Blocks<W>>>);

// SAFETY: The blocks are only touched by the chains, which have locks of their own.
unsafe impl<W: Watcher> Send for Watch<W> {}
// SAFETY: As above.
unsafe impl<W: Watcher> Sync for Watch<W> {}

impl<W: Watcher> Watch<W> {
    /// Tells `watcher` from now on. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or the chain's.
    pub(crate) fn new(watcher: Arc<W>) -> Result<Self> {
        let blocks = Blocks {
            v4: Block::new(watcher.clone()),
            v6: Block::new(watcher),
        };
        let blocks = KBox::pin(blocks, GFP_KERNEL)?;
        // SAFETY: The blocks are pinned and unregistered before they go.
        let v4 = unsafe { ffi::register_inetaddr_notifier(blocks.v4.raw.get()) };
        kernel::error::to_result(v4)?;
        // SAFETY: As above.
        let v6 = unsafe { ffi::register_inet6addr_notifier(blocks.v6.raw.get()) };
        if let Err(e) = kernel::error::to_result(v6) {
            // SAFETY: Registered above.
            unsafe { ffi::unregister_inetaddr_notifier(blocks.v4.raw.get()) };
            return Err(e);
        }
        Ok(Self(blocks))
    }
}

impl<W: Watcher> Drop for Watch<W> {
    fn drop(&mut self) {
        // SAFETY: Both are registered since `new`; no call runs after these return.
        unsafe {
            ffi::unregister_inet6addr_notifier(self.0.v6.raw.get());
            ffi::unregister_inetaddr_notifier(self.0.v4.raw.get());
        }
    }
}
