// SPDX-License-Identifier: GPL-2.0

//! `AF_FGDP`: what the system calls do.
//!
//! Lock order: the socket's lock, then `AfFgdp::inner`, then a connection's locks. `inner` is
//! never held over a call into a connection or a device.

use crate::addr::{Addr, GuestId, PORT_ANY};
use crate::channel::Channel;
use crate::conn::Connection;
use crate::device::Device;
use crate::dial::Dial;
use crate::listen::Listener;
use crate::port::Binding;
use crate::proto::wire::Kind;
use crate::stack::Stack;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::mm::NewArea;
use crate::sys::net::consts::*;
use crate::sys::net::errno::Errno;
use crate::sys::net::family::{Family, ZerocopyReceive, ZerocopyRelease, MAX_NAME};
use crate::sys::net::msg::{RecvMsg, SendMsg};
use crate::sys::net::sock::{Sock, SockRef};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::{Arc, SetOnce};

/// How long a peer that is there may leave a CONNECT unanswered: as long as TCP tries by default.
const CONNECT_TIMEOUT_MS: u32 = 127_000;

/// A counted reference to a socket of the family.
pub(crate) type FgdpRef = SockRef<AfFgdp>;

#[derive(Clone)]
enum Role {
    Idle,
    Listening(Arc<Listener>),
    Dialing(Arc<Dial>),
    Connected(Arc<Connection>),
}

struct Inner {
    bound: Option<Arc<Binding>>,
    local: GuestId,
    role: Role,
}

/// The data of a socket.
#[pin_data]
pub(crate) struct AfFgdp {
    stack: Arc<Stack>,
    kind: Kind,
    #[pin]
    inner: BhLock<Inner>,
    /// The connection once it has been open: then the socket has no other one ever, and calls need
    /// no lock to find it.
    open: SetOnce<Arc<Connection>>,
}

