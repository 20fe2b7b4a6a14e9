// SPDX-License-Identifier: GPL-2.0

//! What is behind a program's memory when it sends it: frames that can be lent, or given away.
//!
//! Lock order: as of [`mm`](super).

use super::super::ffi;
use super::{Area, Backing, Head, Owner, Pages};
use core::any::TypeId;
use core::num::NonZero;
use core::ptr::NonNull;
use kernel::page::PAGE_SIZE;

/// Frames that follow each other in memory and in the slot.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    /// Offset in the slot of the first one.
    pub(crate) off: u64,
    /// How many.
    pub(crate) count: usize,
}

impl Frames {
    /// The frame at `off`.
    pub(super) fn one(off: u64) -> Self {
        Self { off, count: 1 }
    }

    /// The offset behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.off.wrapping_add((self.count * PAGE_SIZE) as u64)
    }

    /// The offset of each.
    pub(super) fn each(&self) -> impl Iterator<Item = u64> {
        (self.off..).step_by(PAGE_SIZE).take(self.count)
    }
}

/// What is behind the caller's memory at some address.
pub(crate) enum Behind {
    /// Frames, which `lend` has lent: nobody writes to them any more.
    Lent(Frames),
    /// So many bytes that are to be copied.
    Copy(usize),
}

/// Lends the frames behind the caller's memory from `addr` on, whole pages up to `len` bytes:
/// `lend` gets the owner and a run of at most `max` frames, and says whether it did. Process
/// context; sleeps.
pub(crate) fn lend<O: Owner>(
    addr: usize,
    len: usize,
    max: usize,
    lend: impl FnOnce(&O, Frames) -> bool,
) -> Behind {
    let whole = len / PAGE_SIZE;
    // What is left of a page that began before.
    let rest = addr.wrapping_neg() % PAGE_SIZE;
    if rest != 0 || whole == 0 {
        return Behind::Copy(if rest == 0 { len } else { len.min(rest) });
    }
    let lent = with_area(addr, |area: &Area<O>, page, left| {
        let behind = area.lend(page, whole.min(left).min(max), lend);
        behind.unwrap_or(Behind::Copy(len.min(left.saturating_mul(PAGE_SIZE))))
    });
    lent.unwrap_or(Behind::Copy(len))
}

/// Takes `frames`, which were lent, from the caller's memory at `addr`: they are held by whom they
/// were lent to alone. A page that was written since keeps what was written. Process context;
/// sleeps.
pub(crate) fn take_away<O: Owner>(addr: usize, frames: Frames) {
    // Without the mapping they are gone already.
    let _mapped = with_area(addr, |area: &Area<O>, page, _| area.take_away(page, frames));
}

/// Runs `f` on the area of owner `O` that the caller's memory at `addr` belongs to, the page there,
/// and how many pages are mapped from it on. `None` if it belongs to no such area.
fn with_area<O: Owner, R>(addr: usize, f: impl FnOnce(&Area<O>, usize, usize) -> R) -> Option<R> {
    // SAFETY: Process context.
    let vma = NonNull::new(unsafe { ffi::fgdp_helper_lock_area(addr) })?;
    let mut left = 0;
    // SAFETY: The lock keeps the mapping, and that keeps its area.
    let (page, area) = unsafe {
        let page = ffi::fgdp_helper_area_page(vma.as_ptr(), addr, &mut left);
        (page, ffi::fgdp_helper_area_of(vma.as_ptr()))
    };
    // SAFETY: All areas begin with a head.
    let is_of_owner = unsafe { (*area.cast::<Head>()).owner } == TypeId::of::<O>();
    let result = is_of_owner.then(|| {
        // SAFETY: Its owner is of this type.
        f(unsafe { Area::<O>::of(area) }, page, left)
    });
    // SAFETY: Locked above.
    unsafe { ffi::fgdp_helper_unlock_area(vma.as_ptr()) };
    result
}

impl<O: Owner> Area<O> {
    /// Lends the run of frames from `first` on, at most `max`.
    fn lend(
        &self,
        first: usize,
        max: usize,
        lend: impl FnOnce(&O, Frames) -> bool,
    ) -> Option<Behind> {
        let mut pages = self.pages.lock();
        let end = first.checked_add(max)?;
        self.bring_back(&mut pages, first, max);
        let backing = pages.backing.get(first..end)?;
        let Backing::Frame(off) = *backing.first()? else {
            return Some(Behind::Copy(PAGE_SIZE));
        };
        let row = (off..).step_by(PAGE_SIZE).zip(backing);
        let count = row.take_while(|(at, page)| page.is_frame(*at)).count();
        let run = Frames { off, count };
        if !lend(&self.owner, run) {
            return None;
        }
        pages.zap(first, count);
        Some(Behind::Lent(run))
    }

    /// Has frames behind the pages from `first` on that are in memory of this guest alone, because
    /// there were none when they were written: otherwise they are copied each time.
    fn bring_back(&self, pages: &mut Pages, first: usize, max: usize) {
        let backing = pages.backing.iter().skip(first).take(max);
        let own = backing.take_while(|page| matches!(page, Backing::Own(_)));
        let Some(frames) = NonZero::new(own.count()).and_then(|n| self.owner.bring(n.get())) else {
            return;
        };
        // Who writes meanwhile waits for the lock.
        pages.zap(first, frames.count);
        let backing = pages.backing.iter_mut().skip(first);
        for (off, page) in frames.each().zip(backing) {
            let to = self.memory.ptr(off, PAGE_SIZE as u64);
            if let (Backing::Own(own), Some(to)) = (&*page, to) {
                // SAFETY: `to` has a page of mapped bytes of a frame that is nobody's yet, in the
                // own slot, which this guest writes.
                let copied = unsafe { own.read_raw(to.cast_mut(), 0, PAGE_SIZE) };
                if copied.is_ok() {
                    *page = Backing::Frame(off);
                    continue;
                }
            }
            self.owner.unmapped(Frames::one(off));
        }
    }

    /// Takes `frames` from the pages from `first` on, where they still are.
    fn take_away(&self, first: usize, frames: Frames) {
        let mut pages = self.pages.lock();
        pages.zap(first, frames.count);
        let backing = pages.backing.iter_mut().skip(first);
        let there = frames.each().zip(backing);
        let there = there.filter(|(off, page)| page.is_frame(*off));
        self.unmapped(there.map(|(off, page)| {
            *page = Backing::Nothing;
            off
        }));
    }
}
