// SPDX-License-Identifier: GPL-2.0

//! `struct sock` with a protocol's own data behind it.
//!
//! References: a `struct socket` holds one, each [`ARef`] holds one; the data is dropped with
//! the last. The data's destructor may therefore run in any context and must not sleep.

use super::super::{
    compat::init_in_place,
    ffi, //
};
use super::anysock::AnySock;
use super::family::Family;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::{ARef, AlwaysRefCounted};

/// A socket of family `F`.
///
/// # Invariants
///
/// `sk` was made by `sk_alloc` and `sock_init_data`; `data` is initialised, and pinned.
#[repr(C)]
pub(crate) struct Sock<F: Family> {
    sk: AnySock,
    data: F,
}

impl<F: Family> Deref for Sock<F> {
    type Target = AnySock;

    fn deref(&self) -> &AnySock {
        &self.sk
    }
}

// SAFETY: `struct sock` may be used from any thread (its fields that are not constant are accessed
// under its lock or by single words), and `F` is `Send + Sync`.
unsafe impl<F: Family> Send for Sock<F> {}
// SAFETY: As above.
unsafe impl<F: Family> Sync for Sock<F> {}

// SAFETY: `sock_hold` and `sock_put` count references and free with the last.
unsafe impl<F: Family> AlwaysRefCounted for Sock<F> {
    fn inc_ref(&self) {
        // SAFETY: `self` proves that the count is not zero.
        unsafe { ffi::fgdp_helper_sock_hold(self.sk.raw()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { ffi::fgdp_helper_sock_put(obj.as_ptr().cast()) }
    }
}

impl<F: Family> Sock<F> {
    /// # Safety
    ///
    /// `sk` is a live socket that [`Sock::alloc`] made for the same `F`, for the length of `'a`.
    pub(super) unsafe fn from_raw<'a>(sk: *mut ffi::sock) -> &'a Self {
        // SAFETY: By this function's contract.
        unsafe { &*sk.cast() }
    }

    /// Makes a socket with `data` and attaches it to `socket`, which gets the reference.
    ///
    /// # Safety
    ///
    /// `net`, `socket` and `prot` are live; `prot` was registered with `obj_size` of `Self`.
    pub(super) unsafe fn alloc<'a>(
        net: *mut ffi::net,
        socket: *mut ffi::socket,
        prot: *mut ffi::proto,
        family: i32,
        kern: bool,
        data: impl PinInit<F, Error>,
    ) -> Result<&'a Self> {
        let gfp = kernel::bindings::GFP_KERNEL;
        // SAFETY: By this function's contract.
        let sk = unsafe { ffi::sk_alloc(net, family, gfp, prot, kern.into()) };
        if sk.is_null() {
            return Err(ENOMEM);
        }
        let this: *mut Self = sk.cast();
        // SAFETY: `prot.obj_size` is the size of `Self`, so the place for the data is there; it is
        // never moved.
        if let Err(e) = unsafe { init_in_place(&raw mut (*this).data, data) } {
            // SAFETY: The only reference, and no destructor is set yet.
            unsafe { ffi::sk_free(sk) };
            return Err(e);
        }
        // SAFETY: Both are live and not yet connected to each other.
        unsafe {
            ffi::sock_init_data(socket, sk);
            ffi::fgdp_helper_sock_own_options(socket);
            (*sk).sk_destruct = Some(Self::destruct);
            (*sk).sk_protocol = 0;
        }
        // SAFETY: Just made.
        Ok(unsafe { Self::from_raw(sk) })
    }

    /// # Safety
    ///
    /// Called by the kernel as `sk_destruct` of a socket that [`Sock::alloc`] made.
    unsafe extern "C" fn destruct(sk: *mut ffi::sock) {
        let this: *mut Self = sk.cast();
        // SAFETY: The kernel calls this once, with the last reference; the data is initialised by
        // the type's invariant.
        unsafe { core::ptr::drop_in_place(&raw mut (*this).data) };
    }

    /// The family's data.
    pub(crate) fn data(&self) -> &F {
        &self.data
    }
}

/// A counted reference to a socket.
pub(crate) type SockRef<F> = ARef<Sock<F>>;
