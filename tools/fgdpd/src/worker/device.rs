// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One guest's device: registers, queues, interrupts.
//!
//! Every queue is served in order and a buffer is completed before the next one is taken, so the used index in guest
//! memory says how far a queue is: a worker that takes over needs no other record of it (see [`Device::resume`]).

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use fgdp_proto::proto::wire::{Config, MAX_REQUEST};
use nix::unistd::write;
use serde::{Deserialize, Serialize};
use tracing::{debug, error};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::group::worth_a_line;
use super::guest_memory::GuestMemory;
use super::pci::PciState;
use super::registers::{Effect, Registers, NO_VECTOR};
use crate::abi;

const NO_INTERRUPT: u16 = VRING_AVAIL_F_NO_INTERRUPT as u16;

/// What is kept of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Virtio registers.
    pub regs: Registers,
    /// PCI configuration space.
    pub pci: PciState,
    /// Used index of the control queue when `reply` was made.
    pub control_used: u16,
    /// The answer that goes to that index.
    pub reply: Option<Vec<u8>>,
    /// Used index of the event queue that matches the events kept.
    pub event_used: u16,
}

impl DeviceState {
    /// After a reset.
    pub fn new(queues: usize) -> Self {
        Self {
            regs: Registers::new(queues),
            pci: PciState::default(),
            control_used: 0,
            reply: None,
            event_used: 0,
        }
    }
}

/// A request taken from the control queue.
#[derive(Debug)]
pub struct Taken {
    /// Its bytes.
    pub request: Vec<u8>,
    chain: Chain,
}

type Chain = DescriptorChain<Arc<GuestMemoryMmap>>;

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its number.
    pub dev: u32,
    /// Position of its group.
    pub group: usize,
    /// Its slot in it.
    pub slot: u32,
    /// For logs.
    pub label: String,
    /// A QEMU is connected.
    pub attached: bool,
    /// What is kept.
    pub state: DeviceState,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Queues with something to look at.
    pub kicked: u32,
    /// By lane, the slots that rang and were not passed on.
    pub rung: [u32; abi::MAX_LANES],
    queues: Vec<Option<Queue>>,
    vectors: [Option<OwnedFd>; abi::VECTORS as usize],
    /// Vectors that fired while they had no descriptor.
    latched: u32,
    /// Queues enabled where no memory is.
    bad_queues: u64,
}

impl Device {
    /// A device that nobody uses yet, with `lanes` lane queues.
    pub fn new(dev: u32, group: usize, slot: u32, label: String, lanes: u16) -> Self {
        let queues = abi::VQ_LANE0 as usize + usize::from(lanes);
        Self {
            dev,
            group,
            slot,
            label,
            attached: false,
            state: DeviceState::new(queues),
            memory: GuestMemory::default(),
            kicked: 0,
            rung: [0; abi::MAX_LANES],
            queues: (0..queues).map(|_| None).collect(),
            vectors: [const { None }; abi::VECTORS as usize],
            latched: 0,
            bad_queues: 0,
        }
    }

    /// To the state after power-on; descriptors and memory belong to the connection and stay.
    pub fn reset(&mut self) {
        self.state = DeviceState::new(self.queues.len());
        self.queues.iter_mut().for_each(|q| *q = None);
        self.kicked = 0;
        self.rung = [0; abi::MAX_LANES];
        self.latched = 0;
    }

    /// QEMU is gone.
    pub fn detach(&mut self) {
        self.reset();
        self.attached = false;
        self.memory.clear();
        self.vectors = [const { None }; abi::VECTORS as usize];
    }

    /// Reads BAR0.
    pub fn read_bar(&mut self, offset: u64, data: &mut [u8], config: &Config) {
        let at = offset % abi::STRUCT_SIZE;
        data.fill(0);
        match offset - at {
            abi::COMMON_OFFSET => self.state.regs.read(at, data),
            abi::DEVICE_OFFSET => {
                let bytes = config.encode();
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                for (to, from) in data.iter_mut().zip(bytes.iter().skip(from)) {
                    *to = *from;
                }
            }
            // Interrupt status is always 0: there is no INTx. The MSI-X table is QEMU's.
            _ => (),
        }
    }

