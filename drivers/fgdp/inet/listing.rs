// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/fgdp/tcp`: TCP connections to peers, which way their bytes go, and why they do not go through rings.

use super::{Inet, Path};
use crate::proto::stream::{Source, TxPath};
use crate::stack::Stack;
use crate::sys::proc::Listing;
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;

/// TCP connections that were taken and not left.
pub(crate) struct TcpConnections(pub(crate) Arc<Stack>);

/// Places in one chain of the table; what is behind is not shown.
const CHAIN: u64 = 1 << 16;

impl TcpConnections {
    fn at(&self, inet: &Inet, at: u64) -> Option<Arc<Path>> {
        let (chain, place) = (at / CHAIN, at % CHAIN);
        inet.paths
            .lock()
            .get(usize::try_from(chain).ok()?, usize::try_from(place).ok()?)
    }
}

/// An address and a port, as `ss` shows them.
struct End<'a>(&'a [u8; 16], u16);

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] = self.0 {
            return f.write_fmt(fmt!("{a}.{b}.{c}.{d}:{}", self.1));
        }
        for (n, word) in self.0.chunks_exact(2).enumerate() {
            let sep = if n == 0 { "[" } else { ":" };
            let word = word.iter().fold(0u16, |w, b| w << 8 | u16::from(*b));
            f.write_fmt(fmt!("{sep}{word:x}"))?;
        }
        f.write_fmt(fmt!("]:{}", self.1))
    }
}

fn sends(path: TxPath) -> &'static str {
    match path {
        TxPath::Tcp | TxPath::Back => "tcp",
        TxPath::Ring => "ring",
        TxPath::Stray | TxPath::Wait | TxPath::Rest(_) => "between",
        TxPath::Reset => "reset",
    }
}

fn receives(source: Source) -> &'static str {
    match source {
        Source::Tcp | Source::Back => "tcp",
        Source::Ring(_) | Source::End => "ring",
        Source::TcpUntil(_) | Source::Stop => "between",
        Source::Reset => "reset",
    }
}

impl Listing for TcpConnections {
    fn header(&self, out: &SeqFile) {
        seq_print!(
            out,
            "slot local remote opened sends receives ring_rx_bytes ring_tx_bytes reason\n"
        );
    }

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

    fn show(&self, at: u64, out: &SeqFile) {
        let Some(path) = self.0.inet().and_then(|inet| self.at(&inet, at)) else {
            return;
        };
        let Some(sk) = path.sk() else {
            return;
        };
        let (rx, tx) = path.conn().map_or((0, 0), |conn| {
            let c = &conn.counters;
            (c.rx_bytes.load(Relaxed), c.tx_bytes.load(Relaxed))
        });
        seq_print!(
            out,
            "{} {} {} {} {} {} {} {} {}\n",
            path.peer,
            End(&path.ends.addr, path.ends.port),
            End(&path.ends.peer_addr, path.ends.peer_port),
            if path.active { "here" } else { "there" },
            sends(path.tx_path(&sk)),
            receives(path.source(&sk)),
            rx,
            tx,
            path.why().map_or("-", |why| why.name())
        );
    }
}