impl AfFgdp {
    /// The connection, open, opening or dead.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        match &self.inner.lock().role {
            Role::Connected(conn) => Some(conn.clone()),
            _ => None,
        }
    }

    /// The connection if it has ever been open.
    fn opened(&self) -> Option<&Arc<Connection>> {
        if let Some(conn) = self.open.as_ref() {
            return Some(conn);
        }
        let conn = self.connection().filter(|conn| conn.was_open())?;
        // Whoever was first has put in the same one.
        let _first = self.open.populate(conn);
        self.open.as_ref()
    }

    fn listener(&self) -> Option<Arc<Listener>> {
        match &self.inner.lock().role {
            Role::Listening(listener) => Some(listener.clone()),
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.inner.lock().role, Role::Idle)
    }

    fn is_dialing(&self) -> bool {
        matches!(self.inner.lock().role, Role::Dialing(_))
    }

    /// Whether `connect(2)` has begun, and nobody knows yet how it will end.
    fn is_opening(&self) -> bool {
        self.is_dialing() || self.connection().is_some_and(|conn| conn.is_opening())
    }

    /// The connection, when the channel that it needs is up or will not come up.
    fn await_connection(sk: &Sock<Self>, timeo: &mut isize) -> Result<Option<Arc<Connection>>> {
        let data = sk.data();
        if data.is_dialing() {
            sk.wait(timeo, || (!data.is_dialing()).then_some(()))?;
            sk.take_error()?;
        }
        Ok(data.connection())
    }

    /// Sends when the connection is open.
    fn send_first(sk: &Sock<Self>, msg: &mut SendMsg<'_>) -> Result<usize> {
        let mut timeo = sk.sndtimeo(msg.flags() & MSG_DONTWAIT != 0);
        // As TCP, which has EPIPE for a socket that never was connected.
        let conn = Self::await_connection(sk, &mut timeo)?.ok_or(EPIPE)?;
        crate::tx::await_open(sk, &conn, msg)?;
        crate::tx::send(sk, &conn, msg)
    }

    /// `dial` has a channel, or an error: opens the connection if the socket still waits for that.
    /// Process context.
    pub(crate) fn dialed(sk: &Sock<Self>, dial: &Arc<Dial>, channel: Result<Arc<Channel>>) {
        let data = sk.data();
        let guard = sk.lock();
        let waits = matches!(&data.inner.lock().role, Role::Dialing(d) if Arc::ptr_eq(d, dial));
        if !waits {
            return;
        }
        let opened = channel.and_then(|channel| data.open(sk, &dial.device, &channel, dial.port));
        if let Err(e) = opened {
            data.set_role(Role::Idle);
            sk.set_state(TCP_CLOSE);
            sk.report_error(e);
        }
        drop(guard);
        sk.state_change();
        sk.write_space();
    }

    /// Opens a connection through `channel`. The socket's lock is held.
    fn open(
        &self,
        sk: &Sock<Self>,
        device: &Arc<Device>,
        channel: &Arc<Channel>,
        port: u32,
    ) -> Result {
        let own = self.autobind()?;
        let conn = device.connect(channel, self.kind, own, port, sk)?;
        self.set_role(Role::Connected(conn.clone()));
        sk.set_state(TCP_SYN_SENT);
        conn.start();
        Ok(())
    }

    /// Begins to connect to `addr`. The socket's lock is held.
    fn dial(&self, sk: &Sock<Self>, addr: &Addr) -> Result {
        self.autobind()?;
        let guest = match addr.guest {
            GuestId::ANY => GuestId::LOOPBACK,
            guest if self.stack.is_own(guest) => GuestId::LOOPBACK,
            guest => guest,
        };
        let (device, peer) = self.stack.find(guest).ok_or(Errno::HostUnreach)?;
        if let Some(channel) = peer.channel() {
            return self.open(sk, &device, &channel, addr.port);
        }
        let dial = Dial::new(device, peer, addr.port, sk.into())?;
        self.set_role(Role::Dialing(dial.clone()));
        sk.set_state(TCP_SYN_SENT);
        dial.start();
        Ok(())
    }

    fn set_role(&self, role: Role) {
        let old = core::mem::replace(&mut self.inner.lock().role, role);
        drop(old);
    }

    /// Binds to a port of the kernel's choice unless the socket is bound.
    fn autobind(&self) -> Result<u32> {
        if let Some(bound) = &self.inner.lock().bound {
            return Ok(bound.port);
        }
        let bound = Arc::new(Binding::new(&self.stack, PORT_ANY)?, GFP_KERNEL)?;
        let port = bound.port;
        self.inner.lock().bound = Some(bound);
        Ok(port)
    }
}

impl Family for AfFgdp {
    const NAME: &'static CStr = c"FGDP";

    type Context = Stack;
    type Pending = Arc<Connection>;

    fn create(
        stack: &Arc<Stack>,
        sock_type: u32,
        protocol: i32,
    ) -> Result<impl PinInit<Self, Error>> {
        let kind = match sock_type {
            SOCK_STREAM => Kind::Stream,
            SOCK_SEQPACKET => Kind::SeqPacket,
            _ => return Err(Errno::SockTNoSupport.into()),
        };
        if protocol != 0 {
            return Err(Errno::ProtoNoSupport.into());
        }
        let inner = Inner {
            bound: None,
            local: GuestId::ANY,
            role: Role::Idle,
        };
        let stack = stack.clone();
        Ok(try_pin_init!(Self {
            stack,
            kind,
            inner <- new_bhlock!(inner, "fgdp_sock"),
            open: SetOnce::new(),
        }))
    }

    fn accept(sk: &Sock<Self>, nonblock: bool) -> Result<Arc<Connection>> {
        let listener = sk.data().listener().ok_or(EINVAL)?;
        let mut timeo = sk.rcvtimeo(nonblock);
        sk.wait(&mut timeo, || match listener.pop() {
            Some(conn) => Some(Ok(conn)),
            None if sk.state() != TCP_LISTEN => Some(Err(EINVAL)),
            None => None,
        })?
    }

