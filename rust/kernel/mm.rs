// SPDX-License-Identifier: GPL-2.0

//! Memory of the own slot that programs map by `mmap(2)`.
//!
//! Page tables hold frame numbers, to which no `struct page` belongs that counts. So what is behind
//! a page changes under the area's lock only, in which faults put entries into page tables, and
//! from which those of a page are taken before it may not be written any more.
//!
//! References: an [`Area`] that is mapped holds one on itself. The mappings count themselves:
//! `mmap_lock` serialises who adds one, and the last to go ends the area.
//!
//! Lock order: `mmap_lock` or that of a mapping, the area's `pages`, then what the owner takes;
//! page tables innermost.

mod lend;

pub(crate) use lend::{lend, take_away, Behind, Frames};

use super::ffi;
use super::module::ModuleRef;
use super::shm::SlotMem;
use core::any::TypeId;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::page::{Page, PAGE_SIZE};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex};

/// Pages that one fault maps at most: those of an entry of the next level of page tables.
pub(super) const AROUND: usize = ffi::fgdp_const_FGDP_CONST_HUGE_PAGES as usize;

/// Bytes of so many pages.
pub(super) const HUGE: u64 = (AROUND * PAGE_SIZE) as u64;

/// Where the content of a page is.
enum Backing {
    /// In the slot, at this offset.
    Frame(u64),
    /// In memory of this guest alone.
    Own(Page),
    /// Nowhere: it was given away, and who touches it finds zeroes.
    Nothing,
}

impl Backing {
    /// Whether it is the frame at `off`.
    fn is_frame(&self, off: u64) -> bool {
        matches!(self, Self::Frame(at) if *at == off)
    }

    fn is_any_frame(&self) -> bool {
        matches!(self, Self::Frame(_))
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// Where somebody who writes to a page writes.
pub(crate) enum Write {
    /// To the frame that is there.
    InPlace,
    /// To a copy in the frame at this offset, which was nobody's.
    Frame(u64),
    /// To a copy that no peer sees.
    Own,
}

/// Who says what may be done with frames. Called under the area's lock.
pub(crate) trait Owner: Send + Sync + 'static {
    /// Whether the frames are gone: who touches one gets SIGBUS.
    fn is_gone(&self) -> bool;
    /// How many of the frames come before the first one that nobody may write to.
    fn writable(&self, frames: Frames) -> usize;
    /// Somebody is about to write to the frame at `off`.
    fn write(&self, off: u64) -> Write;
    /// At most `want` frames that were nobody's, for memory that has none; `None` if there are none
    /// now.
    fn bring(&self, want: usize) -> Option<Frames>;
    /// The frames are not mapped any more.
    fn unmapped(&self, frames: Frames);
    /// Nothing is mapped any more.
    fn closed(&self);
}

struct Pages {
    backing: KVVec<Backing>,
    /// The mapped file, until the last mapping goes, which holds it.
    file: Option<NonNull<ffi::file>>,
}

// SAFETY: A file may be referred to from any thread; pages are plain data.
unsafe impl Send for Pages {}

impl Pages {
    /// Takes `count` pages from `first` on off the page tables, all with a `count` of 0.
    fn zap(&self, first: usize, count: usize) {
        if let Some(file) = self.file {
            // SAFETY: Under the lock a mapping is left, which holds the file.
            unsafe { ffi::fgdp_helper_zap_pages(file.as_ptr(), first, count) };
        }
    }
}

/// The beginning of an area of whatever owner.
#[repr(C)]
pub(super) struct Head {
    raw: ffi::fgdp_area,
    owner: TypeId,
}

impl Head {
    /// What a mapping of a type with these operations begins with.
    pub(super) fn new<T: 'static>(ops: &'static ffi::fgdp_area_ops) -> Self {
        Self {
            raw: ffi::fgdp_area { ops },
            owner: TypeId::of::<T>(),
        }
    }
}

