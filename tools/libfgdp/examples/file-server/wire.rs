// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes over the connection.
//!
//! A request is the line `GET NAME OFFSET LENGTH`. The answer is a head, then the bytes: as many as were asked for, but no more
//! than are left of the block that they begin in, and none at the end of the file.

use std::io;

use anyhow::{bail, Context, Result};

/// Bytes of a block, whose places in a file are multiples of it.
pub const BLOCK: u32 = 256 << 10;

/// Bytes of a request at most.
pub const LINE_MAX: u64 = 512;

/// Asks for some bytes.
pub struct Request {
    /// A file of the server's directory.
    pub name: String,
    /// Where the bytes begin in it.
    pub offset: u64,
    /// How many there are at most.
    pub length: u32,
}

impl Request {
    /// The line.
    pub fn line(&self) -> String {
        format!("GET {} {} {}\n", self.name, self.offset, self.length)
    }

    /// What a line says. Names have no slash in them: they are in one directory.
    pub fn parse(line: &str) -> Result<Self> {
        let words = line
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix("GET "));
        let mut words = words.context("no request")?.rsplitn(3, ' ');
        let (length, offset, name) = (words.next(), words.next(), words.next());
        let name = name.context("a request without a name")?;
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            bail!("'{name}' is no name of a file");
        }
        Ok(Self {
            name: name.to_owned(),
            offset: offset.unwrap_or_default().parse().context("offset")?,
            length: length.unwrap_or_default().parse().context("length")?,
        })
    }
}

/// What comes before the bytes.
#[derive(Clone, Copy)]
pub struct Head {
    /// 0, or the number of an error: then there are no bytes.
    pub error: u32,
    /// Bytes that follow.
    pub length: u32,
    /// Their CRC-32.
    pub sum: u32,
}

impl Head {
    /// Bytes of a head.
    pub const LEN: usize = 12;

    /// An answer without bytes.
    pub fn failure(error: &io::Error) -> Self {
        let error = error.raw_os_error().and_then(|n| n.try_into().ok());
        Self {
            error: error.unwrap_or(nix::libc::EIO as u32),
            length: 0,
            sum: 0,
        }
    }

    /// As it goes over the connection.
    pub fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (to, word) in bytes
            .chunks_exact_mut(4)
            .zip([self.error, self.length, self.sum])
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What bytes say.
    pub fn parse(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            error: u32::from_le_bytes([a, b, c, d]),
            length: u32::from_le_bytes([e, f, g, h]),
            sum: u32::from_le_bytes([i, j, k, l]),
        }
    }
}
