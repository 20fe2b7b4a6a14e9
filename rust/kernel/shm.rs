// SPDX-License-Identifier: GPL-2.0

//! The memory of a group: the own slot, which this guest writes, and the window on all slots.
//!
//! Nothing here hands out a Rust reference to shared bytes, because another guest may change them
//! at any time: words are fetched and stored by volatile accesses, runs of bytes are copied by C.
//!
//! A [`SlotMem`] and a [`GroupMem`] each hold a reference to their mapping, which goes after the
//! last one. That may be dropped in any context; unmapping sleeps, so the work queue does it.

use super::ffi;
use super::iov::{IovDest, IovSource};
use super::work;
use crate::proto::mem::{Mem, MemMut};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::Arc,
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};

/// Who gives the pages back.
enum Backing {
    /// `vzalloc()`.
    Local,
    /// `memremap()`.
    Remapped,
}

/// A kernel mapping of a run of pages.
///
/// # Invariants
///
/// `base` is the start of `len` mapped bytes, page-aligned, until the value is dropped. `len` fits
/// `isize`.
struct Mapping {
    base: NonNull<u8>,
    len: u64,
    backing: Backing,
}

// SAFETY: A mapping in the kernel's address space is the same in all contexts; it is changed
// through volatile accesses and C copies only.
unsafe impl Send for Mapping {}
// SAFETY: As for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn alloc(len: u64) -> Result<Self> {
        let size = usize::try_from(len)?;
        if size == 0 || isize::try_from(size).is_err() {
            return Err(EINVAL);
        }
        // SAFETY: No requirement; a null result is handled.
        let base = unsafe { ffi::fgdp_helper_vzalloc(size) };
        // INVARIANT: `vzalloc` returned `size` mapped bytes that `drop` gives back.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            len,
            backing: Backing::Local,
        })
    }

    /// # Safety
    ///
    /// The physical range must be device memory that behaves as memory does, of which no Rust
    /// reference exists, and must stay present while the value lives.
    unsafe fn remap(addr: u64, len: u64) -> Result<Self> {
        let size = usize::try_from(len)?;
        if size == 0 || isize::try_from(size).is_err() || addr.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        // SAFETY: The range does not wrap; the caller guarantees what it is.
        let base = unsafe { ffi::memremap(addr, size, ffi::MEMREMAP_WB as usize) };
        // INVARIANT: `memremap` mapped `size` bytes that `drop` unmaps.
        let mapping = Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            len,
            backing: Backing::Remapped,
        };
        // SAFETY: `base` is mapped.
        if !unsafe { ffi::fgdp_helper_is_write_back(mapping.base.as_ptr().cast()) } {
            pr_err!(
                "shared memory at {:#x} is uncached: place the device's BARs above 4 GiB (pref64-reserve of its root port)\n",
                addr
            );
            return Err(ENXIO);
        }
        Ok(mapping)
    }

    /// The address of `off` if `len` bytes from it on lie inside.
    #[inline]
    fn at(&self, off: u64, len: u64) -> Option<*mut u8> {
        if off > self.len || len > self.len.wrapping_sub(off) {
            return None;
        }
        // SAFETY: `off` is inside the mapping by the check; `len` fits `isize` by the type
        // invariant.
        Some(unsafe { self.base.as_ptr().add(off as usize) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base = self.base.as_ptr().cast();
        match self.backing {
            // SAFETY: From `vzalloc` by the type invariant; nobody refers to it any more.
            Backing::Local => unsafe { ffi::vfree(base) },
            // SAFETY: From `memremap` by the type invariant; nobody refers to it any more.
            Backing::Remapped => unsafe { ffi::memunmap(base) },
        }
    }
}

/// A mapping, and the work that drops it.
#[pin_data]
struct Unmap {
    mapping: Mapping,
    #[pin]
    work: Work<Unmap>,
}

impl_has_work! {
    impl HasWork<Self> for Unmap { self.work }
}

impl WorkItem for Unmap {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        drop(this);
    }
}

/// What the parts of a mapping share: it goes, in process context, after the last one.
struct Whole(Option<Pin<KBox<Unmap>>>);

impl Whole {
    fn new(mapping: Mapping) -> Result<Arc<Self>> {
        let unmap = KBox::pin_init(
            pin_init!(Unmap { mapping, work <- new_work!("fgdp_unmap") }),
            GFP_KERNEL,
        )?;
        Ok(Arc::new(Self(Some(unmap)), GFP_KERNEL)?)
    }

    fn at(&self, off: u64, len: u64) -> Option<*mut u8> {
        self.0.as_ref()?.mapping.at(off, len)
    }

