// SPDX-License-Identifier: GPL-2.0

//! The module's own work queues, so that unloading can wait for what runs on them.

use super::ffi;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::prelude::*;
use kernel::workqueue::Queue;

static PROCESS: AtomicPtr<ffi::workqueue_struct> = AtomicPtr::new(null_mut());
static BH: AtomicPtr<ffi::workqueue_struct> = AtomicPtr::new(null_mut());

/// Both queues. Dropping it waits for all work and destroys them.
///
/// # Invariants
///
/// While a value exists, the two statics point at live work queues.
pub(crate) struct Queues(());

impl Queues {
    /// Creates the queues. One value at a time.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EBUSY` when there is a value already.
    pub(crate) fn new() -> Result<Self> {
        if !PROCESS.load(Ordering::Acquire).is_null() {
            return Err(EBUSY);
        }
        // SAFETY: The name is a C string; the queue is destroyed in `drop`.
        let process = unsafe { ffi::fgdp_helper_alloc_workqueue(c"fgdp".as_char_ptr(), false) };
        if process.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: As above.
        let bh = unsafe { ffi::fgdp_helper_alloc_workqueue(c"fgdp_bh".as_char_ptr(), true) };
        if bh.is_null() {
            // SAFETY: Just created, nothing is on it.
            unsafe { ffi::destroy_workqueue(process) };
            return Err(ENOMEM);
        }
        PROCESS.store(process, Ordering::Release);
        BH.store(bh, Ordering::Release);
        // INVARIANT: Both were just created and are destroyed by `drop` only.
        Ok(Queues(()))
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        for queue in [&BH, &PROCESS] {
            let ptr = queue.swap(null_mut(), Ordering::AcqRel);
            // SAFETY: By the type's invariant the queue lives; destroying drains it first. Whoever
            // enqueues (devices, sockets) is gone before the module drops this value.
            unsafe { ffi::destroy_workqueue(ptr) };
        }
    }
}

fn queue(ptr: &AtomicPtr<ffi::workqueue_struct>) -> Option<&'static Queue> {
    let ptr = ptr.load(Ordering::Acquire);
    if ptr.is_null() {
        return None;
    }
    // SAFETY: The queue lives until `Queues` is dropped, which is the last thing the module does.
    Some(unsafe { Queue::from_raw(ptr.cast()) })
}

/// The queue whose work may sleep.
pub(crate) fn process() -> Option<&'static Queue> {
    queue(&PROCESS)
}

/// The queue whose work runs as bottom half.
pub(crate) fn bh() -> Option<&'static Queue> {
    queue(&BH)
}

/// Waits until all work queued on the bottom-half queue before this call has run. May sleep.
pub(crate) fn flush_bh() {
    flush(&BH);
}

/// Waits until all work queued on the process queue before this call has run. May sleep; not from
/// work on that queue.
pub(crate) fn flush_process() {
    flush(&PROCESS);
}

fn flush(ptr: &AtomicPtr<ffi::workqueue_struct>) {
    let ptr = ptr.load(Ordering::Acquire);
    if !ptr.is_null() {
        // SAFETY: The queue lives until `Queues` is dropped.
        unsafe { ffi::__flush_workqueue(ptr) };
    }
}
