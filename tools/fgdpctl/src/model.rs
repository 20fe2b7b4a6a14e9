// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is shown. The fields' names are those of `--json` and of the module's listings.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::explain::Explanation;
use crate::listing::{known, list};

/// A connection of this guest, or a socket that listens.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The device that it goes through.
    pub device: String,
    /// Own connection id.
    #[serde(deserialize_with = "known")]
    pub id: Option<u32>,
    /// The peer's connection id.
    #[serde(deserialize_with = "known")]
    pub peer_id: Option<u32>,
    /// listen, opening, open, closing or dead.
    pub state: String,
    /// stream or seqpacket.
    #[serde(rename = "type")]
    pub kind: String,
    /// `guest:port`.
    pub local: String,
    /// `guest:port`.
    pub remote: String,
    /// The peer's name, if the host gave one. The module lists it with the peer.
    #[serde(skip_deserializing)]
    pub peer: Option<String>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes that can be read; for a socket that listens, connections that wait for accept(2).
    pub readable: u64,
    /// Bytes sent that the peer has not read; for a socket that listens, the longest queue.
    pub unacked: u64,
    /// Size of the ring that is written to, in bytes.
    pub tx_ring: u64,
    /// Receives that slept.
    pub rx_waits: u64,
    /// Sends that slept.
    pub tx_waits: u64,
}

/// A TCP connection to a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// The device of the group in which the peer is.
    pub device: String,
    /// The peer's slot.
    pub slot: u32,
    /// The socket's cookie in hexadecimal, as in `ss -e`.
    pub cookie: String,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The peer's name, if the host gave one. The module lists it with the peer.
    #[serde(skip_deserializing)]
    pub peer: Option<String>,
    /// here or there: who opened it.
    pub opened: String,
    /// tcp, ring, between or reset: the way of the next byte that is sent.
    pub sends: String,
    /// The same of the next byte that comes.
    pub receives: String,
    /// Bytes that came by the ring.
    pub ring_rx_bytes: u64,
    /// Bytes that went by the ring.
    pub ring_tx_bytes: u64,
    /// Bytes that came by TCP.
    pub tcp_rx_bytes: u64,
    /// Bytes that went by TCP, each counted once.
    pub tcp_tx_bytes: u64,
    /// Why it is not carried by rings, or not any more.
    #[serde(deserialize_with = "known")]
    pub reason: Option<String>,
}

/// All connections of this guest to peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Those of AF_FGDP, and sockets that listen.
    pub connections: Vec<Connection>,
    /// Those of TCP, carried or not; `None` from a module that does not carry TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Vec<Tcp>>,
}

/// Another member of a group, as a guest sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The device by which it is seen.
    pub device: String,
    /// loopback or virtio.
    pub transport: String,
    /// The member's slot.
    pub slot: u32,
    /// Its id.
    pub guest: String,
    /// Its name, if the host gave one.
    #[serde(deserialize_with = "known")]
    pub name: Option<String>,
    /// Addresses that the host says are its own. An older module does not tell them.
    #[serde(default, deserialize_with = "list")]
    pub addresses: Vec<IpAddr>,
    /// absent, attached or ready.
    pub state: String,
    /// Generation of its slot.
    pub generation: u32,
    /// up or down.
    pub channel: String,
    /// Lanes of the channel.
    pub lanes: u32,
    /// Frames lent to it.
    pub lent_frames: u64,
    /// Those of them that are in use.
    pub used_frames: u64,
    /// Frames that it lent.
    pub accepted_frames: u64,
    /// Why the last channel ended.
    pub last_down: String,
}

/// Counters by name.
pub type Stats = BTreeMap<String, i64>;

/// A guest at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestStatus {
    /// Number of the socket family.
    pub family: Option<i64>,
    /// How long a call looks before it sleeps, in microseconds.
    pub spin_usec: Option<i64>,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// Connections by state.
    pub connections: BTreeMap<String, u64>,
}

