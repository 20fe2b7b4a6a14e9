// SPDX-License-Identifier: GPL-2.0

//! Spin locks for data that bottom halves touch, too.

use super::ffi;
use kernel::bindings;
use kernel::sync::lock::{Backend, Guard, Lock};

/// `spin_lock_bh()`: excludes other CPUs and this CPU's bottom halves.
pub(crate) struct BhBackend;

/// A spin lock that process context and bottom halves share.
pub(crate) type BhLock<T> = Lock<T, BhBackend>;

/// Holds a [`BhLock`]; bottom halves are off meanwhile.
#[allow(dead_code)]
pub(crate) type BhGuard<'a, T> = Guard<'a, T, BhBackend>;

// SAFETY: A `spinlock_t` gives exclusive ownership between lock and unlock; `relock` is `lock`.
unsafe impl Backend for BhBackend {
    type State = ffi::spinlock;
    type GuardState = ();

    unsafe fn init(
        ptr: *mut Self::State,
        name: *const kernel::ffi::c_char,
        key: *mut bindings::lock_class_key,
    ) {
        // SAFETY: `ptr` is valid for writes, `name` and `key` live for ever, by this function's
        // contract.
        unsafe { ffi::fgdp_helper_spin_lock_init(ptr, name, key.cast()) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: The lock is initialised, by this function's contract.
        unsafe { ffi::fgdp_helper_spin_lock_bh(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: The lock is initialised, by this function's contract.
        unsafe { ffi::fgdp_helper_spin_trylock_bh(ptr) }.then_some(())
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // SAFETY: The caller owns the lock, by this function's contract.
        unsafe { ffi::fgdp_helper_spin_unlock_bh(ptr) }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // Called each time that the lock was taken, and empty without lockdep.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: The lock is initialised, by this function's contract.
            unsafe { ffi::fgdp_helper_lockdep_assert_held(ptr) }
        }
    }
}

/// Runs `f` as a bottom half would: no other one, and no other task, runs on this CPU meanwhile.
/// Not with interrupts off.
pub(crate) fn as_bottom_half<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: Enabled again below, in the same context.
    unsafe { ffi::fgdp_helper_local_bh_disable() };
    let result = f();
    // SAFETY: Disabled above.
    unsafe { ffi::fgdp_helper_local_bh_enable() };
    result
}

/// Creates a [`BhLock`] with a lock class of its own.
#[macro_export]
macro_rules! new_bhlock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sys::lock::BhLock::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}
pub(crate) use new_bhlock;
