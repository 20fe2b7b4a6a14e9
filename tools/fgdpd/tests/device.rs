// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device as a driver sees it: probe, memory, calls, events.
#![allow(missing_docs)]

mod common;

use std::sync::atomic::{fence, Ordering};

use common::driver::{connect, Guest, CONFIG_REGION};
use common::{two_guests, until, Daemon};
use fgdp_proto::proto::mem::Mem;
use fgdp_proto::proto::wire::{
    Call, CallTable, DirEntry, FramesOp, HostHdr, HostStats, PeerState, Range, Request, Status,
    NO_IVSHMEM,
};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// The group as a guest maps it.
struct Group(MmapRegion);

impl Group {
    fn of(guest: &Guest) -> Self {
        let size = guest.config.group_size as usize;
        let region = MmapRegion::build(
            Some(guest.bar(4)),
            size,
            nix::libc::PROT_READ,
            nix::libc::MAP_SHARED,
        );
        Self(region.unwrap())
    }

    fn entry(&self, slot: u32) -> DirEntry {
        let hdr = HostHdr::read(self).unwrap();
        DirEntry::read(self, hdr.dir_offset, slot).unwrap()
    }
}

impl Mem for Group {
    fn size(&self) -> u64 {
        self.0.size() as u64
    }
    fn load(&self, off: u64) -> u32 {
        self.0
            .as_volatile_slice()
            .load(off as usize, Ordering::Relaxed)
            .unwrap()
    }
    fn load_acquire(&self, off: u64) -> u32 {
        self.0
            .as_volatile_slice()
            .load(off as usize, Ordering::Acquire)
            .unwrap()
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

fn word(region: &MmapRegion, at: usize) -> u64 {
    region
        .as_volatile_slice()
        .load(at, Ordering::Acquire)
        .unwrap()
}

fn put(region: &MmapRegion, at: usize, value: u64) {
    region
        .as_volatile_slice()
        .store(value, at, Ordering::Release)
        .unwrap();
}

#[test]
fn probe_finds_slot_group_and_table() {
    let daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::boot(&daemon, "a");
    let mut ids = [0; 4];
    a.client.region_read(CONFIG_REGION, 0, &mut ids).unwrap();
    assert_eq!(ids, [0xf4, 0x1a, 0x40 + 61, 0x10]);
    assert_eq!(
        (a.config.slot, a.config.slot_size, a.config.group_size),
        (1, 16 << 20, 66 << 20)
    );
    let group = Group::of(&a);
    let hdr = HostHdr::read(&group).unwrap();
    let table = CallTable::read(&group, &hdr).unwrap();
    assert!(Call::ALL.iter().all(|call| table.has(*call)));
    assert_eq!(table.quota(Call::Frames), Some((16 << 20) / 4096));
    let own = group.entry(1);
    assert_eq!(
        (own.state, own.name(), own.slot_offset),
        (PeerState::Attached, &b"a"[..], a.config.slot_offset)
    );
    assert_eq!(group.entry(2).state, PeerState::Absent);
}

#[test]
fn the_group_is_read_only_and_shared() {
    let daemon = Daemon::start(&two_guests(""));
    let (a, b) = (Guest::boot(&daemon, "a"), Guest::boot(&daemon, "b"));
    let slot = a.slot();
    put(&slot, 0x5000, 0x1122_3344_5566_7788);
    let seen = Group::of(&b);
    assert_eq!(
        word(&seen.0, a.config.slot_offset as usize + 0x5000),
        0x1122_3344_5566_7788
    );
    assert_eq!(
        a.client.region(4).unwrap().flags & 2,
        0,
        "region 4 says it can be written"
    );
    let writable = MmapRegion::<()>::build(
        Some(b.bar(4)),
        4096,
        nix::libc::PROT_WRITE,
        nix::libc::MAP_SHARED,
    );
    assert!(writable.is_err(), "the group can be mapped for writing");
    assert!(
        nix::unistd::ftruncate(a.bar(2).file(), 4096).is_err(),
        "memory is not sealed"
    );
}

#[test]
fn hello_shows_the_guest_and_its_addresses() {
    let daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::boot(&daemon, "a");
    let mut b = Guest::ready(&daemon, "b");
    let v4 = |last: u8| {
        std::net::Ipv4Addr::new(10, 77, 0, last)
            .to_ipv6_mapped()
            .octets()
    };
    assert_eq!(
        a.call(&Request::AddrAdd(v4(1))).0,
        Status::State,
        "before HELLO"
    );
    assert_eq!(a.hello(NO_IVSHMEM), Status::Ok);
    assert_eq!(a.hello(NO_IVSHMEM), Status::State, "twice");
    assert_eq!(b.event(), format!("peer 1 {}", a.config.generation));
    assert_eq!(a.call(&Request::AddrAdd(v4(1))).0, Status::Ok);
    b.event();
    let entry = Group::of(&b).entry(1);
    assert_eq!(
        (entry.state, entry.addrs()),
        (PeerState::Ready, &[v4(1)][..])
    );
    assert_eq!((entry.lanes, entry.ivshmem_id), (2, NO_IVSHMEM));
    // Another's address, and one nobody has.
    for wrong in [v4(2), v4(9)] {
        assert_eq!(a.call(&Request::AddrAdd(wrong)).0, Status::NotAllowed);
    }
    assert_eq!(daemon.member("stats", "a")["addr_refused"], 2);
    assert_eq!(Group::of(&b).entry(1).addrs(), [v4(1)]);
    assert_eq!(a.call(&Request::AddrDel(v4(1))).0, Status::Ok);
    assert_eq!(a.call(&Request::AddrDel(v4(1))).0, Status::BadValue);
    assert!(Group::of(&b).entry(1).addrs().is_empty());
    let stats = HostStats::parse(&a.call(&Request::Stats).1).unwrap();
    assert_eq!((stats.calls, stats.refused, stats.addr_refused), (8, 5, 2));
}

#[test]
fn channels_are_opened_by_both_and_closed_by_either() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    assert_eq!(a.open(&b), Status::State, "open already");
    assert_eq!(b.close(&a), Status::Ok);
    assert_eq!(a.event_other(), "close 2 PeerClosed");
    // The next round begins when both have closed this one.
    assert_eq!(b.close(&a), Status::State);
    assert_eq!(b.open(&a), Status::State);
    assert_eq!(a.close(&b), Status::Ok);
    assert_eq!(b.event_other(), "close 1 PeerClosed");
    assert_eq!(a.close(&b), Status::State, "no round");
    connect(&mut a, &mut b);
    b.config.generation += 1;
    assert_eq!(a.open(&b), Status::NoPeer, "another generation");
    b.config.slot = 7;
    assert_eq!(a.open(&b), Status::NoPeer, "nobody");
    b.config.slot = a.config.slot;
    assert_eq!(a.open(&b), Status::BadValue, "oneself");
}

#[test]
fn frames_go_through_the_grant_table() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let (first, second) = (a.extent(0, 512), a.extent(1, 512));
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 1, &[first]),
        Status::State,
        "no channel"
    );
    connect(&mut a, &mut b);
    assert_eq!(a.frames(FramesOp::Offer, &b, 1, &[first]), Status::Ok);
    assert_eq!(b.event_other(), "Offer 1 1 512");
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 1, &[second]),
        Status::Overlap,
        "the id is in use"
    );
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 2, &[first]),
        Status::Overlap,
        "the frames are"
    );
    let foreign = b.extent(0, 1);
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 2, &[foreign]),
        Status::BadValue,
        "another's frames"
    );
    let own = (a.config.slot_offset >> 12) as u32;
    assert_eq!(
        a.frames(
            FramesOp::Offer,
            &b,
            2,
            &[Range {
                pfn: own,
                frames: 1
            }]
        ),
        Status::BadValue,
        "headers"
    );
    assert_eq!(
        a.frames(FramesOp::Accept, &b, 1, &[]),
        Status::BadValue,
        "own offer"
    );
    assert_eq!(b.frames(FramesOp::Accept, &a, 1, &[]), Status::Ok);
    assert_eq!(a.event_other(), "Accept 2 1 0");
    assert_eq!(b.frames(FramesOp::Accept, &a, 1, &[]), Status::State);
    let stats = daemon.member("stats", "b");
    assert_eq!(
        (&stats["frames_accepted"], &stats["frames_offered"]),
        (&512.into(), &0.into())
    );
    // Wanted back: theirs until they let go.
    assert_eq!(a.frames(FramesOp::Revoke, &b, 1, &[]), Status::Ok);
    assert_eq!(b.event_other(), "Revoke 1 1 0");
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 2, &[first]),
        Status::Overlap,
        "still lent"
    );
    assert_eq!(b.frames(FramesOp::Release, &a, 1, &[]), Status::Ok);
    assert_eq!(a.event_other(), "Release 2 1 0");
    // Never taken: back at once, and the owner hears the same.
    assert_eq!(
        a.frames(FramesOp::Offer, &b, 2, &[first, second]),
        Status::Ok
    );
    assert_eq!(a.frames(FramesOp::Revoke, &b, 2, &[]), Status::Ok);
    assert_eq!(a.event_other(), "Release 2 2 0");
    assert_eq!(b.event_other(), "Offer 1 2 1024");
    assert_eq!(b.event_other(), "Revoke 1 2 0");
    assert_eq!(b.frames(FramesOp::Accept, &a, 2, &[]), Status::BadValue);
    // The channel's end ends its grants.
    assert_eq!(a.frames(FramesOp::Offer, &b, 3, &[first]), Status::Ok);
    assert_eq!(b.close(&a), Status::Ok);
    assert_eq!(
        daemon.member("stats", "a")["frames_offered"],
        512,
        "b may still be reading"
    );
    assert_eq!(a.close(&b), Status::Ok);
    assert_eq!(daemon.member("stats", "a")["frames_offered"], 0);
}

