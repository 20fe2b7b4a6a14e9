// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU and driver in one: a vfio-user client with guest memory, split virtqueues and interrupts.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{fence, Ordering};

use fgdp_proto::proto::wire::{
    Channel, Config, Event, Frames, FramesOp, Hello, Range, Ranges, Reason, Reply, Request, Status,
    EVENT_SIZE, MAX_REQUEST, NO_IVSHMEM,
};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{memfd_create, MFdFlags};
use vfio_user::Client;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::{Daemon, PATIENCE};

pub const COMMON: u64 = 0;
pub const DEVICE: u64 = 0x2000;
pub const NOTIFY: u64 = 0x3000;
pub const CONFIG_REGION: u32 = 7;

/// Guest memory begins here.
pub const RAM_BASE: u64 = 0x10_0000;
pub const RAM_SIZE: usize = 4 << 20;
const QUEUE_SIZE: u16 = 64;
/// Bytes of guest memory per queue: rings, then buffers.
const QUEUE_SPACE: usize = 256 << 10;
const BUFFER_SIZE: usize = 2048;

pub struct Guest {
    pub client: Client,
    pub ram: MmapRegion,
    pub irqs: Vec<EventFd>,
    pub config: Config,
    pub queues: Vec<Queue>,
    cookie: u64,
}

/// The driver's side of a queue.
pub struct Queue {
    base: usize,
    avail: u16,
    used: u16,
    free: VecDeque<u16>,
}

impl Queue {
    fn avail_ring(&self) -> usize {
        self.base + 16 * usize::from(QUEUE_SIZE)
    }
    fn used_ring(&self) -> usize {
        self.base + 0x1000
    }
    /// Where descriptor `n`'s buffer is in RAM.
    pub fn buffer(&self, n: u16) -> usize {
        self.base + 0x2000 + usize::from(n) * BUFFER_SIZE
    }
}

pub struct RawDesc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// Maps a region that the device offers.
pub fn map(file: &FileOffset, size: usize) -> MmapRegion {
    MmapRegion::from_file(file.clone(), size).unwrap()
}

impl Guest {
    /// Connects, gives memory and interrupts, starts the driver with all queues.
    pub fn boot(daemon: &Daemon, name: &str) -> Self {
        let mut guest = Self::plug(&daemon.path(&format!("{name}-g.sock")));
        guest.init();
        guest
    }

    /// A guest that has said HELLO and waits for events.
    pub fn ready(daemon: &Daemon, name: &str) -> Self {
        let mut guest = Self::boot(daemon, name);
        assert_eq!(guest.hello(NO_IVSHMEM), Status::Ok);
        guest
    }

    /// Connects, gives memory and interrupts.
    pub fn plug(socket: &Path) -> Self {
        let mut client = Client::new(socket).unwrap();
        let fd = memfd_create("ram", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, RAM_SIZE as i64).unwrap();
        client
            .dma_map(0, RAM_BASE, RAM_SIZE as u64, fd.as_raw_fd())
            .unwrap();
        let ram = map(&FileOffset::new(File::from(fd), 0), RAM_SIZE);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let irqs: Vec<EventFd> = (0..16)
            .map(|_| EventFd::from_value_and_flags(0, flags).unwrap())
            .collect();
        let config = Config {
            slot: 0,
            group_size: 0,
            slot_offset: 0,
            slot_size: 0,
            guest_id: [0; 16],
            generation: 0,
            max_lanes: 0,
            group_id: [0; 16],
        };
        let mut guest = Self {
            client,
            ram,
            irqs,
            config,
            queues: Vec::new(),
            cookie: 0,
        };
        guest.unmask();
        guest
    }

    pub fn mask(&mut self) {
        self.client.set_irqs(2, 1 | (1 << 5), 0, 0, &[]).unwrap();
    }

    pub fn unmask(&mut self) {
        let fds: Vec<i32> = self.irqs.iter().map(|e| e.as_fd().as_raw_fd()).collect();
        self.client.set_irqs(2, 4 | (1 << 5), 0, 16, &fds).unwrap();
    }

    pub fn read<const N: usize>(&mut self, at: u64) -> [u8; N] {
        let mut data = [0; N];
        self.client.region_read(0, at, &mut data).unwrap();
        data
    }

    pub fn write(&mut self, at: u64, data: &[u8]) {
        self.client.region_write(0, at, data).unwrap();
    }

    pub fn status(&mut self) -> u8 {
        self.read::<1>(COMMON + 20)[0]
    }

    /// What a driver's probe does, up to DRIVER_OK.
    pub fn init(&mut self) {
        self.write(20, &[0]);
        assert_eq!(self.status(), 0);
        self.write(20, &[3]);
        self.write(8, &1u32.to_le_bytes());
        self.write(12, &1u32.to_le_bytes());
        self.write(20, &[11]);
        assert_eq!(self.status(), 11, "features refused");
        self.config = Config::parse(&self.read::<72>(DEVICE)).unwrap();
        let count = u16::from_le_bytes(self.read::<2>(18));
        assert_eq!(count, 3 + self.config.max_lanes);
        self.queues.clear();
        for n in 0..count {
            self.setup_queue(n);
        }
        self.write(20, &[15]);
        assert_eq!(self.status(), 15);
        for n in (0..count).filter(|n| *n == 1) {
            self.fill(n);
        }
    }

