// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sending end.

use std::io::{ErrorKind, Write};
use std::ops::{Deref, DerefMut, Range};

use anyhow::{ensure, Context, Result};
use fgdp::{Memory, Stream};
use nix::poll::PollFlags;

use super::wait;

/// The memory that is sent from.
enum Store {
    /// The peer reads it where it is.
    Lent(Memory),
    /// It is copied.
    Own(Vec<u8>),
}

/// Calls that sent a part of the memory: the first, and how many. They are complete when the peer has given the part back.
#[derive(Clone, Copy, Default)]
pub struct Span {
    first: u32,
    count: u32,
}

impl Span {
    fn has(self, call: u32) -> bool {
        call.wrapping_sub(self.first) < self.count
    }
}

/// Memory, and the stream that parts of it are sent by.
pub struct Outgoing<'a> {
    stream: &'a Stream,
    store: Store,
    calls: u32,
    /// Numbers of calls that are not complete: 128 at most.
    under_way: Vec<u32>,
    /// Pages are given away instead of lent.
    give: bool,
    /// Calls that are complete and granted something.
    pub granted: u64,
}

impl<'a> Outgoing<'a> {
    /// Up to `len` bytes of memory: as many as can be lent, but `least`, which are copied if they cannot be lent. Of both
    /// `len` has to be a multiple.
    pub fn new(stream: &'a Stream, len: usize, least: usize) -> Self {
        let mut len = len;
        let mut store = None;
        if len > 0 {
            match fgdp::enable(stream) {
                Ok(()) => {
                    while store.is_none() && len >= least {
                        match Memory::new(stream, len) {
                            Ok(memory) => store = Some(Store::Lent(memory)),
                            // Fewer frames may be there.
                            Err(error) if error.raw_os_error() == Some(nix::libc::ENOMEM) => {
                                len = len / 2 / least * least;
                            }
                            Err(error) => {
                                eprintln!("no memory is lent, so bytes are copied: {error}");
                                break;
                            }
                        }
                    }
                }
                Err(error) => eprintln!("nothing is granted, so bytes are copied: {error}"),
            }
        }
        Self {
            stream,
            store: store.unwrap_or_else(|| Store::Own(vec![0; least])),
            calls: 0,
            under_way: Vec::new(),
            give: false,
            granted: 0,
        }
    }

    /// Gives pages away from now on: what was sent is not in the memory any more.
    #[allow(dead_code)] // not in every example
    pub fn give(&mut self) {
        self.give = true;
    }

    /// Sends a part of the memory, all of it.
    pub fn send(&mut self, part: Range<usize>) -> Result<Span> {
        let first = self.calls;
        let Range { mut start, end } = part;
        let mut stream = self.stream;
        while start < end {
            let sent = match &mut self.store {
                Store::Own(bytes) => stream.write(&bytes[start..end]),
                Store::Lent(memory) if self.give => {
                    fgdp::give(self.stream, &mut memory[start..end])
                }
                Store::Lent(memory) => fgdp::send(self.stream, &memory[start..end]),
            };
            match sent {
                Ok(n) => {
                    start += n;
                    if matches!(self.store, Store::Lent(_)) {
                        self.under_way.push(self.calls);
                        self.calls = self.calls.wrapping_add(1);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(nix::libc::ENOBUFS) => self.wait()?,
                    // The module knows of lending only.
                    Some(nix::libc::EINVAL) if self.give => self.give = false,
                    _ if error.kind() == ErrorKind::Interrupted => {}
                    _ => return Err(error).context("send"),
                },
            }
        }
        let count = self.calls.wrapping_sub(first);
        Ok(Span { first, count })
    }

    /// Looks which calls are complete; how many.
    pub fn settle(&mut self) -> Result<usize> {
        // Only sends from lent memory are told to be.
        if matches!(self.store, Store::Own(_)) {
            return Ok(0);
        }
        let before = self.under_way.len();
        while let Some(done) = fgdp::completion(self.stream).context("error queue")? {
            let count = done.last.wrapping_sub(done.first).wrapping_add(1);
            let calls = Span {
                first: done.first,
                count,
            };
            self.under_way.retain(|call| !calls.has(*call));
            self.granted += if done.copied { 0 } else { count.into() };
        }
        Ok(before - self.under_way.len())
    }

    /// Waits until some calls are complete.
    fn wait(&mut self) -> Result<()> {
        if self.settle()? == 0 {
            wait(self.stream, PollFlags::empty())?;
            // Else it is the connection's end that is told.
            ensure!(
                self.settle()? > 0,
                "the connection ended before the peer gave everything back"
            );
        }
        Ok(())
    }

    /// Whether the peer has given back what the calls granted, as far as was looked.
    pub fn is_back(&self, span: Span) -> bool {
        !self.under_way.iter().any(|call| span.has(*call))
    }

    /// Waits until the peer has given back what the calls granted: who writes there before that pays for a copy.
    pub fn wait_for(&mut self, span: Span) -> Result<()> {
        while !self.is_back(span) {
            self.wait()?;
        }
        Ok(())
    }
}

impl Deref for Outgoing<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.store {
            Store::Lent(memory) => memory,
            Store::Own(bytes) => bytes,
        }
    }
}

impl DerefMut for Outgoing<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Lent(memory) => memory,
            Store::Own(bytes) => bytes,
        }
    }
}
