// SPDX-License-Identifier: GPL-2.0

//! The connections that were taken, found by their ends.

use super::Path;
use crate::proto::stream::Endpoint;
use crate::sys::random::random;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Chains: a power of two, so that a chain is short with all the connections that there may be.
const CHAINS: usize = 4096;

/// Connections that are taken at once.
const MAX_PATHS: usize = 16384;

/// Chains of connections whose ends have the same hash. A secret goes into the hash: peers choose
/// ports.
pub(super) struct Table {
    chains: KVVec<KVec<Arc<Path>>>,
    secret: u64,
    count: usize,
}

impl Table {
    /// No connection. Sleeps.
    pub(super) fn new() -> Result<Self> {
        let mut chains = KVVec::with_capacity(CHAINS, GFP_KERNEL)?;
        for _ in 0..CHAINS {
            chains.push(KVec::new(), GFP_KERNEL)?;
        }
        Ok(Self {
            chains,
            secret: random(),
            count: 0,
        })
    }

    fn place(&self, ends: &Endpoint) -> usize {
        let mut hash = self.secret ^ u64::from(ends.port) ^ u64::from(ends.peer_port) << 16;
        for bytes in Iterator::chain(ends.addr.chunks(4), ends.peer_addr.chunks(4)) {
            let word = bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b));
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        hash as usize % CHAINS
    }

    /// Puts `path` in; false if there are too many, or there is no memory. Any context.
    pub(super) fn insert(&mut self, path: &Arc<Path>) -> bool {
        let at = self.place(&path.ends);
        let Some(chain) = self.chains.get_mut(at) else {
            return false;
        };
        if self.count >= MAX_PATHS || chain.push(path.clone(), GFP_ATOMIC).is_err() {
            return false;
        }
        self.count += 1;
        true
    }

    /// Takes `path` out. Any context.
    pub(super) fn remove(&mut self, path: &Path) -> Option<Arc<Path>> {
        let at = self.place(&path.ends);
        let chain = self.chains.get_mut(at)?;
        let at = chain.iter().position(|p| core::ptr::eq(&**p, path))?;
        self.count = self.count.saturating_sub(1);
        chain.remove(at).ok()
    }

    /// The connection with these ends, whatever their sequence numbers, for which `f` holds.
    pub(super) fn find(&self, ends: &Endpoint, f: impl Fn(&Path) -> bool) -> Option<Arc<Path>> {
        let chain = self.chains.get(self.place(ends))?;
        let same = |own: &Endpoint| {
            (own.port, own.peer_port) == (ends.port, ends.peer_port)
                && (own.addr, own.peer_addr) == (ends.addr, ends.peer_addr)
        };
        chain.iter().find(|p| same(&p.ends) && f(p)).cloned()
    }

    /// Chains, for who looks at all connections: each from its end, as what is taken out moves
    /// those behind it.
    pub(super) fn chains(&self) -> usize {
        self.chains.len()
    }

    /// How many connections are in chain `chain`.
    pub(super) fn chain_len(&self, chain: usize) -> usize {
        self.chains.get(chain).map_or(0, |c| c.len())
    }

    /// The connection at place `at` of chain `chain`.
    pub(super) fn get(&self, chain: usize, at: usize) -> Option<Arc<Path>> {
        self.chains.get(chain)?.get(at).cloned()
    }
}
