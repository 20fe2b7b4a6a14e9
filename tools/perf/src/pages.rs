// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the bytes of a stream come from, and what becomes of them.

/// How a stream is sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Pages {
    /// Send from memory that the socket lends (MSG_ZEROCOPY); fgdp, and tcp that is carried
    #[arg(long)]
    pub lend: bool,
    /// Receive in a mapping of what was lent; fgdp, and tcp that is carried
    #[arg(long)]
    pub window: bool,
    /// The receiver reads each line of 64 bytes
    #[arg(long)]
    pub look: bool,
    /// The receiver writes to each line of 64 bytes
    #[arg(long, conflicts_with = "look")]
    pub write: bool,
    /// Each message is in memory that is mapped for it, filled and sent once
    #[arg(long)]
    pub fresh: bool,
    /// All of a message is written before it is sent
    #[arg(long, conflicts_with = "fresh")]
    pub rewrite: bool,
    /// Send a file in memory by sendfile(2)
    #[arg(long, conflicts_with_all = ["lend", "fresh", "rewrite"])]
    pub sendfile: bool,
    /// Send a file in memory by splice(2) through a pipe
    #[arg(long, conflicts_with_all = ["lend", "fresh", "rewrite", "sendfile"])]
    pub splice: bool,
}

impl Pages {
    /// As a word on the wire.
    pub fn encode(self) -> u32 {
        let bits = [
            self.lend,
            self.window,
            self.look,
            self.write,
            self.fresh,
            self.rewrite,
            self.sendfile,
            self.splice,
        ];
        (0..)
            .zip(bits)
            .fold(0, |word, (n, bit)| word | (u32::from(bit) << n))
    }

    /// The reverse of [`Pages::encode`].
    pub fn decode(word: u32) -> Self {
        let bit = |n: u32| (word >> n) & 1 != 0;
        Self {
            lend: bit(0),
            window: bit(1),
            look: bit(2),
            write: bit(3),
            fresh: bit(4),
            rewrite: bit(5),
            sendfile: bit(6),
            splice: bit(7),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_survives_the_wire() {
        for n in 0..8 {
            assert_eq!(Pages::decode(1 << n).encode(), 1 << n);
        }
        assert_eq!(Pages::decode(0), Pages::default());
    }
}
