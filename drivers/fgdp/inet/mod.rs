// SPDX-License-Identifier: GPL-2.0

//! TCP connections between members of a group, carried by rings.
//!
//! TCP makes and ends a connection as ever; what it carries between may go through shared pages.
//! The way of a connection: TCP says that it is established, [`Inet`] finds that the other end is a
//! peer and takes it; the active side proposes it over the channel (`propose`); when both agree,
//! each direction switches at a sequence number (`send`, `recv`), and back (`work`). Chapter "TCP
//! connections" of the protocol has the rules.
//!
//! Lock order: a socket's lock, then what `conn.rs` says. `paths` is innermost.

mod close;
mod map;
mod path;
mod propose;
mod recv;
mod send;
mod snapshot;
mod table;
mod why;
mod work;

pub(crate) use map::Mapping;
pub(crate) use path::Path;
pub(crate) use snapshot::{TcpConnections, TcpEnd, TcpEntry};
pub(crate) use why::Why;

use crate::device::Device;
use crate::policy::{Policy, POLICIES};
use crate::proto::stream::Endpoint;
use crate::stack::Stack;
use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::mm::NewArea;
use crate::sys::net::addr::Watcher;
use crate::sys::net::family::{ZerocopyReceive, ZerocopyRelease};
use crate::sys::net::inet::{Hook, RingBytes};
use crate::sys::net::msg::{RecvMsg, SendMsg};
use crate::sys::net::namespace::NetKey;
use crate::sys::net::tcp::TcpSock;
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{Arc, ArcBorrow};
use kernel::workqueue::{new_work, Work};
use propose::Proposals;
use table::Table;
use why::Whys;

/// Numbers for listings.
pub(crate) struct Counters {
    /// Connections whose other end is a peer.
    pub(crate) candidates: Atomic<i64>,
    /// Connections that a ring carries, or carried.
    pub(crate) carried: Atomic<i64>,
    /// Proposals that were refused here or there.
    pub(crate) refused: Atomic<i64>,
    /// Connections that went back to TCP while they were in use.
    pub(crate) back: Atomic<i64>,
    /// Why connections were not carried, or not any more.
    pub(crate) whys: Whys,
}

/// The hook's state.
#[pin_data]
pub(crate) struct Inet {
    stack: Arc<Stack>,
    /// The setting `inet` of the first network namespace, at first.
    pub(crate) first_level: i32,
    /// Connections that were taken.
    #[pin]
    paths: BhLock<Table>,
    /// Proposals that came before TCP's last packet of the handshake.
    #[pin]
    proposals: BhLock<Proposals>,
    #[pin]
    sweeper: Work<Inet>,
    /// Numbers for listings.
    pub(crate) counters: Counters,
}

impl Inet {
    /// No connection yet.
    pub(crate) fn new(stack: &Arc<Stack>, first_level: i32) -> Result<Arc<Self>> {
        let paths = Table::new()?;
        let stack = stack.clone();
        let proposals = Proposals::new()?;
        Arc::pin_init(
            pin_init!(Self {
                stack,
                first_level,
                paths <- new_bhlock!(paths, "fgdp_paths"),
                proposals <- new_bhlock!(proposals, "fgdp_proposals"),
                sweeper <- new_work!("fgdp_sweep"),
                counters: Counters {
                    candidates: Atomic::new(0),
                    carried: Atomic::new(0),
                    refused: Atomic::new(0),
                    back: Atomic::new(0),
                    whys: Whys::new(),
                },
            }),
            GFP_KERNEL,
        )
    }

    /// The device and slot behind an address, if carrying a connection to it is wanted.
    fn find(&self, addr: &[u8; 16], own: &[u8; 16], level: i32) -> Option<(Arc<Device>, u32)> {
        if addr == own || is_loopback(addr) {
            return if level > 1 {
                self.stack.loopback()
            } else {
                None
            };
        }
        self.stack.find_address(addr)
    }

    fn remove(&self, path: &Path) {
        let removed = self.paths.lock().remove(path);
        drop(removed);
    }

    /// Runs `f` on the connections that were taken and stay meanwhile. The table is not locked
    /// then.
    fn each(&self, f: impl Fn(&Arc<Path>)) {
        let chains = self.paths.lock().chains();
        for chain in 0..chains {
            let mut at = self.paths.lock().chain_len(chain);
            while at > 0 {
                at -= 1;
                let path = self.paths.lock().get(chain, at);
                if let Some(path) = path {
                    f(&path);
                }
            }
        }
    }

    /// Whether connections are taken in any namespace. Sleeps.
    fn is_enabled(&self) -> bool {
        let mut any = false;
        POLICIES.each(|_, policy| any |= policy.level() > 0);
        any
    }

    /// The setting `inet` of a namespace has changed. Sleeps.
    pub(crate) fn level_changed(&self, net: NetKey, level: i32) {
        if level == 0 {
            self.each(|path| {
                if path.sk().is_some_and(|sk| sk.net().key() == net) {
                    path.go_back(Why::Off);
                }
            });
        }
        // Addresses are told for namespaces in which this is on.
        self.stack.changed();
    }
}

