// SPDX-License-Identifier: GPL-2.0

//! How both sides agree to carry a connection: the active one proposes, the passive one knows it or
//! not.

use super::path::todo;
use super::{Inet, Path, Why};
use crate::channel::Channel;
use crate::conn::{Connection, User};
use crate::ctl::Job;
use crate::device::Device;
use crate::proto::stream::Endpoint;
use crate::proto::wire::{Carry, Refusal};
use crate::sys::task;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::workqueue::{impl_has_work, WorkItem};

impl_has_work! {
    impl HasWork<Self> for Inet { self.sweeper }
}

impl WorkItem for Inet {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.sweep();
    }
}

/// A proposal for a connection that this side does not know yet.
pub(super) struct Proposal {
    device: Arc<Device>,
    channel: Arc<Channel>,
    carry: Carry,
    since: u64,
}

/// How long a proposal waits for TCP's last packet, in nanoseconds: until TCP would have sent that
/// again.
const KEEP_NS: u64 = 1_000_000_000;

/// How often they are looked at, in milliseconds.
const SWEEP_MS: i64 = 50;

/// Proposals that may wait.
const MAX_PROPOSALS: usize = 256;

/// Those of one peer: it cannot push others' out.
const PEER_PROPOSALS: usize = MAX_PROPOSALS / 8;

/// Proposals that came before TCP's last packet of the handshake, oldest first.
pub(super) struct Proposals(KVec<Proposal>);

impl Proposals {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KVec::with_capacity(MAX_PROPOSALS, GFP_KERNEL)?))
    }

    /// Makes room for one more of `channel`; the one that had to go.
    fn make_room(&mut self, channel: &Arc<Channel>) -> Option<Proposal> {
        let is_own = |p: &Proposal| Arc::ptr_eq(&p.channel, channel);
        let at = if self.0.iter().filter(|p| is_own(p)).count() >= PEER_PROPOSALS {
            self.0.iter().position(is_own)?
        } else if self.0.len() >= MAX_PROPOSALS {
            0
        } else {
            return None;
        };
        self.0.remove(at).ok()
    }
}

impl Path {
    /// The socket was taken: proposes, or looks whether the other side has. Any context.
    pub(super) fn begin(self: &Arc<Self>) {
        if self.active {
            self.ask(todo::PROPOSE);
            return;
        }
        let mut proposals = self.inet.proposals.lock();
        let at = proposals.0.iter().position(|p| {
            p.device.is(&self.device)
                && p.channel.peering.slot == self.peer
                && self.ends.check(&p.carry, true).is_ok()
        });
        let found = at.and_then(|at| proposals.0.remove(at).ok());
        drop(proposals);
        if let Some(p) = found {
            p.device.queue_carry(&p.channel, p.carry);
        }
    }
}

/// Asks the peer. Process context.
pub(super) fn propose(path: &Arc<Path>) {
    let sent = (|| {
        let peer = path.device.peer(path.peer).ok_or(Why::Channel)?;
        let Some(channel) = peer.channel() else {
            // For the next one.
            let _queued = path.device.add_job(Job::Want(path.peer));
            return Err(Why::Channel);
        };
        let conn = path.device.add_carried(&channel, path.ends);
        let conn = conn.map_err(|_| Why::Memory)?;
        if tie(path, &conn) {
            conn.start();
        }
        Ok(())
    })();
    if let Err(why) = sent {
        path.because(why);
        path.set_plain();
    }
}

impl Inet {
    /// A peer proposes to carry a connection. Process context.
    pub(crate) fn on_carry(
        self: &Arc<Self>,
        device: &Arc<Device>,
        channel: &Arc<Channel>,
        carry: &Carry,
    ) {
        let from_peer = device.has_address(channel, &carry.src_addr);
        let Some(refusal) = self.find_path(device, channel, carry, from_peer) else {
            return;
        };
        if !self.is_enabled() {
            self.refuse(device, channel, carry, Refusal::Policy);
        } else if refusal == Refusal::NoSocket && from_peer {
            // TCP's packet may be slower than the proposal.
            self.keep(device, channel, carry);
        } else {
            self.refuse(device, channel, carry, refusal);
        }
    }