    fn create_accepted(stack: &Arc<Stack>, conn: &Arc<Connection>) -> impl PinInit<Self, Error> {
        let inner = Inner {
            bound: None,
            local: conn.local_guest(),
            role: Role::Connected(conn.clone()),
        };
        let stack = stack.clone();
        let kind = conn.kind();
        try_pin_init!(Self {
            stack,
            kind,
            inner <- new_bhlock!(inner, "fgdp_sock"),
            open: SetOnce::new(),
        })
    }

    fn accepted(sk: &Sock<Self>, conn: Arc<Connection>, listener: &Sock<Self>) {
        sk.inherit(listener);
        sk.set_state(TCP_ESTABLISHED);
        conn.attach(sk);
    }

    fn abandon(conn: Arc<Connection>) {
        conn.close(true);
    }

    fn release(sk: &Sock<Self>) {
        let data = sk.data();
        // Not between a dial's look at the role and what it makes of it.
        let guard = sk.lock();
        let role = core::mem::replace(&mut data.inner.lock().role, Role::Idle);
        drop(guard);
        match role {
            Role::Idle => {}
            Role::Dialing(dial) => {
                dial.cancel();
                sk.set_state(TCP_CLOSE);
            }
            Role::Listening(listener) => {
                sk.set_state(TCP_CLOSE);
                if let Some(bound) = &data.inner.lock().bound.clone() {
                    bound.listen(None);
                }
                listener.close();
            }
            Role::Connected(conn) => {
                let linger = sk.linger();
                if let Some(mut timeo) = linger.filter(|t| *t > 0) {
                    conn.finish();
                    // What the wait ends with does not matter: the close goes on.
                    let _ = sk.wait(&mut timeo, || conn.arm_drained().then_some(()));
                }
                conn.close(linger == Some(0));
                sk.set_state(TCP_CLOSE);
            }
        }
        let bound = data.inner.lock().bound.take();
        drop(bound);
    }

    fn bind(sk: &Sock<Self>, name: &[u8]) -> Result {
        let data = sk.data();
        let addr = Addr::parse(data.stack.family, name)?;
        let own = addr.guest == GuestId::ANY || data.stack.is_own(addr.guest);
        if !own {
            return Err(Errno::AddrNotAvail.into());
        }
        let _guard = sk.lock();
        if data.inner.lock().bound.is_some() || !data.is_idle() {
            return Err(EINVAL);
        }
        let bound = Arc::new(Binding::new(&data.stack, addr.port)?, GFP_KERNEL)?;
        let mut inner = data.inner.lock();
        inner.bound = Some(bound);
        inner.local = addr.guest;
        drop(inner);
        Ok(())
    }

    fn connect(sk: &Sock<Self>, name: &[u8], nonblock: bool) -> Result {
        let data = sk.data();
        let addr = Addr::parse(data.stack.family, name)?;
        let guard = sk.lock();
        let role = data.inner.lock().role.clone();
        match role {
            Role::Listening(_) => return Err(Errno::IsConn.into()),
            Role::Connected(conn) if conn.is_open() => return Err(Errno::IsConn.into()),
            Role::Dialing(_) if nonblock => return Err(Errno::Already.into()),
            Role::Connected(conn) if nonblock && conn.is_opening() => {
                return Err(Errno::Already.into());
            }
            Role::Dialing(_) | Role::Connected(_) => {}
            Role::Idle => {
                // How an attempt ended that nobody waited for.
                sk.take_error()?;
                data.dial(sk, &addr)?;
            }
        }
        drop(guard);
        let mut timeo = sk.sndtimeo(nonblock);
        let forever = timeo == isize::MAX;
        if forever {
            timeo = kernel::time::msecs_to_jiffies(CONNECT_TIMEOUT_MS) as isize;
        }
        let waited = sk.wait(&mut timeo, || (!data.is_opening()).then_some(()));
        let late = match waited {
            Ok(()) => false,
            Err(e) if e == EAGAIN && forever => true,
            // As TCP: the time is over, opening goes on.
            Err(e) if e == EAGAIN => return Err(Errno::InProgress.into()),
            // Without a limit of the user's own the call starts again, as TCP's.
            Err(e) if e == EINTR && forever => return Err(ERESTARTSYS),
            Err(e) => return Err(e),
        };
        let _guard = sk.lock();
        if !late && data.is_opening() {
            // Somebody else waited for the same attempt, and began another one.
            return Err(Errno::ConnAborted.into());
        }
        let conn = data.connection();
        if let Some(conn) = conn.as_ref().filter(|_| late) {
            conn.die(ETIMEDOUT);
        }
        if conn.as_ref().is_some_and(|conn| conn.is_open()) {
            sk.set_state(TCP_ESTABLISHED);
            return Ok(());
        }
        // The attempt failed: the socket may try again.
        let err = sk.take_error().err();
        let err = err.or_else(|| conn.as_ref().and_then(|conn| conn.take_error()));
        data.set_role(Role::Idle);
        sk.set_state(TCP_CLOSE);
        if let Some(conn) = conn {
            conn.close(true);
        }
        Err(err.unwrap_or(if late {
            ETIMEDOUT
        } else {
            Errno::ConnAborted.into()
        }))
    }

