// SPDX-License-Identifier: GPL-2.0

//! A TCP socket, and TCP's own functions for it.

use super::super::ffi;
use super::super::shm::SlotMem;
use super::anysock::AnySock;
use super::consts::*;
use super::msg::{RecvMsg, SendMsg};
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::ffi::{c_int, c_long};
use kernel::prelude::*;
use kernel::sync::aref::AlwaysRefCounted;

/// A TCP socket, of IPv4 or IPv6.
///
/// # Invariants
///
/// A `struct tcp_sock` whose `sk_prot` is or was `tcp_prot` or `tcpv6_prot`.
#[repr(transparent)]
pub(crate) struct TcpSock(AnySock);

// SAFETY: `sock_hold` and `sock_put` count references and free with the last.
unsafe impl AlwaysRefCounted for TcpSock {
    fn inc_ref(&self) {
        self.0.inc_ref();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { AnySock::dec_ref(obj.cast()) }
    }
}

impl Deref for TcpSock {
    type Target = AnySock;

    fn deref(&self) -> &AnySock {
        &self.0
    }
}

/// What a connection is, when it became established.
pub(crate) struct Facts(ffi::fgdp_tcp_facts);

impl Facts {
    /// Own address; IPv4 as `::ffff:a.b.c.d`.
    pub(crate) fn addr(&self) -> [u8; 16] {
        self.0.addr
    }

    /// The other end's address.
    pub(crate) fn peer_addr(&self) -> [u8; 16] {
        self.0.peer_addr
    }

    /// Own port.
    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// The other end's port.
    pub(crate) fn peer_port(&self) -> u16 {
        self.0.peer_port
    }

    /// Sequence number of the first byte that is sent.
    pub(crate) fn snd_seq(&self) -> u32 {
        self.0.snd_seq
    }

    /// Sequence number of the first byte that is received.
    pub(crate) fn rcv_seq(&self) -> u32 {
        self.0.rcv_seq
    }

    /// Somebody else has a hand in the socket: the kernel, an upper layer protocol, MPTCP, a tool
    /// that repairs it.
    pub(crate) fn is_taken(&self) -> bool {
        const TAKEN: u32 = ffi::FGDP_TCP_KERNEL
            | ffi::FGDP_TCP_ULP
            | ffi::FGDP_TCP_USER_DATA
            | ffi::FGDP_TCP_MPTCP
            | ffi::FGDP_TCP_REPAIR;
        self.0.flags & TAKEN != 0
    }

    /// Bytes were sent already, or a call that sends waits for the connection.
    pub(crate) fn has_sent(&self) -> bool {
        self.0.flags & (ffi::FGDP_TCP_SENT | ffi::FGDP_TCP_SENDER_WAITS) != 0
    }
}

/// [`TcpSock::write_seq`], [`TcpSock::copied_seq`] and [`TcpSock::rcv_nxt`].
pub(crate) type Seqs = ffi::fgdp_tcp_seqs;

/// TCP's own functions for a socket of `sk_family`.
fn base(sk: *const ffi::sock) -> *const ffi::proto {
    // SAFETY: One word of a live socket, constant but for IPV6_ADDRFORM.
    let family = unsafe { (&raw const (*sk).__sk_common.skc_family).read_volatile() };
    if u32::from(family) == ffi::AF_INET6 {
        &raw const ffi::tcpv6_prot
    } else {
        &raw const ffi::tcp_prot
    }
}

impl TcpSock {
    /// # Safety
    ///
    /// `sk` is a live TCP socket for the length of `'a`.
    pub(super) unsafe fn from_raw<'a>(sk: *mut ffi::sock) -> &'a Self {
        // SAFETY: By this function's contract; both types are transparent.
        unsafe { &*core::ptr::from_ref(AnySock::from_raw(sk)).cast() }
    }

