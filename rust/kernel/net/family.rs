// SPDX-License-Identifier: GPL-2.0

//! Registers a socket family and translates the kernel's calls for it.
//!
//! One family per module: the kernel's `create` callback gets no context, so what it needs is
//! in statics that the registration sets and clears.

use super::super::ffi;
use super::super::mm::NewArea;
use super::errno::Errno;
use super::msg::{ret, RecvMsg, SendMsg};
use super::sock::Sock;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};

/// The values of options, as user space has them.
pub(crate) use ffi::{
    fgdp_zerocopy_receive as ZerocopyReceive, fgdp_zerocopy_release as ZerocopyRelease,
};

/// Longest address of the family.
pub(crate) const MAX_NAME: usize = 32;

/// A socket family: the data of a socket and what the system calls do with it.
///
/// All but [`Family::poll`] and the destructor are called in process context and may sleep.
pub(crate) trait Family: Sized + Send + Sync + 'static {
    /// Name of the protocol, for `/proc/net/protocols`.
    const NAME: &'static CStr;

    /// What all sockets share.
    type Context: Send + Sync + 'static;
    /// What a connection that waits for `accept` is.
    type Pending;

    /// The data of a new socket of type `sock_type`.
    fn create(
        context: &Arc<Self::Context>,
        sock_type: u32,
        protocol: i32,
    ) -> Result<impl PinInit<Self, Error>>;
    /// Takes the next connection of a listening socket.
    fn accept(sk: &Sock<Self>, nonblock: bool) -> Result<Self::Pending>;
    /// The data of the socket for `pending`.
    fn create_accepted(
        context: &Arc<Self::Context>,
        pending: &Self::Pending,
    ) -> impl PinInit<Self, Error>;
    /// Attaches `pending` to the socket that [`Family::create_accepted`] made for it.
    fn accepted(sk: &Sock<Self>, pending: Self::Pending, listener: &Sock<Self>);
    /// No socket could be made for `pending`.
    fn abandon(pending: Self::Pending);
    /// The last file reference is gone.
    fn release(sk: &Sock<Self>);
    /// `bind(2)`.
    fn bind(sk: &Sock<Self>, name: &[u8]) -> Result;
    /// `connect(2)`.
    fn connect(sk: &Sock<Self>, name: &[u8], nonblock: bool) -> Result;
    /// `listen(2)`.
    fn listen(sk: &Sock<Self>, backlog: u32) -> Result;
    /// `getsockname(2)`, `getpeername(2)`: writes the address, returns its length.
    fn getname(sk: &Sock<Self>, peer: bool, name: &mut [u8; MAX_NAME]) -> Result<usize>;
    /// The events that hold now. May be called with preemption off.
    fn poll(sk: &Sock<Self>) -> u32;
    /// `shutdown(2)`: `how` is a mask of `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
    fn shutdown(sk: &Sock<Self>, how: u8) -> Result;
    /// `sendmsg(2)`.
    fn send(sk: &Sock<Self>, msg: &mut SendMsg<'_>, len: usize) -> Result<usize>;
    /// `recvmsg(2)`.
    fn recv(sk: &Sock<Self>, msg: &mut RecvMsg<'_>, len: usize, flags: u32) -> Result<usize>;
    /// `mmap(2)`.
    fn mmap(sk: &Sock<Self>, area: &NewArea<'_>) -> Result;
    /// `FGDP_WINDOW`: bytes that can be mapped of the peer.
    fn window_size(sk: &Sock<Self>) -> Result<u64>;
    /// `FGDP_ZEROCOPY_RECEIVE`.
    fn receive_mapped(sk: &Sock<Self>) -> Result<ZerocopyReceive>;
    /// `FGDP_ZEROCOPY_RELEASE`.
    fn release_mapped(sk: &Sock<Self>, what: &ZerocopyRelease) -> Result;
    /// `SIOCINQ`: bytes to read.
    fn inq(sk: &Sock<Self>) -> Result<i32>;
    /// `SIOCOUTQ`: bytes sent that the peer has not read.
    fn outq(sk: &Sock<Self>) -> Result<i32>;
}

static PROTO: AtomicPtr<ffi::proto> = AtomicPtr::new(null_mut());

/// A registered family. Dropping it unregisters.
pub(crate) struct Registration<F: Family> {
    // All stay where they are while registered: the kernel holds pointers to them.
    proto: KBox<ffi::proto>,
    // Behind the pointer in `OPS`.
    _ops: KBox<ffi::proto_ops>,
    family: KBox<ffi::net_proto_family>,
    // Behind the pointer in `CONTEXT`.
    _context: Arc<F::Context>,
}

// SAFETY: The registration owns its boxes; the kernel serialises what it does with them.
unsafe impl<F: Family> Send for Registration<F> {}
// SAFETY: As above; there are no methods by reference.
unsafe impl<F: Family> Sync for Registration<F> {}

impl<F: Family> Registration<F> {
    /// Registers `F` as family number `number`.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the number is taken, `EBUSY` when a family of this module is registered,
    /// `EINVAL` for a number that the kernel has no room for.
    pub(crate) fn new(
        module: &'static ThisModule,
        number: u8,
        context: Arc<F::Context>,
    ) -> Result<Self> {
        if !PROTO.load(Ordering::Acquire).is_null() {
            return Err(EBUSY);
        }
        // SAFETY: All-zero is a valid `struct proto`.
        let zeroed = unsafe { core::mem::zeroed::<ffi::proto>() };
        let mut proto: KBox<ffi::proto> = KBox::new(zeroed, GFP_KERNEL)?;
        for (to, from) in proto.name.iter_mut().zip(F::NAME.to_bytes()) {
            *to = *from;
        }
        proto.owner = module.as_ptr().cast();
        proto.obj_size = size_of::<Sock<F>>() as c_uint;
        // SAFETY: The box keeps its address until `drop` has unregistered it.
        kernel::error::to_result(unsafe { ffi::proto_register(&mut *proto, 1) })?;

        Self::with_proto(proto, module, number, context)
    }

    fn with_proto(
        mut proto: KBox<ffi::proto>,
        module: &'static ThisModule,
        number: u8,
        context: Arc<F::Context>,
    ) -> Result<Self> {
        let parts = ops::<F>(module, number).and_then(|ops| {
            let family = ffi::net_proto_family {
                family: number.into(),
                create: Some(create::<F>),
                owner: module.as_ptr().cast(),
            };
            Ok((ops, KBox::new(family, GFP_KERNEL)?))
        });
        let err = match parts {
            Ok((mut ops, family)) => {
                OPS.store(&mut *ops, Ordering::Release);
                PROTO.store(&mut *proto, Ordering::Release);
                CONTEXT.store((&raw const *context).cast_mut().cast(), Ordering::Release);
                // SAFETY: The box keeps its address until `drop` has unregistered it.
                match kernel::error::to_result(unsafe { ffi::sock_register(&*family) }) {
                    Ok(()) => {
                        return Ok(Self {
                            proto,
                            _ops: ops,
                            family,
                            _context: context,
                        })
                    }
                    Err(e) => e,
                }
            }
            Err(e) => e,
        };
        clear_statics();
        // SAFETY: The caller registered it; no socket was made of it.
        unsafe { ffi::proto_unregister(&mut *proto) };
        Err(err)
    }
}

impl<F: Family> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: Both are registered since `new`; sockets hold the module, so none exists now.
        unsafe {
            ffi::sock_unregister(self.family.family);
            clear_statics();
            ffi::proto_unregister(&mut *self.proto);
        }
    }
}