#[test]
fn a_guest_that_goes_is_gone_for_the_others() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let range = b.extent(0, 512);
    assert_eq!(b.frames(FramesOp::Offer, &a, 1, &[range]), Status::Ok);
    assert_eq!(a.event_other(), "Offer 2 1 512");
    let slot = b.slot();
    put(&slot, 0, 77);
    let generation = b.config.generation;
    drop(b);
    assert_eq!(a.event(), format!("peer 2 {generation}"));
    let group = Group::of(&a);
    assert_eq!(group.entry(2).state, PeerState::Absent);
    assert_eq!(
        word(&group.0, group.entry(2).slot_offset as usize),
        77,
        "peers may still be reading"
    );
    let mut b = Guest::ready(&daemon, "b");
    assert_ne!(b.config.generation, generation);
    assert_eq!(
        word(&group.0, group.entry(2).slot_offset as usize),
        0,
        "old contents are visible"
    );
    connect(&mut a, &mut b);
}

#[test]
fn reset_clears_the_slot() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let slot = a.slot();
    let old = a.config.generation;
    for reset in [true, false] {
        put(&slot, 4096, 99);
        if reset {
            a.client.reset().unwrap();
        } else {
            a.write(20, &[0]);
        }
        assert_eq!(word(&slot, 4096), 0);
        let entry = Group::of(&b).entry(1);
        assert_eq!(entry.state, PeerState::Attached);
        a.init();
        assert_eq!(a.config.generation, entry.generation);
        assert!(entry.generation > old);
        assert_eq!(a.hello(NO_IVSHMEM), Status::Ok);
    }
    // The channel went with the old generation.
    connect(&mut a, &mut b);
}