/// What one call of `mmap(2)` mapped.
///
/// # Invariants
///
/// What page tables show of page n is what `pages.backing[n]` says: before that changes, and a page
/// of the guest's own goes, its entry is taken out.
#[pin_data]
#[repr(C)]
pub(crate) struct Area<O: Owner> {
    head: Head,
    owner: O,
    memory: SlotMem,
    mappings: Atomic<i32>,
    // A socket that is TCP's again does not hold it.
    _module: ModuleRef,
    #[pin]
    pages: Mutex<Pages>,
}

// SAFETY: `head` points to a constant; the other fields are `Send`.
unsafe impl<O: Owner> Send for Area<O> {}
// SAFETY: As above, and `Sync`.
unsafe impl<O: Owner> Sync for Area<O> {}

/// A mapping that `mmap(2)` is about to make.
pub(crate) struct NewArea<'a> {
    pub(super) vma: *mut ffi::vm_area_struct,
    is_window: bool,
    _call: PhantomData<&'a ()>,
}

impl NewArea<'_> {
    /// # Safety
    ///
    /// `vma` is the mapping of a running `mmap` call, for the length of the value's life.
    pub(super) unsafe fn from_raw(vma: *mut ffi::vm_area_struct) -> Result<Self> {
        // SAFETY: By this function's contract.
        let kind = unsafe { ffi::fgdp_helper_area_check(vma) };
        kernel::error::to_result(kind)?;
        Ok(Self {
            vma,
            is_window: kind != 0,
            _call: PhantomData,
        })
    }

    /// Whether it is to be a [`Window`](super::window::Window).
    pub(crate) fn is_window(&self) -> bool {
        self.is_window
    }

    /// The file that it is of.
    pub(super) fn file(&self) -> Option<NonNull<ffi::file>> {
        // SAFETY: By `from_raw`'s contract; the mapping of a call has a file.
        NonNull::new(unsafe { ffi::fgdp_helper_vma_file(self.vma) })
    }

    /// Its size in pages.
    pub(crate) fn pages(&self) -> usize {
        // SAFETY: By `from_raw`'s contract.
        unsafe { ffi::fgdp_helper_vma_pages(self.vma) as usize }
    }

    /// Maps the frames of `memory` at `frames`, as many as there are pages.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another number of frames; `ENOMEM`; `ENODEV` when the module is going. Nothing
    /// is mapped then, and the owner hears of nothing.
    pub(crate) fn map<O: Owner>(
        &self,
        owner: O,
        memory: SlotMem,
        frames: impl Iterator<Item = u64>,
    ) -> Result<Arc<Area<O>>> {
        let module = ModuleRef::hold()?;
        let count = self.pages();
        let mut backing = KVVec::with_capacity(count, GFP_KERNEL)?;
        for off in frames {
            backing.push(Backing::Frame(off), GFP_KERNEL)?;
        }
        if backing.len() != count {
            return Err(EINVAL);
        }
        let file = self.file();
        let pages = Pages { backing, file };
        let head = Head::new::<O>(&Area::<O>::OPS);
        let area = Arc::pin_init(
            pin_init!(Area {
                head,
                owner,
                memory,
                mappings: Atomic::new(1),
                _module: module,
                pages <- new_mutex!(pages, "fgdp_area"),
            }),
            GFP_KERNEL,
        )?;
        let raw = Arc::into_raw(area.clone()).cast_mut().cast();
        // SAFETY: The mapping is new, and keeps the reference that was made for it until `close`.
        unsafe { ffi::fgdp_helper_area_start(self.vma, raw) };
        Ok(area)
    }
}

impl<O: Owner> Area<O> {
    const OPS: ffi::fgdp_area_ops = ffi::fgdp_area_ops {
        open: Some(Self::open),
        close: Some(Self::close),
        fault: Some(Self::fault),
        huge_fault: Some(Self::huge_fault),
    };

    /// # Safety
    ///
    /// `area` is the head of a mapped area of this type, for the length of `'a`.
    unsafe fn of<'a>(area: *mut ffi::fgdp_area) -> &'a Self {
        // SAFETY: The head is the first field.
        unsafe { &*area.cast::<Self>() }
    }

