// SPDX-License-Identifier: Apache-2.0 OR MIT
//! kill -9 of the worker, at every moment: nobody outside may notice.
#![allow(missing_docs)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::driver::{connect, Guest};
use common::{ask, two_guests, until, Daemon};
use fgdp_proto::proto::wire::{FramesOp, HostStats, Request, Status, NO_IVSHMEM};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;
use vm_memory::{Bytes, VolatileMemory};

#[test]
fn state_survives_the_worker() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let range = a.extent(0, 512);
    assert_eq!(a.frames(FramesOp::Offer, &b, 1, &[range]), Status::Ok);
    let before = daemon.ask(&json!({"command": "peers"}));
    a.slot()
        .as_volatile_slice()
        .write_obj(42u64, 0x8000)
        .unwrap();
    daemon.kill_worker();
    let killed = Instant::now();
    // Goes on as if nothing had been.
    assert_eq!(b.event_other(), "Offer 1 1 512");
    assert_eq!(b.frames(FramesOp::Accept, &a, 1, &[]), Status::Ok);
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "healed after {:?}",
        killed.elapsed()
    );
    assert_eq!(a.event_other(), "Accept 2 1 0");
    assert_eq!(daemon.ask(&json!({"command": "peers"})), before);
    assert_eq!(daemon.status()["restarts"], 1);
    let kept: u64 = a.slot().as_volatile_slice().read_obj(0x8000).unwrap();
    assert_eq!(kept, 42, "a slot was cleared");
}

#[test]
fn a_guest_may_reset_right_after() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    for _ in 0..3 {
        daemon.kill_worker();
        a.client.reset().unwrap();
        a.init();
        assert_eq!(a.hello(NO_IVSHMEM), Status::Ok);
        connect(&mut a, &mut b);
    }
}

#[test]
fn a_guest_may_come_and_go_meanwhile() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    let pid = daemon.worker();
    // Held still first, so that it cannot see what happens.
    kill(pid, Signal::SIGSTOP).unwrap();
    drop(b);
    kill(pid, Signal::SIGKILL).unwrap();
    until("b to be absent", || {
        (daemon.member("peers", "b")["state"] == "absent").then_some(())
    });
    let mut b = Guest::ready(&daemon, "b");
    connect(&mut a, &mut b);
}

/// Kills workers from another thread until dropped.
struct Killer<'a>(&'a AtomicBool);

impl Drop for Killer<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `count` calls and events each way while workers die; each call is done once and answered once.
#[test]
fn every_call_is_done_once() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let done = AtomicBool::new(false);
    let socket = daemon.path("control.sock");
    let mut deaths = 0;
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut deaths = 0;
            let mut pause = 1;
            while !done.load(Ordering::Relaxed) {
                let pid = ask(&socket, &json!({"command": "status"}))["worker"]
                    .as_i64()
                    .unwrap();
                // Not a wait for anything: deaths shall fall on all moments of a call.
                std::thread::sleep(Duration::from_micros(pause));
                pause = pause * 7 % 60_013;
                kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
                deaths += 1;
            }
            deaths
        });
        {
            let _stop = Killer(&done);
            let range = a.extent(0, 512);
            for n in 0..1500u32 {
                assert_eq!(
                    a.frames(FramesOp::Offer, &b, n, &[range]),
                    Status::Ok,
                    "offer {n}"
                );
                assert_eq!(b.event_other(), format!("Offer 1 {n} 512"));
                assert_eq!(
                    b.frames(FramesOp::Accept, &a, n, &[]),
                    Status::Ok,
                    "accept {n}"
                );
                assert_eq!(a.event_other(), format!("Accept 2 {n} 0"));
                assert_eq!(
                    b.frames(FramesOp::Release, &a, n, &[]),
                    Status::Ok,
                    "release {n}"
                );
                assert_eq!(a.event_other(), format!("Release 2 {n} 0"));
            }
        }
        deaths = killer.join().unwrap();
    });
    assert!(deaths >= 5, "only {deaths} workers died");
    eprintln!("{deaths} workers died in 4500 calls");
    let stats = HostStats::parse(&a.call(&Request::Stats).1).unwrap();
    // HELLO and CHANNEL_OPEN came before.
    assert_eq!(
        (stats.calls, stats.refused, stats.frames_offered),
        (1502, 0, 0)
    );
}

#[test]
fn accesses_wait_for_the_next_worker() {
    let daemon = Daemon::start(&two_guests(""));
    let mut a = Guest::ready(&daemon, "a");
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        daemon.kill_worker();
        let asked = Instant::now();
        assert_eq!(a.status(), 15);
        longest = longest.max(asked.elapsed());
    }
    eprintln!("longest access over a death: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