    fn listen(sk: &Sock<Self>, backlog: u32) -> Result {
        let data = sk.data();
        let _guard = sk.lock();
        if let Some(listener) = data.listener() {
            sk.set_max_ack_backlog(backlog);
            return listener.set_backlog(backlog);
        }
        if !data.is_idle() {
            return Err(EINVAL);
        }
        data.autobind()?;
        let listener = Listener::new(sk, data.kind, backlog)?;
        data.set_role(Role::Listening(listener.clone()));
        sk.set_max_ack_backlog(backlog);
        sk.set_state(TCP_LISTEN);
        let bound = data.inner.lock().bound.clone();
        if let Some(bound) = bound {
            bound.listen(Some(listener));
        }
        Ok(())
    }

    fn getname(sk: &Sock<Self>, peer: bool, name: &mut [u8; MAX_NAME]) -> Result<usize> {
        let data = sk.data();
        let family = data.stack.family;
        let inner = data.inner.lock();
        if peer {
            let Role::Connected(conn) = &inner.role else {
                return Err(Errno::NotConn.into());
            };
            let conn = conn.clone();
            drop(inner);
            if !conn.was_open() {
                return Err(Errno::NotConn.into());
            }
            return Ok(conn.remote().write(family, name));
        }
        let addr = match (&inner.role, &inner.bound) {
            (Role::Connected(conn), _) => conn.local(),
            (_, Some(bound)) => Addr {
                guest: inner.local,
                port: bound.port,
            },
            // As for TCP, a socket that is not bound has address and port zero.
            (_, None) => Addr {
                guest: inner.local,
                port: 0,
            },
        };
        drop(inner);
        Ok(addr.write(family, name))
    }

    fn poll(sk: &Sock<Self>) -> u32 {
        let data = sk.data();
        if let Some(listener) = data.listener() {
            return if listener.is_empty() {
                0
            } else {
                EPOLLIN | EPOLLRDNORM
            };
        }
        let mut mask = if sk.err() != 0 { EPOLLERR } else { 0 };
        let conn = data.connection();
        if conn.as_ref().is_some_and(|conn| conn.notices.load(Relaxed)) {
            mask |= EPOLLERR;
        }
        match conn {
            Some(conn) => mask |= crate::poll::events(sk, &conn),
            None if data.is_dialing() => {}
            // As TCP for a socket that was never connected.
            None => mask |= EPOLLOUT | EPOLLWRNORM | EPOLLHUP,
        }
        mask
    }