/// A device at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// Its name.
    pub device: String,
    /// loopback or virtio.
    pub transport: String,
    /// Peers that are ready.
    pub peers_ready: u64,
    /// Channels that are up.
    pub channels_up: u64,
    /// Frames lent to peers.
    pub lent_frames: u64,
    /// Those of them that are in use.
    pub used_frames: u64,
    /// Doorbells sent.
    pub doorbells: i64,
    /// Messages that needed no doorbell.
    pub suppressed: i64,
    /// Channels that ended.
    pub channels_down: i64,
}

/// fgdpd at a glance.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// fgdpd's version.
    pub version: String,
    /// Version of the contract with the guests.
    pub abi: u32,
    /// Process id of the worker.
    pub worker: u32,
    /// Process id of the supervisor.
    pub supervisor: u32,
    /// How often the worker was started again.
    pub restarts: u64,
    /// Devices with a QEMU.
    pub attached: u64,
    /// The groups.
    pub groups: Vec<Group>,
}

/// A group of guests.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Size of its memory in bytes.
    pub size: u64,
    /// Lanes per channel.
    pub lanes: u32,
    /// Guests that may be in it.
    pub members: u64,
    /// How they are rung.
    pub doorbell: String,
    /// Doorbell devices that are connected.
    pub doorbell_devices: u64,
}

/// A member of a group, as the host sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The group.
    pub group: String,
    /// The guest's name.
    pub guest: String,
    /// Its id.
    pub id: String,
    /// Its slot.
    pub slot: u32,
    /// absent, attached or ready.
    pub state: String,
    /// Generation of its slot.
    pub generation: u32,
    /// The process that has the device.
    pub pid: Option<i64>,
    /// Lanes that it drains.
    pub lanes: u32,
    /// Its doorbell's id.
    pub doorbell_id: Option<i64>,
    /// Offset of its slot in the group.
    pub slot_offset: u64,
    /// Size of its slot.
    pub slot_size: u64,
    /// Addresses that it claims.
    pub addresses: Vec<String>,
    /// Addresses that it may claim.
    pub allowed: Vec<String>,
    /// Slots of the members to which it opened a channel.
    pub channels: Vec<u32>,
    /// Where its QEMU connects.
    pub socket: String,
}

/// Counters of a member of a group.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct MemberStats {
    /// The group.
    pub group: String,
    /// The guest's name.
    pub guest: String,
    /// Its id.
    pub id: String,
    /// Its slot.
    pub slot: u32,
    /// absent, attached or ready.
    pub state: String,
    /// Generation of its slot.
    pub generation: u32,
    /// The counters.
    #[serde(flatten)]
    pub counters: BTreeMap<String, serde_json::Value>,
}

/// Frames that a member lent to another.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// The group.
    pub group: String,
    /// Slot of the member whose frames they are.
    pub owner: u32,
    /// Slot of the member that may read them.
    pub peer: u32,
    /// The owner's number for them.
    pub extent: u32,
    /// How many.
    pub frames: u64,
    /// The peer knows them.
    pub accepted: bool,
    /// The owner wants them back.
    pub revoked: bool,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// A guest at a glance.
    Guest(GuestStatus),
    /// fgdpd at a glance.
    Host(HostStatus),
    /// A guest's peers.
    Peers(Vec<Peer>),
    /// Members of all groups of a host.
    Members(Vec<Member>),
    /// A guest's counters.
    Stats(Stats),
    /// Counters of all members of a host's groups.
    MemberStats(Vec<MemberStats>),
    /// Frames that members lent.
    Grants(Vec<Grant>),
    /// Devices that were cut off.
    Kicked(u64),
    /// Whether TCP connections to an address are carried.
    Explain(Explanation),
    /// A guest's connections: those of AF_FGDP and those of TCP have a key each.
    #[serde(untagged)]
    Connections(Connections),
}
