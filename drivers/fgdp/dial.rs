// SPDX-License-Identifier: GPL-2.0

//! Connecting before there is a channel to the peer: it comes up in the background, and the caller
//! of `connect(2)` waits for that only if it waits for anything.

use crate::device::Device;
use crate::family::{AfFgdp, FgdpRef};
use crate::peer::Peer;
use crate::sys::lock::{new_bhlock, BhLock};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// A socket that waits for a channel.
#[pin_data]
pub(crate) struct Dial {
    /// Through which it goes.
    pub(crate) device: Arc<Device>,
    peer: Arc<Peer>,
    /// The port at the peer.
    pub(crate) port: u32,
    /// The socket, until it is told or closed.
    #[pin]
    sk: BhLock<Option<FgdpRef>>,
    #[pin]
    work: Work<Dial>,
}

impl_has_work! {
    impl HasWork<Self> for Dial { self.work }
}

impl WorkItem for Dial {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let channel = this.device.channel(&this.peer);
        let sk = this.sk.lock().take();
        if let Some(sk) = sk {
            AfFgdp::dialed(&sk, &this, channel);
        }
    }
}

impl Dial {
    /// For `sk`, to `port` of `peer`. May sleep.
    pub(crate) fn new(
        device: Arc<Device>,
        peer: Arc<Peer>,
        port: u32,
        sk: FgdpRef,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                device,
                peer,
                port,
                sk <- new_bhlock!(Some(sk), "fgdp_dial"),
                work <- new_work!("fgdp_dial"),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the channel brought up; [`AfFgdp::dialed`] is told how that went. Any context.
    pub(crate) fn start(self: &Arc<Self>) {
        if let Some(queue) = crate::sys::work::process() {
            // It is new, so it is not queued.
            let _queued = queue.enqueue(self.clone());
        }
    }

    /// Nobody is to be told. Any context.
    pub(crate) fn cancel(&self) {
        let sk = self.sk.lock().take();
        drop(sk);
    }
}