    fn shutdown(sk: &Sock<Self>, how: u8) -> Result {
        let guard = sk.lock();
        if let Some(listener) = sk.data().listener() {
            // As TCP: shutting down reading ends listening.
            if how & RCV_SHUTDOWN != 0 {
                if let Some(bound) = sk.data().inner.lock().bound.clone() {
                    bound.listen(None);
                }
                sk.data().set_role(Role::Idle);
                sk.set_state(TCP_CLOSE);
                drop(guard);
                listener.close();
                sk.state_change();
            }
            return Ok(());
        }
        let conn = sk.data().connection().ok_or(Errno::NotConn)?;
        if !conn.is_open() {
            return Err(Errno::NotConn.into());
        }
        sk.set_shutdown_mask(sk.shutdown_mask() | how);
        if how & SEND_SHUTDOWN != 0 {
            // Behind what a sender is copying: those bytes count as sent.
            let _tx = conn.tx.lock();
            conn.finish();
        }
        drop(guard);
        sk.state_change();
        Ok(())
    }

    fn send(sk: &Sock<Self>, msg: &mut SendMsg<'_>, _len: usize) -> Result<usize> {
        let flags = msg.flags();
        if flags & MSG_OOB != 0 {
            return Err(sk.stream_error(flags, Errno::OpNotSupp.into()));
        }
        let gives = msg.asks_transfer()?;
        if gives && flags & MSG_ZEROCOPY == 0 {
            return Err(EINVAL);
        }
        let sent = match sk.data().opened() {
            Some(conn) if flags & MSG_ZEROCOPY != 0 && conn.is_stream() && sk.is_zerocopy() => {
                crate::grant::send(sk, conn, msg, gives)
            }
            Some(conn) => crate::tx::send(sk, conn, msg),
            // As TCP, which has EPIPE for a socket that never was connected.
            None => Self::send_first(sk, msg),
        };
        sent.map_err(|e| sk.stream_error(flags, e))
    }

    fn recv(sk: &Sock<Self>, msg: &mut RecvMsg<'_>, len: usize, flags: u32) -> Result<usize> {
        if flags & MSG_OOB != 0 {
            return Err(Errno::OpNotSupp.into());
        }
        if flags & MSG_ERRQUEUE != 0 {
            let conn = sk.data().opened().ok_or(EAGAIN)?;
            let notice = conn.notice().ok_or(EAGAIN)?;
            msg.put_zerocopy(notice.first, notice.last, notice.copied);
            return Ok(0);
        }
        if let Some(conn) = sk.data().opened() {
            return crate::rx::recv(sk, conn, msg, len, flags);
        }
        let mut timeo = sk.rcvtimeo(flags & MSG_DONTWAIT != 0);
        let conn = Self::await_connection(sk, &mut timeo)?.ok_or(Errno::NotConn)?;
        crate::rx::recv(sk, &conn, msg, len, flags)
    }

    fn mmap(sk: &Sock<Self>, area: &NewArea<'_>) -> Result {
        let conn = sk.data().opened().ok_or(Errno::NotConn)?;
        if area.is_window() {
            return crate::window::map(conn, area, None);
        }
        crate::grant::map(sk, conn, area, None)
    }

    fn window_size(sk: &Sock<Self>) -> Result<u64> {
        let conn = sk.data().opened().ok_or(Errno::NotConn)?;
        Ok(crate::window::size(conn))
    }

    fn receive_mapped(sk: &Sock<Self>) -> Result<ZerocopyReceive> {
        let conn = sk.data().opened().ok_or(Errno::NotConn)?;
        crate::window::receive(conn).map(ZerocopyReceive::from)
    }

    fn release_mapped(sk: &Sock<Self>, what: &ZerocopyRelease) -> Result {
        let conn = sk.data().opened().ok_or(Errno::NotConn)?;
        crate::window::release(conn, what.offset, what.length)
    }

    fn inq(sk: &Sock<Self>) -> Result<i32> {
        match sk.data().connection() {
            Some(conn) => Ok(i32::try_from(conn.readable()).unwrap_or(i32::MAX)),
            None if sk.state() == TCP_LISTEN => Err(EINVAL),
            None => Ok(0),
        }
    }

    fn outq(sk: &Sock<Self>) -> Result<i32> {
        match sk.data().connection() {
            Some(conn) => Ok(i32::try_from(conn.unacked()).unwrap_or(i32::MAX)),
            None if sk.state() == TCP_LISTEN => Err(EINVAL),
            None => Ok(0),
        }
    }
}