    fn is_remapped(&self) -> bool {
        let backing = self.0.as_ref().map(|unmap| &unmap.mapping.backing);
        matches!(backing, Some(Backing::Remapped))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let (Some(unmap), Some(queue)) = (self.0.take(), work::process()) {
            queue.enqueue::<_, 0>(unmap);
        }
    }
}

/// A part of a mapping.
///
/// # Invariants
///
/// `[base, base + len)` lies inside what `map` keeps mapped; `base` is aligned to 4.
struct Part {
    base: NonNull<u8>,
    len: u64,
    map: Arc<Whole>,
}

// SAFETY: As for `Mapping`.
unsafe impl Send for Part {}
// SAFETY: As for `Mapping`.
unsafe impl Sync for Part {}

impl Part {
    fn share(&self) -> Self {
        let Self { base, len, map } = self;
        // INVARIANT: As of `self`.
        Self {
            base: *base,
            len: *len,
            map: map.clone(),
        }
    }

    /// # Safety
    ///
    /// As for [`Mapping::remap`].
    unsafe fn remap(addr: u64, len: u64) -> Result<Self> {
        // SAFETY: The caller's promise.
        let mapping = unsafe { Mapping::remap(addr, len) }?;
        Self::new(Whole::new(mapping)?, 0, len)
    }

    fn new(map: Arc<Whole>, off: u64, len: u64) -> Result<Self> {
        let base = map.at(off, len).and_then(NonNull::new).ok_or(EINVAL)?;
        if off % 4 != 0 {
            return Err(EINVAL);
        }
        // INVARIANT: `at` checked the range; a mapping is page-aligned, so `base` is aligned as
        // `off` is.
        Ok(Self { base, len, map })
    }

    #[inline]
    fn at(&self, off: u64, len: u64) -> Option<*mut u8> {
        if off > self.len || len > self.len.wrapping_sub(off) {
            return None;
        }
        // SAFETY: Inside the mapping by the check and the type invariant, whose length fits
        // `isize`.
        Some(unsafe { self.base.as_ptr().add(off as usize) })
    }

    /// As `at`, if the physical memory has no gap there.
    fn whole(&self, off: u64, len: u64) -> Option<*const u8> {
        let at = self.at(off, len).filter(|_| self.map.is_remapped());
        at.map(|p| p.cast_const())
    }

    /// Where the words of `[off, off + len)` are.
    #[inline]
    fn words(&self, off: u64, len: u64) -> Option<*mut u32> {
        if off % 4 != 0 {
            return None;
        }
        self.at(off, len).map(|p| p.cast())
    }

    #[inline]
    fn word(&self, off: u64) -> Option<*mut u32> {
        self.words(off, 4)
    }

    #[inline]
    fn load(&self, off: u64) -> u32 {
        let Some(p) = self.word(off) else {
            return 0;
        };
        // SAFETY: `word` returns aligned addresses inside the mapping.
        u32::from_le(unsafe { p.read_volatile() })
    }

    #[inline]
    fn load_acquire(&self, off: u64) -> u32 {
        let v = self.load(off);
        acquire_barrier();
        v
    }

    #[inline]
    fn load_each<const N: usize>(&self, off: u64, len: u64, at: [u64; N]) -> [u32; N] {
        let Some(base) = self.words(off, len) else {
            return [0; N];
        };
        at.map(|at| {
            if at % 4 != 0 || len < 4 || at > len.wrapping_sub(4) {
                return 0;
            }
            // SAFETY: An aligned word of the `len` bytes that `words` says are inside the mapping.
            let v = u32::from_le(unsafe { base.byte_add(at as usize).read_volatile() });
            acquire_barrier();
            v
        })
    }

    #[inline]
    fn load_words(&self, off: u64, out: &mut [u32]) {
        let Some(base) = self.words(off, size_of_val(out) as u64) else {
            return;
        };
        for (n, word) in out.iter_mut().enumerate() {
            // SAFETY: Aligned, and one of the words that `words` says are inside the mapping.
            *word = u32::from_le(unsafe { base.add(n).read_volatile() });
        }
    }

    fn copy_to_iter(&self, off: u64, len: usize, iter: &mut IovDest<'_>) -> usize {
        let Some(from) = self.at(off, len as u64) else {
            return 0;
        };
        // SAFETY: `from` has `len` mapped bytes; `iter` is valid by its type's invariant.
        unsafe { ffi::fgdp_helper_copy_to_iter_nofault(from.cast(), len, iter.as_raw().cast()) }
    }
}

