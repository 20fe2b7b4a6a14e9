// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What befalls the daemon itself: a worker that hangs, descriptors that run out.
#![allow(missing_docs)]

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::driver::{connect, Guest};
use common::{two_guests, until, Daemon};
use fgdp_proto::proto::wire::{Request, Status};
use nix::sys::signal::{kill, Signal};

#[test]
fn a_worker_that_hangs_is_replaced() {
    let daemon = Daemon::start(&two_guests(""));
    let (mut a, mut b) = (Guest::ready(&daemon, "a"), Guest::ready(&daemon, "b"));
    connect(&mut a, &mut b);
    let worker = daemon.worker();
    kill(worker, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    // An access and a call wait, and are served in the end.
    a.submit(&Request::Stats);
    a.notify(0);
    assert_eq!(b.status(), 15);
    let healed = stopped.elapsed();
    assert!(healed < Duration::from_secs(20), "healed after {healed:?}");
    assert!(
        healed > Duration::from_secs(4),
        "a busy worker could look like that: {healed:?}"
    );
    assert!(!a.reply_raw().is_empty());
    assert_eq!(daemon.logged("worker does not answer"), 1);
    assert_eq!(daemon.status()["restarts"], 1);
    assert_ne!(daemon.worker(), worker);
    assert_eq!(a.close(&b), Status::Ok);
    assert_eq!(b.event_other(), "close 1 PeerClosed");
}

#[test]
fn a_daemon_without_descriptors_waits_for_some() {
    let limited = ["sh", "-c", "ulimit -n 128; exec \"$@\"", "-"];
    let daemon = Daemon::start_by(&two_guests(""), &limited);
    let mut a = Guest::ready(&daemon, "a");
    // Each doorbell device needs three.
    let bells: Vec<UnixStream> = (0..40)
        .map(|_| UnixStream::connect(daemon.path("g.doorbell.sock")).unwrap())
        .collect();
    until("the descriptors to run out", || {
        (daemon.logged("connections wait") > 0).then_some(())
    });
    let before = daemon.cpu_time();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| Guest::ready(&daemon, "b"));
        // It looks again, now and then.
        until("two more tries", || {
            (daemon.logged("connections wait") > 2).then_some(())
        });
        let used = daemon.cpu_time() - before;
        assert!(used < Duration::from_millis(500), "it spins: {used:?}");
        let lines = daemon.logged("connections wait");
        assert!(lines < 10, "{lines} lines");
        // Whoever is there already is served, also by another worker.
        assert_eq!(a.call(&Request::Stats).0, Status::Ok);
        daemon.kill_worker();
        assert_eq!(a.call(&Request::Stats).0, Status::Ok);
        assert_eq!(daemon.status()["restarts"], 1);
        assert!(!late.is_finished());
        drop(bells);
        let mut b = late.join().unwrap();
        connect(&mut a, &mut b);
    });
}
