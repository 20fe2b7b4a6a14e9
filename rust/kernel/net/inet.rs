// SPDX-License-Identifier: GPL-2.0

//! The hook into TCP: sockets that become established are offered to a [`Hook`], and those that it
//! takes call it from then on.
//!
//! A taken socket has copies of TCP's `struct proto` and `struct proto_ops`, and an upper layer
//! protocol (ULP) of ours, whose data is the hook's state. The ULP holds the module, and the kernel
//! lets it go when the socket is destroyed, or [`TcpSock::leave`] does.
//!
//! A call may have read the pointers before a socket was taken or left. So each call looks for the
//! state under RCU, and without one does what TCP does; the module's end waits for all tasks to
//! have left its code.

mod options;

use super::super::ffi;
use super::super::mm::NewArea;
use super::family::{ZerocopyReceive, ZerocopyRelease};
use super::msg::{ret, RecvMsg, SendMsg};
use super::tcp::TcpSock;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::ffi::{c_int, c_long, c_uint, c_void};
use kernel::prelude::*;
use kernel::sync::{rcu, Arc, ArcBorrow};

/// What is done with TCP connections.
pub(crate) trait Hook: Send + Sync + Sized + 'static {
    /// State of a connection that was taken.
    type Path: Send + Sync + 'static;

    /// A connection becomes established; `Some` takes it. Bottom half or process context, the
    /// socket is locked.
    fn established(
        this: ArcBorrow<'_, Self>,
        sk: &TcpSock,
        active: bool,
    ) -> Option<Arc<Self::Path>>;
    /// The socket was taken. As for [`Hook::established`].
    fn taken(path: &Arc<Self::Path>);
    /// TCP has ended the connection. As for [`Hook::established`].
    fn ended(path: &Arc<Self::Path>);
    /// `accept(2)` gave the socket its file. Bottom half, with the socket's spin lock.
    fn accepted(path: &Arc<Self::Path>);
    /// `sendmsg(2)`. Process context.
    fn send(
        path: &Arc<Self::Path>,
        sk: &TcpSock,
        msg: &mut SendMsg<'_>,
        len: usize,
    ) -> Result<usize>;
    /// `recvmsg(2)`. Process context.
    fn recv(
        path: &Arc<Self::Path>,
        sk: &TcpSock,
        msg: &mut RecvMsg<'_>,
        len: usize,
        flags: u32,
    ) -> Result<usize>;
    /// Whether the connection is, or may yet be, something else than plain TCP.
    fn may_carry(path: &Arc<Self::Path>) -> bool;
    /// Whether both sides agreed to carry it, and still do.
    fn is_carried(path: &Arc<Self::Path>) -> bool;
    /// The poll mask, if rings carry both ways and TCP has nothing to say. Under RCU.
    fn poll_rings(path: ArcBorrow<'_, Self::Path>, sk: &TcpSock) -> Option<u32>;
    /// The poll mask, of TCP's one. Under RCU.
    fn poll(path: ArcBorrow<'_, Self::Path>, sk: &TcpSock, mask: u32) -> u32;
    /// `SIOCINQ` and `SIOCOUTQ`, as bytes beside TCP's own.
    fn queued(path: &Arc<Self::Path>, sk: &TcpSock) -> (u32, u32);
    /// Bytes that rings have carried.
    fn bytes(path: &Arc<Self::Path>) -> RingBytes;
    /// `shutdown(2)`; true if TCP's is to follow now. The socket is locked.
    fn shutdown(path: &Arc<Self::Path>, sk: &TcpSock, how: u8) -> bool;
    /// The last file reference is gone; true if TCP's close is to follow now, else the hook calls
    /// it later.
    fn close(path: &Arc<Self::Path>, sk: &TcpSock, timeout: isize) -> bool;
    /// `connect(2)` to no address: TCP resets the connection now, and what rings have is void. The
    /// socket is locked.
    fn disconnect(path: &Arc<Self::Path>);
    /// Something needs the connection to be plain TCP: goes back, and waits for it. The socket is
    /// not locked.
    fn step_aside(path: &Arc<Self::Path>, sk: &TcpSock);
    /// `mmap(2)` of what only a carried connection has. Sleeps.
    fn map(path: &Arc<Self::Path>, sk: &TcpSock, area: &NewArea<'_>) -> Result;
    /// `FGDP_WINDOW`. Sleeps.
    fn window_size(path: &Arc<Self::Path>, sk: &TcpSock) -> Result<u64>;
    /// `FGDP_ZEROCOPY_RECEIVE`. Process context.
    fn receive_mapped(path: &Arc<Self::Path>, sk: &TcpSock) -> Result<ZerocopyReceive>;
    /// `FGDP_ZEROCOPY_RELEASE`. Process context.
    fn release_mapped(path: &Arc<Self::Path>, what: &ZerocopyRelease) -> Result;
    /// `TCP_ZEROCOPY_RECEIVE` where nothing can be mapped: how many bytes there are for `recv(2)`,
    /// and whether they end there. `None`: TCP answers.
    fn unmappable(path: &Arc<Self::Path>, sk: &TcpSock) -> Option<(u32, bool)>;
    /// The socket is left or destroyed: no call will find the state. With `grace` one may just be
    /// finding it: this reference is to be dropped after an RCU grace period. Any context.
    fn left(path: Arc<Self::Path>, grace: bool);
}

/// Bytes that rings have carried.
pub(crate) struct RingBytes {
    /// To here.
    pub(crate) received: u64,
    /// From here.
    pub(crate) sent: u64,
    /// From here, and the peer has read them.
    pub(crate) acked: u64,
}

static PROTO4: AtomicPtr<ffi::proto> = AtomicPtr::new(null_mut());
static PROTO6: AtomicPtr<ffi::proto> = AtomicPtr::new(null_mut());
static OPS4: AtomicPtr<ffi::proto_ops> = AtomicPtr::new(null_mut());
static OPS6: AtomicPtr<ffi::proto_ops> = AtomicPtr::new(null_mut());
static ULP: AtomicPtr<ffi::tcp_ulp_ops> = AtomicPtr::new(null_mut());

fn base4() -> *const ffi::proto {
    &raw const ffi::tcp_prot
}

fn base6() -> *const ffi::proto {
    &raw const ffi::tcpv6_prot
}

fn ops4() -> *const ffi::proto_ops {
    &raw const ffi::inet_stream_ops
}

fn ops6() -> *const ffi::proto_ops {
    &raw const ffi::inet6_stream_ops
}

/// The hook in place. Dropping it ends it; no socket is taken then.
pub(crate) struct Registration<H: Hook> {
    tracepoint: *mut ffi::tracepoint,
    // Behind the statics.
    _protos: [KBox<ffi::proto>; 2],
    _ops: [KBox<ffi::proto_ops>; 2],
    _ulp: KBox<ffi::tcp_ulp_ops>,
    // Behind the tracepoint's data.
    hook: Arc<H>,
}

// SAFETY: The pointer is to a tracepoint of the kernel, which never goes.
unsafe impl<H: Hook> Send for Registration<H> {}
// SAFETY: As above; there are no methods by reference.
unsafe impl<H: Hook> Sync for Registration<H> {}

/// # Safety
///
/// Called by `for_each_kernel_tracepoint` with a place for the one that is looked for.
unsafe extern "C" fn find(tp: *mut ffi::tracepoint, found: *mut c_void) {
    // SAFETY: A live tracepoint has a name.
    let name = unsafe { CStr::from_char_ptr((*tp).name) };
    if name == c"inet_sock_set_state" {
        // SAFETY: By this function's contract.
        unsafe { *found.cast::<*mut ffi::tracepoint>() = tp };
    }
}

impl<H: Hook> Registration<H> {
    /// Offers connections that become established from now on to `hook`. One value at a time. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` when the kernel lacks the tracepoint `inet_sock_set_state`, `ENOMEM`.
    pub(crate) fn new(module: &'static ThisModule, hook: Arc<H>) -> Result<Self> {
        let mut tracepoint: *mut ffi::tracepoint = null_mut();
        // SAFETY: `find` gets a place for one pointer.
        unsafe { ffi::for_each_kernel_tracepoint(Some(find), (&raw mut tracepoint).cast()) };
        if tracepoint.is_null() {
            return Err(ENOENT);
        }
        let mut protos = [proto::<H>(base4())?, proto::<H>(base6())?];
        let mut ops = [stream_ops::<H>(ops4())?, stream_ops::<H>(ops6())?];
        let mut ulp = KBox::new(
            ffi::tcp_ulp_ops {
                release: Some(release::<H>),
                owner: module.as_ptr().cast(),
                ..Default::default()
            },
            GFP_KERNEL,
        )?;
        for (to, from) in ulp.name.iter_mut().zip(c"fgdp".to_bytes()) {
            *to = *from;
        }
        let [p4, p6] = &mut protos;
        let [o4, o6] = &mut ops;
        PROTO4.store(&mut **p4, Ordering::Release);
        PROTO6.store(&mut **p6, Ordering::Release);
        OPS4.store(&mut **o4, Ordering::Release);
        OPS6.store(&mut **o6, Ordering::Release);
        ULP.store(&mut *ulp, Ordering::Release);
        let this = Self {
            tracepoint,
            _protos: protos,
            _ops: ops,
            _ulp: ulp,
            hook,
        };
        // SAFETY: The probe has the tracepoint's arguments; its data lives until it is
        // unregistered.
        kernel::error::to_result(unsafe {
            ffi::tracepoint_probe_register(tracepoint, probe_ptr::<H>(), this.data())
        })?;
        Ok(this)
    }

    fn data(&self) -> *mut c_void {
        (&raw const *self.hook).cast_mut().cast()
    }
}

impl<H: Hook> Drop for Registration<H> {
    fn drop(&mut self) {
        // SAFETY: If it is not registered this changes nothing. No probe runs after the second
        // call; no task is in the functions of a socket that was left after the third.
        unsafe {
            ffi::tracepoint_probe_unregister(self.tracepoint, probe_ptr::<H>(), self.data());
            ffi::fgdp_helper_tracepoint_synchronize_unregister();
            ffi::synchronize_rcu_tasks();
        }
    }
}

fn probe_ptr<H: Hook>() -> *mut c_void {
    state_changed::<H> as *mut c_void
}

fn proto<H: Hook>(base: *const ffi::proto) -> Result<KBox<ffi::proto>> {
    // SAFETY: A constant of the kernel; what the copy points to lives as long as the kernel.
    let copy = unsafe { base.read() };
    let mut proto = KBox::new(copy, GFP_KERNEL)?;
    proto.sendmsg = Some(sendmsg::<H>);
    proto.recvmsg = Some(recvmsg::<H>);
    proto.shutdown = Some(shutdown::<H>);
    proto.close = Some(close::<H>);
    proto.disconnect = Some(disconnect::<H>);
    proto.ioctl = Some(ioctl::<H>);
    proto.setsockopt = Some(options::setsockopt::<H>);
    proto.getsockopt = Some(options::getsockopt::<H>);
    proto.release_cb = Some(release_cb::<H>);
    Ok(proto)
}

fn stream_ops<H: Hook>(base: *const ffi::proto_ops) -> Result<KBox<ffi::proto_ops>> {
    // SAFETY: As for `proto`.
    let copy = unsafe { base.read() };
    let mut ops = KBox::new(copy, GFP_KERNEL)?;
    ops.poll = Some(poll::<H>);
    ops.splice_read = Some(splice_read::<H>);
    ops.mmap = Some(mmap::<H>);
    Ok(ops)
}

/// Runs `f` on the state of a taken socket, under RCU.
fn with_path<H: Hook, R>(
    sk: *mut ffi::sock,
    f: impl FnOnce(ArcBorrow<'_, H::Path>) -> R,
) -> Option<R> {
    let _rcu = rcu::read_lock();
    // SAFETY: A live TCP socket, under RCU.
    let ptr = unsafe { ffi::fgdp_helper_tcp_path(sk, ULP.load(Ordering::Acquire)) }
        .cast_const()
        .cast::<H::Path>();
    if ptr.is_null() {
        return None;
    }
    // SAFETY: The pointer is from `Arc::into_raw`; its reference is dropped a grace period after it
    // was taken out.
    Some(f(unsafe { ArcBorrow::from_raw(ptr) }))
}

/// The state of a taken socket.
fn path<H: Hook>(sk: *mut ffi::sock) -> Option<Arc<H::Path>> {
    with_path::<H, _>(sk, |path| path.into())
}

fn set_prot(sk: *mut ffi::sock, prot: *const ffi::proto) {
    // SAFETY: One word of a live socket; a volatile write is WRITE_ONCE().
    unsafe { (&raw mut (*sk).__sk_common.skc_prot).write_volatile(prot.cast_mut()) };
}

fn prot(sk: *mut ffi::sock) -> *const ffi::proto {
    // SAFETY: One word of a live socket; a volatile read is READ_ONCE().
    unsafe { (&raw const (*sk).__sk_common.skc_prot).read_volatile() }
}

/// # Safety
///
/// The probe of `inet_sock_set_state`, with the hook as data.
unsafe extern "C" fn state_changed<H: Hook>(
    data: *mut c_void,
    sk: *mut ffi::sock,
    old: c_int,
    new: c_int,
) {
    if new as u32 == ffi::TCP_CLOSE {
        let ours = [&PROTO4, &PROTO6].map(|proto| proto.load(Ordering::Acquire).cast_const());
        let path = if ours.contains(&prot(sk)) {
            path::<H>(sk)
        } else {
            None
        };
        if let Some(path) = path {
            H::ended(&path);
        }
        return;
    }
    if new as u32 != ffi::TCP_ESTABLISHED {
        return;
    }
    let active = match old as u32 {
        ffi::TCP_SYN_SENT => true,
        ffi::TCP_SYN_RECV => false,
        _ => return,
    };
    let copy = match prot(sk) {
        prot if prot == base4() => PROTO4.load(Ordering::Acquire),
        prot if prot == base6() => PROTO6.load(Ordering::Acquire),
        _ => return,
    };
    // SAFETY: By this function's contract, and by the check of its functions a TCP socket.
    let (hook, sock) = unsafe { (ArcBorrow::from_raw(data.cast::<H>()), TcpSock::from_raw(sk)) };
    let Some(path) = H::established(hook, sock, active) else {
        return;
    };
    let ulp = ULP.load(Ordering::Acquire);
    // SAFETY: The registration holds both while a probe runs.
    if !unsafe { ffi::try_module_get((*ulp).owner) } {
        H::left(path, false);
        return;
    }
    // SAFETY: The socket is locked and has no upper layer protocol: the hook has looked.
    unsafe { ffi::fgdp_helper_tcp_set_path(sk, ulp, path.clone().into_raw().cast_mut().cast()) };
    set_prot(sk, copy);
    swap_ops(sk, ops_pairs());
    H::taken(&path);
}

/// Gives the socket's file other operations, if it has one and these are those in the first place
/// of a pair; true if so. The socket's lock is held.
fn swap_ops(
    sk: *mut ffi::sock,
    pairs: [(*const ffi::proto_ops, *const ffi::proto_ops); 2],
) -> bool {
    // SAFETY: One word of a live socket, whose lock is held: it does not lose its file meanwhile.
    let socket = unsafe { (&raw const (*sk).sk_socket).read_volatile() };
    if socket.is_null() {
        return false;
    }
    // SAFETY: As above.
    let ops = unsafe { &raw mut (*socket).ops };
    // SAFETY: As above.
    let now = unsafe { ops.read_volatile() };
    let Some((_, to)) = pairs.into_iter().find(|(from, _)| *from == now) else {
        return false;
    };
    // SAFETY: As above; WRITE_ONCE().
    unsafe { ops.write_volatile(to) };
    true
}

/// TCP's operations, and ours for them.
fn ops_pairs() -> [(*const ffi::proto_ops, *const ffi::proto_ops); 2] {
    let ours = |ops: &AtomicPtr<ffi::proto_ops>| ops.load(Ordering::Acquire).cast_const();
    [(ops4(), ours(&OPS4)), (ops6(), ours(&OPS6))]
}

/// # Safety
///
/// Called by `release_sock`, with the socket's spin lock. After `accept(2)` this is the first call.
unsafe extern "C" fn release_cb<H: Hook>(sk: *mut ffi::sock) {
    if swap_ops(sk, ops_pairs()) {
        if let Some(path) = path::<H>(sk) {
            H::accepted(&path);
        }
    }
    // SAFETY: TCP's own, with what it expects.
    if let Some(base) = unsafe { TcpSock::from_raw(sk) }.base().release_cb {
        // SAFETY: As above.
        unsafe { base(sk) };
    }
}

impl TcpSock {
    /// Gives the socket back to TCP. The caller holds its lock, and knows that no call is inside.
    pub(crate) fn leave<H: Hook>(&self) {
        let sk = self.raw();
        let Some(state) = path::<H>(sk) else {
            return;
        };
        set_prot(sk, self.base());
        swap_ops(sk, ops_pairs().map(|(tcp, ours)| (ours, tcp)));
        let owner = ULP.load(Ordering::Acquire);
        // SAFETY: The lock is held; nobody finds the state from here on.
        unsafe { ffi::fgdp_helper_tcp_set_path(sk, null(), null_mut()) };
        // SAFETY: The reference that `state_changed` gave to the socket.
        H::left(unsafe { Arc::from_raw(Arc::as_ptr(&state)) }, true);
        // SAFETY: The reference that `state_changed` took. The caller does not sleep in our code
        // from here on, or holds another one.
        unsafe { ffi::module_put((*owner).owner) };
    }
}

/// # Safety
///
/// Called by TCP when the socket is destroyed; nobody else uses it.
unsafe extern "C" fn release<H: Hook>(sk: *mut ffi::sock) {
    // SAFETY: By this function's contract.
    let ptr = unsafe { ffi::fgdp_helper_tcp_path(sk, ULP.load(Ordering::Acquire)) }
        .cast_const()
        .cast::<H::Path>();
    // SAFETY: As above.
    set_prot(sk, unsafe { TcpSock::from_raw(sk) }.base());
    if !ptr.is_null() {
        // SAFETY: The pointer is from `Arc::into_raw`; TCP drops the ULP behind this call.
        H::left(unsafe { Arc::from_raw(ptr) }, false);
    }
}

/// # Safety
///
/// As `struct proto` says.
unsafe extern "C" fn sendmsg<H: Hook>(
    sk: *mut ffi::sock,
    msg: *mut ffi::msghdr,
    len: usize,
) -> c_int {
    // SAFETY: By this function's contract.
    let (sock, mut msg) = unsafe { (TcpSock::from_raw(sk), SendMsg::from_raw(msg)) };
    ret(match path::<H>(sk) {
        Some(path) => H::send(&path, sock, &mut msg, len),
        None => sock.tcp_send(&mut msg, len),
    })
}

/// # Safety
///
/// As `struct proto` says.
unsafe extern "C" fn recvmsg<H: Hook>(
    sk: *mut ffi::sock,
    msg: *mut ffi::msghdr,
    len: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: By this function's contract.
    let (sock, mut msg) = unsafe { (TcpSock::from_raw(sk), RecvMsg::from_raw(msg)) };
    ret(match path::<H>(sk) {
        Some(path) => H::recv(&path, sock, &mut msg, len, flags as u32),
        None => sock.tcp_recv(&mut msg, len, flags as u32),
    })
}

/// # Safety
///
/// As `struct proto` says; the socket is locked.
unsafe extern "C" fn shutdown<H: Hook>(sk: *mut ffi::sock, how: c_int) {
    // SAFETY: By this function's contract.
    let sock = unsafe { TcpSock::from_raw(sk) };
    if path::<H>(sk).is_none_or(|path| H::shutdown(&path, sock, how as u8)) {
        sock.tcp_shutdown(how as u8);
    }
}

/// # Safety
///
/// As `struct proto` says.
unsafe extern "C" fn close<H: Hook>(sk: *mut ffi::sock, timeout: c_long) {
    // SAFETY: By this function's contract.
    let sock = unsafe { TcpSock::from_raw(sk) };
    if path::<H>(sk).is_none_or(|path| H::close(&path, sock, timeout)) {
        sock.tcp_close(timeout);
    }
}

/// # Safety
///
/// As `struct proto` says; the socket is locked.
unsafe extern "C" fn disconnect<H: Hook>(sk: *mut ffi::sock, flags: c_int) -> c_int {
    // SAFETY: By this function's contract.
    let sock = unsafe { TcpSock::from_raw(sk) };
    if let Some(path) = path::<H>(sk) {
        H::disconnect(&path);
    }
    // The ULP would keep the socket from listening later.
    sock.leave::<H>();
    match sock.base().disconnect {
        // SAFETY: TCP's own, with what it expects.
        Some(base) => unsafe { base(sk, flags) },
        None => 0,
    }
}

/// # Safety
///
/// As `struct proto` says.
unsafe extern "C" fn ioctl<H: Hook>(sk: *mut ffi::sock, cmd: c_int, karg: *mut c_int) -> c_int {
    // SAFETY: By this function's contract.
    let sock = unsafe { TcpSock::from_raw(sk) };
    let Some(base) = sock.base().ioctl else {
        return ENOTTY.to_errno();
    };
    // SAFETY: TCP's own, with what it expects.
    let result = unsafe { base(sk, cmd, karg) };
    if let (0, Some(path)) = (result, path::<H>(sk)) {
        let (inq, outq) = H::queued(&path, sock);
        let more = match cmd as u32 {
            ffi::SIOCINQ => inq,
            ffi::SIOCOUTQ => outq,
            _ => 0,
        };
        // SAFETY: `karg` is the place for the answer; TCP has filled it.
        unsafe { *karg = (*karg).saturating_add(i32::try_from(more).unwrap_or(i32::MAX)) };
    }
    result
}

/// Holds the module while a call sleeps in its code without a socket that holds it.
struct Held(*mut ffi::module);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: The reference is ours. The module's end waits for this task to leave its code.
        unsafe { ffi::module_put(self.0) };
    }
}

#[must_use]
fn step_aside<H: Hook>(sk: *mut ffi::sock) -> Option<Held> {
    let path = path::<H>(sk)?;
    // SAFETY: A socket has a state, so the registration is in place and the module held.
    let owner = unsafe { (*ULP.load(Ordering::Acquire)).owner };
    // SAFETY: As above.
    let held = unsafe { ffi::try_module_get(owner) }.then_some(Held(owner));
    // SAFETY: The callers' socket is live.
    H::step_aside(&path, unsafe { TcpSock::from_raw(sk) });
    held
}

/// # Safety
///
/// As `struct proto_ops` says.
unsafe extern "C" fn poll<H: Hook>(
    file: *mut ffi::file,
    socket: *mut ffi::socket,
    wait: *mut ffi::poll_table_struct,
) -> ffi::__poll_t {
    // SAFETY: An attached socket has a `struct sock`.
    let sk = unsafe { (*socket).sk };
    // SAFETY: The caller's; it comes before any look, so no wake-up after one is lost.
    unsafe { ffi::fgdp_helper_sock_poll_wait(file, socket, wait) };
    // SAFETY: A live TCP socket.
    if unsafe { ffi::fgdp_helper_tcp_is_quiet(sk) } {
        let rings = with_path::<H, _>(sk, |path| {
            // SAFETY: As above.
            H::poll_rings(path, unsafe { TcpSock::from_raw(sk) })
        });
        if let Some(mask) = rings.flatten() {
            return mask;
        }
    }
    // SAFETY: TCP's own, with what it expects; the caller waits already.
    let mask = unsafe { ffi::tcp_poll(file, socket, null_mut()) };
    with_path::<H, _>(sk, |path| {
        // SAFETY: As above.
        H::poll(path, unsafe { TcpSock::from_raw(sk) }, mask)
    })
    .unwrap_or(mask)
}

/// # Safety
///
/// As `struct proto_ops` says.
unsafe extern "C" fn splice_read<H: Hook>(
    socket: *mut ffi::socket,
    pos: *mut ffi::loff_t,
    pipe: *mut ffi::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: An attached socket has a `struct sock`.
    let _held = step_aside::<H>(unsafe { (*socket).sk });
    // SAFETY: A constant of the kernel.
    match unsafe { (*ops4()).splice_read } {
        // SAFETY: TCP's own, with what it expects.
        Some(base) => unsafe { base(socket, pos, pipe, len, flags) },
        None => EINVAL.to_errno() as isize,
    }
}

/// # Safety
///
/// As `struct proto_ops` says.
unsafe extern "C" fn mmap<H: Hook>(
    file: *mut ffi::file,
    socket: *mut ffi::socket,
    vma: *mut ffi::vm_area_struct,
) -> c_int {
    // SAFETY: An attached socket has a `struct sock`; `vma` is new.
    let (sk, asked) = unsafe { ((*socket).sk, ffi::fgdp_helper_area_is_asked(vma)) };
    if let Some(path) = path::<H>(sk).filter(|_| asked) {
        // SAFETY: As above.
        let (area, sk) = unsafe { (NewArea::from_raw(vma), TcpSock::from_raw(sk)) };
        return ret(area.and_then(|area| H::map(&path, sk, &area)).map(|()| 0));
    }
    // SAFETY: A constant of the kernel.
    match unsafe { (*ops4()).mmap } {
        // SAFETY: TCP's own, with what it expects.
        Some(base) => unsafe { base(file, socket, vma) },
        None => EINVAL.to_errno(),
    }
}
