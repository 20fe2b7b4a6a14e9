// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both ways to ring: through the daemon, and from guest to guest with ivshmem-doorbell.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::driver::{connect, Guest, NOTIFY};
use common::{two_guests, until, Daemon};
use fgdp_proto::proto::wire::{BellHdr, Doorbell, Status, NO_IVSHMEM};
use fgdpd::sys;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::os::unix::fs::FileExt;

/// Puts a doorbell on the doorbell queue.
fn ring(guest: &mut Guest, peer: u32, lane: u32) {
    let at = guest.queues[2].buffer(0);
    guest.ram_write(at, &Doorbell { peer, lane }.encode());
    let addr = common::driver::RAM_BASE + at as u64;
    guest.set_desc(
        2,
        0,
        &common::driver::RawDesc {
            addr,
            len: 8,
            flags: 0,
            next: 0,
        },
    );
    guest.push(2, 0);
    guest.notify(2);
    guest.wait_used(2);
}

fn rung(guest: &mut Guest, lane: u16) -> Doorbell {
    let (d, len) = guest.wait_used(3 + lane);
    let at = guest.queues[usize::from(3 + lane)].buffer(d);
    Doorbell::parse(&guest.ram_read(at, len)).unwrap()
}

#[test]
fn a_trapped_ring_reaches_the_lane_of_the_peer() {
    let daemon = Daemon::start(&two_guests("doorbell = \"trap\""));
    assert!(!daemon.path("g.doorbell.sock").exists());
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    for lane in [3, 4] {
        b.fill(lane);
    }
    for lane in [0, 1, 0] {
        ring(&mut a, 2, lane);
        assert_eq!(rung(&mut b, lane as u16), Doorbell { peer: 1, lane });
    }
    // Lanes and peers that are not there.
    for (peer, lane) in [
        (2, 2),
        (2, 3),
        (1, 0),
        (9, 0),
        (0, 0),
        (2, u32::MAX),
        (u32::MAX, 0),
    ] {
        ring(&mut a, peer, lane);
    }
    let stats = daemon.member("stats", "a");
    assert_eq!(
        (&stats["doorbells"], &stats["doorbells_bad"]),
        (&3.into(), &7.into())
    );
}

