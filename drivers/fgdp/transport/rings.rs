// SPDX-License-Identifier: GPL-2.0

//! Ringing through the host: the doorbell queue.
//!
//! A doorbell is first noted in `pending`, then handed to the host in a buffer. While it is noted,
//! ringing the same lane again adds nothing: whoever takes the note does so after this side's
//! stores.

use crate::proto::wire::{self, MAX_LANES, MAX_SLOTS};
use crate::sys::irqlock::{new_irqlock, IrqLock};
use crate::sys::virtio::{Buffer, Queue};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Doorbells on their way to the host at one time.
const RING_BUFFERS: usize = 16;

/// Doorbells that are to go to the host.
struct Rings {
    free: [Option<KBox<Buffer>>; RING_BUFFERS],
    /// Bit n of entry p: lane n of the member in slot p is to be rung.
    pending: [u8; MAX_SLOTS as usize],
}

impl Rings {
    fn next(&self) -> Option<(usize, u32)> {
        let (peer, lanes) = self.pending.iter().enumerate().find(|(_, l)| **l != 0)?;
        Some((peer, lanes.trailing_zeros()))
    }

    fn put(&mut self, buffer: KBox<Buffer>) {
        // There are as many places as buffers.
        if let Some(place) = self.free.iter_mut().find(|f| f.is_none()) {
            *place = Some(buffer);
        }
    }
}

/// The doorbell queue and what is to go through it.
#[pin_data]
pub(super) struct HostRings {
    queue: Queue,
    /// Handed to the host.
    pub(super) rung: Atomic<u64>,
    /// Not handed over because one to the same lane was still to be.
    pub(super) coalesced: Atomic<u64>,
    #[pin]
    state: IrqLock<Rings>,
}

impl HostRings {
    pub(super) fn new(queue: Queue) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut free = [const { None }; RING_BUFFERS];
            for place in &mut free {
                *place = Some(Buffer::new(&[0; wire::Doorbell::SIZE], 0)?);
            }
            Ok(try_pin_init!(Self {
                queue,
                rung: Atomic::new(0),
                coalesced: Atomic::new(0),
                state <- new_irqlock!(Rings {
                    free,
                    pending: [0; MAX_SLOTS as usize],
                }),
            }))
        })
    }

    /// Buffers that come back are looked for at the next ring; the device need not interrupt. Any
    /// context.
    pub(super) fn quiet(&self) {
        self.queue.disable_callback();
    }

    /// Rings `lane` of the member in slot `peer`. Any context but hard interrupt.
    pub(super) fn ring(&self, peer: u32, lane: u32) {
        {
            let mut rings = self.state.lock();
            let Some(lanes) = rings.pending.get_mut(peer as usize) else {
                return;
            };
            if *lanes & (1 << lane) != 0 {
                // Whoever set the bit has not handed it to the host yet, so the peer will look
                // after this store.
                self.coalesced.fetch_add(1, Relaxed);
                return;
            }
            *lanes |= 1 << lane;
        }
        self.pump();
    }

    /// Hands doorbells that are to be sent to the host, as many as there are buffers.
    ///
    /// When doorbells remain, the device interrupts once it returned a buffer, and this runs again:
    /// none is lost.
    pub(super) fn pump(&self) {
        let mut kick = false;
        let mut rings = self.state.lock();
        // Each turn but the last sends one of those noted, or finds a buffer to send the next one
        // with. Nothing is noted meanwhile, so the bound is reached with a device only that claims
        // to have returned what it did not.
        for _ in 0..4 * MAX_SLOTS * MAX_LANES {
            while let Some(buffer) = self.queue.take() {
                rings.put(buffer);
            }
            let Some((peer, lane)) = rings.next() else {
                break;
            };
            let sent = match rings.free.iter_mut().find_map(Option::take) {
                Some(mut buffer) => {
                    let doorbell = wire::Doorbell {
                        peer: peer as u32,
                        lane,
                    };
                    buffer.out().copy_from_slice(&doorbell.encode());
                    match self.queue.add(buffer) {
                        Ok(()) => true,
                        Err(buffer) => {
                            rings.put(buffer);
                            false
                        }
                    }
                }
                None => false,
            };
            if sent {
                kick = true;
                if let Some(lanes) = rings.pending.get_mut(peer) {
                    *lanes &= !(1 << lane);
                }
                self.rung.fetch_add(1, Relaxed);
            } else if self.queue.enable_callback() {
                break;
            }
        }
        drop(rings);
        if kick {
            self.queue.kick();
        }
    }
}
