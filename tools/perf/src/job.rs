// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a client asks the server for: the first bytes of each connection.

use anyhow::{bail, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::pages::Pages;

const MAGIC: u32 = 0x4647_5046;
/// The longest message.
pub const MAX_SIZE: u32 = 64 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Bytes in one direction
    Stream,
    /// A request and an answer of the same size, one at a time
    Rr,
    /// A new connection for each request
    Connect,
}

/// One measurement, as both sides know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub mode: Mode,
    pub size: u32,
    pub busy_poll: u32,
    pub sndbuf: u32,
    pub pages: Pages,
}

/// A job's size on the wire.
pub const JOB_BYTES: usize = 24;

impl Job {
    /// As bytes.
    pub fn encode(&self) -> [u8; JOB_BYTES] {
        let words = [
            MAGIC,
            self.mode as u32,
            self.size,
            self.busy_poll,
            self.sndbuf,
            self.pages.encode(),
        ];
        let mut bytes = [0; JOB_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From bytes of a client that may be anybody.
    pub fn decode(bytes: &[u8; JOB_BYTES]) -> Result<Self> {
        let mut words = [0; JOB_BYTES / 4];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
        let [magic, mode, size, busy_poll, sndbuf, pages] = words;
        let mode = match mode {
            _ if magic != MAGIC => bail!("the client is not fgdp-perf"),
            0 => Mode::Stream,
            1 => Mode::Rr,
            2 => Mode::Connect,
            other => bail!("the client asks for the unknown mode {other}"),
        };
        if size == 0 || size > MAX_SIZE {
            bail!("the client asks for messages of {size} bytes");
        }
        Ok(Self {
            mode,
            size,
            busy_poll,
            sndbuf,
            pages: Pages::decode(pages),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_the_wire() {
        let job = Job {
            mode: Mode::Connect,
            size: 1 << 20,
            busy_poll: 50,
            sndbuf: 1 << 16,
            pages: Pages {
                lend: true,
                look: true,
                ..Pages::default()
            },
        };
        assert_eq!(Job::decode(&job.encode()).unwrap(), job);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert!(Job::decode(&[0; JOB_BYTES]).is_err());
        let mut bytes = Job {
            mode: Mode::Rr,
            size: 1,
            busy_poll: 0,
            sndbuf: 0,
            pages: Pages::default(),
        }
        .encode();
        bytes[8..12].copy_from_slice(&(MAX_SIZE + 1).to_le_bytes());
        assert!(Job::decode(&bytes).is_err());
        bytes[4] = 9;
        assert!(Job::decode(&bytes).is_err());
    }
}
