// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control socket: one JSON object per line in, one per line out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use serde::Deserialize;
use serde_json::{json, Value};
use tracing::debug;

use super::group::Presence;
use super::Worker;
use crate::link::ToSupervisor;
use crate::sys::Poller;

/// The longest line taken.
const MAX_LINE: usize = 4096;
/// Connections at a time.
const MAX_CLIENTS: usize = 32;

/// What can be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Command {
    /// The daemon itself.
    Status,
    /// Members of all groups.
    Peers,
    /// Their counters.
    Stats,
    /// Frames lent.
    Grants,
    /// Cuts a guest's QEMU off its device.
    Kick {
        /// The guest.
        guest: String,
        /// Only in this group.
        group: Option<String>,
    },
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The socket and its connections.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Connections could not be taken, and wait.
    refrains: bool,
}

impl Control {
    /// Serves a listening socket.
    pub fn new(listener: OwnedFd) -> Self {
        Self {
            listener: UnixListener::from(listener),
            clients: BTreeMap::new(),
            next: 0,
            refrains: false,
        }
    }

    /// Watches the socket again if it is not watched.
    pub fn listen(&mut self, poller: &Poller) {
        self.watch_listener(poller, true);
    }

    fn watch_listener(&mut self, poller: &Poller, on: bool) {
        if self.refrains != on {
            return;
        }
        match poller.modify(&self.listener, super::CONTROL_LISTENER, on, false) {
            Ok(()) => self.refrains = !on,
            Err(e) => debug!("control socket: {e}"),
        }
    }

    /// Takes waiting connections; each is watched under `base` plus its number.
    pub fn accept(&mut self, poller: &Poller, base: u64) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    // No descriptors, most likely: until then it would be ready without end.
                    debug!("control connections wait: {e}");
                    return self.watch_listener(poller, false);
                }
            };
            let watched = stream
                .set_nonblocking(true)
                .and_then(|()| poller.add(&stream, base + self.next, false));
            if self.clients.len() < MAX_CLIENTS && watched.is_ok() {
                self.clients.insert(
                    self.next,
                    Client {
                        stream,
                        input: Vec::new(),
                        output: Vec::new(),
                    },
                );
                self.next += 1;
            }
        }
    }

    /// The complete lines that a client sent.
    pub fn read(&mut self, poller: &Poller, id: u64) -> Vec<String> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Vec::new();
        };
        let mut buf = [0; MAX_LINE];
        let alive = match client.stream.read(&mut buf) {
            Ok(n) => {
                client
                    .input
                    .extend_from_slice(buf.get(..n).unwrap_or_default());
                n > 0
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        let mut lines = Vec::new();
        while let Some(end) = client.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = client.input.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        let flushed = client.flush();
        if !alive || client.input.len() > MAX_LINE || flushed.is_err() {
            self.clients.remove(&id);
            return Vec::new();
        }
        self.watch(poller, id);
        lines
    }

    /// Answers a client.
    pub fn answer(&mut self, poller: &Poller, id: u64, answer: &Value) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client
            .output
            .extend_from_slice(answer.to_string().as_bytes());
        client.output.push(b'\n');
        if client.flush().is_err() {
            self.clients.remove(&id);
        }
        self.watch(poller, id);
    }

    fn watch(&self, poller: &Poller, id: u64) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        // A client that does not read its answers is not listened to.
        let out = !client.output.is_empty();
        if let Err(e) = poller.modify(&client.stream, super::CONTROL + id, !out, out) {
            debug!("control connection: {e}");
        }
    }
}

impl Client {
    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn address(bytes: &[u8; 16]) -> String {
    std::net::Ipv6Addr::from(*bytes).to_canonical().to_string()
}

impl Worker {
    /// Does a command; errors come back as `{"error": ...}`.
    pub(super) fn command(&mut self, line: &str) -> Value {
        match serde_json::from_str(line) {
            Ok(Command::Status) => self.status(),
            Ok(Command::Peers) => self.members(false),
            Ok(Command::Stats) => self.members(true),
            Ok(Command::Grants) => self.grants(),
            Ok(Command::Kick { guest, group }) => self.kick(&guest, group.as_deref()),
            Err(e) => json!({ "error": e.to_string() }),
        }
    }

