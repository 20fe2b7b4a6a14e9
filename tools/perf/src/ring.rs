// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A ring for one writer and one reader in bare shared memory: what no protocol can beat.

use crate::sys::Mapping;

/// Bytes of data; a power of two.
pub const RING_BYTES: u32 = 1 << 20;

/// Bytes of an area: a page of words, then the data.
pub const AREA_BYTES: usize = 4096 + RING_BYTES as usize;

/// Words of an area, each on a cache line of its own, written by the area's owner.
pub const MAGIC: usize = 0;
/// How many bytes the owner has written to its data.
pub const HEAD: usize = 64;
/// How many bytes the owner has read of the other's data.
pub const TAIL: usize = 128;
/// The owner has done all it wants.
pub const DONE: usize = 192;
const DATA: usize = 4096;

/// Where an area is.
pub struct Area<'a> {
    pub map: &'a Mapping,
    pub off: usize,
}

impl Area<'_> {
    /// A word.
    pub fn load(&self, word: usize) -> u32 {
        self.map.load(self.off + word)
    }

    /// Sets a word; the own area only.
    pub fn store(&self, word: usize, value: u32) {
        self.map.store(self.off + word, value);
    }
}

/// The own area and the other's.
pub struct Pair<'a> {
    pub own: Area<'a>,
    pub other: Area<'a>,
    head: u32,
    tail: u32,
}

impl<'a> Pair<'a> {
    /// Starts with nothing written and nothing read.
    pub fn new(own: Area<'a>, other: Area<'a>) -> Self {
        Self {
            own,
            other,
            head: 0,
            tail: 0,
        }
    }

    /// Writes all of `bytes`, which fit the ring, once there is space.
    pub fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u32;
        while RING_BYTES
            - self
                .head
                .wrapping_sub(self.other.load(TAIL))
                .min(RING_BYTES)
            < len
        {
            std::hint::spin_loop();
        }
        let at = (self.head % RING_BYTES) as usize;
        let (first, rest) = bytes.split_at(bytes.len().min(RING_BYTES as usize - at));
        self.own.map.write(self.own.off + DATA + at, first);
        self.own.map.write(self.own.off + DATA, rest);
        self.head = self.head.wrapping_add(len);
        self.own.store(HEAD, self.head);
    }

    /// Reads what is there, up to the size of `buf`; 0 if nothing is.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let avail = self
            .other
            .load(HEAD)
            .wrapping_sub(self.tail)
            .min(RING_BYTES) as usize;
        let len = avail.min(buf.len());
        if len == 0 {
            return 0;
        }
        let at = (self.tail % RING_BYTES) as usize;
        let (first, rest) = buf[..len].split_at_mut(len.min(RING_BYTES as usize - at));
        self.other.map.read(self.other.off + DATA + at, first);
        self.other.map.read(self.other.off + DATA, rest);
        self.tail = self.tail.wrapping_add(len as u32);
        self.own.store(TAIL, self.tail);
        len
    }

    /// Fills `buf`; false when the other side was done before that.
    pub fn read_exact(&mut self, buf: &mut [u8]) -> bool {
        let mut got = 0;
        while got < buf.len() {
            match self.read(&mut buf[got..]) {
                0 if self.other.load(DONE) != 0 && self.other.load(HEAD) == self.tail => {
                    return false
                }
                0 => std::hint::spin_loop(),
                n => got += n,
            }
        }
        true
    }
}
