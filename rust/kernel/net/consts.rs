// SPDX-License-Identifier: GPL-2.0

//! Constants of the socket interface, as the kernel's headers define them.

use super::super::ffi;

macro_rules! consts {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:ident;)*) => {
        $($(#[$doc])* pub(crate) const $name: $ty = ffi::$value as $ty;)*
    };
}

consts! {
    /// Socket type: byte stream.
    SOCK_STREAM: u32 = fgdp_const_FGDP_CONST_SOCK_STREAM;
    /// Socket type: stream of records.
    SOCK_SEQPACKET: u32 = fgdp_const_FGDP_CONST_SOCK_SEQPACKET;
    /// Out-of-band data.
    MSG_OOB: u32 = MSG_OOB;
    /// Leave the data in the queue.
    MSG_PEEK: u32 = MSG_PEEK;
    /// The record was longer than the buffer.
    MSG_TRUNC: u32 = MSG_TRUNC;
    /// Do not block.
    MSG_DONTWAIT: u32 = MSG_DONTWAIT;
    /// End of record.
    MSG_EOR: u32 = MSG_EOR;
    /// Wait for the full request.
    MSG_WAITALL: u32 = MSG_WAITALL;
    /// Send without a copy.
    MSG_ZEROCOPY: u32 = MSG_ZEROCOPY;
    /// Read the error queue.
    MSG_ERRQUEUE: u32 = MSG_ERRQUEUE;
    /// `O_NONBLOCK`, as `connect` and `accept` get it.
    O_NONBLOCK: u32 = fgdp_const_FGDP_CONST_O_NONBLOCK;
    /// Reading has ended.
    RCV_SHUTDOWN: u8 = RCV_SHUTDOWN;
    /// Writing has ended.
    SEND_SHUTDOWN: u8 = fgdp_const_FGDP_CONST_SEND_SHUTDOWN;
    /// Socket state: not connected.
    TCP_CLOSE: u8 = TCP_CLOSE;
    /// Socket state: connecting.
    TCP_SYN_SENT: u8 = TCP_SYN_SENT;
    /// Socket state: connected.
    TCP_ESTABLISHED: u8 = TCP_ESTABLISHED;
    /// Socket state: the other end sends no more.
    TCP_CLOSE_WAIT: u8 = TCP_CLOSE_WAIT;
    /// Socket state: listening.
    TCP_LISTEN: u8 = TCP_LISTEN;
    /// Poll event: readable.
    EPOLLIN: u32 = fgdp_const_FGDP_CONST_EPOLLIN;
    /// Poll event: normal data readable.
    EPOLLRDNORM: u32 = fgdp_const_FGDP_CONST_EPOLLRDNORM;
    /// Poll event: writable.
    EPOLLOUT: u32 = fgdp_const_FGDP_CONST_EPOLLOUT;
    /// Poll event: normal data writable.
    EPOLLWRNORM: u32 = fgdp_const_FGDP_CONST_EPOLLWRNORM;
    /// Poll event: error.
    EPOLLERR: u32 = fgdp_const_FGDP_CONST_EPOLLERR;
    /// Poll event: both directions shut down.
    EPOLLHUP: u32 = fgdp_const_FGDP_CONST_EPOLLHUP;
    /// Poll event: the peer shut down writing.
    EPOLLRDHUP: u32 = fgdp_const_FGDP_CONST_EPOLLRDHUP;
}