#[test]
fn a_ring_waits_for_buffer_and_vector() {
    let daemon = Daemon::start(&two_guests("doorbell = \"trap\""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    // No buffer: several rings become one.
    for _ in 0..5 {
        ring(&mut a, 2, 1);
    }
    b.give_one(4);
    b.notify(4);
    assert_eq!(rung(&mut b, 1), Doorbell { peer: 1, lane: 1 });
    b.give_one(4);
    b.notify(4);
    assert_eq!(b.pop_used(4), None, "one buffer for all");
    // No vector: QEMU takes them away while it changes one.
    b.mask();
    ring(&mut a, 2, 1);
    until("the ring to be in the buffer", || b.pop_used(4));
    b.unmask();
    assert!(b.wait_irq(4), "the interrupt was lost");
}

#[test]
fn a_ring_without_channel_reaches_nobody() {
    let daemon = Daemon::start(&two_guests("doorbell = \"trap\""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    b.fill(3);
    ring(&mut a, 2, 0);
    // Notifications beyond the queues, too.
    a.write(NOTIFY + 4 * 200, &[0, 0]);
    assert_eq!(daemon.member("stats", "a")["doorbells_bad"], 1);
    assert_eq!(b.pop_used(3), None);
}

/// A doorbell device's side of the protocol.
struct Bell {
    stream: UnixStream,
    id: i64,
    group: [u8; 16],
    /// By peer, an eventfd per vector.
    peers: BTreeMap<i64, Vec<OwnedFd>>,
}

impl Bell {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        let mut bell = Self {
            stream,
            id: -1,
            group: [0; 16],
            peers: BTreeMap::new(),
        };
        assert_eq!(bell.next().0, 0, "protocol version");
        let (id, fd) = bell.next();
        assert!(id >= 0 && fd.is_none());
        bell.id = id;
        let (word, memory) = bell.next();
        assert_eq!(word, -1);
        let memory = std::fs::File::from(memory.unwrap());
        assert_eq!(memory.metadata().unwrap().len(), 1 << 20);
        let mut header = [0; BellHdr::SIZE];
        memory.read_exact_at(&mut header, 0).unwrap();
        bell.group = BellHdr::parse(&header).unwrap().group_id;
        while bell.peers.get(&id).is_none_or(|v| v.len() < 2) {
            bell.learn();
        }
        bell
    }

    fn wait(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(common::PATIENCE).unwrap()).unwrap() == 1
    }

    fn next(&mut self) -> (i64, Option<OwnedFd>) {
        assert!(self.wait(), "no message");
        let mut word = [0; 8];
        let got = sys::recv_fds(self.stream.as_fd(), &mut word).unwrap();
        assert_eq!(got.len, 8, "the server hung up");
        (i64::from_le_bytes(word), got.fds.into_iter().next())
    }

    /// Takes one message about a peer: its id, and whether it is there.
    fn learn(&mut self) -> (i64, bool) {
        let (id, fd) = self.next();
        let there = fd.is_some();
        match fd {
            Some(fd) => {
                let vectors = self.peers.entry(id).or_default();
                vectors.push(fd);
                assert!(vectors.len() <= 2, "more eventfds than vectors");
            }
            None => assert!(self.peers.remove(&id).is_some(), "peer {id} went twice"),
        }
        (id, there)
    }

    fn ring(&self, peer: i64, vector: usize) {
        nix::unistd::write(&self.peers[&peer][vector], &1u64.to_ne_bytes()).unwrap();
    }

    fn was_rung(&self, vector: usize) -> bool {
        let mut count = [0; 8];
        nix::unistd::read(&self.peers[&self.id][vector], &mut count).is_ok()
    }
}

#[test]
fn ivshmem_devices_ring_each_other() {
    let daemon = Daemon::start(&two_guests(""));
    let path = daemon.path("g.doorbell.sock");
    let mut first = Bell::connect(&path);
    let second = Bell::connect(&path);
    while first.peers.get(&second.id).is_none_or(|v| v.len() < 2) {
        first.learn();
    }
    assert_eq!(
        second.peers[&first.id].len(),
        2,
        "the second knows the first from the start"
    );
    assert_eq!(first.group, second.group);
    for (from, to) in [(&first, &second), (&second, &first)] {
        for vector in 0..2 {
            assert!(!to.was_rung(vector));
            from.ring(to.id, vector);
            assert!(to.was_rung(vector) && !to.was_rung(1 - vector));
        }
    }
    // Ids are never used twice, and a peer goes once.
    let gone = second.id;
    drop(second);
    assert_eq!(first.learn(), (gone, false));
    let third = Bell::connect(&path);
    assert!(third.id > gone && !third.peers.contains_key(&gone));
    assert_eq!(first.learn(), (third.id, true));
}

#[test]
fn hello_takes_only_the_own_doorbell() {
    let daemon = Daemon::start(&two_guests(""));
    let path = daemon.path("g.doorbell.sock");
    let (one, two) = (Bell::connect(&path), Bell::connect(&path));
    let (mut a, mut b) = (Guest::boot(&daemon, "a"), Guest::boot(&daemon, "b"));
    assert_eq!(a.config.group_id, one.group);
    assert_eq!(a.hello(99), Status::BadValue, "nobody's");
    assert_eq!(a.hello(one.id as u32), Status::Ok);
    assert_eq!(b.hello(one.id as u32), Status::BadValue, "another's");
    assert_eq!(b.hello(two.id as u32), Status::Ok);
    assert_eq!(daemon.member("peers", "b")["doorbell_id"], two.id);
    // A doorbell that goes leaves the directory.
    a.event();
    drop(two);
    a.event();
    assert!(daemon.member("peers", "b")["doorbell_id"].is_null());
}

#[test]
fn a_group_can_insist_on_doorbell_devices() {
    let daemon = Daemon::start(&two_guests("doorbell = \"ivshmem\""));
    let mut a = Guest::boot(&daemon, "a");
    assert_eq!(a.hello(NO_IVSHMEM), Status::BadValue);
    let bell = Bell::connect(&daemon.path("g.doorbell.sock"));
    until("the doorbell to be known", || {
        (daemon.status()["groups"][0]["doorbell_devices"] == 1).then_some(())
    });
    assert_eq!(a.hello(bell.id as u32), Status::Ok);
}