    /// # Safety
    ///
    /// Called for a mapping of the area that was copied: a part of it will be cut off.
    unsafe extern "C" fn open(area: *mut ffi::fgdp_area) {
        // SAFETY: The mapping that was copied keeps the area.
        unsafe { Self::of(area) }.mappings.add(1, Relaxed);
    }

    /// # Safety
    ///
    /// Called for a mapping of the area that goes; it has no entries in page tables any more.
    unsafe extern "C" fn close(area: *mut ffi::fgdp_area) {
        // SAFETY: The mapping keeps the area until this call.
        let this = unsafe { Self::of(area) };
        if this.mappings.fetch_sub(1, Full) != 1 {
            return;
        }
        let mut pages = this.pages.lock();
        pages.file = None;
        this.unmapped(pages.backing.iter().filter_map(|backing| match backing {
            Backing::Frame(off) => Some(*off),
            Backing::Own(_) | Backing::Nothing => None,
        }));
        drop(pages);
        this.owner.closed();
        // SAFETY: The reference that `NewArea::map` made; no mapping is left.
        drop(unsafe { Arc::from_raw(area.cast::<Self>().cast_const()) });
    }

    /// # Safety
    ///
    /// Called for a fault in a mapping of the area.
    unsafe extern "C" fn fault(
        area: *mut ffi::fgdp_area,
        vmf: *mut ffi::vm_fault,
        page: usize,
        write: bool,
        present: bool,
    ) -> u32 {
        // SAFETY: The mapping keeps the area.
        let this = unsafe { Self::of(area) };
        let mut pages = this.pages.lock();
        let Pages { backing, file } = &mut *pages;
        if this.refill(backing, page).is_err() {
            return ffi::fgdp_const_FGDP_CONST_VM_FAULT_OOM;
        }
        let backing = backing.get_mut(page);
        let backing = backing.filter(|page| !page.is_any_frame() || !this.owner.is_gone());
        let Some(backing) = backing else {
            return ffi::fgdp_const_FGDP_CONST_VM_FAULT_SIGBUS;
        };
        let writable = match this.prepare(backing, write) {
            Ok(Found::Same { writable }) if present && writable => return 0,
            Ok(Found::Same { writable }) => writable,
            Ok(Found::Other) => {
                if let Some(file) = file.filter(|_| present) {
                    // SAFETY: The mapping that faults keeps its file.
                    unsafe { ffi::fgdp_helper_zap_pages(file.as_ptr(), page, 1) };
                    return ffi::fgdp_const_FGDP_CONST_VM_FAULT_NOPAGE;
                }
                true
            }
            Err(_) => return ffi::fgdp_const_FGDP_CONST_VM_FAULT_OOM,
        };
        let pfn = match backing {
            // SAFETY: `ptr` gives addresses of `memremap` or `vzalloc`.
            Backing::Frame(off) => match this.memory.ptr(*off, PAGE_SIZE as u64) {
                // SAFETY: As above.
                Some(at) => unsafe { ffi::fgdp_helper_pfn(at.cast()) },
                None => return ffi::fgdp_const_FGDP_CONST_VM_FAULT_SIGBUS,
            },
            Backing::Own(page) => page_pfn(page),
            // It was refilled.
            Backing::Nothing => return ffi::fgdp_const_FGDP_CONST_VM_FAULT_SIGBUS,
        };
        // SAFETY: A fault of a mapping that `area_start` made; the frame stays what it is as long
        // as the area, by the type's invariant, and a later change takes the entry out under the
        // lock that is held here.
        let result = unsafe { ffi::fgdp_helper_insert_pfn(vmf, 0, pfn, writable) };
        if write && writable {
            // SAFETY: As above.
            unsafe { this.map_row(&pages.backing, vmf, page) };
        }
        result
    }