    fn status(&self) -> Value {
        let attached = self.devices.values().filter(|d| d.attached).count();
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|g| {
                let plan = &g.group.plan;
                let members = plan.members.len();
                let doorbells = g.group.doorbells.len();
                json!({
                    "name": plan.name,
                    "id": uuid::Uuid::from_bytes(plan.id).to_string(),
                    "size": plan.size,
                    "lanes": plan.lanes,
                    "members": members,
                    "doorbell": if plan.doorbell_socket.is_some() { "ivshmem" } else { "trap" },
                    "doorbell_devices": doorbells,
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "abi": crate::abi::ABI,
            "worker": std::process::id(),
            "supervisor": std::os::unix::process::parent_id(),
            "restarts": self.restarts,
            "attached": attached,
            "groups": groups,
        })
    }

    fn members(&mut self, counters: bool) -> Value {
        let mut list = Vec::new();
        for g in &self.groups {
            for plan in &g.group.plan.members {
                let Some(m) = g.group.state.members.get(&plan.slot) else {
                    continue;
                };
                let mut value = json!({
                    "group": g.group.plan.name,
                    "guest": plan.name,
                    "id": uuid::Uuid::from_bytes(plan.guest_id).to_string(),
                    "slot": plan.slot,
                    "state": match m.presence {
                        Presence::Absent => "absent",
                        Presence::Attached | Presence::Left => "attached",
                        Presence::Ready => "ready",
                    },
                    "generation": m.generation,
                });
                let more = if counters {
                    let c = &m.counters;
                    json!({
                        "calls": c.calls,
                        "refused": c.refused,
                        "addr_refused": c.addr_refused,
                        "doorbells": c.doorbells,
                        "doorbells_bad": c.doorbells_bad,
                        "events_waiting": m.events.len(),
                        "events_lost": c.lost,
                        "frames_offered": g.group.state.grants.offered_by(plan.slot),
                        "frames_accepted": g.group.state.grants.accepted_by(plan.slot),
                    })
                } else {
                    let open = g.group.state.pairs.opened_by(plan.slot);
                    json!({
                        "pid": m.pid,
                        "lanes": m.lanes,
                        "doorbell_id": m.ivshmem_id,
                        "slot_offset": plan.offset,
                        "slot_size": plan.size,
                        "addresses": m.addrs.iter().map(address).collect::<Vec<_>>(),
                        "allowed": plan.addrs.iter().map(address).collect::<Vec<_>>(),
                        "channels": open,
                        "socket": plan.socket,
                    })
                };
                if let (Some(to), Value::Object(more)) = (value.as_object_mut(), more) {
                    to.extend(more);
                }
                list.push(value);
            }
        }
        json!({ "members": list })
    }

    fn grants(&self) -> Value {
        let mut list = Vec::new();
        for g in &self.groups {
            for (key, grant) in g.group.state.grants.iter() {
                list.push(json!({
                    "group": g.group.plan.name,
                    "owner": key.owner,
                    "peer": key.peer,
                    "extent": key.extent,
                    "frames": grant.frames(),
                    "accepted": grant.accepted,
                    "revoked": grant.revoked,
                }));
            }
        }
        json!({ "grants": list })
    }

    fn kick(&mut self, guest: &str, group: Option<&str>) -> Value {
        let mut kicked = 0;
        for device in self.devices.values().filter(|d| d.attached) {
            let Some(g) = self.groups.get(device.group) else {
                continue;
            };
            let named = g
                .group
                .member_plan(device.slot)
                .is_some_and(|m| m.name == guest);
            if !named || group.is_some_and(|name| name != g.group.plan.name) {
                continue;
            }
            if let Err(e) = self.link.send(&ToSupervisor::Kick { dev: device.dev }, &[]) {
                return json!({ "error": e.to_string() });
            }
            kicked += 1;
        }
        match kicked {
            0 => json!({ "error": format!("no attached guest `{guest}`: `peers` lists them") }),
            n => json!({ "kicked": n }),
        }
    }
}
