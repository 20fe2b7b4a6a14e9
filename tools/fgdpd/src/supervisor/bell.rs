// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The server of a group's doorbell devices (QEMU's `ivshmem-doorbell`).
//!
//! It lives in the supervisor, since clients cannot connect again. Messages are 64-bit little-endian words, some with
//! a descriptor: protocol version, own id, -1 with the shared memory, then for each peer its id once per vector with
//! the eventfd that rings it; the id alone when the peer goes. QEMU trusts its server blindly, therefore: an id is
//! never used twice, a peer goes once, and there are never more eventfds than the device has vectors.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{info, warn};

use crate::sys::{self, SharedFd};

const PROTOCOL_VERSION: i64 = 0;
const SHARED_MEMORY: i64 = -1;
/// The least that QEMU takes is a page; the memory only says which group the doorbell belongs to.
const MEMORY_SIZE: u64 = 1 << 20;
const MAX_IDS: u32 = 1 << 16;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pid: i32,
    eventfds: Vec<SharedFd>,
    output: VecDeque<(i64, Option<SharedFd>)>,
}

impl Client {
    /// Its id, once per vector, is what others get to ring it.
    fn announce(&mut self, id: u32, eventfds: &[SharedFd]) {
        let words = eventfds.iter().map(|fd| (id.into(), Some(fd.clone())));
        self.output.extend(words);
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((word, fd)) = self.output.front() {
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
            match sys::send_fds(self.stream.as_fd(), &word.to_le_bytes(), &fds) {
                Ok(_) => drop(self.output.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The server of one group.
#[derive(Debug)]
pub struct BellServer {
    /// Where clients connect.
    pub listener: UnixListener,
    header: Vec<u8>,
    vectors: u16,
    next_id: u32,
    clients: BTreeMap<u32, Client>,
}

impl BellServer {
    /// A server whose clients' memory begins with `header`.
    pub fn new(listener: UnixListener, header: Vec<u8>, vectors: u16) -> Self {
        Self {
            listener,
            header,
            vectors,
            next_id: 0,
            clients: BTreeMap::new(),
        }
    }

    /// Those connected: id and process.
    pub fn ids(&self) -> Vec<(u32, i32)> {
        self.clients.iter().map(|(id, c)| (*id, c.pid)).collect()
    }

    /// Takes the next connection; returns its id.
    ///
    /// # Errors
    /// The connection waits: there are no descriptors for it.
    pub fn accept(&mut self) -> io::Result<Option<u32>> {
        // What it needs is made first: what cannot be served is not taken.
        let memory = self.memory()?;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let eventfds = (0..self.vectors)
            .map(|_| Ok(OwnedFd::from(EventFd::from_value_and_flags(0, flags)?).into()))
            .collect::<io::Result<Vec<SharedFd>>>()?;
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        stream.set_nonblocking(true)?;
        if self.next_id == MAX_IDS {
            warn!("doorbell ids are used up: restart the daemon and the group's guests");
            return Ok(None);
        }
        let id = self.next_id;
        self.next_id += 1;
        let pid = sys::peer_pid(stream.as_fd());
        let mut client = Client {
            stream,
            pid,
            eventfds,
            output: VecDeque::from([
                (PROTOCOL_VERSION, None),
                (id.into(), None),
                (SHARED_MEMORY, Some(memory)),
            ]),
        };
        for (peer, other) in &self.clients {
            client.announce(*peer, &other.eventfds);
        }
        let own = client.eventfds.clone();
        client.announce(id, &own);
        for other in self.clients.values_mut() {
            other.announce(id, &own);
        }
        self.clients.insert(id, client);
        self.flush_all();
        info!(id, pid, "doorbell device connected");
        Ok(Some(id))
    }

    /// Each client gets memory of its own: shared, it would be a channel between guests that nobody watches.
    fn memory(&self) -> io::Result<SharedFd> {
        let memory = sys::sealed_memfd("fgdp-doorbell", MEMORY_SIZE, false)?;
        let memory = std::fs::File::from(memory);
        memory.write_all_at(&self.header, 0)?;
        Ok(OwnedFd::from(memory).into())
    }

    /// Something happened on a client's connection: true if it is gone.
    pub fn poll(&mut self, id: u32) -> bool {
        let Some(client) = self.clients.get_mut(&id) else {
            return false;
        };
        let mut buf = [0u8; 64];
        let alive = match sys::recv_fds(client.stream.as_fd(), &mut buf) {
            Ok(got) => got.len != 0,
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        if alive && client.flush().is_ok() {
            return false;
        }
        self.clients.remove(&id);
        for other in self.clients.values_mut() {
            other.output.push_back((i64::from(id), None));
        }
        self.flush_all();
        info!(id, "doorbell device gone");
        true
    }

    fn flush_all(&mut self) {
        for client in self.clients.values_mut() {
            // A broken connection shows up in poll().
            if let Err(e) = client.flush() {
                tracing::debug!(pid = client.pid, "doorbell client: {e}");
            }
        }
    }

    /// The client's connection.
    pub fn client(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.clients.get(&id).map(|c| c.stream.as_fd())
    }

    /// Whether something waits to be sent to a client.
    pub fn wants_out(&self, id: u32) -> bool {
        self.clients.get(&id).is_some_and(|c| !c.output.is_empty())
    }

    /// The clients that have messages waiting.
    pub fn all_ids(&self) -> Vec<u32> {
        self.clients.keys().copied().collect()
    }
}
