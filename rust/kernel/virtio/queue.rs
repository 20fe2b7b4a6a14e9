// SPDX-License-Identifier: GPL-2.0

//! Virtqueues, and the buffers that go through them.
//!
//! A buffer is owned: by whoever holds the [`Buffer`], or by the queue while the device may access
//! it. So a device that answers late, or never, touches memory that nobody else uses.
//!
//! A [`Queue`] may outlive its device: from [`Queue::stop`] on it takes nothing and returns
//! nothing.
//!
//! Locking: each queue has one lock, taken with interrupts off and innermost. The device is
//! notified outside of it, because that may stop this processor for as long as a round trip to the
//! host takes; an RCU read section around both keeps the queue from being deleted in between.

use super::super::{
    ffi,
    irqlock::{new_irqlock, IrqLock}, //
};
use core::ptr::{null_mut, NonNull};
use kernel::{
    bindings,
    prelude::*,
    sync::{rcu, Arc},
    types::Opaque, //
};

/// Memory that the device reads, then memory that it writes; either may be empty.
pub(crate) struct Buffer {
    out: KVec<u8>,
    inp: KVec<u8>,
    /// Bytes of `inp` that the device says it wrote; at most `inp.len()`.
    used: usize,
    reply: Option<Arc<Reply>>,
}

impl Buffer {
    /// Makes a buffer with the bytes `out` and room for `room` bytes of answer.
    pub(crate) fn new(out: &[u8], room: usize) -> Result<KBox<Self>> {
        let mut o = KVec::with_capacity(out.len(), GFP_KERNEL)?;
        o.extend_from_slice(out, GFP_KERNEL)?;
        Self::from_vecs(o, room)
    }

    fn from_vecs(out: KVec<u8>, room: usize) -> Result<KBox<Self>> {
        let inp = KVec::from_elem(0u8, room, GFP_KERNEL)?;
        Ok(KBox::new(
            Self {
                out,
                inp,
                used: 0,
                reply: None,
            },
            GFP_KERNEL,
        )?)
    }

    /// What the device will read.
    pub(crate) fn out(&mut self) -> &mut [u8] {
        &mut self.out
    }

    /// What the device wrote.
    pub(crate) fn received(&self) -> &[u8] {
        self.inp.get(..self.used).unwrap_or(&[])
    }
}

/// Where the caller of [`Queue::call`] and the interrupt meet.
#[pin_data]
struct Reply {
    #[pin]
    done: Opaque<ffi::completion>,
    #[pin]
    buffer: IrqLock<Option<KBox<Buffer>>>,
}

// SAFETY: A completion may be used from any context; the lock makes the rest so.
unsafe impl Send for Reply {}
// SAFETY: As for `Send`.
unsafe impl Sync for Reply {}

impl Reply {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // SAFETY: `init_completion` initialises the memory it is given.
            done <- Opaque::ffi_init(|slot| unsafe { ffi::fgdp_helper_init_completion(slot) }),
            buffer <- new_irqlock!(None),
        })
    }

    fn complete(&self, buffer: Option<KBox<Buffer>>) {
        *self.buffer.lock() = buffer;
        // SAFETY: Initialised by `new`; the caller's reference keeps it alive.
        unsafe { ffi::complete(self.done.get()) };
    }

    /// True when completed, false after the time; an error when the caller is to die.
    fn wait(&self, jiffies: usize) -> Result<bool> {
        // SAFETY: Initialised by `new`.
        let left = unsafe { ffi::wait_for_completion_killable_timeout(self.done.get(), jiffies) };
        if left < 0 {
            return Err(EINTR);
        }
        Ok(left > 0)
    }
}

/// Why [`Queue::call`] has no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The queue is stopped, broken, or full.
    Dead,
    /// The time is over.
    Timeout,
    /// The caller was killed.
    Killed,
    /// No memory for the request.
    NoMemory,
}

