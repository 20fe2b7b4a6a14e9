// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The proposal to carry a TCP connection.

use super::msg::MSG_WORDS;
use super::reason::Reason;

/// `struct fgdp_msg_carry`: names a TCP connection between two guests, as its
/// active opener sees it (T-2). Addresses are IPv6, or IPv4 as
/// `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// The sender's connection id.
    pub peer_conn: u32,
    /// The sender's address.
    pub src_addr: [u8; 16],
    /// The receiver's address.
    pub dst_addr: [u8; 16],
    /// The sender's port.
    pub src_port: u16,
    /// The receiver's port.
    pub dst_port: u16,
    /// TCP sequence number of the first byte that the sender sent.
    pub src_isn: u32,
    /// TCP sequence number of the first byte that the receiver sent.
    pub dst_isn: u32,
}

/// The four words of an address, as they lie in memory.
fn addr_words(addr: &[u8; 16]) -> [u32; 4] {
    let mut words = [0u32; 4];
    for (word, bytes) in words.iter_mut().zip(addr.chunks_exact(4)) {
        *word = bytes
            .iter()
            .rev()
            .fold(0, |sum, b| (sum << 8) | u32::from(*b));
    }
    words
}

fn addr_bytes(words: [u32; 4]) -> [u8; 16] {
    let mut addr = [0u8; 16];
    for (bytes, word) in addr.chunks_exact_mut(4).zip(words) {
        for (to, from) in bytes.iter_mut().zip(word.to_le_bytes()) {
            *to = from;
        }
    }
    addr
}

impl Carry {
    /// The words of the message behind its type.
    pub(super) fn encode(&self, first: u32) -> [u32; MSG_WORDS] {
        let [s0, s1, s2, s3] = addr_words(&self.src_addr);
        let [d0, d1, d2, d3] = addr_words(&self.dst_addr);
        [
            first,
            0,
            self.peer_conn,
            u32::from(self.src_port),
            u32::from(self.dst_port),
            self.src_isn,
            self.dst_isn,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            0,
        ]
    }

    /// Validates the private copy of the message's words.
    pub(super) fn decode(words: &[u32; MSG_WORDS]) -> Result<Self, Reason> {
        let [_, _, peer_conn, src_port, dst_port, src_isn, dst_isn, addrs @ .., _] = *words;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addrs;
        let port = |word: u32| u16::try_from(word).map_err(|_| Reason::BadMsg);
        Ok(Self {
            peer_conn,
            src_addr: addr_bytes([s0, s1, s2, s3]),
            dst_addr: addr_bytes([d0, d1, d2, d3]),
            src_port: port(src_port)?,
            dst_port: port(dst_port)?,
            src_isn,
            dst_isn,
        })
    }
}
