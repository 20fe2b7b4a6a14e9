// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The receiving end.

use std::io::Read;
use std::ops::Deref;

use anyhow::{Context, Result};
use fgdp::{Granted, Next, Stream, Window};
use nix::poll::PollFlags;

use super::wait;

/// Bytes that are read at once where they cannot be shown.
const BUFFER: usize = 256 << 10;

/// Reads a stream: what is granted where it is, the rest into a buffer.
pub struct Incoming<'a> {
    stream: &'a Stream,
    window: Option<Window<'a>>,
    buffer: Vec<u8>,
    /// Bytes that were read where they are.
    pub in_place: u64,
    /// Bytes that were copied.
    pub copied: u64,
}

/// Bytes of the stream, of which there are some.
pub enum Piece<'p> {
    /// In the peer's memory. They are given back when this is dropped.
    Shown(Granted<'p>),
    /// Copied from it.
    Read(&'p [u8]),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shown(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

impl<'a> Incoming<'a> {
    /// What comes by `stream`. Without a window, or without leave to map one, everything is copied.
    pub fn new(stream: &'a Stream, in_place: bool) -> Self {
        let window = in_place.then(|| Window::new(stream));
        let window = window.and_then(|window| {
            window
                .inspect_err(|error| eprintln!("no window, so bytes are copied: {error}"))
                .ok()
        });
        Self {
            stream,
            window,
            buffer: vec![0; BUFFER],
            in_place: 0,
            copied: 0,
        }
    }

    /// Waits for the next bytes. Of those that are copied it takes `most` at most; what is granted comes as it is.
    /// `None` at the end.
    pub fn next(&mut self, most: usize) -> Result<Option<Piece<'_>>> {
        let mut most = most.min(self.buffer.len());
        let mut waited = false;
        while let Some(window) = &self.window {
            match window.next().context("what is next")? {
                Next::Granted(bytes) => {
                    self.in_place += bytes.len() as u64;
                    return Ok(Some(Piece::Shown(bytes)));
                }
                Next::Copied(n) => most = most.min(n),
                Next::Nothing if !waited => {
                    wait(self.stream, PollFlags::POLLIN)?;
                    waited = true;
                    continue;
                }
                // Still nothing: the end, as a rule.
                Next::Nothing => {}
            }
            break;
        }
        let mut stream = self.stream;
        let n = loop {
            match stream.read(&mut self.buffer[..most]) {
                Ok(n) => break n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("recv"),
            }
        };
        self.copied += n as u64;
        Ok((n > 0).then(|| Piece::Read(&self.buffer[..n])))
    }
}