/// Makes `sg` describe `memory`; returns the number of entries used.
fn describe(memory: &mut [u8], sg: &mut ffi::scatterlist) -> u32 {
    // Buffers are a few KiB, far below the 4 GiB that an entry holds.
    match u32::try_from(memory.len()) {
        Ok(len) if len > 0 => {
            // SAFETY: `sg` is one entry; `memory` is `len` bytes that `kmalloc` returned.
            unsafe { ffi::sg_init_one(sg, memory.as_mut_ptr().cast(), len) };
            1
        }
        _ => 0,
    }
}

struct State {
    vq: NonNull<ffi::virtqueue>,
    live: bool,
}

// SAFETY: A virtqueue belongs to no thread; the lock around `State` serialises its use.
unsafe impl Send for State {}

/// # Invariants
///
/// `state.vq` points at a virtqueue until `detach`; afterwards `state.live` is false, and `vq` is
/// not used.
#[pin_data]
struct Shared {
    #[pin]
    state: IrqLock<State>,
}

/// A handle of a virtqueue.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Shared>);

impl Queue {
    /// # Safety
    ///
    /// `vq` must stay valid until `detach` was called, and only this value's clones may operate on
    /// it.
    pub(super) unsafe fn new(vq: NonNull<ffi::virtqueue>) -> Result<Self> {
        // INVARIANT: `vq` is valid until `detach` by this function's contract.
        Ok(Self(Arc::pin_init(
            pin_init!(Shared { state <- new_irqlock!(State { vq, live: true }) }),
            GFP_KERNEL,
        )?))
    }

    /// Hands `buffer` to the device and notifies it. Any context.
    ///
    /// # Errors
    ///
    /// Gives the buffer back when the queue is full, broken or stopped.
    pub(crate) fn submit(&self, buffer: KBox<Buffer>) -> Result<(), KBox<Buffer>> {
        self.add(buffer)?;
        self.kick();
        Ok(())
    }

    /// Hands `buffer` to the device without notifying it. Any context.
    ///
    /// # Errors
    ///
    /// Gives the buffer back when the queue is full, broken or stopped.
    pub(crate) fn add(&self, mut buffer: KBox<Buffer>) -> Result<(), KBox<Buffer>> {
        let mut entries = [ffi::scatterlist::default(); 2];
        let mut sgs = [null_mut::<ffi::scatterlist>(); 2];
        let [out, inp] = &mut entries;
        let [first, second] = &mut sgs;
        let outs = describe(&mut buffer.out, out);
        let inps = describe(&mut buffer.inp, inp);
        match (outs, inps) {
            (0, 0) => return Err(buffer),
            (0, _) => *first = inp,
            (_, _) => (*first, *second) = (out, inp),
        }

        let state = self.0.state.lock();
        if !state.live {
            return Err(buffer);
        }
        let token = KBox::into_raw(buffer);
        // SAFETY: The queue is alive by the type invariant, and locked. `sgs` has `outs + inps`
        // entries that describe the memory `token` owns, which stays until the device returned it
        // or was reset.
        let err = unsafe {
            ffi::virtqueue_add_sgs(
                state.vq.as_ptr(),
                sgs.as_mut_ptr(),
                outs,
                inps,
                token.cast(),
                bindings::GFP_ATOMIC,
            )
        };
        if err < 0 {
            // SAFETY: From `into_raw` above; the queue did not take it.
            return Err(unsafe { KBox::from_raw(token) });
        }
        Ok(())
    }

    /// Notifies the device of the buffers added, if it wants to know. Any context.
    pub(crate) fn kick(&self) {
        // `stop` waits for this section, so that the queue exists while it is notified.
        let _rcu = rcu::read_lock();
        let vq = {
            let state = self.0.state.lock();
            // SAFETY: The queue is alive by the type invariant, and locked.
            if !state.live || !unsafe { ffi::virtqueue_kick_prepare(state.vq.as_ptr()) } {
                return;
            }
            state.vq
        };
        // SAFETY: The queue was alive inside this RCU section, so it is until its end.
        unsafe { ffi::virtqueue_notify(vq.as_ptr()) };
    }