    /// Writes BAR0; true if the device is to be reset.
    pub fn write_bar(&mut self, offset: u64, data: &[u8]) -> bool {
        let at = offset % abi::STRUCT_SIZE;
        match offset - at {
            abi::COMMON_OFFSET => match self.state.regs.write(at, data) {
                Effect::Reset => return true,
                Effect::QueueEnabled(n) => self.enable(n),
                Effect::DriverOk => {
                    debug!(guest = %self.label, "driver runs");
                    self.kicked = u32::MAX;
                }
                Effect::None => (),
            },
            abi::NOTIFY_OFFSET => {
                self.kicked |= u32::try_from(at / abi::NOTIFY_MULTIPLIER)
                    .ok()
                    .and_then(|n| 1u32.checked_shl(n))
                    .unwrap_or(0)
            }
            _ => (),
        }
        false
    }

    fn enable(&mut self, n: usize) {
        let Some(regs) = self.state.regs.queues.get(n) else {
            return;
        };
        let state = QueueState {
            max_size: abi::QUEUE_SIZE,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: false,
            size: regs.size,
            ready: true,
            desc_table: regs.desc,
            avail_ring: regs.driver,
            used_ring: regs.device,
        };
        let queue = Queue::try_from(state)
            .ok()
            .filter(|q| q.is_valid(self.memory.get()));
        if queue.is_none() {
            self.bad_queues += 1;
            if worth_a_line(self.bad_queues) {
                error!(guest = %self.label, queue = n, "queue outside shared guest memory: start QEMU with \
                    -object memory-backend-memfd,id=mem,size=...,share=on -machine ...,memory-backend=mem");
            }
            self.state.regs.set_needs_reset();
        }
        if let Some(slot) = self.queues.get_mut(n) {
            *slot = queue;
        }
        if n != abi::VQ_CONTROL as usize && n != abi::VQ_DOORBELL as usize {
            self.set_notified(u32::try_from(n).unwrap_or(u32::MAX), false);
        }
    }

    /// Takes over the queues from a worker that died: each goes on at its used index. Returns how many events were
    /// delivered after the state was kept; an answer that was kept but not delivered is delivered.
    pub fn resume(&mut self) -> usize {
        let mut delivered = 0;
        for n in 0..self.queues.len() {
            if !self.state.regs.queues.get(n).is_some_and(|r| r.enabled) {
                continue;
            }
            self.enable(n);
            let Some(Some(queue)) = self.queues.get_mut(n) else {
                continue;
            };
            let used = queue
                .used_idx(self.memory.get(), Ordering::Acquire)
                .map_or(0, |i| i.0);
            queue.set_next_used(used);
            queue.set_next_avail(used);
            if n == abi::VQ_EVENT as usize {
                delivered = usize::from(used.wrapping_sub(self.state.event_used));
            }
            if n == abi::VQ_CONTROL as usize && used == self.state.control_used {
                if let Some(reply) = self.state.reply.take() {
                    if let Some(taken) = self.take_request() {
                        self.answer(taken, &reply);
                    }
                }
            }
        }
        self.state.reply = None;
        // What was rung may have been lost with the old worker: look everywhere, and let the guest look too.
        self.kicked = u32::MAX;
        for vector in 0..abi::VECTORS {
            self.fire(vector);
        }
        delivered
    }

    /// Brings the indices into the state, before it is kept.
    pub fn note_indices(&mut self) {
        if let Some(Some(q)) = self.queues.get(abi::VQ_EVENT as usize) {
            self.state.event_used = q.next_used();
        }
        if let Some(Some(q)) = self.queues.get(abi::VQ_CONTROL as usize) {
            self.state.control_used = q.next_used();
        }
    }

    fn running(&self) -> bool {
        self.attached && self.state.regs.driver_ok()
    }

    fn pop(&mut self, n: u32) -> Option<Chain> {
        if !self.running() {
            return None;
        }
        let memory = self.memory.handle();
        self.queues
            .get_mut(n as usize)?
            .as_mut()?
            .pop_descriptor_chain(memory)
    }

