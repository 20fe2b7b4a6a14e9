// SPDX-License-Identifier: GPL-2.0

//! `struct msghdr`, from the side of a protocol.

use super::super::ffi;
use super::super::iov::{IovDest, IovSource};
use kernel::prelude::*;

/// A message to send.
pub(crate) struct SendMsg<'a> {
    raw: &'a mut ffi::msghdr,
}

impl<'a> SendMsg<'a> {
    /// # Safety
    ///
    /// `raw` is the message of a running `sendmsg` call, for the length of `'a`.
    pub(super) unsafe fn from_raw(raw: *mut ffi::msghdr) -> Self {
        Self {
            // SAFETY: By this function's contract nobody else uses the message meanwhile.
            raw: unsafe { &mut *raw },
        }
    }

    pub(super) fn raw(&self) -> *const ffi::msghdr {
        &raw const *self.raw
    }

    pub(super) fn raw_mut(&mut self) -> *mut ffi::msghdr {
        &raw mut *self.raw
    }

    /// `MSG_*`.
    pub(crate) fn flags(&self) -> u32 {
        self.raw.msg_flags
    }

    /// Whether there is ancillary data.
    pub(super) fn has_control(&self) -> bool {
        self.raw.msg_controllen != 0
    }

    /// Whether ancillary data asks that memory be given away (`FGDP_TRANSFER`).
    ///
    /// # Errors
    ///
    /// `EINVAL` for other ancillary data of the family.
    pub(crate) fn asks_transfer(&mut self) -> Result<bool> {
        if !self.has_control() {
            return Ok(false);
        }
        // SAFETY: The message is exclusively ours; the kernel copied its ancillary data.
        let asks = unsafe { ffi::fgdp_helper_msg_transfer(self.raw) };
        kernel::error::to_result(asks)?;
        Ok(asks != 0)
    }

    /// As if the caller had not set these `MSG_*`.
    pub(super) fn clear_flags(&mut self, flags: u32) {
        self.raw.msg_flags &= !flags;
    }

    /// Bytes not yet taken.
    pub(crate) fn remaining(&mut self) -> usize {
        self.iter().len()
    }

    /// The bytes.
    pub(crate) fn iter(&mut self) -> &mut IovSource<'a> {
        // SAFETY: The message, and with it the iterator, is exclusively ours; the kernel set it up
        // as a source because this is a send.
        unsafe { IovSource::from_raw((&raw mut self.raw.msg_iter).cast()) }
    }

    /// Brings the next `len` bytes of user memory in, as far as they are there; how many that are.
    /// Sleeps.
    pub(crate) fn fault_in(&mut self, len: u32) -> u32 {
        // SAFETY: The iterator is valid and exclusively ours.
        let missing =
            unsafe { ffi::fgdp_helper_fault_in_readable(&self.raw.msg_iter, len as usize) };
        len.saturating_sub(missing as u32)
    }

    /// Takes the last `n` bytes back. The caller has copied at least as many in this call.
    pub(crate) fn revert(&mut self, n: u32) {
        // SAFETY: By the caller's word, the iterator has advanced by `n` at least.
        unsafe { ffi::iov_iter_revert(&mut self.raw.msg_iter, n as usize) };
    }

    /// The next piece of user memory: its address and length. `None` for other memory.
    pub(crate) fn segment(&mut self) -> Option<(usize, usize)> {
        let mut len = 0;
        // SAFETY: The iterator is valid and exclusively ours.
        let addr = unsafe { ffi::fgdp_helper_iter_segment(&self.raw.msg_iter, &mut len) };
        (addr != 0).then_some((addr as usize, len))
    }

    /// Passes over the next `n` bytes, of which there are so many.
    pub(crate) fn skip(&mut self, n: usize) {
        let n = n.min(self.remaining());
        // SAFETY: The iterator is valid, exclusively ours, and has `n` bytes.
        unsafe { ffi::iov_iter_advance(&mut self.raw.msg_iter, n) };
    }

    /// Runs `f` on the next `n` bytes as if there were no others.
    pub(crate) fn first<R>(&mut self, n: usize, f: impl FnOnce(&mut Self) -> R) -> R {
        // SAFETY: The iterator is valid and exclusively ours.
        let hidden = unsafe { ffi::fgdp_helper_iter_hide(&mut self.raw.msg_iter, n) };
        let result = f(self);
        // SAFETY: As above; so many bytes were hidden.
        unsafe { ffi::fgdp_helper_iter_show(&mut self.raw.msg_iter, hidden) };
        result
    }
}

