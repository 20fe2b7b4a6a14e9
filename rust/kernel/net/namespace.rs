// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, and state that each of them has one of.

use super::super::ffi;
use super::anysock::AnySock;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc, ArcBorrow};
use kernel::types::Opaque;

/// A network namespace.
#[repr(transparent)]
pub(crate) struct Net(Opaque<ffi::net>);

// SAFETY: What is done with one is safe from any thread.
unsafe impl Sync for Net {}

impl Net {
    /// The first one.
    pub(crate) fn initial() -> &'static Self {
        // SAFETY: It lives as long as the kernel; the type is transparent.
        unsafe { &*(&raw const ffi::init_net).cast() }
    }

    /// Whether it is the first one.
    pub(crate) fn is_initial(&self) -> bool {
        core::ptr::eq(self, Self::initial())
    }

    /// Whether its administrator is the machine's.
    pub(crate) fn is_trusted(&self) -> bool {
        // SAFETY: A live namespace.
        unsafe { ffi::fgdp_helper_net_is_trusted(self.raw()) }
    }

    /// To tell namespaces apart.
    pub(crate) fn key(&self) -> NetKey {
        NetKey(self.raw().addr())
    }

    pub(in crate::sys) fn raw(&self) -> *mut ffi::net {
        self.0.get()
    }
}

/// Tells live namespaces apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetKey(usize);

impl AnySock {
    /// The socket's namespace.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: A socket's namespace lives as long as the socket; the type is transparent.
        unsafe { &*ffi::fgdp_helper_sock_net(self.raw()).cast_const().cast() }
    }
}

/// State that each namespace has one of.
pub(crate) trait PerNet: Send + Sync + Sized + 'static {
    /// What making one needs.
    type Context: Send + Sync + 'static;

    /// Where they are found.
    fn place() -> &'static Place<Self>;

    /// The namespace comes. May sleep.
    ///
    /// # Errors
    ///
    /// The namespace, or the module, does not come up.
    fn new(context: ArcBorrow<'_, Self::Context>, net: &Net) -> Result<Arc<Self>>;
}

/// Where the states of one type are found: a static.
pub(crate) struct Place<T: PerNet> {
    /// The kernel's number of what namespaces have.
    number: AtomicU32,
    /// They may be looked for.
    open: AtomicBool,
    context: AtomicPtr<T::Context>,
}

/// What the kernel keeps for each namespace, zeroed at first.
#[repr(C)]
struct Words {
    /// From `Arc::into_raw`.
    live: AtomicPtr<c_void>,
    /// The same, when it is not to be found any more.
    ended: AtomicPtr<c_void>,
}

impl<T: PerNet> Place<T> {
    /// Nothing to be found.
    pub(crate) const fn new() -> Self {
        Self {
            number: AtomicU32::new(0),
            open: AtomicBool::new(false),
            context: AtomicPtr::new(null_mut()),
        }
    }

    /// Runs `f` on the state of the socket's namespace. Any context; `f` does not sleep.
    pub(crate) fn with<R>(&self, sk: &AnySock, f: impl FnOnce(&T) -> R) -> Option<R> {
        let _rcu = rcu::read_lock();
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: The registration waits for a grace period after it has closed the place.
        let words = unsafe { self.words(sk.net().raw()) }?;
        let state = words.live.load(Ordering::Acquire).cast::<T>();
        // SAFETY: From `Arc::into_raw`; the reference is dropped a grace period after it was taken
        // out.
        unsafe { state.as_ref() }.map(f)
    }

    fn get(&self, net: &Net) -> Option<Arc<T>> {
        let _rcu = rcu::read_lock();
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: As in `with`.
        let words = unsafe { self.words(net.raw()) }?;
        let state = words.live.load(Ordering::Acquire).cast::<T>();
        // SAFETY: As in `with`.
        (!state.is_null()).then(|| unsafe { ArcBorrow::from_raw(state.cast_const()) }.into())
    }

    /// Runs `f` on all namespaces and their states. Sleeps; no namespace comes or goes meanwhile.
    pub(crate) fn each<F: FnMut(&Net, &T)>(&self, mut f: F) {
        let mut each = |net: &Net| {
            if let Some(state) = self.get(net) {
                f(net, &state);
            }
        };
        let mut call: &mut dyn FnMut(&Net) = &mut each;
        // SAFETY: `call_each` gets what it expects.
        unsafe { ffi::fgdp_helper_walk_nets(Some(call_each), (&raw mut call).cast()) };
    }

