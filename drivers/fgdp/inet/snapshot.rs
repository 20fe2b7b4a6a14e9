// SPDX-License-Identifier: GPL-2.0

//! What listings show of TCP connections to peers: which way their bytes go, and why not through
//! rings.

use super::{Inet, Path, Why};
use crate::proto::stream::{Source, TxPath};
use crate::snapshot::Snapshots;
use crate::stack::Stack;
use kernel::sync::Arc;

/// `enum fgdp_tcp_way`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Way {
    Tcp = 1,
    Ring = 2,
    Between = 3,
    Reset = 4,
}

impl Way {
    fn sent(path: TxPath) -> Self {
        match path {
            TxPath::Tcp | TxPath::Back => Self::Tcp,
            TxPath::Ring => Self::Ring,
            TxPath::Stray | TxPath::Wait | TxPath::Rest(_) => Self::Between,
            TxPath::Reset => Self::Reset,
        }
    }

    fn received(source: Source) -> Self {
        match source {
            Source::Tcp | Source::Back => Self::Tcp,
            Source::Ring(_) | Source::End => Self::Ring,
            Source::TcpUntil(_) | Source::Stop => Self::Between,
            Source::Reset => Self::Reset,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ring => "ring",
            Self::Between => "between",
            Self::Reset => "reset",
        }
    }
}

/// An address and a port.
pub(crate) struct TcpEnd {
    pub(crate) addr: [u8; 16],
    pub(crate) port: u16,
}

/// A TCP connection to a peer.
pub(crate) struct TcpEntry {
    pub(crate) device: u32,
    pub(crate) slot: u32,
    pub(crate) cookie: u64,
    pub(crate) local: TcpEnd,
    pub(crate) remote: TcpEnd,
    /// It was opened here.
    pub(crate) active: bool,
    pub(crate) sends: Way,
    pub(crate) receives: Way,
    pub(crate) ring_rx_bytes: u64,
    pub(crate) ring_tx_bytes: u64,
    pub(crate) tcp_rx_bytes: u64,
    pub(crate) tcp_tx_bytes: u64,
    pub(crate) why: Option<Why>,
}

/// TCP connections that were taken and not left.
pub(crate) struct TcpConnections(pub(crate) Arc<Stack>);

/// Places in one chain of the table; what is behind is not shown.
const CHAIN: u64 = 1 << 16;

fn path_at(inet: &Inet, at: u64) -> Option<Arc<Path>> {
    let (chain, place) = (at / CHAIN, at % CHAIN);
    let paths = inet.paths.lock();
    paths.get(usize::try_from(chain).ok()?, usize::try_from(place).ok()?)
}

impl Snapshots for TcpConnections {
    type Entry = TcpEntry;

    fn seek(&self, at: u64) -> Option<u64> {
        let inet = self.0.inet()?;
        let chains = inet.paths.lock().chains() as u64;
        let (first, mut from) = (at / CHAIN, at % CHAIN);
        for chain in first..chains {
            let len = inet.paths.lock().chain_len(usize::try_from(chain).ok()?) as u64;
            if from < len.min(CHAIN) {
                return Some(chain * CHAIN + from);
            }
            from = 0;
        }
        None
    }

    fn get(&self, at: u64) -> Option<TcpEntry> {
        let path = path_at(&*self.0.inet()?, at)?;
        let sk = path.sk()?;
        let ring = path.bytes();
        let (tcp_rx_bytes, tcp_tx_bytes) = sk.bytes();
        let ends = &path.ends;
        Some(TcpEntry {
            device: self.0.number(&path.device).unwrap_or(u32::MAX),
            slot: path.peer,
            cookie: sk.cookie(),
            local: TcpEnd {
                addr: ends.addr,
                port: ends.port,
            },
            remote: TcpEnd {
                addr: ends.peer_addr,
                port: ends.peer_port,
            },
            active: path.active,
            sends: Way::sent(path.tx_path(&sk)),
            receives: Way::received(path.source(&sk)),
            ring_rx_bytes: ring.received,
            ring_tx_bytes: ring.sent,
            tcp_rx_bytes,
            tcp_tx_bytes,
            why: path.why(),
        })
    }
}