    /// TCP's own functions.
    pub(super) fn base(&self) -> &'static ffi::proto {
        // SAFETY: Both are constants of the kernel.
        unsafe { &*base(self.raw()) }
    }

    /// The connection. The socket is locked, or not yet known to anybody.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = ffi::fgdp_tcp_facts::default();
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_facts(self.raw(), &mut facts) };
        Facts(facts)
    }

    /// Sequence number of the next byte that is sent.
    pub(crate) fn write_seq(&self) -> u32 {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_write_seq(self.raw()) }
    }

    /// Sequence number of the next byte that a reader gets.
    pub(crate) fn copied_seq(&self) -> u32 {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_copied_seq(self.raw()) }
    }

    /// Sequence number of the next byte from the network.
    pub(crate) fn rcv_nxt(&self) -> u32 {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_rcv_nxt(self.raw()) }
    }

    /// The three of them at about the same time.
    pub(crate) fn seqs(&self) -> Seqs {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_seqs(self.raw()) }
    }

    /// Bytes that TCP has received, and has sent: each counted once.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe {
            (
                ffi::fgdp_helper_tcp_bytes_received(self.raw()),
                ffi::fgdp_helper_tcp_bytes_sent(self.raw()),
            )
        }
    }

    /// The socket's cookie, as `SO_COOKIE`. Any context.
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: A live socket.
        unsafe { ffi::fgdp_helper_sock_cookie(self.raw()) }
    }

    /// Tells the tracepoint `fgdp_tcp_carry`; reason 0: it is carried. Any context.
    pub(crate) fn trace_carry(&self, reason: u32) {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_trace_tcp_carry(self.raw(), reason) }
    }

    /// Whether the program has asked for what only TCP has.
    pub(crate) fn is_tcp_needed(&self) -> bool {
        // SAFETY: A live TCP socket, by the type's invariant.
        unsafe { ffi::fgdp_helper_tcp_is_needed(self.raw()) }
    }

    /// What TCP says of the ancillary data of `msg`.
    pub(crate) fn check_control(&self, msg: &mut SendMsg<'_>) -> Result {
        if !msg.has_control() {
            return Ok(());
        }
        // SAFETY: A live TCP socket, by the type's invariant; `msg` is exclusively ours.
        kernel::error::to_result(unsafe {
            ffi::fgdp_helper_tcp_check_control(self.raw(), msg.raw_mut())
        })
    }

    /// Tells whoever wants to know (`TCP_INQ`) how many bytes are left: `more` says so beside those
    /// that TCP has, and whether an end is.
    pub(crate) fn tell_unread(&self, msg: &mut RecvMsg<'_>, more: impl FnOnce() -> (u32, bool)) {
        // SAFETY: A live TCP socket, by the type's invariant.
        if unsafe { ffi::fgdp_helper_tcp_wants_inq(self.raw(), msg.raw_mut()) } {
            let (bytes, end) = more();
            // SAFETY: As above; `msg` is exclusively ours.
            unsafe { ffi::fgdp_helper_tcp_put_inq(self.raw(), msg.raw_mut(), bytes, end) };
        }
    }

    /// Whether bytes may be sent: the connection is up and not shut down on this side.
    pub(crate) fn may_send(&self) -> bool {
        matches!(self.state(), TCP_ESTABLISHED | TCP_CLOSE_WAIT)
            && self.err() == 0
            && self.shutdown_mask() & SEND_SHUTDOWN == 0
    }

    /// TCP's `sendmsg` with the socket's lock held.
    pub(crate) fn tcp_send_locked(&self, msg: &mut SendMsg<'_>, len: usize) -> Result<usize> {
        // SAFETY: A live TCP socket, whose lock the caller holds; `msg` is exclusively ours.
        result(unsafe { ffi::tcp_sendmsg_locked(self.raw(), msg.raw_mut(), len) })
    }

    /// TCP's `sendmsg`.
    pub(crate) fn tcp_send(&self, msg: &mut SendMsg<'_>, len: usize) -> Result<usize> {
        let send = self.base().sendmsg.ok_or(EINVAL)?;
        // SAFETY: A live TCP socket; `msg` is exclusively ours.
        result(unsafe { send(self.raw(), msg.raw_mut(), len) })
    }

    /// TCP's `recvmsg`, without the ancillary data.
    pub(crate) fn tcp_recv_bytes(
        &self,
        msg: &mut RecvMsg<'_>,
        len: usize,
        flags: u32,
    ) -> Result<usize> {
        let control = msg.control();
        let result = self.tcp_recv(msg, len, flags);
        msg.set_control(control);
        result
    }

    /// TCP's `recvmsg`.
    pub(crate) fn tcp_recv(&self, msg: &mut RecvMsg<'_>, len: usize, flags: u32) -> Result<usize> {
        let recv = self.base().recvmsg.ok_or(EINVAL)?;
        // SAFETY: A live TCP socket; `msg` is exclusively ours.
        result(unsafe { recv(self.raw(), msg.raw_mut(), len, flags as c_int) })
    }

    /// Queues bytes of the kernel behind what TCP has, however full its buffer is, and also when
    /// the user has shut the socket down; returns how many it took.
    ///
    /// The caller holds the socket's lock. `bytes` may change while they are copied: they are the
    /// stream's.
    ///
    /// # Errors
    ///
    /// `EAGAIN` without memory; the connection's error.
    fn push(&self, from: *const u8, len: usize) -> Result<usize> {
        // SAFETY: A live TCP socket, whose lock the caller holds; it has the bytes for `len`.
        result(unsafe { ffi::fgdp_helper_tcp_push(self.raw(), from.cast(), len) })
    }

    /// As [`TcpSock::push`], from memory of this guest's own.
    pub(crate) fn push_bytes(&self, bytes: &[u8]) -> Result<usize> {
        self.push(bytes.as_ptr(), bytes.len())
    }

    /// As [`TcpSock::push`], from the own slot.
    pub(crate) fn push_slot(&self, slot: &SlotMem, off: u64, len: u32) -> Result<u32> {
        let from = slot.ptr(off, len.into()).ok_or(EINVAL)?;
        Ok(self.push(from, len as usize)? as u32)
    }

    /// TCP's `shutdown`. The caller holds the socket's lock.
    pub(crate) fn tcp_shutdown(&self, how: u8) {
        if let Some(shutdown) = self.base().shutdown {
            // SAFETY: A live TCP socket, whose lock the caller holds.
            unsafe { shutdown(self.raw(), how.into()) };
        }
    }

    /// TCP's `close`, which gives up the user's reference.
    pub(crate) fn tcp_close(&self, timeout: isize) {
        if let Some(close) = self.base().close {
            // SAFETY: A live TCP socket; the user's reference is the caller's to give up.
            unsafe { close(self.raw(), timeout as c_long) };
        }
    }

    /// Resets the connection: the user and the peer see ECONNRESET. Sleeps.
    pub(crate) fn abort(&self) {
        // SAFETY: A live TCP socket, not locked by this task.
        unsafe { ffi::tcp_abort(self.raw(), ffi::ECONNRESET as c_int) };
    }

    /// From here on `close` resets the connection. The caller holds the socket's lock.
    pub(crate) fn reset_at_close(&self) {
        // SAFETY: A live socket.
        unsafe { ffi::fgdp_helper_sock_reset_at_close(self.raw()) };
    }

    /// Takes the user's side away: the socket lives on without a file. The caller holds its lock.
    pub(crate) fn detach(&self) {
        self.set_shutdown_mask(RCV_SHUTDOWN | SEND_SHUTDOWN);
        // SAFETY: A live socket.
        unsafe { ffi::fgdp_helper_sock_detach(self.raw()) };
    }

    /// Wakes who waits for space, whatever TCP's own buffers have.
    pub(crate) fn wake_writers(&self) {
        // SAFETY: A live socket.
        unsafe { ffi::fgdp_helper_sk_wake_writers(self.raw()) };
    }
}

fn result(ret: c_int) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret))
}
