// SPDX-License-Identifier: GPL-2.0

//! Looking before sleeping.
//!
//! A wake-up costs far more than the peer's answer often takes: whoever is about to sleep looks for
//! a moment first. With `SO_BUSY_POLL` always, for as long as that says. Else as hypervisors poll
//! before they halt a CPU: only if the wait before was short, sleep included, because then the next
//! one probably is, too. Two sides that answer each other at once so stop sleeping altogether, and
//! a side that waits for a slow one pays for one look in vain.

use crate::sys::task;
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};

/// Looks between two of the clock: reading it costs as much as looking.
const LOOKS: u32 = 8;

/// How long to look, in microseconds; 0: not at all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Patience {
    /// Before each sleep.
    pub(crate) always: u32,
    /// Else: before a sleep that follows a wait no longer than this.
    pub(crate) if_short: u32,
}

/// What was learned about the waits of one direction of a connection.
pub(crate) struct Spin {
    /// The last wait was short enough to be spent looking.
    short: Atomic<bool>,
    /// So many waits in a row were sleeps.
    sleeps: Atomic<u32>,
}

impl Spin {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            short: Atomic::new(false),
            sleeps: Atomic::new(0),
        }
    }

    /// How many waits in a row were sleeps.
    pub(crate) fn sleeps(&self) -> u32 {
        self.sleeps.load(Relaxed)
    }

    /// What was learned does not hold any more.
    pub(crate) fn forget(&self) {
        self.sleeps.store(0, Relaxed);
    }

    /// Waits until `ready`: looks as long as `patience` says, then calls `sleep`, which says
    /// whether it slept.
    ///
    /// # Errors
    ///
    /// Those of `sleep`.
    pub(crate) fn wait(
        &self,
        patience: Patience,
        mut ready: impl FnMut() -> bool,
        sleep: impl FnOnce() -> Result<bool>,
    ) -> Result {
        if patience.always == 0 && patience.if_short == 0 {
            self.count(sleep()?);
            return Ok(());
        }
        let start = task::clock_ns();
        let end = |usec: u32| start.saturating_add(u64::from(usec).saturating_mul(1000));
        let usec = if patience.always != 0 {
            patience.always
        } else if self.short.load(Relaxed) {
            patience.if_short
        } else {
            0
        };
        if usec != 0 && look(end(usec), &mut ready) {
            self.count(false);
            return Ok(());
        }
        let slept = sleep();
        self.short
            .store(task::clock_ns() < end(patience.if_short), Relaxed);
        self.count(slept?);
        Ok(())
    }

    fn count(&self, slept: bool) {
        let sleeps = self.sleeps.load(Relaxed);
        let now = if slept { sleeps.saturating_add(1) } else { 0 };
        if now != sleeps {
            self.sleeps.store(now, Relaxed);
        }
    }
}

fn look(end: u64, ready: &mut impl FnMut() -> bool) -> bool {
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