/// The setting `inet` where the socket is. Any context.
fn level_of(sk: &TcpSock) -> i32 {
    POLICIES.with(sk, Policy::level).unwrap_or(0)
}

fn is_loopback(addr: &[u8; 16]) -> bool {
    let v4 = addr.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127]);
    let v6 = addr.split_last() == Some((&1, &[0; 15]));
    v4 || v6
}

impl Hook for Inet {
    type Path = Path;

    fn established(this: ArcBorrow<'_, Self>, sk: &TcpSock, active: bool) -> Option<Arc<Path>> {
        let level = level_of(sk);
        if level == 0 {
            return None;
        }
        let facts = sk.facts();
        let (device, slot) = this.find(&facts.peer_addr(), &facts.addr(), level)?;
        this.counters.candidates.add(1, Relaxed);
        let stays = |why| {
            this.counters.whys.count(why);
            sk.trace_carry(why as u32);
            None
        };
        if facts.is_taken() {
            return stays(Why::Taken);
        }
        if facts.has_sent() {
            return stays(Why::Early);
        }
        if sk.is_tcp_needed() {
            return stays(Why::Program);
        }
        let port = if active {
            facts.peer_port()
        } else {
            facts.port()
        };
        if !POLICIES
            .with(sk, |policy| policy.allows(sk, port))
            .unwrap_or(false)
        {
            return stays(Why::Policy);
        }
        let ends = Endpoint {
            addr: facts.addr(),
            peer_addr: facts.peer_addr(),
            port: facts.port(),
            peer_port: facts.peer_port(),
            isn: facts.snd_seq(),
            peer_isn: facts.rcv_seq(),
        };
        let path = Path::new(Arc::from(this), device, slot, ends, active, sk)
            .ok()
            .filter(|path| this.paths.lock().insert(path));
        path.or_else(|| stays(Why::Memory))
    }

    fn taken(path: &Arc<Path>) {
        path.begin();
        // Who turned it off in between has not seen this one.
        if path.sk().is_some_and(|sk| level_of(&sk) == 0) {
            path.go_back(Why::Off);
        }
    }

    fn ended(path: &Arc<Path>) {
        // A socket without a user may wait for the peer, which has nothing to say any more.
        if path.todo.any() {
            path.kick();
        }
    }

    fn accepted(path: &Arc<Path>) {
        path.on_accept();
    }

    fn send(path: &Arc<Path>, sk: &TcpSock, msg: &mut SendMsg<'_>, len: usize) -> Result<usize> {
        send::send(path, sk, msg, len)
    }

    fn recv(
        path: &Arc<Path>,
        sk: &TcpSock,
        msg: &mut RecvMsg<'_>,
        len: usize,
        flags: u32,
    ) -> Result<usize> {
        recv::recv(path, sk, msg, len, flags)
    }

    fn may_carry(path: &Arc<Path>) -> bool {
        !path.is_plain()
    }

    fn is_carried(path: &Arc<Path>) -> bool {
        path.is_carried()
    }

    fn poll_rings(path: ArcBorrow<'_, Path>, sk: &TcpSock) -> Option<u32> {
        crate::poll::on_rings(&path, sk)
    }

    fn poll(path: ArcBorrow<'_, Path>, sk: &TcpSock, mask: u32) -> u32 {
        crate::poll::carried(path, sk, mask)
    }

    fn queued(path: &Arc<Path>, sk: &TcpSock) -> (u32, u32) {
        path.queued(sk)
    }

    fn bytes(path: &Arc<Path>) -> RingBytes {
        path.bytes()
    }

    fn shutdown(path: &Arc<Path>, sk: &TcpSock, how: u8) -> bool {
        close::shutdown(path, sk, how)
    }

    fn close(path: &Arc<Path>, sk: &TcpSock, timeout: isize) -> bool {
        close::close(path, sk, timeout)
    }

    fn disconnect(path: &Arc<Path>) {
        close::disconnect(path);
    }

    fn step_aside(path: &Arc<Path>, sk: &TcpSock) {
        path.step_aside(sk);
    }

    fn map(path: &Arc<Path>, sk: &TcpSock, area: &NewArea<'_>) -> Result {
        map::map(path, sk, area)
    }

    fn window_size(path: &Arc<Path>, sk: &TcpSock) -> Result<u64> {
        map::window_size(path, sk)
    }

    fn receive_mapped(path: &Arc<Path>, sk: &TcpSock) -> Result<ZerocopyReceive> {
        map::receive(path, sk)
    }

    fn release_mapped(path: &Arc<Path>, what: &ZerocopyRelease) -> Result {
        map::release(path, what)
    }

    fn unmappable(path: &Arc<Path>, sk: &TcpSock) -> Option<(u32, bool)> {
        map::unmappable(path, sk)
    }

    fn left(path: Arc<Path>, grace: bool) {
        path.leave(grace);
    }
}