static OPS: AtomicPtr<ffi::proto_ops> = AtomicPtr::new(null_mut());
static CONTEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

fn clear_statics() {
    CONTEXT.store(null_mut(), Ordering::Release);
    PROTO.store(null_mut(), Ordering::Release);
    OPS.store(null_mut(), Ordering::Release);
}

/// The context of the registered family.
///
/// # Safety
///
/// Family `F` is registered, for the length of `'a`.
unsafe fn context<'a, F: Family>() -> ArcBorrow<'a, F::Context> {
    let ptr: *const F::Context = CONTEXT.load(Ordering::Acquire).cast();
    // SAFETY: The registration holds the `Arc` that this points into.
    unsafe { ArcBorrow::from_raw(ptr) }
}

fn ops<F: Family>(module: &'static ThisModule, number: u8) -> Result<KBox<ffi::proto_ops>> {
    let ops = ffi::proto_ops {
        family: number.into(),
        owner: module.as_ptr().cast(),
        release: Some(release::<F>),
        bind: Some(bind::<F>),
        connect: Some(connect::<F>),
        socketpair: Some(ffi::sock_no_socketpair),
        accept: Some(accept::<F>),
        getname: Some(getname::<F>),
        poll: Some(poll::<F>),
        ioctl: Some(ioctl::<F>),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(ioctl::<F>),
        gettstamp: Some(ffi::sock_gettstamp),
        listen: Some(listen::<F>),
        shutdown: Some(shutdown::<F>),
        sendmsg: Some(sendmsg::<F>),
        recvmsg: Some(recvmsg::<F>),
        setsockopt: Some(setsockopt::<F>),
        getsockopt: Some(getsockopt::<F>),
        mmap: Some(mmap::<F>),
        ..Default::default()
    };
    Ok(KBox::new(ops, GFP_KERNEL)?)
}

