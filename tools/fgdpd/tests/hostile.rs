// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that does everything wrong: it may break its own device, and nothing else.
#![allow(missing_docs)]

mod common;

use common::driver::{connect, Guest, RawDesc, RAM_BASE, RAM_SIZE};
use common::{two_guests, until, Daemon};
use fgdp_proto::proto::wire::{Request, Status, MAX_REQUEST};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NEEDS_RESET: u8 = 0x40;

/// The victim lives: it can still do calls and hear events, and the worker is the same.
fn assert_unharmed(daemon: &Daemon, b: &mut Guest, worker: nix::unistd::Pid) {
    assert_eq!(b.call(&Request::Stats).0, Status::Ok);
    assert_eq!(daemon.worker(), worker, "a worker died");
}

#[test]
fn broken_chains_are_given_back() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let worker = daemon.worker();
    let buffer = RAM_BASE + a.queues[0].buffer(5) as u64;
    let desc = |addr, len, flags, next| RawDesc {
        addr,
        len,
        flags,
        next,
    };
    let chains = [
        vec![desc(buffer, 16, NEXT, 40)],
        // Beyond memory, around the end of the address space, longer than memory.
        vec![desc(RAM_BASE + RAM_SIZE as u64 - 8, 16, 0, 0)],
        vec![desc(u64::MAX - 4, 16, 0, 0)],
        vec![desc(buffer, u32::MAX, 0, 0)],
        // Next descriptor that is not there.
        vec![desc(buffer, 16, NEXT, 9999)],
        // Writable before readable.
        vec![desc(buffer, 16, WRITE | NEXT, 41), desc(buffer, 16, 0, 0)],
        // Indirect: not a table, in itself, with next.
        vec![desc(buffer, 7, INDIRECT, 0)],
        vec![desc(buffer, 16, INDIRECT | NEXT, 40)],
        vec![desc(buffer, 0, INDIRECT, 0)],
        // No room for the reply.
        vec![desc(buffer, 16, NEXT, 41), desc(buffer, 3, WRITE, 0)],
        vec![],
    ];
    for (n, chain) in chains.iter().enumerate() {
        for (index, d) in (40..).zip(chain) {
            a.set_desc(0, index, &desc(d.addr, d.len, d.flags, d.next));
        }
        if chain.is_empty() {
            a.set_desc(0, 40, &desc(0, 0, 0, 0));
        }
        a.push(0, 40);
        a.notify(0);
        // The one whose order is wrong has room for a reply that says so.
        let len = if n == 5 { 16 } else { 0 };
        assert_eq!(a.wait_used(0), (40, len), "chain {n}");
    }
    assert_eq!(a.call(&Request::Stats).0, Status::Ok, "the queue goes on");
    assert_unharmed(&daemon, &mut b, worker);
}

#[test]
fn broken_rings_stop_their_own_device() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let worker = daemon.worker();
    // An available index further ahead than the queue is long, and heads that are no descriptors.
    for (queue, index, head) in [
        (0, 5000u16, 0u16),
        (1, 40_000, 1),
        (2, 1, 64),
        (0, 1, u16::MAX),
        (3, 2, 65),
    ] {
        a.client.reset().unwrap();
        a.init();
        let base = usize::from(queue) * (256 << 10);
        let avail = base + 16 * 64;
        for n in 0..64 {
            a.ram_write(avail + 4 + 2 * n, &head.to_le_bytes());
        }
        a.ram_write(avail + 2, &index.to_le_bytes());
        a.notify(queue);
        assert_unharmed(&daemon, &mut b, worker);
    }
    a.client.reset().unwrap();
    a.init();
    assert_eq!(a.hello(u32::MAX), Status::Ok, "a reset makes it good again");
}

#[test]
fn queues_outside_memory_need_a_reset() {
    let daemon = Daemon::start(&two_guests(""));
    let mut b = Guest::ready(&daemon, "b");
    let mut a = Guest::boot(&daemon, "a");
    let worker = daemon.worker();
    let end = RAM_BASE + RAM_SIZE as u64;
    for (at, addr) in [
        (32, end - 16),
        (40, end - 2),
        (48, u64::MAX - 15),
        (32, 0),
        (48, end),
    ] {
        a.write(20, &[0]);
        a.write(20, &[3]);
        a.write(8, &1u32.to_le_bytes());
        a.write(12, &1u32.to_le_bytes());
        a.write(20, &[11]);
        a.write(22, &[0, 0]);
        for field in [32, 40, 48] {
            a.write(field, &(RAM_BASE + field * 0x1000).to_le_bytes());
        }
        a.write(at, &addr.to_le_bytes());
        a.write(28, &[1, 0]);
        assert_ne!(a.status() & NEEDS_RESET, 0, "field {at} at {addr:x}");
        a.write(20, &[15]);
        a.notify(0);
    }
    a.init();
    assert_eq!(a.hello(u32::MAX), Status::Ok);
    assert_unharmed(&daemon, &mut b, worker);
}

