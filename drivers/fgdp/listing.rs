// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/fgdp/`: connections, peers and counters for people and scripts.
//!
//! Columns are separated by blanks and named by the first line; what is not known is `-`. A device
//! is called `fgdp` and its number in the order of attachment.

use crate::addr::{Addr, GuestId};
use crate::inet::{TcpConnections, TcpEnd};
use crate::proto::wire::{Kind, PeerState};
use crate::snapshot::{Connections, Peers, Snapshots, Stats};
use crate::stack::Stack;
use crate::sys::proc::{Dir, File, Listing};
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::Arc;

/// All listings of the module.
pub(crate) struct Listings {
    _connections: File<Connections>,
    _peers: File<Peers>,
    _stats: File<Stats>,
    _tcp: File<TcpConnections>,
}

impl Listings {
    /// Makes `stack` readable.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(stack: &Arc<Stack>) -> Result<Self> {
        let dir = Dir::new(c"fgdp")?;
        let connections = Arc::new(Connections(stack.clone()), GFP_KERNEL)?;
        let peers = Arc::new(Peers(stack.clone()), GFP_KERNEL)?;
        let stats = Arc::new(Stats(stack.clone()), GFP_KERNEL)?;
        let tcp = Arc::new(TcpConnections(stack.clone()), GFP_KERNEL)?;
        Ok(Self {
            _connections: File::new(&dir, c"connections", connections)?,
            _peers: File::new(&dir, c"peers", peers)?,
            _stats: File::new(&dir, c"stats", stats)?,
            _tcp: File::new(&dir, c"tcp", tcp)?,
        })
    }
}

/// A guest id as UUID.
struct Uuid(GuestId);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0 .0.iter().enumerate() {
            let dash = if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
            f.write_fmt(fmt!("{dash}{byte:02x}"))?;
        }
        Ok(())
    }
}

/// `guest:port`.
struct Endpoint(Addr);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}:{}", Uuid(self.0.guest), self.0.port))
    }
}

/// A number that is not always known.
struct Known(Option<u32>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => f.write_fmt(fmt!("{n}")),
            None => f.write_str("-"),
        }
    }
}

/// A name that the host gave: what would break a column, or a terminal, becomes `?`.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for byte in self.0 {
            let shown = if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '?'
            };
            f.write_fmt(fmt!("{shown}"))?;
        }
        Ok(())
    }
}

/// An IPv4 or IPv6 address.
struct Address<'a>(&'a [u8; 16]);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] = self.0 {
            return f.write_fmt(fmt!("{a}.{b}.{c}.{d}"));
        }
        for (n, word) in self.0.chunks_exact(2).enumerate() {
            let sep = if n == 0 { "" } else { ":" };
            let word = word.iter().fold(0u16, |w, b| w << 8 | u16::from(*b));
            f.write_fmt(fmt!("{sep}{word:x}"))?;
        }
        Ok(())
    }
}

/// Addresses with commas between them.
struct Addresses<'a>(&'a [[u8; 16]]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (n, addr) in self.0.iter().enumerate() {
            let sep = if n == 0 { "" } else { "," };
            f.write_fmt(fmt!("{sep}{}", Address(addr)))?;
        }
        Ok(())
    }
}

impl Listing for Connections {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "device id peer_id state type local remote rx_bytes tx_bytes readable unacked tx_ring \
             rx_waits tx_waits\n"
        );
    }

    fn seek(&self, at: u64) -> Option<u64> {
        Snapshots::seek(self, at)
    }

    fn show(&self, at: u64, out: &SeqFile) {
        let Some(entry) = self.get(at) else {
            return;
        };
        let state = entry.state.name();
        let (readable, unacked) = (entry.readable, entry.unacked);
        let kind = match entry.kind {
            Some(Kind::Stream) => "stream",
            Some(Kind::SeqPacket) => "seqpacket",
            None => "tcp",
        };
        let Some(ends) = entry.ends else {
            let port = entry.port;
            seq_print!(
                out,
                "- - - {state} {kind} *:{port} - 0 0 {readable} {unacked} 0 0 0\n"
            );
            return;
        };
        seq_print!(
            out,
            "fgdp{} {} {} {} {} {} {} {} {} {} {} {} {} {}\n",
            ends.device,
            ends.id,
            Known(ends.peer_id),
            state,
            kind,
            Endpoint(ends.local),
            Endpoint(ends.remote),
            ends.rx_bytes,
            ends.tx_bytes,
            readable,
            unacked,
            ends.tx_ring,
            ends.rx_waits,
            ends.tx_waits
        );
    }
}

impl Listing for Peers {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "device transport slot guest name addresses state generation channel lanes \
             lent_frames used_frames accepted_frames last_down\n"
        );
    }

    fn seek(&self, at: u64) -> Option<u64> {
        Snapshots::seek(self, at)
    }

    fn show(&self, at: u64, out: &SeqFile) {
        let Some(peer) = self.get(at) else {
            return;
        };
        let state = match peer.dir.state {
            PeerState::Absent => "absent",
            PeerState::Attached => "attached",
            PeerState::Ready => "ready",
        };
        seq_print!(
            out,
            "fgdp{} {} {} {} {} {} {} {} {} {} {} {} {} {}\n",
            peer.device,
            Name(peer.transport.to_bytes()),
            peer.slot,
            Uuid(peer.guest()),
            Name(peer.name()),
            Addresses(peer.dir.addrs()),
            state,
            peer.dir.generation,
            if peer.channel_up { "up" } else { "down" },
            peer.lanes,
            peer.lent_frames,
            peer.used_frames,
            peer.accepted_frames,
            peer.last_down.name()
        );
    }
}

impl fmt::Display for TcpEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (addr, port) = (Address(&self.addr), self.port);
        match self.addr {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..] => f.write_fmt(fmt!("{addr}:{port}")),
            _ => f.write_fmt(fmt!("[{addr}]:{port}")),
        }
    }
}

impl Listing for TcpConnections {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "device slot cookie local remote opened sends receives ring_rx_bytes ring_tx_bytes \
             tcp_rx_bytes tcp_tx_bytes reason\n"
        );
    }

    fn seek(&self, at: u64) -> Option<u64> {
        Snapshots::seek(self, at)
    }

    fn show(&self, at: u64, out: &SeqFile) {
        let Some(tcp) = self.get(at) else {
            return;
        };
        seq_print!(
            out,
            "fgdp{} {} {:x} {} {} {} {} {} {} {} {} {} {}\n",
            tcp.device,
            tcp.slot,
            tcp.cookie,
            tcp.local,
            tcp.remote,
            if tcp.active { "here" } else { "there" },
            tcp.sends.name(),
            tcp.receives.name(),
            tcp.ring_rx_bytes,
            tcp.ring_tx_bytes,
            tcp.tcp_rx_bytes,
            tcp.tcp_tx_bytes,
            tcp.why.map_or("-", |why| why.name())
        );
    }
}

impl Listing for Stats {
    fn header(&self, out: &SeqFile) {
        seq_print!(out, "counter value\n");
    }

    fn seek(&self, at: u64) -> Option<u64> {
        Snapshots::seek(self, at)
    }

    fn show(&self, at: u64, out: &SeqFile) {
        let Some(stat) = self.get(at) else {
            return;
        };
        match stat.device {
            Some(device) => seq_print!(out, "fgdp{device}"),
            None => seq_print!(out, "module"),
        }
        seq_print!(out, ".{}{} {}\n", stat.prefix, stat.name, stat.value);
    }
}
