// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Words of shared memory.
//!
//! The protocol never holds a reference into shared memory. It fetches and
//! stores 32-bit words through [`Mem`] and [`MemMut`], whose implementations
//! (kernel mapping, host mapping, test vector, loom, hostile memory) own the
//! atomics and the barriers.

/// Memory that is read word by word.
///
/// Offsets are in bytes and multiples of 4; values are in the CPU's order, the
/// memory is little-endian. Each call fetches once. A fetch outside the memory
/// returns 0: the callers check ranges before, this is the last line of
/// defence.
pub trait Mem {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fetches a word without ordering.
    fn load(&self, off: u64) -> u32;
    /// Fetches a word; later accesses are not done before it. Pairs with
    /// [`MemMut::store_release`] on the other side.
    fn load_acquire(&self, off: u64) -> u32;
    /// Fetches the words at the places `at` of the structure of `len` bytes at `off`,
    /// one after the other, each as [`Mem::load_acquire`] does.
    fn load_each<const N: usize>(&self, off: u64, len: u64, at: [u64; N]) -> [u32; N] {
        debug_assert!(at.iter().all(|at| at.wrapping_add(4) <= len));
        at.map(|at| self.load_acquire(off.wrapping_add(at)))
    }
    /// Fetches the words from `off` on without ordering.
    fn load_words(&self, off: u64, out: &mut [u32]) {
        let mut at = off;
        for word in out {
            *word = self.load(at);
            at = at.wrapping_add(4);
        }
    }
    /// Full hardware barrier between every access before and after it, store
    /// to load included. A locked read-modify-write is not enough (two guests
    /// under emulation), it must be the full fence instruction.
    fn fence(&self);
}

/// Memory that this side alone writes (M-1); that is why stores take `&self`.
pub trait MemMut: Mem {
    /// Stores a word without ordering. Outside the memory nothing is stored.
    fn store(&self, off: u64, value: u32);
    /// Stores a word after all earlier accesses were done. Pairs with
    /// [`Mem::load_acquire`] on the other side.
    fn store_release(&self, off: u64, value: u32);
    /// Stores words from `off` on without ordering.
    fn store_words(&self, off: u64, words: &[u32]) {
        let mut at = off;
        for word in words {
            self.store(at, *word);
            at = at.wrapping_add(4);
        }
    }
}

/// The two views of the group's memory that one side of a channel has.
///
/// On a channel to oneself (loopback) `peer_base == slot_base`.
pub struct View<'a, S: MemMut + ?Sized, W: Mem + ?Sized> {
    /// The own slot; offsets count from the slot's start.
    pub slot: &'a S,
    /// The whole group, read-only; offsets count from the group's start.
    pub window: &'a W,
    /// Offset of the own slot in the group.
    pub slot_base: u64,
    /// Offset of the peer's slot in the group.
    pub peer_base: u64,
    /// Size of the peer's slot.
    pub peer_size: u64,
}

impl<S: MemMut + ?Sized, W: Mem + ?Sized> Clone for View<'_, S, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: MemMut + ?Sized, W: Mem + ?Sized> Copy for View<'_, S, W> {}

impl<S: MemMut + ?Sized, W: Mem + ?Sized> View<'_, S, W> {
    /// Offset in the group of `len` bytes of the peer's slot, or `None` if they
    /// are not wholly inside that slot.
    fn peer_range(&self, off: u64, len: u64) -> Option<u64> {
        match off.checked_add(len) {
            Some(end) if end <= self.peer_size => self.peer_base.checked_add(off),
            _ => None,
        }
    }

    /// Fetches a word of the peer's slot; 0 outside it.
    pub fn peer_load(&self, off: u64) -> u32 {
        self.peer_range(off, 4).map_or(0, |at| self.window.load(at))
    }

    /// Fetches a word of the peer's slot with acquire order; 0 outside it.
    pub fn peer_load_acquire(&self, off: u64) -> u32 {
        self.peer_range(off, 4)
            .map_or(0, |at| self.window.load_acquire(at))
    }

    /// Fetches words of a structure in the peer's slot, see [`Mem::load_each`]; 0 if
    /// it is not wholly inside.
    pub fn peer_load_each<const N: usize>(&self, off: u64, len: u64, at: [u64; N]) -> [u32; N] {
        self.peer_range(off, len)
            .map_or([0; N], |off| self.window.load_each(off, len, at))
    }

    /// Fetches words of the peer's slot from `off` on, see [`Mem::load_words`];
    /// leaves `out` as it is if they are not wholly inside.
    pub fn peer_load_words(&self, off: u64, out: &mut [u32]) {
        if let Some(off) = self.peer_range(off, (out.len() as u64).wrapping_mul(4)) {
            self.window.load_words(off, out);
        }
    }

    /// Full hardware barrier, see [`Mem::fence`].
    pub fn fence(&self) {
        self.slot.fence();
    }
}

/// Stores zero to the `bytes / 4` words from `off` on.
pub fn zero<S: MemMut + ?Sized>(mem: &S, off: u64, bytes: u64) {
    let mut at = 0u64;
    while at < bytes {
        mem.store(off.wrapping_add(at), 0);
        at = at.wrapping_add(4);
    }
}

/// Fetches a 64-bit value as two words, low word first. The halves are two
/// fetches: a writer may change one between them, so the result is checked like
/// any other.
pub fn load64<M: Mem + ?Sized>(mem: &M, off: u64) -> u64 {
    let low = mem.load_acquire(off);
    let high = mem.load_acquire(off.wrapping_add(4));
    u64::from(low) | (u64::from(high) << 32)
}

/// Stores a 64-bit value as two words.
pub fn store64<S: MemMut + ?Sized>(mem: &S, off: u64, value: u64) {
    mem.store(off, value as u32);
    mem.store(off.wrapping_add(4), (value >> 32) as u32);
}

/// Fetches `out.len()` bytes from `off` on, word by word.
pub fn load_bytes<M: Mem + ?Sized>(mem: &M, off: u64, out: &mut [u8]) {
    let mut at = off;
    for chunk in out.chunks_mut(4) {
        let word = mem.load_acquire(at).to_le_bytes();
        for (to, from) in chunk.iter_mut().zip(word) {
            *to = from;
        }
        at = at.wrapping_add(4);
    }
}

/// Stores `bytes` from `off` on, word by word; a last word is filled up with
/// zeroes.
pub fn store_bytes<S: MemMut + ?Sized>(mem: &S, off: u64, bytes: &[u8]) {
    let mut at = off;
    for chunk in bytes.chunks(4) {
        let mut word = [0u8; 4];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        mem.store(at, u32::from_le_bytes(word));
        at = at.wrapping_add(4);
    }
}