    /// Takes a buffer that the device is done with. Any context.
    pub(crate) fn take(&self) -> Option<KBox<Buffer>> {
        let state = self.0.state.lock();
        if !state.live {
            return None;
        }
        let mut len = 0u32;
        // SAFETY: The queue is alive by the type invariant, and locked.
        let token = unsafe { ffi::virtqueue_get_buf(state.vq.as_ptr(), &mut len) };
        drop(state);
        let token = NonNull::new(token)?;
        // SAFETY: The queue returns what `add` gave it, once.
        let mut buffer = unsafe { KBox::from_raw(token.as_ptr().cast::<Buffer>()) };
        buffer.used = buffer.inp.len().min(len as usize);
        Some(buffer)
    }

    /// Sends `buffer` and waits for the device to return it, for at most `jiffies`. Process
    /// context.
    ///
    /// The interrupt of this queue must call [`Queue::complete_calls`].
    ///
    /// # Errors
    ///
    /// An answer that comes after the error is dropped.
    pub(crate) fn call(
        &self,
        mut buffer: KBox<Buffer>,
        jiffies: usize,
    ) -> Result<KBox<Buffer>, NoAnswer> {
        let reply = Arc::pin_init(Reply::new(), GFP_KERNEL).map_err(|_| NoAnswer::NoMemory)?;
        buffer.reply = Some(reply.clone());
        self.submit(buffer).map_err(|_| NoAnswer::Dead)?;
        let waited = reply.wait(jiffies);
        let answer = reply.buffer.lock().take();
        match (answer, waited) {
            (Some(buffer), _) => Ok(buffer),
            (None, Ok(true)) => Err(NoAnswer::Dead),
            (None, Ok(false)) => Err(NoAnswer::Timeout),
            (None, Err(_)) => Err(NoAnswer::Killed),
        }
    }

    /// Gives the answers that came in to their callers. Any context.
    pub(crate) fn complete_calls(&self) {
        while let Some(mut buffer) = self.take() {
            if let Some(reply) = buffer.reply.take() {
                reply.complete(Some(buffer));
            }
        }
    }

    /// Asks the device not to interrupt for this queue.
    pub(crate) fn disable_callback(&self) {
        let state = self.0.state.lock();
        if state.live {
            // SAFETY: The queue is alive by the type invariant, and locked.
            unsafe { ffi::virtqueue_disable_cb(state.vq.as_ptr()) };
        }
    }

    /// Asks the device to interrupt for this queue. False: there is something to
    /// [`take`](Queue::take) already.
    pub(crate) fn enable_callback(&self) -> bool {
        let state = self.0.state.lock();
        // SAFETY: The queue is alive by the type invariant, and locked.
        !state.live || unsafe { ffi::virtqueue_enable_cb(state.vq.as_ptr()) }
    }

    /// Ends the use of the queue by its handles. Callers that wait in [`Queue::call`] do so until
    /// `detach`.
    ///
    /// Whoever notifies still may do so until a grace period is over.
    pub(super) fn stop(&self) {
        self.0.state.lock().live = false;
    }

    /// Takes the buffers back that the device never returned. The queue may be deleted afterwards.
    ///
    /// # Safety
    ///
    /// `stop` was called, a grace period is over, and the device was reset, so that it accesses no
    /// buffer.
    pub(super) unsafe fn detach(&self) {
        loop {
            let vq = self.0.state.lock().vq;
            // SAFETY: The queue is alive by the type invariant, and nobody else operates on it
            // after `stop`.
            let token = unsafe { ffi::virtqueue_detach_unused_buf(vq.as_ptr()) };
            let Some(token) = NonNull::new(token) else {
                return;
            };
            // SAFETY: The queue returns what `add` gave it, once.
            let mut buffer = unsafe { KBox::from_raw(token.as_ptr().cast::<Buffer>()) };
            if let Some(reply) = buffer.reply.take() {
                reply.complete(None);
            }
        }
    }
}