    /// # Safety
    ///
    /// The operations are registered while the words are used, and the namespace is live.
    unsafe fn words<'a>(&self, net: *mut ffi::net) -> Option<&'a Words> {
        let number = self.number.load(Ordering::Acquire);
        // SAFETY: By this function's contract.
        let words = unsafe { ffi::fgdp_helper_net_generic(net, number) };
        // SAFETY: The kernel has made room for `Words`, of zeros, and keeps it as long as the
        // namespace.
        unsafe { words.cast::<Words>().as_ref() }
    }

    /// # Safety
    ///
    /// As [`Place::words`].
    unsafe fn context<'a>(&self) -> ArcBorrow<'a, T::Context> {
        // SAFETY: The registration holds a reference as long as the operations are registered.
        unsafe { ArcBorrow::from_raw(self.context.load(Ordering::Acquire)) }
    }
}

/// # Safety
///
/// `f` is a closure of [`Place::each`], and `net` is live.
unsafe extern "C" fn call_each(net: *mut ffi::net, f: *mut c_void) {
    // SAFETY: By this function's contract; the types are transparent.
    let (net, f) = unsafe { (&*net.cast::<Net>(), &mut *f.cast::<&mut dyn FnMut(&Net)>()) };
    f(net);
}

/// States in all namespaces. Dropping it takes them away.
pub(crate) struct Registration<T: PerNet> {
    ops: KBox<ffi::pernet_operations>,
    _context: Arc<T::Context>,
}

// SAFETY: The kernel serialises what it does with the operations.
unsafe impl<T: PerNet> Send for Registration<T> {}
// SAFETY: As above; there are no methods by reference.
unsafe impl<T: PerNet> Sync for Registration<T> {}

impl<T: PerNet> Registration<T> {
    /// Makes one in each namespace, those to come included. One registration of a type at a time.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or that of [`PerNet::new`].
    pub(crate) fn new(context: Arc<T::Context>) -> Result<Self> {
        let place = T::place();
        let mut ops = KBox::new(
            ffi::pernet_operations {
                init: Some(init::<T>),
                pre_exit: Some(pre_exit::<T>),
                exit: Some(exit::<T>),
                id: place.number.as_ptr(),
                size: size_of::<Words>(),
                ..Default::default()
            },
            GFP_KERNEL,
        )?;
        let ptr = Arc::as_ptr(&context).cast_mut();
        place.context.store(ptr, Ordering::Release);
        // SAFETY: The operations stay where they are until `drop` has unregistered them, and so
        // does the context.
        kernel::error::to_result(unsafe { ffi::register_pernet_subsys(&mut *ops) })?;
        place.open.store(true, Ordering::Release);
        Ok(Self {
            ops,
            _context: context,
        })
    }
}

impl<T: PerNet> Drop for Registration<T> {
    fn drop(&mut self) {
        T::place().open.store(false, Ordering::Release);
        // SAFETY: Registered in `new`. A grace period passes between `pre_exit` and `exit`: who has
        // found the place open has gone when this returns.
        unsafe { ffi::unregister_pernet_subsys(&mut *self.ops) };
    }
}

/// # Safety
///
/// As `struct pernet_operations` says.
unsafe extern "C" fn init<T: PerNet>(net: *mut ffi::net) -> c_int {
    // SAFETY: Called by registered operations, with a live namespace; the types are transparent.
    let (words, context, net) = unsafe {
        (
            T::place().words(net),
            T::place().context(),
            &*net.cast::<Net>(),
        )
    };
    let Some(words) = words else {
        return ENOMEM.to_errno();
    };
    match T::new(context, net) {
        Ok(state) => {
            let state = Arc::into_raw(state).cast_mut().cast();
            words.live.store(state, Ordering::Release);
            0
        }
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// As `struct pernet_operations` says.
unsafe extern "C" fn pre_exit<T: PerNet>(net: *mut ffi::net) {
    // SAFETY: As for `init`.
    if let Some(words) = unsafe { T::place().words(net) } {
        let state = words.live.swap(null_mut(), Ordering::AcqRel);
        words.ended.store(state, Ordering::Release);
    }
}

/// # Safety
///
/// As `struct pernet_operations` says: a grace period after `pre_exit`.
unsafe extern "C" fn exit<T: PerNet>(net: *mut ffi::net) {
    // SAFETY: As for `init`.
    let words = unsafe { T::place().words(net) };
    let state = words.map_or(null_mut(), |w| w.ended.swap(null_mut(), Ordering::AcqRel));
    if !state.is_null() {
        // SAFETY: The reference of `init`; nobody finds it any more.
        drop(unsafe { Arc::from_raw(state.cast::<T>().cast_const()) });
    }
}
