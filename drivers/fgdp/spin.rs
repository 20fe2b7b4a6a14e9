// SPDX-License-Identifier: GPL-2.0

//! Looking before sleeping.
//!
//! A wake-up costs far more than the peer's answer often takes: whoever is about to sleep looks
//! for a moment first. With `SO_BUSY_POLL` always, for as long as that says; else for as long as the
//! module's parameter says, and only while that has been worth it on the connection.

use crate::conn::Connection;
use crate::family::AfFgdp;
use crate::sys::net::sock::Sock;
use crate::sys::task;
use kernel::sync::atomic::ordering::*;

/// Looks in vain before they are left out.
const PATIENCE: u32 = 4;
/// After that, one in so many waits looks again, in case the peer has become faster.
const RETRY: u32 = 32;
/// Looks between two of the clock: reading it costs as much as looking.
const LOOKS: u32 = 8;

/// Looks until `ready`, or until the time is over or the CPU is wanted. Returns whether `ready`.
pub(crate) fn until(
    sk: &Sock<AfFgdp>,
    conn: &Connection,
    mut ready: impl FnMut() -> bool,
) -> bool {
    let asked = sk.busy_poll_usec();
    if asked != 0 {
        return look(asked, &mut ready);
    }
    let usec = sk.data().stack().spin_usec;
    let idle = conn.idle_looks.load(Relaxed);
    if usec == 0 || (idle >= PATIENCE && idle % RETRY != 0) {
        conn.idle_looks.store(idle.wrapping_add(1), Relaxed);
        return false;
    }
    let found = look(usec, &mut ready);
    conn.idle_looks.store(if found { 0 } else { idle.wrapping_add(1) }, Relaxed);
    found
}

fn look(usec: u32, ready: &mut impl FnMut() -> bool) -> bool {
    let end = task::clock_ns().saturating_add(u64::from(usec).saturating_mul(1000));
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            task::cpu_relax();
        }
        if task::need_resched() || task::signal_pending() || task::clock_ns() >= end {
            return false;
        }
    }
}
