// SPDX-License-Identifier: GPL-2.0

//! Looking before sleeping.
//!
//! A wake-up costs far more than the peer's answer often takes: whoever is about to sleep looks
//! for a moment first, `SO_BUSY_POLL` microseconds or what the module's parameter says.

use crate::family::AfFgdp;
use crate::sys::net::sock::Sock;
use crate::sys::task;

/// Looks until `ready`, or until the time is over or the CPU is wanted. Returns whether `ready`.
pub(crate) fn until(sk: &Sock<AfFgdp>, mut ready: impl FnMut() -> bool) -> bool {
    let usec = sk.busy_poll_usec().max(sk.data().stack().spin_usec);
    if usec == 0 {
        return false;
    }
    let end = task::clock_ns().saturating_add(u64::from(usec).saturating_mul(1000));
    loop {
        if ready() {
            return true;
        }
        if task::need_resched() || task::signal_pending() || task::clock_ns() >= end {
            return false;
        }
        task::cpu_relax();
    }
}