    /// Maps what follows page `page`, to be written: what came back from the peer together is
    /// written together, and one fault does for all of it.
    ///
    /// # Safety
    ///
    /// `vmf` is a fault of a mapping that `area_start` made, in page `page`; the lock of `backing`
    /// is held.
    unsafe fn map_row(&self, backing: &[Backing], vmf: *mut ffi::vm_fault, page: usize) {
        let mut ahead = 1;
        while ahead < AROUND {
            let rest = backing.iter().skip(page.saturating_add(ahead));
            let mut rest = rest.take(AROUND - ahead).peekable();
            let Some(Backing::Frame(off)) = rest.peek() else {
                return;
            };
            let off = *off;
            let row = (off..).step_by(PAGE_SIZE).zip(rest);
            let count = row.take_while(|(at, page)| page.is_frame(*at)).count();
            let run = Frames { off, count };
            let writable = self.owner.writable(run);
            for at in run.each().take(writable) {
                let Some(at) = self.memory.ptr(at, PAGE_SIZE as u64) else {
                    return;
                };
                // SAFETY: The frame stays what it is as long as the area; nobody has it, so it may
                // be written.
                if !unsafe { map_ahead(vmf, ahead, at, true) } {
                    return;
                }
                ahead += 1;
            }
            if writable < count {
                return;
            }
        }
    }

    /// # Safety
    ///
    /// Called for a fault in a mapping of the area, which has all pages of an entry of the next
    /// level of page tables, from `first` on.
    unsafe extern "C" fn huge_fault(
        area: *mut ffi::fgdp_area,
        vmf: *mut ffi::vm_fault,
        first: usize,
        write: bool,
    ) -> u32 {
        // SAFETY: The mapping keeps the area.
        let this = unsafe { Self::of(area) };
        let mut pages = this.pages.lock();
        if this.owner.is_gone() {
            return ffi::fgdp_const_FGDP_CONST_VM_FAULT_FALLBACK;
        }
        if this.refill(&mut pages.backing, first).is_err() {
            return ffi::fgdp_const_FGDP_CONST_VM_FAULT_OOM;
        }
        match this.run_from(&pages.backing, first, write) {
            // SAFETY: As in `fault`; the frames follow each other in memory.
            Some(at) => unsafe { ffi::fgdp_helper_insert_huge(vmf, at.cast(), write) },
            None => ffi::fgdp_const_FGDP_CONST_VM_FAULT_FALLBACK,
        }
    }

    /// Where the run of [`AROUND`] frames is that is behind the pages from `first` on, if it is
    /// one, and it may be written when that is wanted.
    fn run_from(&self, backing: &[Backing], first: usize, write: bool) -> Option<*const u8> {
        let pages = backing.get(first..first.checked_add(AROUND)?)?;
        let Backing::Frame(off) = *pages.first()? else {
            return None;
        };
        let run = Frames { off, count: AROUND };
        let fits = run.each().zip(pages).all(|(at, page)| page.is_frame(at))
            && (!write || self.owner.writable(run) == AROUND);
        self.memory.whole(off, HUGE).filter(|_| fits)
    }

