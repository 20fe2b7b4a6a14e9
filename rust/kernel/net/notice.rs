// SPDX-License-Identifier: GPL-2.0

//! TCP's notifications of sends with `MSG_ZEROCOPY`, on the socket's error queue.

use super::super::ffi;
use super::consts::MSG_ZEROCOPY;
use super::errno::Errno;
use super::msg::SendMsg;
use super::tcp::TcpSock;
use core::ptr::NonNull;
use kernel::prelude::*;

/// The notification of one send: told when this is dropped and all that it granted is back; or, if
/// nothing was sent, never. It says that the bytes were copied (`SO_EE_CODE_ZEROCOPY_COPIED`)
/// unless something was granted.
pub(crate) struct Notice {
    told: NonNull<ffi::ubuf_info>,
    sent: bool,
}

impl Notice {
    /// Something was sent.
    pub(crate) fn sent(mut self) {
        self.sent = true;
    }

    /// Pages are granted: to be dropped when they are back.
    pub(crate) fn granted(&self) -> Granted {
        // SAFETY: A live notification; the reference is given back by `Granted`.
        unsafe { ffi::fgdp_helper_zerocopy_granted(self.told.as_ptr()) };
        Granted(self.told)
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        // SAFETY: From `zerocopy_begin`, whose reference is given back here; it holds the socket.
        unsafe { ffi::fgdp_helper_zerocopy_end(self.told.as_ptr(), self.sent) };
    }
}

/// Pages of a send that the peer has. Dropped in any context, without locks that waking a poller
/// takes.
pub(crate) struct Granted(NonNull<ffi::ubuf_info>);

// SAFETY: A counted reference, which any context may give back.
unsafe impl Send for Granted {}

impl Drop for Granted {
    fn drop(&mut self) {
        // SAFETY: The reference of `Notice::granted`.
        unsafe { ffi::fgdp_helper_zerocopy_end(self.0.as_ptr(), true) };
    }
}

impl TcpSock {
    /// If `msg` of `len` bytes wants to be told on the error queue when its pages are free: the
    /// notification, and `msg` wants it no more.
    ///
    /// # Errors
    ///
    /// `ENOBUFS`, as TCP: too much was not read from the error queue.
    pub(crate) fn notice(&self, msg: &mut SendMsg<'_>, len: usize) -> Result<Option<Notice>> {
        if msg.flags() & MSG_ZEROCOPY == 0 || len == 0 {
            return Ok(None);
        }
        // SAFETY: A live TCP socket, by the type's invariant.
        if !unsafe { ffi::fgdp_helper_tcp_wants_zerocopy(self.raw(), msg.raw()) } {
            return Ok(None);
        }
        // SAFETY: As above, in a call that sends: process context.
        let told = NonNull::new(unsafe { ffi::fgdp_helper_zerocopy_begin(self.raw()) });
        let told = told.ok_or(Errno::NoBufs)?;
        msg.clear_flags(MSG_ZEROCOPY);
        Ok(Some(Notice { told, sent: false }))
    }
}