/// The socket behind `sock`, or `None` when creating it has failed half-way.
///
/// # Safety
///
/// `sock` is a socket of family `F` in a running call, for the length of `'a`.
unsafe fn sock_of<'a, F: Family>(sock: *mut ffi::socket) -> Option<&'a Sock<F>> {
    // SAFETY: By this function's contract; a `struct sock` of this family is `Sock::alloc`'s.
    unsafe {
        let sk = (*sock).sk;
        (!sk.is_null()).then(|| Sock::from_raw(sk))
    }
}

/// The address that the kernel copied in, as bytes.
///
/// # Safety
///
/// `name` points to `len` bytes for the length of `'a`.
unsafe fn bytes<'a>(name: *mut ffi::sockaddr_unsized, len: c_int) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: By this function's contract.
        Ok(len) if !name.is_null() => unsafe { core::slice::from_raw_parts(name.cast(), len) },
        _ => &[],
    }
}

/// # Safety
///
/// Called by the kernel as `net_proto_family.create`, for a socket of family `F`.
unsafe extern "C" fn create<F: Family>(
    net: *mut ffi::net,
    sock: *mut ffi::socket,
    protocol: c_int,
    kern: c_int,
) -> c_int {
    // Slots belong to the machine, so only its first network namespace has the family.
    if net != &raw mut ffi::init_net {
        return Error::from(Errno::AfNoSupport).to_errno();
    }
    let prot = PROTO.load(Ordering::Acquire);
    let ops = OPS.load(Ordering::Acquire);
    if prot.is_null() || ops.is_null() {
        return Error::from(Errno::AfNoSupport).to_errno();
    }
    // SAFETY: The kernel hands over a new socket; `prot` and `ops` are registered, for the kernel
    // holds the module during this call.
    unsafe {
        let context: Arc<F::Context> = context::<F>().into();
        let data = match F::create(&context, (*sock).type_ as u32, protocol) {
            Ok(data) => data,
            Err(e) => return e.to_errno(),
        };
        (*sock).ops = ops;
        (*sock).state = ffi::socket_state_SS_UNCONNECTED;
        match Sock::<F>::alloc(net, sock, prot, (*ops).family, kern != 0, data) {
            Ok(_) => 0,
            Err(e) => e.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.release`, for a socket of family `F`.
unsafe extern "C" fn release<F: Family>(sock: *mut ffi::socket) -> c_int {
    // SAFETY: A `release` call; the last that uses the socket.
    unsafe {
        if let Some(sk) = sock_of::<F>(sock) {
            F::release(sk);
            let raw = sk.raw();
            ffi::fgdp_helper_sock_orphan(raw);
            (*sock).sk = null_mut();
            ffi::fgdp_helper_sock_put(raw);
        }
    }
    0
}

/// # Safety
///
/// Called by the kernel as `proto_ops.bind`, for a socket of family `F`.
unsafe extern "C" fn bind<F: Family>(
    sock: *mut ffi::socket,
    name: *mut ffi::sockaddr_unsized,
    len: c_int,
) -> c_int {
    // SAFETY: A `bind` call.
    unsafe {
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::bind(sk, bytes(name, len)).map(|()| 0)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.connect`, for a socket of family `F`.
unsafe extern "C" fn connect<F: Family>(
    sock: *mut ffi::socket,
    name: *mut ffi::sockaddr_unsized,
    len: c_int,
    flags: c_int,
) -> c_int {
    let nonblock = flags as u32 & super::consts::O_NONBLOCK != 0;
    // SAFETY: A `connect` call.
    unsafe {
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::connect(sk, bytes(name, len), nonblock).map(|()| 0)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.accept`, for a socket of family `F`.
unsafe extern "C" fn accept<F: Family>(
    sock: *mut ffi::socket,
    newsock: *mut ffi::socket,
    arg: *mut ffi::proto_accept_arg,
) -> c_int {
    // SAFETY: An `accept` call; `newsock` is a new socket with our operations and no sock.
    unsafe {
        let Some(sk) = sock_of::<F>(sock) else {
            return EINVAL.to_errno();
        };
        let nonblock = (*arg).flags as u32 & super::consts::O_NONBLOCK != 0;
        let pending = match F::accept(sk, nonblock) {
            Ok(pending) => pending,
            Err(e) => return e.to_errno(),
        };
        let net = ffi::fgdp_helper_sock_net(sk.raw());
        let prot = PROTO.load(Ordering::Acquire);
        let context: Arc<F::Context> = context::<F>().into();
        let data = F::create_accepted(&context, &pending);
        match Sock::<F>::alloc(net, newsock, prot, (*(*sock).ops).family, (*arg).kern, data) {
            Ok(new) => {
                F::accepted(new, pending, sk);
                (*newsock).state = ffi::socket_state_SS_CONNECTED;
                0
            }
            Err(e) => {
                F::abandon(pending);
                e.to_errno()
            }
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.getname`, for a socket of family `F`.
unsafe extern "C" fn getname<F: Family>(
    sock: *mut ffi::socket,
    addr: *mut ffi::sockaddr,
    peer: c_int,
) -> c_int {
    // SAFETY: A `getname` call: `addr` has room for a `sockaddr_storage`.
    unsafe {
        let Some(sk) = sock_of::<F>(sock) else {
            return EINVAL.to_errno();
        };
        let mut name = [0u8; MAX_NAME];
        let result = F::getname(sk, peer != 0, &mut name).map(|len| len.min(MAX_NAME));
        if let Ok(len) = result {
            core::ptr::copy_nonoverlapping(name.as_ptr(), addr.cast(), len);
        }
        ret(result)
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.poll`, for a socket of family `F`.
unsafe extern "C" fn poll<F: Family>(
    file: *mut ffi::file,
    sock: *mut ffi::socket,
    wait: *mut ffi::poll_table_struct,
) -> ffi::__poll_t {
    // SAFETY: A `poll` call.
    unsafe {
        ffi::fgdp_helper_sock_poll_wait(file, sock, wait);
        sock_of::<F>(sock).map_or(0, F::poll)
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.ioctl`, for a socket of family `F`.
unsafe extern "C" fn ioctl<F: Family>(sock: *mut ffi::socket, cmd: c_uint, arg: c_ulong) -> c_int {
    // SAFETY: An `ioctl` call; `arg` is a user pointer, which `put_user_int` checks.
    unsafe {
        let Some(sk) = sock_of::<F>(sock) else {
            return EINVAL.to_errno();
        };
        let value = match cmd {
            ffi::fgdp_const_FGDP_CONST_SIOCINQ => F::inq(sk),
            ffi::fgdp_const_FGDP_CONST_SIOCOUTQ => F::outq(sk),
            // -ENOIOCTLCMD: let the generic code try.
            _ => return kernel::error::code::ENOIOCTLCMD.to_errno(),
        };
        match value {
            Ok(value) => ffi::fgdp_helper_put_user_int(value, arg as *mut c_void),
            Err(e) => e.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.listen`, for a socket of family `F`.
unsafe extern "C" fn listen<F: Family>(sock: *mut ffi::socket, backlog: c_int) -> c_int {
    // SAFETY: A `listen` call.
    unsafe {
        match sock_of::<F>(sock) {
            // As for TCP, a negative backlog is the largest.
            Some(sk) => ret(F::listen(sk, backlog as u32).map(|()| 0)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.shutdown`, for a socket of family `F`.
unsafe extern "C" fn shutdown<F: Family>(sock: *mut ffi::socket, how: c_int) -> c_int {
    // SHUT_RD, SHUT_WR, SHUT_RDWR are 0, 1, 2; the mask is one more.
    let mask = match how {
        0..=2 => (how + 1) as u8,
        _ => return EINVAL.to_errno(),
    };
    // SAFETY: A `shutdown` call.
    unsafe {
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::shutdown(sk, mask).map(|()| 0)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.sendmsg`, for a socket of family `F`.
unsafe extern "C" fn sendmsg<F: Family>(
    sock: *mut ffi::socket,
    msg: *mut ffi::msghdr,
    len: usize,
) -> c_int {
    // SAFETY: A `sendmsg` call.
    unsafe {
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::send(sk, &mut SendMsg::from_raw(msg), len)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.recvmsg`, for a socket of family `F`.
unsafe extern "C" fn recvmsg<F: Family>(
    sock: *mut ffi::socket,
    msg: *mut ffi::msghdr,
    len: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: A `recvmsg` call.
    unsafe {
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::recv(sk, &mut RecvMsg::from_raw(msg), len, flags as u32)),
            None => EINVAL.to_errno(),
        }
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.setsockopt`, for a socket of family `F`.
unsafe extern "C" fn setsockopt<F: Family>(
    sock: *mut ffi::socket,
    level: c_int,
    name: c_int,
    value: ffi::sockptr_t,
    len: c_uint,
) -> c_int {
    if level as c_uint != ffi::SOL_FGDP {
        // SAFETY: By this function's contract.
        return unsafe { ffi::fgdp_helper_sock_setsockopt(sock, level, name, value, len) };
    }
    if name as c_uint != ffi::FGDP_ZEROCOPY_RELEASE {
        return Error::from(Errno::NoProtoOpt).to_errno();
    }
    let what = match release_option(value, len) {
        Ok(what) => what,
        Err(e) => return e.to_errno(),
    };
    // SAFETY: A `setsockopt` call.
    match unsafe { sock_of::<F>(sock) } {
        Some(sk) => ret(F::release_mapped(sk, &what).map(|()| 0)),
        None => EINVAL.to_errno(),
    }
}

/// The value of `FGDP_ZEROCOPY_RELEASE`.
pub(super) fn release_option(value: ffi::sockptr_t, len: c_uint) -> Result<ZerocopyRelease> {
    let mut what = ZerocopyRelease::default();
    let size = size_of_val(&what);
    let to = (&raw mut what).cast();
    // SAFETY: A place for the value, of any bits; the kernel checks `value`, which has `len` bytes.
    let copied = unsafe { ffi::fgdp_helper_copy_from_sockptr(to, size, value, len as usize) };
    kernel::error::to_result(copied)?;
    Ok(what)
}

/// # Safety
///
/// Called by the kernel as `proto_ops.getsockopt`, for a socket of family `F`.
unsafe extern "C" fn getsockopt<F: Family>(
    sock: *mut ffi::socket,
    level: c_int,
    name: c_int,
    value: *mut c_char,
    len: *mut c_int,
) -> c_int {
    if level as c_uint != ffi::SOL_FGDP {
        return Error::from(Errno::OpNotSupp).to_errno();
    }
    // SAFETY: A `getsockopt` call.
    let Some(sk) = (unsafe { sock_of::<F>(sock) }) else {
        return EINVAL.to_errno();
    };
    match name as c_uint {
        ffi::FGDP_WINDOW => put_option(|| F::window_size(sk), value, len),
        ffi::FGDP_ZEROCOPY_RECEIVE => put_option(|| F::receive_mapped(sk), value, len),
        _ => Error::from(Errno::NoProtoOpt).to_errno(),
    }
}

/// Gives the user the value of an option, which has no padding, if there is room for it.
pub(super) fn put_option<T: Copy>(
    get: impl FnOnce() -> Result<T>,
    value: *mut c_char,
    len: *mut c_int,
) -> c_int {
    // SAFETY: The kernel checks the user's pointer.
    let room = unsafe { ffi::fgdp_helper_option_room(size_of::<T>(), len) };
    if room != 0 {
        return room;
    }
    match get() {
        // SAFETY: So many bytes; the kernel checks the user's pointers.
        Ok(got) => unsafe {
            ffi::fgdp_helper_put_option((&raw const got).cast(), size_of::<T>(), value, len)
        },
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// Called by the kernel as `proto_ops.mmap`, for a socket of family `F`.
unsafe extern "C" fn mmap<F: Family>(
    _file: *mut ffi::file,
    sock: *mut ffi::socket,
    vma: *mut ffi::vm_area_struct,
) -> c_int {
    // SAFETY: An `mmap` call: `vma` is new.
    unsafe {
        let area = match NewArea::from_raw(vma) {
            Ok(area) => area,
            Err(e) => return e.to_errno(),
        };
        match sock_of::<F>(sock) {
            Some(sk) => ret(F::mmap(sk, &area).map(|()| 0)),
            None => EINVAL.to_errno(),
        }
    }
}