/// Orders the loads before it against all accesses after it: the second half of
/// `smp_load_acquire()`.
#[inline(always)]
pub(super) fn acquire_barrier() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: An empty statement: it keeps the compiler from moving accesses; the processor keeps
    // loads in order.
    unsafe {
        core::arch::asm!("", options(nostack, preserves_flags))
    };
    #[cfg(not(target_arch = "x86_64"))]
    kernel::sync::barrier::smp_mb();
}

/// Orders all accesses before it against the stores after it: the first half of
/// `smp_store_release()`.
#[inline(always)]
fn release_barrier() {
    acquire_barrier();
}

/// The own slot: this guest alone writes it, peers read it.
///
/// One writer per word is the protocol's business; two writers here would lose a store, no more.
pub(crate) struct SlotMem(Part);

impl SlotMem {
    /// Maps the slot at a physical address for as long as the value lives.
    ///
    /// # Safety
    ///
    /// The range must be device memory that behaves as memory does, of which no Rust reference
    /// exists, and must stay present while the value lives.
    pub(super) unsafe fn remap(addr: u64, len: u64) -> Result<Self> {
        // SAFETY: The caller's promise.
        Ok(Self(unsafe { Part::remap(addr, len) }?))
    }

    /// Copies `len` bytes of `iter` to `off`; returns how many the user's memory yielded, 0 if the
    /// range is outside.
    ///
    /// Does not wait for pages: those that are missing end the copy.
    pub(crate) fn copy_from_iter(&self, off: u64, len: usize, iter: &mut IovSource<'_>) -> usize {
        let Some(to) = self.0.at(off, len as u64) else {
            return 0;
        };
        // SAFETY: `to` has `len` mapped bytes; `iter` is valid by its type's invariant.
        unsafe { ffi::fgdp_helper_copy_from_iter_nofault(to.cast(), len, iter.as_raw().cast()) }
    }
}

impl SlotMem {
    /// The same slot for another owner.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.share())
    }

    /// Makes `[off, off + len)` zero; nothing if the range is outside.
    pub(crate) fn clear(&self, off: u64, len: usize) {
        if let Some(to) = self.0.at(off, len as u64) {
            // SAFETY: `to` has `len` mapped bytes, to which Rust does not refer.
            unsafe { ffi::fgdp_helper_memzero(to.cast(), len) };
        }
    }

    /// Copies `len` bytes from `from` to `to`; nothing if one of the ranges is outside. They must
    /// not overlap.
    pub(super) fn copy_within(&self, from: u64, to: u64, len: usize) {
        let (src, dst) = (self.0.at(from, len as u64), self.0.at(to, len as u64));
        if let (Some(src), Some(dst)) = (src, dst) {
            // SAFETY: Both have `len` mapped bytes, to which Rust does not refer.
            unsafe { ffi::fgdp_helper_memcpy(dst.cast(), src.cast(), len) };
        }
    }

    /// Where `[off, off + len)` is mapped.
    pub(super) fn ptr(&self, off: u64, len: u64) -> Option<*const u8> {
        self.0.at(off, len).map(|p| p.cast_const())
    }

    /// Where `[off, off + len)` is mapped, if one run of frames is behind it.
    pub(super) fn whole(&self, off: u64, len: u64) -> Option<*const u8> {
        self.0.whole(off, len)
    }

    /// Appends `[off, off + len)` to `bytes`; false if the range is outside or there is no memory.
    /// Sleeps.
    pub(crate) fn append_to(&self, off: u64, len: u32, bytes: &mut KVVec<u8>) -> bool {
        let Some(from) = self.0.at(off, len.into()) else {
            return false;
        };
        let len = len as usize;
        if bytes.reserve(len, GFP_KERNEL).is_err() {
            return false;
        }
        let Some(to) = bytes.spare_capacity_mut().get_mut(..len) else {
            return false;
        };
        // SAFETY: `from` and `to` have `len` bytes, of which the first are the slot's, which Rust
        // does not refer to.
        unsafe { ffi::fgdp_helper_memcpy(to.as_mut_ptr().cast(), from.cast(), len) };
        // SAFETY: So many are initialised now, within the capacity.
        unsafe { bytes.inc_len(len) };
        true
    }
}

impl Mem for SlotMem {
    #[inline]
    fn size(&self) -> u64 {
        self.0.len
    }

    #[inline]
    fn load(&self, off: u64) -> u32 {
        self.0.load(off)
    }

    #[inline]
    fn load_acquire(&self, off: u64) -> u32 {
        self.0.load_acquire(off)
    }

    #[inline]
    fn load_each<const N: usize>(&self, off: u64, len: u64, at: [u64; N]) -> [u32; N] {
        self.0.load_each(off, len, at)
    }

