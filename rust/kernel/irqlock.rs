// SPDX-License-Identifier: GPL-2.0

//! Spin locks for data that hard interrupt handlers touch, too.

use super::ffi;
use kernel::bindings;
use kernel::sync::lock::{Backend, Lock};

/// `spin_lock_irqsave()`: excludes other CPUs and this CPU's interrupts.
pub(crate) struct IrqBackend;

/// A spin lock that any context may take. What runs under it must be short and must not sleep.
pub(crate) type IrqLock<T> = Lock<T, IrqBackend>;

// SAFETY: A `spinlock_t` gives exclusive ownership between lock and unlock; `relock` is `lock`.
unsafe impl Backend for IrqBackend {
    type State = ffi::spinlock;
    type GuardState = usize;

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
        unsafe { ffi::fgdp_helper_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: The lock is initialised, by this function's contract.
        unsafe { ffi::fgdp_helper_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: The caller owns the lock, by this function's contract; `flags` is what `lock`
        // saved.
        unsafe { ffi::fgdp_helper_spin_unlock_irqrestore(ptr, *flags) }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // As for `BhLock`.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: The lock is initialised, by this function's contract.
            unsafe { ffi::fgdp_helper_lockdep_assert_held(ptr) }
        }
    }
}

/// Creates an [`IrqLock`] with a lock class of its own.
#[macro_export]
macro_rules! new_irqlock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sys::irqlock::IrqLock::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}
pub(crate) use new_irqlock;
