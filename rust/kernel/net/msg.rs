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
        // SAFETY: By this function's contract nobody else uses the message meanwhile.
        Self { raw: unsafe { &mut *raw } }
    }

    /// `MSG_*`.
    pub(crate) fn flags(&self) -> u32 {
        self.raw.msg_flags
    }

    /// Whether the caller gave a destination address.
    pub(crate) fn has_name(&self) -> bool {
        self.raw.msg_namelen > 0 && !self.raw.msg_name.is_null()
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
        // SAFETY: By this function's contract nobody else uses the message meanwhile.
        Self { raw: unsafe { &mut *raw } }
    }

    /// Adds to the flags that the call returns.
    pub(crate) fn add_flags(&mut self, flags: u32) {
        self.raw.msg_flags |= flags;
    }

    /// Returns `name` as the sender's address, if the caller wants one.
    pub(crate) fn set_name(&mut self, name: &[u8]) {
        if self.raw.msg_name.is_null() || name.len() > size_of::<ffi::__kernel_sockaddr_storage>() {
            return;
        }
        // SAFETY: A `msg_name` that is not null has room for a `sockaddr_storage`, by the contract
        // of `proto_ops.recvmsg`, and `name` is no longer than that.
        unsafe {
            core::ptr::copy_nonoverlapping(name.as_ptr(), self.raw.msg_name.cast(), name.len())
        };
        self.raw.msg_namelen = name.len() as i32;
    }

    /// Room left.
    pub(crate) fn remaining(&mut self) -> usize {
        self.iter().len()
    }

    /// Where the bytes go.
    pub(crate) fn iter(&mut self) -> &mut IovDest<'a> {
        // SAFETY: The message, and with it the iterator, is exclusively ours; the kernel set it up
        // as a destination because this is a receive.
        unsafe { IovDest::from_raw((&raw mut self.raw.msg_iter).cast()) }
    }

    /// Takes the last `n` bytes back: the next copy overwrites them.
    pub(crate) fn revert(&mut self, n: usize) {
        // SAFETY: The callers revert at most what they copied in this call.
        unsafe { ffi::iov_iter_revert(&mut self.raw.msg_iter, n) };
    }
}

/// Turns a syscall's result into what the C side returns.
pub(super) fn ret(result: Result<usize>) -> kernel::ffi::c_int {
    match result {
        Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
        Err(e) => e.to_errno(),
    }
}