    /// Has something behind page `page` if it was given away, and behind those next to it.
    fn refill(&self, backing: &mut [Backing], page: usize) -> Result {
        if !backing.get(page).is_some_and(Backing::is_nothing) {
            return Ok(());
        }
        // All of what one entry of the next level can map, if nothing of it is there.
        let all = page - page % AROUND;
        let missing = |from: usize| {
            let pages = backing.iter().skip(from).take(AROUND);
            pages.take_while(|page| page.is_nothing()).count()
        };
        let (first, want) = match missing(all) {
            AROUND => (all, AROUND),
            _ => (page, missing(page)),
        };
        if let Some(frames) = self.owner.bring(want) {
            self.memory.clear(frames.off, frames.count * PAGE_SIZE);
            let pages = backing.iter_mut().skip(first);
            for (at, page) in frames.each().zip(pages) {
                *page = Backing::Frame(at);
            }
        }
        match backing.get_mut(page) {
            // There are no frames, or not as many.
            Some(missing @ Backing::Nothing) => {
                let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
                *missing = Backing::Own(page);
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Makes `backing` what a fault is to map.
    fn prepare(&self, backing: &mut Backing, write: bool) -> Result<Found> {
        let Backing::Frame(off) = *backing else {
            return Ok(Found::Same { writable: true });
        };
        if !write {
            let writable = self.owner.writable(Frames::one(off)) == 1;
            return Ok(Found::Same { writable });
        }
        match self.owner.write(off) {
            Write::InPlace => return Ok(Found::Same { writable: true }),
            Write::Frame(to) => {
                self.memory.copy_within(off, to, PAGE_SIZE);
                *backing = Backing::Frame(to);
            }
            Write::Own => *backing = Backing::Own(self.copy(off)?),
        }
        self.owner.unmapped(Frames::one(off));
        Ok(Found::Other)
    }

    /// A page of the guest's own with what the frame at `off` has.
    fn copy(&self, off: u64) -> Result<Page> {
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT)?;
        let from = self.memory.ptr(off, PAGE_SIZE as u64).ok_or(EFAULT)?;
        // SAFETY: `from` has a page of mapped bytes; the page is new, nobody else knows it.
        unsafe { page.write_raw(from, 0, PAGE_SIZE) }?;
        Ok(page)
    }

    /// Tells the owner of frames that are not mapped any more, of those that follow each other at
    /// once.
    fn unmapped(&self, frames: impl Iterator<Item = u64>) {
        let mut run: Option<Frames> = None;
        for off in frames {
            match &mut run {
                Some(run) if run.end() == off => run.count += 1,
                _ => {
                    if let Some(run) = run.replace(Frames::one(off)) {
                        self.owner.unmapped(run);
                    }
                }
            }
        }
        if let Some(run) = run {
            self.owner.unmapped(run);
        }
    }

    /// Who says what may be done with it.
    pub(crate) fn owner(&self) -> &O {
        &self.owner
    }

    /// Whether `owner` is this area's.
    pub(crate) fn is_of(&self, owner: &O) -> bool {
        core::ptr::eq(&self.owner, owner)
    }

    /// Leaves all frames, which the owner has said are gone: the program finds the same in memory
    /// of the guest's own, or SIGBUS where there is none. Sleeps.
    pub(crate) fn leave_frames(&self) {
        let mut pages = self.pages.lock();
        // Who writes meanwhile waits for the lock.
        pages.zap(0, 0);
        for backing in &mut pages.backing {
            let Backing::Frame(off) = *backing else {
                continue;
            };
            if let Ok(page) = self.copy(off) {
                *backing = Backing::Own(page);
                self.owner.unmapped(Frames::one(off));
            }
        }
    }
}

/// What a fault finds.
enum Found {
    /// What page tables may show already.
    Same { writable: bool },
    /// Something else; it is writable.
    Other,
}

/// Maps the page at `at`, which is `ahead` pages behind that of a fault; false if it belongs to
/// another fault.
///
/// # Safety
///
/// `vmf` is a fault of a mapping that `area_start` made. `at` is what page tables may show there,
/// of `memremap` or `vzalloc`, and stays until its entry is taken out; it may be written if
/// `writable`.
pub(super) unsafe fn map_ahead(
    vmf: *mut ffi::vm_fault,
    ahead: usize,
    at: *const u8,
    writable: bool,
) -> bool {
    // SAFETY: By the function's contract.
    let result = unsafe {
        let pfn = ffi::fgdp_helper_pfn(at.cast());
        ffi::fgdp_helper_insert_pfn(vmf, ahead, pfn, writable)
    };
    result == ffi::fgdp_const_FGDP_CONST_VM_FAULT_NOPAGE
}

/// The number of the frame that a page is in.
pub(super) fn page_pfn(page: &Page) -> usize {
    // SAFETY: The page is allocated.
    unsafe { ffi::fgdp_helper_page_pfn(page.as_ptr().cast()) }
}
