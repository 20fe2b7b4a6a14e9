// SPDX-License-Identifier: GPL-2.0

//! What the peer of a channel lent.

use crate::proto::grant::{Accepted, Lent};
use crate::sys::atomic::load_acquire;
use crate::sys::lock::{new_bhlock, BhGuard, BhLock};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};

/// The extents that were accepted. Who looks at a connection whose rings were validated needs their
/// version alone, and no lock.
#[pin_data]
pub(crate) struct Extents {
    #[pin]
    table: BhLock<Accepted>,
    version: Atomic<u32>,
}

impl Extents {
    pub(crate) fn new(accepted: Accepted) -> impl PinInit<Self> {
        pin_init!(Self {
            version: Atomic::new(accepted.version()),
            table <- new_bhlock!(accepted, "fgdp_accepted"),
        })
    }

    pub(crate) fn lock(&self) -> BhGuard<'_, Accepted> {
        self.table.lock()
    }

    /// Removes all ranges of extent `id`.
    pub(crate) fn remove(&self, id: u32) {
        let mut table = self.table.lock();
        table.remove(id);
        self.version.store(table.version(), Release);
    }
}

impl Lent for Extents {
    fn version(&self) -> u32 {
        load_acquire(&self.version)
    }

    fn contains(&self, pfn: u32, frames: u32) -> bool {
        self.table.lock().contains(pfn, frames)
    }
}