#[test]
fn memory_that_goes_under_a_queue_is_not_touched() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let worker = daemon.worker();
    a.client.dma_unmap(RAM_BASE, RAM_SIZE as u64).unwrap();
    for n in 0..5 {
        a.notify(n);
    }
    assert_unharmed(&daemon, &mut b, worker);
}

/// Deterministic noise (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn requests_of_noise_are_answered_and_refused() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let worker = daemon.worker();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        let len = (noise.next() as usize) % (MAX_REQUEST + 40);
        let mut bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
        if noise.next() % 4 != 0 && len >= 16 {
            // A header that leads further in.
            bytes[0..4].copy_from_slice(&[(noise.next() % 9) as u8, 0, 1, 0]);
            bytes[4..8].copy_from_slice(&((len - 16) as u32).to_le_bytes());
        }
        // BYE and HELLO would be legal.
        if len == 16 && bytes[0] == 8 {
            continue;
        }
        a.submit_raw(&bytes, 256);
        a.notify(0);
        let reply = a.reply_raw();
        assert!(reply.len() >= 16, "no reply to {bytes:x?}");
    }
    assert_unharmed(&daemon, &mut b, worker);
    let stats = daemon.member("stats", "a");
    assert!(stats["refused"].as_u64().unwrap() > 1000, "{stats}");
}

#[test]
fn register_noise_is_survived() {
    let daemon = Daemon::start(&two_guests(""));
    let mut b = Guest::ready(&daemon, "b");
    let mut a = Guest::boot(&daemon, "a");
    let worker = daemon.worker();
    let mut noise = Noise(0x0123_4567_89ab_cdef);
    for _ in 0..4000 {
        let len = [1usize, 2, 4, 8][(noise.next() % 4) as usize];
        let (region, size) = if noise.next() % 8 == 0 {
            (7, 256)
        } else {
            (0, 0x6000)
        };
        let small = noise.next() % 2 == 0;
        let offset = noise.next() % if small { 64 } else { size - 8 };
        let data = noise.next().to_le_bytes();
        if noise.next() % 3 == 0 {
            let mut got = [0; 8];
            a.client
                .region_read(region, offset, &mut got[..len])
                .unwrap();
        } else {
            a.client.region_write(region, offset, &data[..len]).unwrap();
        }
    }
    assert_unharmed(&daemon, &mut b, worker);
    a.client.reset().unwrap();
    a.init();
    assert_eq!(a.hello(u32::MAX), Status::Ok);
}

/// One who floods must not keep the others from their turn.
#[test]
fn a_flood_of_calls_delays_nobody_for_long() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(1);
    let mut calls = 0;
    while std::time::Instant::now() < deadline {
        for _ in 0..16 {
            a.submit(&Request::Stats);
        }
        a.notify(0);
        assert_eq!(b.call(&Request::Stats).0, Status::Ok);
        for _ in 0..16 {
            a.reply_raw();
            calls += 1;
        }
    }
    eprintln!(
        "{calls} calls of the one and {} of the other in a second",
        calls / 16
    );
    assert!(calls / 16 > 20);
}

#[test]
fn a_client_that_speaks_something_else_is_dropped() {
    use std::io::{Read, Write};
    let daemon = Daemon::start(&two_guests(""));
    let mut b = Guest::ready(&daemon, "b");
    let worker = daemon.worker();
    let header = |command: u16, size: u32| {
        let mut bytes = vec![1, 0];
        bytes.extend_from_slice(&command.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes
    };
    let floods = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        header(1, 3),
        header(9, u32::MAX),
        header(10, 1 << 20),
        vec![0xff; 4096],
    ];
    for bytes in floods {
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.path("a-g.sock")).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        // Closed by the daemon, perhaps with bytes of ours unread.
        let end = stream.read_to_end(&mut rest);
        assert!(
            end.is_ok() || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
            "not dropped"
        );
    }
    // Known commands with lengths and values that cannot be; each is answered.
    let mut stream = until("the socket to be free", || {
        let stream = std::os::unix::net::UnixStream::connect(daemon.path("a-g.sock")).unwrap();
        (daemon.member("peers", "a")["state"] == "attached").then_some(stream)
    });
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    for command in 1..=15u16 {
        for body in [0usize, 4, 15, 16, 20, 32, 40] {
            let mut bytes = header(command, 16 + body as u32);
            bytes.extend(std::iter::repeat_n(0xff, body));
            stream.write_all(&bytes).unwrap();
            let mut reply = [0; 16];
            stream.read_exact(&mut reply).unwrap();
            let size = u32::from_le_bytes(reply[4..8].try_into().unwrap()) as usize;
            let mut rest = vec![0; size - 16];
            stream.read_exact(&mut rest).unwrap();
            assert_eq!(reply[2..4], command.to_le_bytes());
        }
    }
    assert_unharmed(&daemon, &mut b, worker);
}