    #[inline]
    fn load_words(&self, off: u64, out: &mut [u32]) {
        self.0.load_words(off, out);
    }

    #[inline]
    fn fence(&self) {
        fence();
    }
}

impl MemMut for SlotMem {
    #[inline]
    fn store(&self, off: u64, v: u32) {
        if let Some(p) = self.0.word(off) {
            // SAFETY: `word` returns aligned addresses inside the mapping, which is writable for a
            // slot.
            unsafe { p.write_volatile(v.to_le()) };
        }
    }

    #[inline]
    fn store_release(&self, off: u64, v: u32) {
        release_barrier();
        self.store(off, v);
    }

    #[inline]
    fn store_words(&self, off: u64, words: &[u32]) {
        let Some(base) = self.0.words(off, size_of_val(words) as u64) else {
            return;
        };
        for (n, word) in words.iter().enumerate() {
            // SAFETY: Aligned, and one of the words that `words` says are inside the mapping, which
            // is writable for a slot.
            unsafe { base.add(n).write_volatile(word.to_le()) };
        }
    }
}

/// The window: all slots of the group, read-only.
///
/// There is no way to write through it, and must not be: the hypervisor ends a guest that does.
pub(crate) struct GroupMem(Part);

impl GroupMem {
    /// Maps the group at a physical address for as long as the value lives.
    ///
    /// # Safety
    ///
    /// The range must be device memory that behaves as memory does, and must stay present while the
    /// value lives.
    pub(super) unsafe fn remap(addr: u64, len: u64) -> Result<Self> {
        // SAFETY: The caller's promise; it never writes.
        Ok(Self(unsafe { Part::remap(addr, len) }?))
    }

    /// Copies `len` bytes at `off` to `iter`; returns how many the user's memory took, 0 if the
    /// range is outside.
    ///
    /// Does not wait for pages: those that are missing end the copy.
    pub(crate) fn copy_to_iter(&self, off: u64, len: usize, iter: &mut IovDest<'_>) -> usize {
        self.0.copy_to_iter(off, len, iter)
    }

    /// The same window for another owner.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.share())
    }

    /// Where `[off, off + len)` is mapped.
    pub(super) fn ptr(&self, off: u64, len: u64) -> Option<*const u8> {
        self.0.at(off, len).map(|p| p.cast_const())
    }

    /// Where `[off, off + len)` is mapped, if one run of frames is behind it.
    pub(super) fn whole(&self, off: u64, len: u64) -> Option<*const u8> {
        self.0.whole(off, len)
    }
}

impl Mem for GroupMem {
    #[inline]
    fn size(&self) -> u64 {
        self.0.len
    }

    #[inline]
    fn load(&self, off: u64) -> u32 {
        self.0.load(off)
    }

    #[inline]
    fn load_acquire(&self, off: u64) -> u32 {
        self.0.load_acquire(off)
    }

    #[inline]
    fn load_each<const N: usize>(&self, off: u64, len: u64, at: [u64; N]) -> [u32; N] {
        self.0.load_each(off, len, at)
    }

    #[inline]
    fn load_words(&self, off: u64, out: &mut [u32]) {
        self.0.load_words(off, out);
    }

    #[inline]
    fn fence(&self) {
        fence();
    }
}

/// A full hardware fence, which orders a store before a load against another guest too.
#[inline(always)]
fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `mb()`: changes nothing but the order of accesses.
    unsafe {
        core::arch::asm!("mfence", options(nostack, preserves_flags))
    };
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: No requirement.
    unsafe {
        ffi::fgdp_helper_mb()
    };
}

/// A group inside this guest: the host's part and one slot behind it, zeroed.
pub(crate) struct LocalGroup {
    /// What the host would write: `[0, host_len)` of the group.
    pub(crate) host: SlotMem,
    /// The slot: `[host_len, host_len + slot_len)` of the group.
    pub(crate) slot: SlotMem,
    /// Both.
    pub(crate) group: GroupMem,
}

impl LocalGroup {
    /// Allocates a group of `host_len + slot_len` bytes.
    pub(crate) fn new(host_len: u64, slot_len: u64) -> Result<Self> {
        let len = host_len.checked_add(slot_len).ok_or(EINVAL)?;
        let map = Whole::new(Mapping::alloc(len)?)?;
        Ok(Self {
            host: SlotMem(Part::new(map.clone(), 0, host_len)?),
            slot: SlotMem(Part::new(map.clone(), host_len, slot_len)?),
            group: GroupMem(Part::new(map, 0, len)?),
        })
    }
}
