// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the worker's state outlives the worker.
//!
//! The file holds two copies. A new state is written over the older copy with a higher number and a checksum; a
//! worker that dies on the way leaves the other copy whole. Behind them is a note of the guest that is being served:
//! if workers die of one guest, the next one leaves it alone.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use serde::{de::DeserializeOwned, Serialize};

/// Bytes kept for the note at the end of the file.
const NOTE: u64 = 4096;
/// Workers that may die while they serve one guest.
const MAX_DEATHS: u32 = 3;
const HEADER: usize = 24;
const MAGIC: u64 = 0x4554_4154_5344_4746;

/// The file.
#[derive(Debug)]
pub struct Store {
    file: File,
    half: u64,
    serial: u64,
    buf: Vec<u8>,
    /// Device and deaths that the last worker left.
    suspect: (u32, u32),
}

impl Store {
    /// Takes over the file; its size does not change any more.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let half = file.metadata()?.len().saturating_sub(NOTE) / 2;
        Ok(Self {
            file,
            half,
            serial: 0,
            buf: Vec::new(),
            suspect: (0, 0),
        })
    }

    /// To be called once when a worker starts: the device of which too many workers died, if there is one.
    pub fn culprit(&mut self) -> io::Result<Option<u32>> {
        let mut note = [0u8; 8];
        self.file.read_exact_at(&mut note, 2 * self.half)?;
        let note = u64::from_le_bytes(note);
        self.suspect = (
            (note & 0xffff_ffff) as u32,
            ((note >> 32) as u32).saturating_add(1),
        );
        let (Some(dev), true) = (self.suspect.0.checked_sub(1), self.suspect.1 >= MAX_DEATHS)
        else {
            return Ok(None);
        };
        self.end(dev)?;
        Ok(Some(dev))
    }

    /// From here on device `dev` is served.
    pub fn begin(&mut self, dev: u32) -> io::Result<()> {
        let dev = dev.saturating_add(1);
        let deaths = if self.suspect.0 == dev {
            self.suspect.1
        } else {
            0
        };
        self.write_note(dev, deaths)
    }

    /// Device `dev` was served.
    pub fn end(&mut self, dev: u32) -> io::Result<()> {
        if self.suspect.0 == dev.saturating_add(1) {
            self.suspect = (0, 0);
        }
        self.write_note(0, 0)
    }

    fn write_note(&mut self, dev: u32, deaths: u32) -> io::Result<()> {
        let note = u64::from(dev) | (u64::from(deaths) << 32);
        self.file.write_all_at(&note.to_le_bytes(), 2 * self.half)
    }

    fn read_copy(&self, n: u64) -> Option<(u64, Vec<u8>)> {
        let mut header = [0u8; HEADER];
        self.file.read_exact_at(&mut header, n * self.half).ok()?;
        let word = |at: usize| {
            header
                .get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_le_bytes)
        };
        let (magic, serial, rest) = (word(0)?, word(8)?, word(16)?);
        let (len, sum) = ((rest & 0xffff_ffff) as usize, (rest >> 32) as u32);
        if magic != MAGIC || len as u64 > self.half - HEADER as u64 {
            return None;
        }
        let mut body = vec![0; len];
        self.file
            .read_exact_at(&mut body, n * self.half + HEADER as u64)
            .ok()?;
        (checksum(serial, &body) == sum).then_some((serial, body))
    }

    /// The state kept last, if there is one that this version understands.
    pub fn load<T: DeserializeOwned>(&mut self) -> Option<T> {
        let best = [0, 1]
            .into_iter()
            .filter_map(|n| self.read_copy(n))
            .max_by_key(|(serial, _)| *serial)?;
        self.serial = best.0;
        postcard::from_bytes(&best.1).ok()
    }

    /// Keeps a state.
    pub fn save<T: Serialize>(&mut self, state: &T) -> io::Result<()> {
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.resize(HEADER, 0);
        let mut buf = postcard::to_extend(state, buf).map_err(io::Error::other)?;
        if buf.len() as u64 > self.half {
            return Err(io::Error::other("state larger than its file"));
        }
        self.serial += 1;
        let body = buf.get(HEADER..).unwrap_or_default();
        let rest = body.len() as u64 | (u64::from(checksum(self.serial, body)) << 32);
        for (word, at) in [MAGIC, self.serial, rest].into_iter().zip([0usize, 8, 16]) {
            if let Some(to) = buf.get_mut(at..at + 8) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        let written = self.file.write_all_at(&buf, self.serial % 2 * self.half);
        self.buf = buf;
        written
    }
}

fn checksum(serial: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&serial.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    fn reopened(fd: &OwnedFd) -> Store {
        Store::new(fd.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn the_last_whole_copy_wins() {
        let fd = sys::sealed_memfd("test", 1 << 16, false).unwrap();
        assert_eq!(reopened(&fd).load::<Vec<u32>>(), None);
        let mut store = reopened(&fd);
        for n in 1..=5u32 {
            store.save(&vec![n; 100]).unwrap();
        }
        assert_eq!(reopened(&fd).load(), Some(vec![5u32; 100]));
        // A writer that died half-way: any byte of the newest copy.
        let file = File::from(fd.try_clone().unwrap());
        for at in [8, 17, 30, 120] {
            let base = ((1 << 16) - NOTE) / 2;
            let mut old = [0u8; 1];
            file.read_exact_at(&mut old, base + at).unwrap();
            file.write_all_at(&[old[0] ^ 0x55], base + at).unwrap();
            assert_eq!(reopened(&fd).load(), Some(vec![4u32; 100]), "byte {at}");
            file.write_all_at(&old, base + at).unwrap();
        }
        let mut store = reopened(&fd);
        assert_eq!(store.load(), Some(vec![5u32; 100]));
        store.save(&vec![6u32]).unwrap();
        assert_eq!(reopened(&fd).load(), Some(vec![6u32]));
    }

    #[test]
    fn a_guest_of_which_workers_die_is_named() {
        let fd = sys::sealed_memfd("test", 1 << 16, false).unwrap();
        for death in 1..=MAX_DEATHS {
            let mut store = reopened(&fd);
            assert_eq!(store.culprit().unwrap(), None, "after {} deaths", death - 1);
            // Others are served in between.
            store.begin(7).unwrap();
            store.end(7).unwrap();
            store.begin(4).unwrap();
        }
        assert_eq!(reopened(&fd).culprit().unwrap(), Some(4));
        assert_eq!(reopened(&fd).culprit().unwrap(), None, "named once");
        // One that was served in between is not suspected any more.
        for _ in 0..2 * MAX_DEATHS {
            let mut store = reopened(&fd);
            assert_eq!(store.culprit().unwrap(), None);
            store.begin(4).unwrap();
            store.end(4).unwrap();
            store.begin(4).unwrap();
        }
    }
}