    /// At most `most` bytes of what the chain holds for the device, copied out of guest memory.
    fn readable(&self, chain: &Chain, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = match chain.clone().reader(self.memory.get()) {
            Ok(reader) => reader
                .take(most as u64)
                .read_to_end(&mut bytes)
                .map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(e) = read {
            debug!(guest = %self.label, "buffer not readable: {e}");
            bytes.clear();
        }
        bytes
    }

    /// The next request.
    pub fn take_request(&mut self) -> Option<Taken> {
        let chain = self.pop(abi::VQ_CONTROL)?;
        // One byte more than the longest, so that a longer one is seen to be too long.
        let request = self.readable(&chain, MAX_REQUEST + 1);
        Some(Taken { request, chain })
    }

    /// Writes the answer to a request and gives the buffer back.
    pub fn answer(&mut self, taken: Taken, reply: &[u8]) {
        self.complete(abi::VQ_CONTROL, taken.chain, reply);
    }

    /// Writes `bytes` to the next buffer of queue `n`; false when there is none.
    pub fn deliver(&mut self, n: u32, bytes: &[u8]) -> bool {
        let mut chain = self.pop(n);
        if chain.is_none() && self.set_notified(n, true) {
            chain = self.pop(n);
        }
        let Some(chain) = chain else {
            return false;
        };
        self.set_notified(n, false);
        self.complete(n, chain, bytes);
        true
    }

    /// Whether the driver is to notify us of buffers it adds to queue `n`; true if it added one in between. It is
    /// to do so only while one is missed: each notification stops its processor for a round trip to us.
    fn set_notified(&mut self, n: u32, on: bool) -> bool {
        let memory = self.memory.get();
        let Some(Some(queue)) = self.queues.get_mut(n as usize) else {
            return false;
        };
        let added = if on {
            queue.enable_notification(memory)
        } else {
            queue.disable_notification(memory).map(|()| false)
        };
        added.unwrap_or_else(|e| {
            debug!(guest = %self.label, queue = n, "used ring: {e}");
            false
        })
    }

    /// The next doorbell, and its buffer given back.
    pub fn take_doorbell(&mut self) -> Option<Vec<u8>> {
        let chain = self.pop(abi::VQ_DOORBELL)?;
        let bytes = self.readable(&chain, 16);
        self.complete(abi::VQ_DOORBELL, chain, &[]);
        Some(bytes)
    }

    fn complete(&mut self, n: u32, chain: Chain, bytes: &[u8]) {
        let memory = self.memory.handle();
        let head = chain.head_index();
        let Some(Some(queue)) = self.queues.get_mut(n as usize) else {
            return;
        };
        let written = if bytes.is_empty() {
            0
        } else {
            write_chain(chain, &memory, bytes)
        };
        if let Err(e) = queue.add_used(memory.as_ref(), head, written) {
            debug!(guest = %self.label, queue = n, "used ring: {e}; the device needs a reset");
            self.state.regs.set_needs_reset();
            return;
        }
        // The flag and the used index are each other's: the driver clears it, then looks at the index.
        fence(Ordering::SeqCst);
        let flags = memory
            .load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
            .map_or(0, u16::from_le);
        if flags & NO_INTERRUPT == 0 {
            let vector = self
                .state
                .regs
                .queues
                .get(n as usize)
                .map_or(NO_VECTOR, |q| q.vector);
            self.fire(vector);
        }
    }

    /// Interrupts the guest; without a descriptor, as soon as there is one.
    pub fn fire(&mut self, vector: u16) {
        let Some(slot) = self.vectors.get(usize::from(vector)) else {
            return;
        };
        match slot {
            Some(fd) => {
                if let Err(e) = write(fd, &1u64.to_ne_bytes()) {
                    debug!(guest = %self.label, vector, "interrupt: {e}");
                }
            }
            None => self.latched |= 1 << vector,
        }
    }

    /// New descriptors for vectors from `start` on; bit n of `present`: the next of `fds` is for `start + n`.
    pub fn set_vectors(&mut self, start: u32, count: u32, present: u32, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        for n in 0..count.min(abi::VECTORS.into()) {
            if let Some(slot) = self.vectors.get_mut((start + n) as usize) {
                *slot = if (present >> n) & 1 != 0 {
                    fds.next()
                } else {
                    None
                };
            }
        }
        // QEMU takes all descriptors away and gives them back whenever one vector changes.
        let latched = std::mem::take(&mut self.latched);
        for vector in 0..abi::VECTORS {
            if (latched >> vector) & 1 != 0 {
                self.fire(vector);
            }
        }
    }
}

/// Writes to the chain's writable part; the bytes written, 0 if they do not fit.
fn write_chain(chain: Chain, memory: &GuestMemoryMmap, bytes: &[u8]) -> u32 {
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    if writer.available_bytes() < bytes.len() {
        return 0;
    }
    match writer.write_all(bytes) {
        Ok(()) => u32::try_from(bytes.len()).unwrap_or(0),
        Err(_) => 0,
    }
}
