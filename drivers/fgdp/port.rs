// SPDX-License-Identifier: GPL-2.0

//! Ports of this guest: who is bound, who listens.
//!
//! Lock order: the table's lock is innermost; nothing is called under it.

use crate::addr::{PORT_ANY, PORT_RESERVED};
use crate::listen::Listener;
use crate::stack::Stack;
use crate::sys::net::errno::Errno;
use crate::sys::{self, lock::BhLock};
use kernel::prelude::*;
use kernel::sync::Arc;

/// First port of those that the kernel chooses.
const EPHEMERAL_FIRST: u32 = 49152;
/// How many there are to choose from.
const EPHEMERAL_COUNT: u32 = 65536;

struct Entry {
    port: u32,
    listener: Option<Arc<Listener>>,
}

/// All bound ports, sorted.
pub(crate) struct Ports {
    entries: KVVec<Entry>,
    next: u32,
}

impl Ports {
    pub(crate) const fn new() -> Self {
        Self {
            entries: KVVec::new(),
            next: 0,
        }
    }

    fn find(&self, port: u32) -> Result<usize, usize> {
        self.entries
            .as_slice()
            .binary_search_by_key(&port, |e| e.port)
    }

    fn choose(&mut self) -> Option<(u32, usize)> {
        for _ in 0..EPHEMERAL_COUNT {
            let port = EPHEMERAL_FIRST + self.next % EPHEMERAL_COUNT;
            self.next = self.next.wrapping_add(1);
            if let Err(at) = self.find(port) {
                return Some((port, at));
            }
        }
        None
    }
}

/// A bound port; dropping it frees the port.
pub(crate) struct Binding {
    stack: Arc<Stack>,
    /// The port.
    pub(crate) port: u32,
}

impl Binding {
    /// Binds `port`, or one that the kernel chooses for [`PORT_ANY`].
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` when it is taken or none is left, `EACCES` for a reserved port without
    /// `CAP_NET_BIND_SERVICE`, `ENOMEM`.
    pub(crate) fn new(stack: &Arc<Stack>, port: u32) -> Result<Self> {
        if port < PORT_RESERVED && !sys::net::may_bind_reserved() {
            return Err(EACCES);
        }
        loop {
            let mut ports = stack.ports.lock();
            if ports.entries.len() == ports.entries.capacity() {
                let room = ports.entries.capacity() * 2 + 64;
                drop(ports);
                reserve(&stack.ports, room)?;
                continue;
            }
            let (port, at) = match port {
                PORT_ANY => ports.choose(),
                port => ports.find(port).err().map(|at| (port, at)),
            }
            .ok_or(Errno::AddrInUse)?;
            // Within the capacity, so this neither allocates nor fails.
            ports
                .entries
                .insert_within_capacity(
                    at,
                    Entry {
                        port,
                        listener: None,
                    },
                )
                .map_err(|_| ENOMEM)?;
            return Ok(Self {
                stack: stack.clone(),
                port,
            });
        }
    }

    /// Makes `listener` the one that connections to the port go to.
    pub(crate) fn listen(&self, listener: Option<Arc<Listener>>) {
        let mut ports = self.stack.ports.lock();
        let old = match ports.find(self.port) {
            Ok(at) => match ports.entries.get_mut(at) {
                Some(entry) => core::mem::replace(&mut entry.listener, listener),
                None => None,
            },
            Err(_) => None,
        };
        drop(ports);
        drop(old);
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut ports = self.stack.ports.lock();
        let old = match ports.find(self.port) {
            Ok(at) => ports.entries.remove(at).ok(),
            Err(_) => None,
        };
        drop(ports);
        drop(old);
    }
}

/// Who listens on `port`.
pub(crate) fn listener(stack: &Stack, port: u32) -> Option<Arc<Listener>> {
    let ports = stack.ports.lock();
    let at = ports.find(port).ok()?;
    ports.entries.get(at)?.listener.clone()
}

/// The first port from `port` on that somebody listens on, for listings.
pub(crate) fn next_listener(stack: &Stack, port: u32) -> Option<(u32, Arc<Listener>)> {
    let ports = stack.ports.lock();
    let at = ports.find(port).unwrap_or_else(|at| at);
    let mut entries = ports.entries.get(at..)?.iter();
    entries.find_map(|e| Some((e.port, e.listener.clone()?)))
}

/// Grows the table outside its lock: allocating may sleep.
fn reserve(lock: &BhLock<Ports>, room: usize) -> Result {
    let mut new: KVVec<Entry> = KVVec::with_capacity(room, GFP_KERNEL)?;
    let mut ports = lock.lock();
    if ports.entries.len() < new.capacity() && ports.entries.capacity() < new.capacity() {
        core::mem::swap(&mut ports.entries, &mut new);
        for entry in new.drain_all() {
            // Cannot fail: the capacity was compared above.
            let _ = ports.entries.push_within_capacity(entry);
        }
    }
    drop(ports);
    Ok(())
}
