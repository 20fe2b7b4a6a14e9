// SPDX-License-Identifier: GPL-2.0

//! A number under `/proc/sys` that tells when it is written.

use super::ffi;
use core::pin::Pin;
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::Arc;

/// Is told of a new value.
pub(crate) trait Setting: Send + Sync + 'static {
    /// Somebody wrote `value`, which is within the limits. Process context.
    fn set(&self, value: i32);
}

/// # Invariants
///
/// While registered it does not move; `table` is a whole `struct ctl_table` array of one.
#[repr(C)]
struct Entry<S: Setting> {
    // First, so that a pointer to it is one to the whole.
    table: ffi::ctl_table,
    value: Atomic<i32>,
    max: c_int,
    min: c_int,
    setting: Arc<S>,
}

/// A registered number. Dropping it takes it away, after running writes.
pub(crate) struct Sysctl<S: Setting> {
    header: *mut ffi::ctl_table_header,
    _entry: Pin<KBox<Entry<S>>>,
}

// SAFETY: The kernel serialises what it does with the header; the rest is `Send + Sync`.
unsafe impl<S: Setting> Send for Sysctl<S> {}
// SAFETY: As above; there are no methods by reference.
unsafe impl<S: Setting> Sync for Sysctl<S> {}

impl<S: Setting> Sysctl<S> {
    /// Makes `dir/name` of the initial network namespace, from 0 to `max`, with `value` at first. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when the name is taken.
    pub(crate) fn new(
        dir: &'static CStr,
        name: &'static CStr,
        value: i32,
        max: i32,
        setting: Arc<S>,
    ) -> Result<Self> {
        let entry = Entry {
            table: ffi::ctl_table::default(),
            value: Atomic::new(value),
            max,
            min: 0,
            setting,
        };
        let mut entry: Pin<KBox<Entry<S>>> = KBox::pin(entry, GFP_KERNEL)?;
        // SAFETY: Nothing is moved out.
        let inner = unsafe { entry.as_mut().get_unchecked_mut() };
        inner.table.procname = name.as_char_ptr();
        inner.table.data = inner.value.as_ptr().cast();
        inner.table.maxlen = size_of::<c_int>() as c_int;
        inner.table.mode = 0o644;
        inner.table.proc_handler = Some(handle::<S>);
        inner.table.extra1 = (&raw mut inner.min).cast();
        inner.table.extra2 = (&raw mut inner.max).cast();
        // SAFETY: The table stays where it is until `drop` has unregistered it.
        let header = unsafe {
            ffi::register_net_sysctl_sz(
                &raw mut ffi::init_net,
                dir.as_char_ptr(),
                &raw mut inner.table,
                1,
            )
        };
        if header.is_null() {
            return Err(ENOMEM);
        }
        Ok(Self {
            header,
            _entry: entry,
        })
    }
}

impl<S: Setting> Drop for Sysctl<S> {
    fn drop(&mut self) {
        // SAFETY: Registered in `new`; no handler runs after this.
        unsafe { ffi::unregister_net_sysctl_table(self.header) };
    }
}

/// # Safety
///
/// Called by the kernel with the table of an `Entry<S>`.
unsafe extern "C" fn handle<S: Setting>(
    table: *const ffi::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut ffi::loff_t,
) -> c_int {
    // SAFETY: The kernel's own, with what it expects.
    let result = unsafe { ffi::proc_dointvec_minmax(table, write, buffer, len, pos) };
    if result == 0 && write != 0 {
        // SAFETY: The table is the first field of a live `Entry<S>`.
        let entry = unsafe { &*table.cast::<Entry<S>>() };
        entry.setting.set(entry.value.load(Relaxed));
    }
    result
}