    fn setup_queue(&mut self, n: u16) {
        let base = usize::from(n) * QUEUE_SPACE;
        self.ram
            .as_volatile_slice()
            .write_slice(&vec![0; 0x2000], base)
            .unwrap();
        let q = Queue {
            base,
            avail: 0,
            used: 0,
            free: (0..QUEUE_SIZE).collect(),
        };
        self.write(22, &n.to_le_bytes());
        self.write(24, &QUEUE_SIZE.to_le_bytes());
        self.write(26, &n.to_le_bytes());
        for (at, ring) in [(32, q.base), (40, q.avail_ring()), (48, q.used_ring())] {
            self.write(at, &(RAM_BASE + ring as u64).to_le_bytes());
        }
        self.write(28, &1u16.to_le_bytes());
        self.queues.push(q);
    }

    pub fn ram_write(&self, at: usize, bytes: &[u8]) {
        self.ram.as_volatile_slice().write_slice(bytes, at).unwrap();
    }

    pub fn ram_read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.ram
            .as_volatile_slice()
            .read_slice(&mut out, at)
            .unwrap();
        out
    }

    pub fn set_desc(&self, n: u16, index: u16, desc: &RawDesc) {
        let mut bytes = desc.addr.to_le_bytes().to_vec();
        bytes.extend_from_slice(&desc.len.to_le_bytes());
        bytes.extend_from_slice(&desc.flags.to_le_bytes());
        bytes.extend_from_slice(&desc.next.to_le_bytes());
        self.ram_write(
            self.queues[usize::from(n)].base + 16 * usize::from(index),
            &bytes,
        );
    }

    /// Makes the chain at `head` available.
    pub fn push(&mut self, n: u16, head: u16) {
        let q = &mut self.queues[usize::from(n)];
        let at = q.avail_ring() + 4 + 2 * usize::from(q.avail % QUEUE_SIZE);
        let index = q.avail_ring() + 2;
        q.avail = q.avail.wrapping_add(1);
        let avail = q.avail;
        self.ram_write(at, &head.to_le_bytes());
        fence(Ordering::SeqCst);
        self.ram_write(index, &avail.to_le_bytes());
    }

    pub fn notify(&mut self, n: u16) {
        self.write(NOTIFY + 4 * u64::from(n), &n.to_le_bytes());
    }

    /// All of the queue's buffers are given to the device.
    pub fn fill(&mut self, n: u16) {
        while let Some(d) = self.queues[usize::from(n)].free.pop_front() {
            self.give(n, d);
        }
        self.notify(n);
    }

    /// One buffer, without notification.
    pub fn give_one(&mut self, n: u16) {
        let d = self.queues[usize::from(n)].free.pop_front().unwrap();
        self.give(n, d);
    }

    fn give(&mut self, n: u16, d: u16) {
        let addr = RAM_BASE + self.queues[usize::from(n)].buffer(d) as u64;
        self.set_desc(
            n,
            d,
            &RawDesc {
                addr,
                len: EVENT_SIZE as u32,
                flags: 2,
                next: 0,
            },
        );
        self.push(n, d);
    }

    /// The next used element, if there is one: descriptor and length.
    pub fn pop_used(&mut self, n: u16) -> Option<(u16, usize)> {
        let q = &self.queues[usize::from(n)];
        let index = u16::from_le_bytes(self.ram_read(q.used_ring() + 2, 2).try_into().unwrap());
        if index == q.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let at = q.used_ring() + 4 + 8 * usize::from(q.used % QUEUE_SIZE);
        let elem = self.ram_read(at, 8);
        let q = &mut self.queues[usize::from(n)];
        q.used = q.used.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes(elem[at..at + 4].try_into().unwrap());
        Some((word(0) as u16, word(4) as usize))
    }

    /// Waits for the queue's interrupt until something is used.
    pub fn wait_used(&mut self, n: u16) -> (u16, usize) {
        loop {
            if let Some(used) = self.pop_used(n) {
                return used;
            }
            assert!(self.wait_irq(n), "no interrupt for queue {n}");
        }
    }

    /// Waits for a vector; false after a long time.
    pub fn wait_irq(&mut self, vector: u16) -> bool {
        let irq = &self.irqs[usize::from(vector)];
        let mut fds = [PollFd::new(irq.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        poll(&mut fds, timeout).unwrap() == 1 && irq.read().is_ok()
    }

    /// Puts request bytes on the control queue; the descriptor.
    pub fn submit_raw(&mut self, bytes: &[u8], reply_len: u32) -> u16 {
        let q = &mut self.queues[0];
        let (request, reply) = (q.free.pop_front().unwrap(), q.free.pop_front().unwrap());
        let (from, to) = (q.buffer(request), q.buffer(reply));
        self.ram_write(from, bytes);
        let len = bytes.len() as u32;
        self.set_desc(
            0,
            request,
            &RawDesc {
                addr: RAM_BASE + from as u64,
                len,
                flags: 1,
                next: reply,
            },
        );
        self.set_desc(
            0,
            reply,
            &RawDesc {
                addr: RAM_BASE + to as u64,
                len: reply_len,
                flags: 2,
                next: 0,
            },
        );
        self.push(0, request);
        request
    }

    /// Waits for the oldest request's reply.
    pub fn reply_raw(&mut self) -> Vec<u8> {
        let (head, len) = self.wait_used(0);
        let next = self.ram_read(self.queues[0].base + 16 * usize::from(head) + 14, 2);
        let reply = u16::from_le_bytes(next.try_into().unwrap());
        let bytes = self.ram_read(self.queues[0].buffer(reply), len);
        self.queues[0].free.extend([head, reply]);
        bytes
    }

    pub fn submit(&mut self, request: &Request<'_>) -> u64 {
        self.cookie += 1;
        let cookie = self.cookie;
        let mut buf = [0; MAX_REQUEST];
        let len = request.encode(cookie, &mut buf).unwrap();
        self.submit_raw(&buf[..len], 256);
        cookie
    }

    /// A whole call: status and payload.
    pub fn call(&mut self, request: &Request<'_>) -> (Status, Vec<u8>) {
        let cookie = self.submit(request);
        self.notify(0);
        let bytes = self.reply_raw();
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!(reply.cookie, cookie);
        (reply.status, reply.body.to_vec())
    }

    pub fn hello(&mut self, ivshmem_id: u32) -> Status {
        let hello = Hello {
            abi: 1,
            generation: 0,
            lanes: 2,
            ivshmem_id,
        };
        let (status, body) = self.call(&Request::Hello(hello));
        if status == Status::Ok {
            let hello = Hello::parse(&body).unwrap();
            assert_eq!(hello.generation, self.config.generation);
        }
        status
    }

    pub fn open(&mut self, peer: &Guest) -> Status {
        self.call(&Request::ChannelOpen(channel(peer))).0
    }

    pub fn close(&mut self, peer: &Guest) -> Status {
        self.call(&Request::ChannelClose(channel(peer))).0
    }

    pub fn frames(&mut self, op: FramesOp, peer: &Guest, extent: u32, ranges: &[Range]) -> Status {
        let ranges = Ranges::new(ranges).unwrap();
        let (slot, peer_generation) = (peer.config.slot, peer.config.generation);
        self.call(&Request::Frames(Frames {
            op,
            peer: slot,
            peer_generation,
            extent,
            ranges,
        }))
        .0
    }

    /// The next event, as text; its buffer goes back.
    pub fn event(&mut self) -> String {
        let (d, len) = self.wait_used(1);
        let bytes = self.ram_read(self.queues[1].buffer(d), len);
        let text = describe(&Event::parse(&bytes).unwrap());
        self.give(1, d);
        self.notify(1);
        text
    }

    /// The next event, whose buffer is not given back: nobody may be there to take it.
    pub fn event_text(&mut self) -> String {
        let (d, len) = self.wait_used(1);
        let bytes = self.ram_read(self.queues[1].buffer(d), len);
        describe(&Event::parse(&bytes).unwrap())
    }

    /// The next event that is not about the directory.
    pub fn event_other(&mut self) -> String {
        loop {
            let event = self.event();
            if !event.starts_with("peer") {
                return event;
            }
        }
    }

    /// A range of the own slot, `n` extents after its first that can be offered.
    pub fn extent(&self, n: u32, frames: u32) -> Range {
        let first = (self.config.slot_offset >> 12) as u32 + 4 * 512;
        Range {
            pfn: first + n * 512,
            frames,
        }
    }

    pub fn bar(&self, region: u32) -> FileOffset {
        self.client
            .region(region)
            .unwrap()
            .file_offset
            .clone()
            .unwrap()
    }

    pub fn slot(&self) -> MmapRegion {
        map(&self.bar(2), self.config.slot_size as usize)
    }
}

pub fn channel(peer: &Guest) -> Channel {
    Channel {
        peer: peer.config.slot,
        peer_generation: peer.config.generation,
        reason: Reason::PeerClosed,
    }
}

/// Both open the channel to each other, and have seen it.
pub fn connect(a: &mut Guest, b: &mut Guest) {
    assert_eq!(a.open(b), Status::Ok);
    assert_eq!(b.event_other(), format!("open {}", a.config.slot));
    assert_eq!(b.open(a), Status::Ok);
    assert_eq!(a.event_other(), format!("open {}", b.config.slot));
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Peer { peer, generation } => format!("peer {peer} {generation}"),
        Event::Channel {
            peer, open: true, ..
        } => format!("open {peer}"),
        Event::Channel { peer, reason, .. } => format!("close {peer} {reason:?}"),
        Event::Frames(f) => format!("{:?} {} {} {}", f.op, f.peer, f.extent, f.ranges.frames()),
        Event::Lost => "lost".into(),
    }
}