    /// Accepts the proposal if it is for a connection that is known; else says why it is not.
    fn find_path(
        &self,
        device: &Arc<Device>,
        channel: &Arc<Channel>,
        carry: &Carry,
        from_peer: bool,
    ) -> Option<Refusal> {
        let Some(path) = self.passive(device, carry) else {
            return Some(Refusal::NoSocket);
        };
        match path.ends.check(carry, from_peer) {
            Ok(()) => {
                if accept(&path, channel, carry).is_err() {
                    self.refuse(device, channel, carry, Refusal::NoMem);
                }
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    /// The connection that `carry` is about, if it was opened from there.
    fn passive(&self, device: &Arc<Device>, carry: &Carry) -> Option<Arc<Path>> {
        let ends = Endpoint {
            addr: carry.dst_addr,
            peer_addr: carry.src_addr,
            port: carry.dst_port,
            peer_port: carry.src_port,
            isn: carry.dst_isn,
            peer_isn: carry.src_isn,
        };
        let paths = self.paths.lock();
        let passive = |path: &Path| !path.active && path.device.is(device);
        // Other namespaces may have connections with the same ends: then the numbers tell.
        paths
            .find(&ends, |path| passive(path) && path.ends.isn == ends.isn)
            .or_else(|| paths.find(&ends, passive))
    }

    fn keep(self: &Arc<Self>, device: &Arc<Device>, channel: &Arc<Channel>, carry: &Carry) {
        let early = Proposal {
            device: device.clone(),
            channel: channel.clone(),
            carry: *carry,
            since: task::clock_ns(),
        };
        let mut proposals = self.proposals.lock();
        let oldest = proposals.make_room(channel);
        // Within the capacity.
        let _ = proposals.0.push_within_capacity(early);
        drop(proposals);
        if let Some(p) = oldest {
            self.refuse(&p.device, &p.channel, &p.carry, Refusal::NoSocket);
        }
        if let Some(queue) = crate::sys::work::process() {
            // Queued already is as good.
            let _queued = queue.enqueue::<_, 0>(self.clone());
        }
        // The connection may have been taken, and have looked here, in between.
        if let Some(path) = self.passive(device, carry) {
            path.begin();
        }
    }

    /// Refuses proposals whose connection did not come: it has gone, or never was.
    fn sweep(&self) {
        loop {
            let now = task::clock_ns();
            let mut proposals = self.proposals.lock();
            let oldest = proposals.0.first().map(|p| now.saturating_sub(p.since));
            let late = match oldest {
                None => return,
                Some(age) if age > KEEP_NS => proposals.0.remove(0).ok(),
                Some(_) => None,
            };
            drop(proposals);
            match late {
                Some(p) => self.refuse(&p.device, &p.channel, &p.carry, Refusal::NoSocket),
                None => fsleep(Delta::from_millis(SWEEP_MS)),
            }
        }
    }

    fn refuse(&self, device: &Arc<Device>, channel: &Arc<Channel>, carry: &Carry, why: Refusal) {
        self.counters.refused.add(1, Relaxed);
        device.refuse(channel, carry.peer_conn, why);
    }

    /// The device goes: nobody waits for its proposals.
    pub(crate) fn forget_device(&self, device: &Arc<Device>) {
        loop {
            let mut proposals = self.proposals.lock();
            let at = proposals.0.iter().position(|p| p.device.is(device));
            let removed = at.and_then(|at| proposals.0.remove(at).ok());
            drop(proposals);
            if removed.is_none() {
                return;
            }
        }
    }
}

/// Makes `conn` the one that carries `path`; false if the socket has left, and then `conn` has
/// gone.
fn tie(path: &Arc<Path>, conn: &Arc<Connection>) -> bool {
    // First: who leaves after that takes it away again.
    conn.serve(User::Tcp(path.clone()));
    if path.set_conn(conn.clone()) {
        return true;
    }
    conn.close(false);
    // The peer does not know the id.
    path.device.forget(conn);
    false
}

fn accept(path: &Arc<Path>, channel: &Arc<Channel>, carry: &Carry) -> Result {
    if path.conn().is_some() || path.is_plain() {
        return Err(EBUSY);
    }
    let conn = path.device.add_carried(channel, path.ends)?;
    if let Err(reason) = conn.accept(carry.peer_conn) {
        path.device.break_channel(channel, reason);
        return Ok(());
    }
    conn.serve(User::Tcp(path.clone()));
    // Before anything else that this side says of it: so nobody can close it before.
    conn.send_accept();
    if path.set_conn(conn.clone()) {
        path.agree();
    } else {
        conn.close(false);
    }
    Ok(())
}
