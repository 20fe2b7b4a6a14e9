// SPDX-License-Identifier: GPL-2.0

//! Memory of a peer that programs map by `mmap(2)`: page n is that of the peer's slot, while it is
//! shown.
//!
//! Page tables hold frame numbers, as those of [`mm`](super::mm): what is shown, and what is behind
//! a page, changes under the window's lock only, in which faults put entries into page tables, and
//! from which those of a page are taken before it is shown no more. The peer's memory is never
//! mapped writable: the hypervisor ends a guest that writes there. Who writes gets a page of the
//! guest's own.
//!
//! Lock order: `mmap_lock` or that of a mapping, what the owner takes when it hears of the end, the
//! window's `pages`, page tables.

use super::ffi;
use super::mm::{map_ahead, page_pfn, Head, NewArea, AROUND, HUGE};
use super::module::ModuleRef;
use super::shm::GroupMem;
use crate::proto::grant::bitmap;
use core::ptr::NonNull;
use kernel::page::{Page, PAGE_SIZE};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex};

/// The page of the file that a window begins at.
const FIRST: usize = ffi::fgdp_const_FGDP_CONST_WINDOW_PAGE as usize;

/// Who made a window.
pub(crate) trait Viewer: Send + Sync + 'static {
    /// It is not mapped any more. May not sleep for user memory: `mmap_lock` is held.
    fn closed(&self);
}

struct Pages {
    /// Bit n: page n is shown.
    shown: KVVec<u64>,
    /// Those of them that the program wrote to.
    own: RBTree<usize, Page>,
    /// The mapped file, until the last mapping goes, which holds it.
    file: Option<NonNull<ffi::file>>,
    /// The peer's memory is not looked at any more.
    gone: bool,
}

// SAFETY: A file may be referred to from any thread; pages are plain data.
unsafe impl Send for Pages {}

impl Pages {
    fn is_shown(&self, page: usize) -> bool {
        self.shown
            .get(page / 64)
            .is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    fn zap(&self, first: usize, count: usize) {
        if let Some(file) = self.file {
            // SAFETY: Under the lock a mapping is left, which holds the file.
            unsafe { ffi::fgdp_helper_zap_pages(file.as_ptr(), FIRST + first, count) };
        }
    }
}

/// What one call of `mmap(2)` mapped of a peer's slot.
///
/// # Invariants
///
/// Page tables show page n only while its bit in `pages.shown` is set: the page of `own`, which is
/// there as long as the bit is, or else, unless `gone`, the frame in the peer's slot, not writable.
#[pin_data]
#[repr(C)]
pub(crate) struct Window<V: Viewer> {
    head: Head,
    viewer: V,
    memory: GroupMem,
    /// Where page 0 is in `memory`.
    base: u64,
    count: usize,
    mappings: Atomic<i32>,
    // A socket that is TCP's again does not hold it.
    _module: ModuleRef,
    #[pin]
    pages: Mutex<Pages>,
}

// SAFETY: `head` points to a constant; the other fields are `Send`.
unsafe impl<V: Viewer> Send for Window<V> {}
// SAFETY: As above, and `Sync`.
unsafe impl<V: Viewer> Sync for Window<V> {}

impl<V: Viewer> Window<V> {
    const OPS: ffi::fgdp_area_ops = ffi::fgdp_area_ops {
        open: Some(Self::open),
        close: Some(Self::close),
        fault: Some(Self::fault),
        huge_fault: Some(Self::huge_fault),
    };

