// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `fgdp`: the listings for programs (`include/uapi/linux/fgdp.h`).

use crate::inet::{TcpConnections, TcpEntry};
use crate::proto::wire::Kind;
use crate::snapshot::{ConnEntry, Connections, PeerEntry, Peers, Snapshots, StatEntry, Stats};
use crate::stack::Stack;
use crate::sys::genl::{Family, Message};
use crate::sys::net::consts::{SOCK_SEQPACKET, SOCK_STREAM};
use crate::sys::uapi::*;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What the commands dump.
pub(crate) struct Netlink {
    connections: Connections,
    peers: Peers,
    stats: Stats,
    tcp: TcpConnections,
}

impl Netlink {
    /// Dumps `stack`.
    pub(crate) fn new(stack: &Arc<Stack>) -> Self {
        Self {
            connections: Connections(stack.clone()),
            peers: Peers(stack.clone()),
            stats: Stats(stack.clone()),
            tcp: TcpConnections(stack.clone()),
        }
    }
}

impl Family for Netlink {
    const NAME: &'static CStr = c"fgdp";
    const VERSION: u32 = FGDP_GENL_VERSION;
    const COMMANDS: &'static [u8] = &[
        CMD_GET_CONNECTIONS,
        CMD_GET_PEERS,
        CMD_GET_STATS,
        CMD_GET_TCP,
    ];

    fn seek(&self, cmd: u8, at: u64) -> Option<u64> {
        match cmd {
            CMD_GET_CONNECTIONS => self.connections.seek(at),
            CMD_GET_PEERS => self.peers.seek(at),
            CMD_GET_STATS => self.stats.seek(at),
            CMD_GET_TCP => self.tcp.seek(at),
            _ => None,
        }
    }

    fn fill(&self, cmd: u8, at: u64, msg: &mut Message) -> Result {
        match cmd {
            CMD_GET_CONNECTIONS => self
                .connections
                .get(at)
                .map_or(Ok(()), |e| connection(&e, msg)),
            CMD_GET_PEERS => self.peers.get(at).map_or(Ok(()), |e| peer(&e, msg)),
            CMD_GET_STATS => self.stats.get(at).map_or(Ok(()), |e| stat(&e, msg)),
            CMD_GET_TCP => self.tcp.get(at).map_or(Ok(()), |e| tcp(&e, msg)),
            _ => Ok(()),
        }
    }
}

fn connection(entry: &ConnEntry, msg: &mut Message) -> Result {
    msg.u32(A_CONN_STATE, entry.state as u32)?;
    let kind = match entry.kind {
        Some(Kind::Stream) => SOCK_STREAM,
        Some(Kind::SeqPacket) => SOCK_SEQPACKET,
        None => 0,
    };
    msg.u32(A_CONN_TYPE, kind)?;
    msg.u32(A_CONN_LOCAL_PORT, entry.port)?;
    msg.u32(A_CONN_READABLE, entry.readable)?;
    msg.u32(A_CONN_UNACKED, entry.unacked)?;
    let Some(ends) = &entry.ends else {
        return Ok(());
    };
    msg.u32(A_CONN_DEVICE, ends.device)?;
    msg.u32(A_CONN_ID, ends.id)?;
    if let Some(id) = ends.peer_id {
        msg.u32(A_CONN_PEER_ID, id)?;
    }
    msg.bytes(A_CONN_LOCAL_GUEST, &ends.local.guest.0)?;
    msg.bytes(A_CONN_REMOTE_GUEST, &ends.remote.guest.0)?;
    msg.u32(A_CONN_REMOTE_PORT, ends.remote.port)?;
    msg.uint(A_CONN_RX_BYTES, ends.rx_bytes)?;
    msg.uint(A_CONN_TX_BYTES, ends.tx_bytes)?;
    msg.u32(A_CONN_TX_RING, ends.tx_ring)?;
    msg.uint(A_CONN_RX_WAITS, ends.rx_waits)?;
    msg.uint(A_CONN_TX_WAITS, ends.tx_waits)
}