/// A place in a message's room for ancillary data.
pub(super) struct Control {
    at: ffi::msghdr__bindgen_ty_1,
    room: usize,
    flags: kernel::ffi::c_uint,
}

/// A message to fill.
pub(crate) struct RecvMsg<'a> {
    raw: &'a mut ffi::msghdr,
}

impl<'a> RecvMsg<'a> {
    /// # Safety
    ///
    /// `raw` is the message of a running `recvmsg` call, for the length of `'a`.
    pub(super) unsafe fn from_raw(raw: *mut ffi::msghdr) -> Self {
        Self {
            // SAFETY: By this function's contract nobody else uses the message meanwhile.
            raw: unsafe { &mut *raw },
        }
    }

    pub(super) fn raw_mut(&mut self) -> *mut ffi::msghdr {
        &raw mut *self.raw
    }

    /// Where ancillary data goes next.
    pub(super) fn control(&self) -> Control {
        Control {
            at: self.raw.__bindgen_anon_1,
            room: self.raw.msg_controllen,
            flags: self.raw.msg_flags,
        }
    }

    /// Takes ancillary data back that came since [`RecvMsg::control`].
    pub(super) fn set_control(&mut self, control: Control) {
        self.raw.__bindgen_anon_1 = control.at;
        self.raw.msg_controllen = control.room;
        self.raw.msg_flags = control.flags;
    }

    /// Adds to the flags that the call returns.
    pub(crate) fn add_flags(&mut self, flags: u32) {
        self.raw.msg_flags |= flags;
    }

    /// Says that the calls `first` to `last` of send with `MSG_ZEROCOPY` are complete.
    pub(crate) fn put_zerocopy(&mut self, first: u32, last: u32, copied: bool) {
        // SAFETY: The message is exclusively ours; this is a `recvmsg` call.
        unsafe { ffi::fgdp_helper_put_zerocopy(self.raw, first, last, copied) }
    }

    /// Where the bytes go.
    pub(crate) fn iter(&mut self) -> &mut IovDest<'a> {
        // SAFETY: The message, and with it the iterator, is exclusively ours; the kernel set it up
        // as a destination because this is a receive.
        unsafe { IovDest::from_raw((&raw mut self.raw.msg_iter).cast()) }
    }

    /// Brings the next `len` bytes of user memory in, to be written; false if not even the first is
    /// there. Sleeps.
    pub(crate) fn fault_in(&mut self, len: u32) -> bool {
        // SAFETY: The iterator is valid and exclusively ours.
        let missing =
            unsafe { ffi::fgdp_helper_fault_in_writeable(&self.raw.msg_iter, len as usize) };
        missing < len as usize
    }

    /// Takes the last `n` bytes back. The caller has copied at least as many in this call.
    pub(crate) fn revert(&mut self, n: u32) {
        // SAFETY: By the caller's word, the iterator has advanced by `n` at least.
        unsafe { ffi::iov_iter_revert(&mut self.raw.msg_iter, n as usize) };
    }
}

/// Turns a syscall's result into what the C side returns.
pub(super) fn ret(result: Result<usize>) -> kernel::ffi::c_int {
    match result {
        Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
        Err(e) => e.to_errno(),
    }
}