#[test]
fn bye_leaves_in_order() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    assert_eq!(a.call(&Request::Bye).0, Status::Ok);
    assert_eq!(b.event(), format!("peer 1 {}", a.config.generation));
    assert_eq!(Group::of(&b).entry(1).state, PeerState::Attached);
    assert_eq!(b.open(&a), Status::NoPeer);
    assert_eq!(a.hello(NO_IVSHMEM), Status::State, "not in this generation");
    a.write(20, &[0]);
    a.init();
    assert_eq!(a.hello(NO_IVSHMEM), Status::Ok);
    connect(&mut a, &mut b);
}

#[test]
fn h_6_a_guest_that_takes_no_events_loses_none_of_channels() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let range = b.extent(0, 512);
    connect(&mut a, &mut b);
    // What a answers to b: more than 64 buffers and what waits.
    let answers = |a: &mut Guest, b: &mut Guest| {
        for extent in 0..600 {
            assert_eq!(b.frames(FramesOp::Offer, a, extent, &[range]), Status::Ok);
            assert_eq!(a.event_other(), format!("Offer 2 {extent} 512"));
            assert_eq!(a.frames(FramesOp::Accept, b, extent, &[]), Status::Ok);
            assert_eq!(a.frames(FramesOp::Release, b, extent, &[]), Status::Ok);
        }
    };
    answers(&mut a, &mut b);
    assert_eq!(daemon.member("stats", "b")["events_lost"], 1);
    assert_eq!(a.close(&b), Status::Ok);
    let mut seen = 0;
    while b.event_other() != "lost" {
        seen += 1;
    }
    assert_eq!(seen, 64, "those that had buffers");
    assert_eq!(b.event_other(), "close 1 PeerClosed");
    assert_eq!(b.close(&a), Status::Ok);
    assert_eq!(a.event_other(), "close 2 PeerClosed");
    connect(&mut a, &mut b);
    // Also if the worker dies in between.
    answers(&mut a, &mut b);
    assert_eq!(a.close(&b), Status::Ok);
    daemon.kill_worker();
    assert_eq!(daemon.status()["restarts"], 1);
    while b.event_other() != "lost" {}
    assert_eq!(b.event_other(), "close 1 PeerClosed");
}

#[test]
fn a_second_qemu_on_a_socket_is_refused() {
    let daemon = Daemon::start(&two_guests(""));
    let _a = Guest::ready(&daemon, "a");
    assert!(vfio_user::Client::new(&daemon.path("a-g.sock")).is_err());
    assert_eq!(daemon.member("peers", "a")["state"], "ready");
}

#[test]
fn kick_cuts_a_guest_off() {
    let daemon = Daemon::start(&two_guests(""));
    let _a = Guest::ready(&daemon, "a");
    let answer = daemon.ask(&serde_json::json!({"command": "kick", "guest": "a"}));
    assert_eq!(answer["kicked"], 1);
    until("the guest to be absent", || {
        (daemon.member("peers", "a")["state"] == "absent").then_some(())
    });
    let answer = daemon.ask(&serde_json::json!({"command": "kick", "guest": "zz"}));
    assert!(answer["error"].as_str().unwrap().contains("zz"));
}
