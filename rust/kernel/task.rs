// SPDX-License-Identifier: GPL-2.0

//! The running task and its clock.

use super::ffi;

/// Nanoseconds of a monotonic clock that is cheap to read. Any context.
pub(crate) fn clock_ns() -> u64 {
    // SAFETY: No requirement.
    unsafe { ffi::ktime_get_mono_fast_ns() }
}

/// Whether another task wants this CPU.
pub(crate) fn need_resched() -> bool {
    // SAFETY: No requirement.
    unsafe { ffi::fgdp_helper_need_resched() }
}

/// Whether there is but one CPU, so that who looks for another task's doing keeps that from being
/// done. Any context.
pub(crate) fn is_uniprocessor() -> bool {
    // SAFETY: No requirement.
    unsafe { ffi::fgdp_helper_num_online_cpus() == 1 }
}

/// Whether a signal waits for the running task. Process context.
pub(crate) fn signal_pending() -> bool {
    // SAFETY: No requirement.
    unsafe { ffi::fgdp_helper_signal_pending() }
}

/// Tells the CPU that this is a loop that waits.
pub(crate) fn cpu_relax() {
    // SAFETY: No requirement.
    unsafe { ffi::fgdp_helper_cpu_relax() }
}

/// Lets another task run if one wants this CPU. Process context, without locks.
pub(crate) fn cond_resched() {
    // SAFETY: By this function's contract it may sleep here.
    unsafe { ffi::fgdp_helper_cond_resched() }
}

/// Waits until all readers under RCU that run now have ended. Sleeps.
pub(crate) fn synchronize_rcu() {
    // SAFETY: By this function's contract it may sleep here.
    unsafe { ffi::synchronize_rcu() }
}
