// SPDX-License-Identifier: GPL-2.0

//! Another member of the group, as the directory shows it.

use crate::addr::GuestId;
use crate::channel::Channel;
use crate::proto::wire::{DirEntry, PeerState, Reason};
use crate::sys::lock::{new_bhlock, BhLock};
use kernel::prelude::*;
use kernel::sync::Arc;

struct Inner {
    entry: DirEntry,
    channel: Option<Arc<Channel>>,
    last_down: Reason,
}

/// What is known about the member in one slot.
#[pin_data]
pub(crate) struct Peer {
    /// The slot.
    pub(crate) number: u32,
    #[pin]
    inner: BhLock<Inner>,
}

impl Peer {
    /// Nobody yet.
    pub(crate) fn new(number: u32) -> Result<Arc<Self>> {
        let inner = Inner {
            entry: DirEntry::default(),
            channel: None,
            last_down: Reason::None,
        };
        Arc::pin_init(
            pin_init!(Self { number, inner <- new_bhlock!(inner, "fgdp_peer") }),
            GFP_KERNEL,
        )
    }

    /// The directory's entry as it was last read.
    pub(crate) fn entry(&self) -> DirEntry {
        self.inner.lock().entry
    }

    /// Keeps what was read from the directory.
    pub(crate) fn set_entry(&self, entry: &DirEntry) {
        self.inner.lock().entry = *entry;
    }

    /// Whether it is `guest`, ready for channels.
    pub(crate) fn is_ready(&self, guest: GuestId) -> bool {
        let inner = self.inner.lock();
        inner.entry.state == PeerState::Ready && inner.entry.guest_id == guest.0
    }

    /// Whether `addr` is one of its addresses.
    pub(crate) fn has_address(&self, addr: &[u8; 16]) -> bool {
        let inner = self.inner.lock();
        inner.entry.state == PeerState::Ready && inner.entry.addrs().contains(addr)
    }

    /// The channel, while it is up.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        self.inner.lock().channel.clone().filter(|c| !c.is_dead())
    }

    /// The channel is up.
    pub(crate) fn set_channel(&self, channel: Arc<Channel>) {
        let old = self.inner.lock().channel.replace(channel);
        drop(old);
    }

    /// The channel is down.
    pub(crate) fn clear_channel(&self, reason: Reason) {
        let mut inner = self.inner.lock();
        inner.last_down = reason;
        let old = inner.channel.take();
        drop(inner);
        drop(old);
    }

    /// Why the last channel ended.
    pub(crate) fn last_down(&self) -> Reason {
        self.inner.lock().last_down
    }
}
