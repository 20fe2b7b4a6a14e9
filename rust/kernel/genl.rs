// SPDX-License-Identifier: GPL-2.0

//! Generic netlink families whose commands dump tables.
//!
//! A dump goes on where the last buffer was full, by a cursor of the family's own. The kernel holds
//! the module while a dump is not finished.

use super::ffi;
use kernel::error::to_result;
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;

/// A family. All is called in process context.
pub(crate) trait Family: Send + Sync + 'static {
    /// The family's name, shorter than 16 bytes.
    const NAME: &'static CStr;
    /// Version of its commands.
    const VERSION: u32;
    /// The commands; each is a dump that every user may ask for.
    const COMMANDS: &'static [u8];

    /// The first place at or after `at` that has an entry for command `cmd`.
    fn seek(&self, cmd: u8, at: u64) -> Option<u64>;
    /// Puts the entry at `at` into `msg`; nothing if it has gone since [`Family::seek`].
    ///
    /// # Errors
    ///
    /// Those of [`Message`], unchanged.
    fn fill(&self, cmd: u8, at: u64, msg: &mut Message) -> Result;
}

/// One message of a dump.
///
/// # Invariants
///
/// `skb` is a buffer in which a message was begun, and nobody else uses it.
pub(crate) struct Message {
    skb: *mut ffi::sk_buff,
    empty: bool,
}

impl Message {
    /// Adds an attribute of bytes.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` when the buffer is full.
    pub(crate) fn bytes(&mut self, attr: u32, value: &[u8]) -> Result {
        self.put(attr, value.as_ptr().cast(), value.len())
    }

    /// Adds a string.
    ///
    /// # Errors
    ///
    /// As [`Message::bytes`].
    pub(crate) fn string(&mut self, attr: u32, value: &CStr) -> Result {
        self.bytes(attr, value.to_bytes_with_nul())
    }

    /// Adds a 32-bit number.
    ///
    /// # Errors
    ///
    /// As [`Message::bytes`].
    pub(crate) fn u32(&mut self, attr: u32, value: u32) -> Result {
        self.bytes(attr, &value.to_ne_bytes())
    }

    /// Adds a number of 32 bits, or 64 if it needs them.
    ///
    /// # Errors
    ///
    /// As [`Message::bytes`].
    pub(crate) fn uint(&mut self, attr: u32, value: u64) -> Result {
        match u32::try_from(value) {
            Ok(value) => self.u32(attr, value),
            Err(_) => self.bytes(attr, &value.to_ne_bytes()),
        }
    }

    fn put(&mut self, attr: u32, value: *const c_void, len: usize) -> Result {
        let attr = c_int::try_from(attr).map_err(|_| EINVAL)?;
        let len = c_int::try_from(len).map_err(|_| EINVAL)?;
        self.empty = false;
        // SAFETY: By the type invariant; `value` has `len` bytes.
        to_result(unsafe { ffi::nla_put(self.skb, attr, len, value) })
    }
}

/// What the kernel holds of a registered family. `family` is first: the kernel's pointer to it is
/// one to this.
#[repr(C)]
struct Registered<F: Family> {
    family: ffi::genl_family,
    ops: KVec<ffi::genl_small_ops>,
    data: F,
}

/// A registered family. Dropping it unregisters.
///
/// # Invariants
///
/// The box is registered with the kernel and does not move.
pub(crate) struct Registration<F: Family>(KBox<Registered<F>>);

// SAFETY: The kernel has locks of its own for what it holds; `F` is `Send`.
unsafe impl<F: Family> Send for Registration<F> {}
// SAFETY: There are no methods by reference.
unsafe impl<F: Family> Sync for Registration<F> {}

impl<F: Family> Registration<F> {
    /// Registers the family with `data` for its commands.
    ///
    /// # Errors
    ///
    /// `EEXIST` when there is a family of that name; `ENOMEM`.
    pub(crate) fn new(module: &'static ThisModule, data: F) -> Result<Self> {
        let mut ops = KVec::with_capacity(F::COMMANDS.len(), GFP_KERNEL)?;
        for cmd in F::COMMANDS {
            let op = ffi::genl_small_ops {
                dumpit: Some(dump::<F>),
                cmd: *cmd,
                ..Default::default()
            };
            ops.push(op, GFP_KERNEL)?;
        }
        // SAFETY: All-zero is a valid `struct genl_family`: no callback, no attribute.
        let mut family: ffi::genl_family = unsafe { core::mem::zeroed() };
        for (to, from) in family.name.iter_mut().zip(F::NAME.to_bytes_with_nul()) {
            *to = *from;
        }
        family.version = F::VERSION;
        family.module = module.as_ptr().cast();
        let mut this = KBox::new(Registered { family, ops, data }, GFP_KERNEL)?;
        this.family.n_small_ops = u8::try_from(this.ops.len()).map_err(|_| EINVAL)?;
        this.family.small_ops = this.ops.as_ptr();
        // SAFETY: The box keeps its address, and the operations theirs, until `drop` has
        // unregistered it.
        to_result(unsafe { ffi::genl_register_family(&mut this.family) })?;
        // INVARIANT: Just registered.
        Ok(Self(this))
    }
}

impl<F: Family> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant. No dump runs: each holds the module.
        let err = to_result(unsafe { ffi::genl_unregister_family(&self.0.family) });
        // It fails only for what is not registered.
        debug_assert!(err.is_ok());
    }
}

/// # Safety
///
/// Called by generic netlink for a dump command of a [`Registered<F>`].
unsafe extern "C" fn dump<F: Family>(
    skb: *mut ffi::sk_buff,
    cb: *mut ffi::netlink_callback,
) -> c_int {
    // SAFETY: The family that the dump belongs to is the first field of a `Registered<F>`, which
    // lives while the module is held, which it is until the dump is done.
    let this = unsafe { &*ffi::fgdp_helper_genl_dump_family(cb).cast::<Registered<F>>() };
    // SAFETY: `cb` is the running dump, which nobody else uses meanwhile.
    let (cmd, cursor) = unsafe {
        (
            ffi::fgdp_helper_genl_dump_cmd(cb),
            &mut *ffi::fgdp_helper_genl_dump_cursor(cb),
        )
    };
    while let Some(at) = this.data.seek(cmd, *cursor) {
        // SAFETY: `skb` is the buffer of the running dump.
        let hdr = unsafe { ffi::fgdp_helper_genl_dump_put(skb, cb) };
        if hdr.is_null() {
            return EMSGSIZE.to_errno();
        }
        // INVARIANT: Just begun; `skb` is the dump's alone.
        let mut msg = Message { skb, empty: true };
        let filled = this.data.fill(cmd, at, &mut msg);
        if filled.is_ok() && !msg.empty {
            // SAFETY: `hdr` is the message that was begun in `skb`.
            unsafe { ffi::fgdp_helper_genlmsg_end(skb, hdr) };
        } else {
            // SAFETY: As above.
            unsafe { ffi::fgdp_helper_genlmsg_cancel(skb, hdr) };
        }
        if let Err(e) = filled {
            // The core sends what is there and calls again.
            return e.to_errno();
        }
        *cursor = at.saturating_add(1);
    }
    0
}
