// SPDX-License-Identifier: GPL-2.0

//! `struct sock` of whatever protocol: what sockets of this module's family and TCP's have in
//! common.

use super::super::ffi;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::AlwaysRefCounted;
use kernel::types::Opaque;

/// A live socket.
///
/// # Invariants
///
/// A `struct sock` that `sk_alloc` and `sock_init_data` made.
#[repr(transparent)]
pub(crate) struct AnySock(Opaque<ffi::sock>);

// SAFETY: `struct sock` may be used from any thread: its fields that are not constant are accessed
// under its lock or by single words.
unsafe impl Send for AnySock {}
// SAFETY: As above.
unsafe impl Sync for AnySock {}

// SAFETY: `sock_hold` and `sock_put` count references and free with the last.
unsafe impl AlwaysRefCounted for AnySock {
    fn inc_ref(&self) {
        // SAFETY: `self` proves that the count is not zero.
        unsafe { ffi::fgdp_helper_sock_hold(self.raw()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { ffi::fgdp_helper_sock_put(obj.as_ptr().cast()) }
    }
}

/// A field that the kernel writes under the socket's lock and others read at any time.
macro_rules! word {
    ($(#[$doc:meta])* get $name:ident, $field:ident: $ty:ty) => {
        $(#[$doc])*
        pub(crate) fn $name(&self) -> $ty {
            // SAFETY: The field is one aligned word of a live `struct sock`; a volatile read is the
            // kernel's READ_ONCE().
            unsafe { (&raw const (*self.raw()).$field).read_volatile() as $ty }
        }
    };
    ($(#[$doc:meta])* set $name:ident, $field:ident: $ty:ty) => {
        $(#[$doc])*
        ///
        /// The caller serialises writers.
        pub(crate) fn $name(&self, value: $ty) {
            // SAFETY: The field is one aligned word of a live `struct sock`; a volatile write is
            // the kernel's WRITE_ONCE().
            unsafe { (&raw mut (*self.raw()).$field).write_volatile(value.into()) }
        }
    };
}

impl AnySock {
    /// # Safety
    ///
    /// `sk` is a live socket for the length of `'a`.
    pub(super) unsafe fn from_raw<'a>(sk: *mut ffi::sock) -> &'a Self {
        // SAFETY: By this function's contract.
        unsafe { &*sk.cast() }
    }

    pub(super) fn raw(&self) -> *mut ffi::sock {
        self.0.get()
    }

    /// Takes the socket's lock; sleeps. Not in bottom halves.
    pub(crate) fn lock(&self) -> SockGuard<'_> {
        // SAFETY: The socket is live.
        unsafe { ffi::lock_sock_nested(self.raw(), 0) };
        SockGuard {
            sock: self,
            _not_send: PhantomData,
        }
    }

    word! {
        /// `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
        get shutdown_mask, sk_shutdown: u8
    }
    word! {
        /// Sets `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
        set set_shutdown_mask, sk_shutdown: u8
    }
    word! {
        /// Sets how long the accept queue may get, for listings.
        set set_max_ack_backlog, sk_max_ack_backlog: u32
    }
    word! {
        /// The error that the next call returns, as a positive number.
        get err, sk_err: i32
    }
    word! {
        /// Sets the error that the next call returns.
        set set_err_word, sk_err: i32
    }

    /// Whether somebody sleeps on the socket, or waits for its events.
    pub(crate) fn has_sleeper(&self) -> bool {
        // SAFETY: The socket is live.
        unsafe { ffi::fgdp_helper_sk_has_sleeper(self.raw()) }
    }

    /// `SO_SNDBUF` as the kernel keeps it, twice what was asked for; `None` if nobody has asked.
    pub(crate) fn fixed_sndbuf(&self) -> Option<u32> {
        // SAFETY: The socket is live.
        u32::try_from(unsafe { ffi::fgdp_helper_sk_fixed_sndbuf(self.raw()) }).ok()
    }

    /// `TCP_*` state, which `SO_ACCEPTCONN` and others read.
    pub(crate) fn state(&self) -> u8 {
        // SAFETY: One byte of a live socket, read once.
        unsafe { (&raw const (*self.raw()).__sk_common.skc_state).read_volatile() }
    }

    /// Sets the `TCP_*` state. The caller serialises writers.
    pub(crate) fn set_state(&self, state: u8) {
        // SAFETY: One byte of a live socket, written once.
        unsafe { (&raw mut (*self.raw()).__sk_common.skc_state).write_volatile(state) }
    }

    /// Takes over what an accepted socket has from its listener.
    pub(crate) fn inherit(&self, listener: &Self) {
        // SAFETY: Both are live; `self` is not visible to anybody yet.
        unsafe { ffi::fgdp_helper_sock_inherit(self.raw(), listener.raw()) }
    }

    /// Reports `err` to the next call and to pollers.
    pub(crate) fn report_error(&self, err: Error) {
        self.set_err(err);
        self.error_report();
    }

    /// Sets the error that the next call returns, and wakes nobody.
    pub(crate) fn set_err(&self, err: Error) {
        self.set_err_word(err.to_errno().wrapping_neg());
    }

    /// Tells pollers that there is an error, or something in the error queue.
    pub(crate) fn error_report(&self) {
        // SAFETY: The socket is live; the callback may be called in any context.
        unsafe { ffi::fgdp_helper_sk_error_report(self.raw()) }
    }

    /// `SO_ZEROCOPY`.
    pub(crate) fn is_zerocopy(&self) -> bool {
        // SAFETY: The socket is live.
        unsafe { ffi::fgdp_helper_sock_zerocopy(self.raw()) }
    }

    /// Takes the pending error (`sock_error()`).
    pub(crate) fn take_error(&self) -> Result {
        // SAFETY: The socket is live.
        kernel::error::to_result(unsafe { ffi::fgdp_helper_sock_error(self.raw()) })
    }

    /// Wakes readers and pollers.
    pub(crate) fn data_ready(&self) {
        // SAFETY: The socket is live; the callback may be called in any context.
        unsafe { ffi::fgdp_helper_sk_data_ready(self.raw()) }
    }

    /// Wakes writers and pollers.
    pub(crate) fn write_space(&self) {
        // SAFETY: The socket is live; the callback may be called in any context.
        unsafe { ffi::fgdp_helper_sk_write_space(self.raw()) }
    }

    /// Wakes everybody.
    pub(crate) fn state_change(&self) {
        // SAFETY: The socket is live; the callback may be called in any context.
        unsafe { ffi::fgdp_helper_sk_state_change(self.raw()) }
    }

    word! {
        get rcvtimeo_word, sk_rcvtimeo: isize
    }
    word! {
        get sndtimeo_word, sk_sndtimeo: isize
    }
    word! {
        get rcvlowat_word, sk_rcvlowat: i32
    }

    /// How long a receive may wait, in jiffies (`sock_rcvtimeo()`).
    pub(crate) fn rcvtimeo(&self, noblock: bool) -> isize {
        if noblock {
            0
        } else {
            self.rcvtimeo_word()
        }
    }

    /// How long a send may wait, in jiffies (`sock_sndtimeo()`).
    pub(crate) fn sndtimeo(&self, noblock: bool) -> isize {
        if noblock {
            0
        } else {
            self.sndtimeo_word()
        }
    }

    /// How many bytes a receive for `len` waits for (`sock_rcvlowat()`).
    pub(crate) fn rcvlowat(&self, waitall: bool, len: usize) -> usize {
        let low = usize::try_from(self.rcvlowat_word()).unwrap_or(1);
        let low = if waitall { len } else { low.min(len) };
        low.max(1)
    }

    /// `SO_BUSY_POLL`, in microseconds.
    pub(crate) fn busy_poll_usec(&self) -> u32 {
        // SAFETY: The socket is live.
        unsafe { ffi::fgdp_helper_sk_busy_usec(self.raw()) }
    }

    /// `SO_LINGER`: how long a close waits for the peer, in jiffies. `None` when it is off.
    pub(crate) fn linger(&self) -> Option<isize> {
        // SAFETY: The socket is live.
        let ticks = unsafe { ffi::fgdp_helper_sock_linger(self.raw()) };
        (ticks >= 0).then_some(ticks)
    }

    /// The error of a send: raises SIGPIPE for `EPIPE` unless `flags` forbid it.
    pub(crate) fn stream_error(&self, flags: u32, err: Error) -> Error {
        // SAFETY: The socket is live; process context.
        let errno = unsafe { ffi::sk_stream_error(self.raw(), flags as i32, err.to_errno()) };
        Error::from_errno(errno)
    }

    /// Sleeps until `ready` gives a value, `timeo` jiffies at most, and counts `timeo` down.
    ///
    /// `ready` runs with the task on the socket's wait queue, so a wake-up after it looked is not
    /// lost. It runs again at least once a second, as belt and braces against a peer that does
    /// not ring.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when the time is over; `EINTR` or a restart when a signal came.
    pub(crate) fn wait<T>(
        &self,
        timeo: &mut isize,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        loop {
            let mut value = None;
            self.sleep(timeo, || {
                value = ready();
                value.is_some()
            })?;
            if let Some(value) = value {
                return Ok(value);
            }
        }
    }

    /// Unless `ready`, sleeps until the socket is woken, as [`AnySock::wait`] does; for who looks
    /// then. Whether it slept.
    ///
    /// # Errors
    ///
    /// As those.
    pub(crate) fn sleep(&self, timeo: &mut isize, ready: impl FnOnce() -> bool) -> Result<bool> {
        let second = kernel::time::msecs_to_jiffies(1000) as isize;
        self.sleep_step(second, timeo, ready)
    }

    /// As [`AnySock::sleep`], for what this guest alone changes: until it wakes the socket.
    ///
    /// # Errors
    ///
    /// As those.
    pub(crate) fn sleep_here(
        &self,
        timeo: &mut isize,
        ready: impl FnOnce() -> bool,
    ) -> Result<bool> {
        self.sleep_step(isize::MAX, timeo, ready)
    }

    fn sleep_step(
        &self,
        step: isize,
        timeo: &mut isize,
        ready: impl FnOnce() -> bool,
    ) -> Result<bool> {
        let mut entry = MaybeUninit::<ffi::wait_queue_entry>::uninit();
        let entry = entry.as_mut_ptr();
        // SAFETY: The entry lives on this stack and leaves the queue before this function returns;
        // the queue lives as long as the socket is attached, which the caller's call proves.
        let queue = unsafe {
            ffi::fgdp_helper_init_wait_woken(entry);
            let queue = ffi::fgdp_helper_sk_sleep(self.raw());
            ffi::add_wait_queue(queue, entry);
            queue
        };
        let result = if ready() {
            Ok(false)
        } else if *timeo == 0 {
            Err(EAGAIN)
        // SAFETY: No arguments that could be wrong.
        } else if unsafe { ffi::fgdp_helper_signal_pending() } {
            // SAFETY: As above.
            Err(Error::from_errno(unsafe {
                ffi::fgdp_helper_sock_intr_errno(*timeo)
            }))
        } else {
            let slice = (*timeo).min(step);
            // SAFETY: The entry is initialised and on the queue; TASK_INTERRUPTIBLE.
            let left =
                unsafe { ffi::wait_woken(entry, kernel::bindings::TASK_INTERRUPTIBLE, slice) };
            if *timeo != isize::MAX {
                *timeo = timeo.saturating_sub(slice.saturating_sub(left)).max(0);
            }
            Ok(true)
        };
        // SAFETY: The entry was added above.
        unsafe { ffi::remove_wait_queue(queue, entry) };
        result
    }
}

/// Holds a socket's lock.
pub(crate) struct SockGuard<'a> {
    sock: &'a AnySock,
    _not_send: PhantomData<*mut ()>,
}

impl Drop for SockGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The guard proves that this task holds the lock.
        unsafe { ffi::release_sock(self.sock.raw()) }
    }
}
