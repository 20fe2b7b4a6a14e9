// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The blocks that are kept for one connection.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::Result;
use fgdp::Stream;

use crate::common::{Outgoing, Span};
use crate::wire::BLOCK;

const SIZE: usize = BLOCK as usize;

/// Which block it is, of a file as it was.
#[derive(PartialEq, Eq)]
struct Key {
    file: (u64, u64),
    changed: (i64, i64),
    block: u64,
}

/// What is in one part of the memory.
#[derive(Default)]
struct Slot {
    key: Option<Key>,
    len: usize,
    /// The sum of what was last sent of it.
    sum: Option<(Range<usize>, u32)>,
    sent: Span,
    used: u64,
}

/// Blocks in memory that is lent.
pub struct Cache<'a> {
    memory: Outgoing<'a>,
    slots: Vec<Slot>,
    clock: u64,
    /// Requests for a block that was there.
    pub hits: u64,
    /// Requests for one that was not.
    pub misses: u64,
}

/// Bytes of a block that is in memory.
pub struct Found {
    slot: usize,
    part: Range<usize>,
    /// Their CRC-32.
    pub sum: u32,
}

impl Found {
    /// How many bytes they are.
    pub fn len(&self) -> u32 {
        self.part.len() as u32
    }
}

impl<'a> Cache<'a> {
    /// Of `bytes` bytes, for who is at the other end of `stream`.
    pub fn new(stream: &'a Stream, bytes: usize) -> Self {
        let memory = Outgoing::new(stream, bytes, SIZE);
        let slots = memory.chunks_exact(SIZE).map(|_| Slot::default());
        let slots = slots.collect();
        Self {
            memory,
            slots,
            clock: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// The slot to use for another block: best is one that the peer does not look at, then the one used longest ago.
    fn oldest(&mut self) -> Result<usize> {
        self.memory.settle()?;
        let slots = self.slots.iter().enumerate();
        let oldest = slots.min_by_key(|(_, slot)| (!self.memory.is_back(slot.sent), slot.used));
        let (at, sent) = oldest.map_or((0, Span::default()), |(at, slot)| (at, slot.sent));
        self.memory.wait_for(sent)?;
        Ok(at)
    }

    /// Where `length` bytes of `file` from `offset` on are, or as many of them as there are in their block. The error within
    /// is one of the file, which the peer is told.
    pub fn find(&mut self, file: &File, offset: u64, length: u32) -> Result<io::Result<Found>> {
        let about = match file.metadata() {
            Ok(about) if about.is_file() => about,
            Ok(_) => return Ok(Err(io::Error::from_raw_os_error(nix::libc::EISDIR))),
            Err(error) => return Ok(Err(error)),
        };
        let key = Key {
            file: (about.dev(), about.ino()),
            changed: (about.mtime(), about.mtime_nsec()),
            block: offset / u64::from(BLOCK),
        };
        let known = self
            .slots
            .iter()
            .position(|slot| slot.key.as_ref() == Some(&key));
        let at = match known {
            Some(at) => {
                self.hits += 1;
                at
            }
            None => {
                self.misses += 1;
                let at = self.oldest()?;
                self.slots[at] = Slot::default();
                let to = &mut self.memory[at * SIZE..][..SIZE];
                match fill(file, key.block.saturating_mul(u64::from(BLOCK)), to) {
                    Ok(len) => self.slots[at].len = len,
                    Err(error) => return Ok(Err(error)),
                }
                self.slots[at].key = Some(key);
                at
            }
        };
        self.clock += 1;
        let slot = &mut self.slots[at];
        slot.used = self.clock;
        let start = ((offset % u64::from(BLOCK)) as usize).min(slot.len);
        let end = start.saturating_add(length as usize).min(slot.len);
        let part = start..end;
        let sum = match &slot.sum {
            Some((of, sum)) if *of == part => *sum,
            _ => crc32fast::hash(&self.memory[at * SIZE..][part.clone()]),
        };
        slot.sum = Some((part.clone(), sum));
        let slot = at;
        Ok(Ok(Found { slot, part, sum }))
    }

    /// Sends what was found.
    pub fn send(&mut self, found: &Found) -> Result<()> {
        let base = found.slot * SIZE;
        let part = base + found.part.start..base + found.part.end;
        self.slots[found.slot].sent = self.memory.send(part)?;
        self.memory.settle()?;
        Ok(())
    }

    /// Calls that sent something without a copy.
    pub fn granted(&mut self) -> Result<u64> {
        self.memory.settle()?;
        Ok(self.memory.granted)
    }
}

/// Reads a block into memory; how many bytes it has.
fn fill(file: &File, offset: u64, to: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < to.len() {
        match file.read_at(&mut to[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