    /// Maps nothing yet; `base` is where page 0 will be in `memory`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` when the module is going. Nothing is mapped then, and the viewer hears of
    /// nothing.
    pub(crate) fn map(
        area: &NewArea<'_>,
        viewer: V,
        memory: GroupMem,
        base: u64,
    ) -> Result<Arc<Self>> {
        let module = ModuleRef::hold()?;
        let count = area.pages();
        let mut shown = KVVec::new();
        shown.resize(count.div_ceil(64), 0, GFP_KERNEL_ACCOUNT)?;
        let pages = Pages {
            shown,
            own: RBTree::new(),
            file: area.file(),
            gone: false,
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                head: Head::new::<Self>(&Self::OPS),
                viewer,
                memory,
                base,
                count,
                mappings: Atomic::new(1),
                _module: module,
                pages <- new_mutex!(pages, "fgdp_window"),
            }),
            GFP_KERNEL,
        )?;
        let raw = Arc::into_raw(this.clone()).cast_mut().cast();
        // SAFETY: The mapping is new, and keeps the reference that was made for it until `close`.
        unsafe { ffi::fgdp_helper_area_start(area.vma, raw) };
        Ok(this)
    }

    /// Shows `count` pages from `first` on; false, and nothing done, if one is shown already or
    /// outside. Sleeps.
    pub(crate) fn show(&self, first: usize, count: usize) -> bool {
        let Some(end) = first.checked_add(count).filter(|&end| end <= self.count) else {
            return false;
        };
        let mut pages = self.pages.lock();
        if pages.gone || pages.file.is_none() || !bitmap::none(&pages.shown, first..end) {
            return false;
        }
        bitmap::flip(&mut pages.shown, first..end);
        true
    }

    /// Shows `count` pages from `first` on, which are shown, no more. Sleeps.
    pub(crate) fn hide(&self, first: usize, count: usize) {
        let end = first.saturating_add(count).min(self.count);
        let mut pages = self.pages.lock();
        bitmap::clear(&mut pages.shown, first..end);
        pages.zap(first, count);
        // Not before nobody sees them.
        let written = !pages.own.is_empty();
        for n in (first..end).filter(|_| written) {
            drop(pages.own.remove(&n));
        }
    }

    /// What is shown stays as it is, in pages of the guest's own: the peer's memory is not looked
    /// at any more. A page that there is no memory for gives SIGBUS. Sleeps.
    pub(crate) fn keep(&self) {
        let mut pages = self.pages.lock();
        if pages.gone {
            return;
        }
        pages.gone = true;
        for page in 0..self.count {
            if !pages.is_shown(page) || pages.own.get(&page).is_some() {
                continue;
            }
            match self.copy(page) {
                Ok(copy) => drop(pages.own.insert(copy)),
                Err(_) => bitmap::clear(&mut pages.shown, page..page + 1),
            }
        }
        pages.zap(0, self.count);
    }

    /// Shows nothing from now on, unless it was kept: who touches it gets SIGBUS. Sleeps.
    pub(crate) fn revoke(&self) {
        let mut pages = self.pages.lock();
        if pages.gone {
            return;
        }
        pages.gone = true;
        pages.shown.iter_mut().for_each(|w| *w = 0);
        pages.zap(0, self.count);
        pages.own = RBTree::new();
    }

    /// # Safety
    ///
    /// `area` is the head of a mapped window of this type, for the length of `'a`.
    unsafe fn of<'a>(area: *mut ffi::fgdp_area) -> &'a Self {
        // SAFETY: The head is the first field.
        unsafe { &*area.cast::<Self>() }
    }

    /// # Safety
    ///
    /// Called for a mapping of the window that was copied: a part of it will be cut off.
    unsafe extern "C" fn open(area: *mut ffi::fgdp_area) {
        // SAFETY: The mapping that was copied keeps the window.
        unsafe { Self::of(area) }.mappings.add(1, Relaxed);
    }

    /// # Safety
    ///
    /// Called for a mapping of the window that goes; it has no entries in page tables any more.
    unsafe extern "C" fn close(area: *mut ffi::fgdp_area) {
        // SAFETY: The mapping keeps the window until this call.
        let this = unsafe { Self::of(area) };
        if this.mappings.fetch_sub(1, Full) != 1 {
            return;
        }
        this.pages.lock().file = None;
        this.viewer.closed();
        // SAFETY: The reference that `map` made; no mapping is left.
        drop(unsafe { Arc::from_raw(area.cast::<Self>().cast_const()) });
    }

    /// # Safety
    ///
    /// Called for a fault in a mapping of the window.
    unsafe extern "C" fn fault(
        area: *mut ffi::fgdp_area,
        vmf: *mut ffi::vm_fault,
        page: usize,
        write: bool,
        present: bool,
    ) -> u32 {
        // SAFETY: The mapping keeps the window.
        let this = unsafe { Self::of(area) };
        let page = page.wrapping_sub(FIRST);
        let mut pages = this.pages.lock();
        if !pages.is_shown(page) {
            return ffi::fgdp_const_FGDP_CONST_VM_FAULT_SIGBUS;
        }
        if write && pages.own.get(&page).is_none() {
            let Ok(copy) = this.copy(page) else {
                return ffi::fgdp_const_FGDP_CONST_VM_FAULT_OOM;
            };
            pages.own.insert(copy);
            if present {
                // The fault comes again, and finds the copy.
                pages.zap(page, 1);
                return ffi::fgdp_const_FGDP_CONST_VM_FAULT_NOPAGE;
            }
        }
        let own = pages.own.get(&page).map(page_pfn);
        let (pfn, writable) = match (own, this.frame(page).filter(|_| !pages.gone)) {
            (Some(_), _) if present => return 0,
            (Some(pfn), _) => (pfn, true),
            // SAFETY: `ptr` gives addresses of `memremap` or `vzalloc`.
            (None, Some(at)) => (unsafe { ffi::fgdp_helper_pfn(at.cast()) }, false),
            (None, None) => return ffi::fgdp_const_FGDP_CONST_VM_FAULT_SIGBUS,
        };
        // SAFETY: A fault of a mapping that `area_start` made; the frame stays what it is while the
        // page is shown, by the type's invariant, and its entry goes before that, under the lock
        // that is held here.
        let result = unsafe { ffi::fgdp_helper_insert_pfn(vmf, 0, pfn, writable) };
        // What was granted together is read together: one fault does for all of it.
        for ahead in 1..AROUND {
            let next = page + ahead;
            if pages.gone
                || own.is_some()
                || !pages.is_shown(next)
                || pages.own.get(&next).is_some()
            {
                break;
            }
            let Some(at) = this.frame(next) else {
                break;
            };
            // SAFETY: As above.
            if !unsafe { map_ahead(vmf, ahead, at, false) } {
                break;
            }
        }
        result
    }

    /// # Safety
    ///
    /// Called for a fault in a mapping of the window, which has all pages of an entry of the next
    /// level of page tables, from `first` on.
    unsafe extern "C" fn huge_fault(
        area: *mut ffi::fgdp_area,
        vmf: *mut ffi::vm_fault,
        first: usize,
        write: bool,
    ) -> u32 {
        // SAFETY: The mapping keeps the window.
        let this = unsafe { Self::of(area) };
        let first = first.wrapping_sub(FIRST);
        let pages = this.pages.lock();
        let mut run = first..first.saturating_add(AROUND);
        // Who writes needs pages of its own.
        let fits = !write
            && !pages.gone
            && bitmap::all(&pages.shown, run.clone())
            && (pages.own.is_empty() || !run.any(|n| pages.own.get(&n).is_some()));
        let at = this.offset(first).filter(|_| fits);
        match at.and_then(|at| this.memory.whole(at, HUGE)) {
            // SAFETY: As in `fault`; the frames follow each other in memory.
            Some(at) => unsafe { ffi::fgdp_helper_insert_huge(vmf, at.cast(), false) },
            None => ffi::fgdp_const_FGDP_CONST_VM_FAULT_FALLBACK,
        }
    }

    /// Where page `n` is in the group's memory.
    fn offset(&self, n: usize) -> Option<u64> {
        let off = (n as u64).checked_mul(PAGE_SIZE as u64)?;
        self.base.checked_add(off)
    }

    /// Where page `n` is mapped.
    fn frame(&self, n: usize) -> Option<*const u8> {
        self.memory.ptr(self.offset(n)?, PAGE_SIZE as u64)
    }

    /// A page of the guest's own with what page `n` shows.
    fn copy(&self, n: usize) -> Result<RBTreeNode<usize, Page>> {
        let from = self.frame(n).ok_or(EFAULT)?;
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT)?;
        // SAFETY: `from` has a page of mapped bytes; the page is new, nobody else knows it.
        unsafe { page.write_raw(from, 0, PAGE_SIZE) }?;
        RBTreeNode::new(n, page, GFP_KERNEL_ACCOUNT)
    }
}