/// The host's names are for people: what would disturb a terminal becomes `?`.
fn name(attr: u32, name: &[u8], msg: &mut Message) -> Result {
    let mut shown = [0u8; 33];
    for (to, from) in shown.iter_mut().zip(name.iter().take(32)) {
        *to = if from.is_ascii_graphic() { *from } else { b'?' };
    }
    match CStr::from_bytes_until_nul(&shown) {
        Ok(shown) if !shown.is_empty() => msg.string(attr, shown),
        _ => Ok(()),
    }
}

fn peer(entry: &PeerEntry, msg: &mut Message) -> Result {
    msg.u32(A_PEER_DEVICE, entry.device)?;
    msg.string(A_PEER_TRANSPORT, entry.transport)?;
    msg.u32(A_PEER_SLOT, entry.slot)?;
    msg.bytes(A_PEER_GUEST, &entry.guest().0)?;
    name(A_PEER_NAME, entry.name(), msg)?;
    msg.u32(A_PEER_STATE, entry.dir.state as u32)?;
    msg.u32(A_PEER_GENERATION, entry.dir.generation)?;
    msg.u32(A_PEER_CHANNEL_UP, entry.channel_up.into())?;
    msg.u32(A_PEER_LANES, entry.lanes)?;
    msg.uint(A_PEER_LENT_FRAMES, entry.lent_frames)?;
    msg.uint(A_PEER_USED_FRAMES, entry.used_frames)?;
    msg.uint(A_PEER_ACCEPTED_FRAMES, entry.accepted_frames)?;
    msg.u32(A_PEER_LAST_DOWN, entry.last_down.as_u32())?;
    for addr in entry.dir.addrs() {
        msg.bytes(A_PEER_ADDR, addr)?;
    }
    Ok(())
}

fn stat(entry: &StatEntry, msg: &mut Message) -> Result {
    if let Some(device) = entry.device {
        msg.u32(A_STAT_DEVICE, device)?;
    }
    let mut text = [0u8; 40];
    let bytes = Iterator::chain(entry.prefix.bytes(), entry.name.bytes());
    for (to, from) in text.iter_mut().take(39).zip(bytes) {
        *to = from;
    }
    let text = CStr::from_bytes_until_nul(&text).map_err(|_| EINVAL)?;
    msg.string(A_STAT_NAME, text)?;
    msg.uint(A_STAT_VALUE, entry.value)
}

fn tcp(entry: &TcpEntry, msg: &mut Message) -> Result {
    msg.u32(A_TCP_DEVICE, entry.device)?;
    msg.u32(A_TCP_SLOT, entry.slot)?;
    msg.uint(A_TCP_COOKIE, entry.cookie)?;
    msg.bytes(A_TCP_LOCAL_ADDR, &entry.local.addr)?;
    msg.u32(A_TCP_LOCAL_PORT, entry.local.port.into())?;
    msg.bytes(A_TCP_REMOTE_ADDR, &entry.remote.addr)?;
    msg.u32(A_TCP_REMOTE_PORT, entry.remote.port.into())?;
    msg.u32(A_TCP_ACTIVE, entry.active.into())?;
    msg.u32(A_TCP_SENDS, entry.sends as u32)?;
    msg.u32(A_TCP_RECEIVES, entry.receives as u32)?;
    msg.uint(A_TCP_RING_RX_BYTES, entry.ring_rx_bytes)?;
    msg.uint(A_TCP_RING_TX_BYTES, entry.ring_tx_bytes)?;
    msg.uint(A_TCP_RX_BYTES, entry.tcp_rx_bytes)?;
    msg.uint(A_TCP_TX_BYTES, entry.tcp_tx_bytes)?;
    msg.u32(A_TCP_REASON, entry.why.map_or(0, |why| why as u32))
}
