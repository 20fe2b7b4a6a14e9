// SPDX-License-Identifier: GPL-2.0

//! Listings under `/proc/net` of the initial network namespace.
//!
//! A file is read entry by entry with a cursor that survives a full buffer, so that no listing
//! needs more memory than the reader's buffer, however long it is.

use super::ffi;
use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};
use kernel::bindings;
use kernel::ffi::{c_int, c_void};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::Arc;

/// Read by everybody, as `/proc/net/tcp` is.
const FILE_MODE: u16 = 0o444;

/// A table that changes while it is read. All is called in process context.
pub(crate) trait Listing: Send + Sync + 'static {
    /// Prints the first line.
    fn header(&self, out: &SeqFile);
    /// The first place at or after `at` that has an entry.
    fn seek(&self, at: u64) -> Option<u64>;
    /// Prints what is at place `at`; nothing if that has gone since [`Listing::seek`].
    fn show(&self, at: u64, out: &SeqFile);
}

/// A directory in `/proc/net`. Dropping it removes it.
///
/// # Invariants
///
/// `entry` is a directory that this value created and alone removes.
pub(crate) struct Dir {
    entry: NonNull<ffi::proc_dir_entry>,
}

// SAFETY: The pointer is only handed to procfs, which has locks of its own.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Creates `/proc/net/NAME`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when there is such an entry already.
    pub(crate) fn new(name: &'static CStr) -> Result<Arc<Self>> {
        // SAFETY: `name` is a C string; procfs copies it.
        let entry = unsafe { ffi::fgdp_helper_proc_net_mkdir(name.as_char_ptr()) };
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        // INVARIANT: Just created.
        Ok(Arc::new(Self { entry }, GFP_KERNEL)?)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the files in it hold a reference to this value, so none is
        // left.
        unsafe { ffi::proc_remove(self.entry.as_ptr()) };
    }
}

/// A listing that can be read. Dropping it removes the file and waits for readers.
///
/// # Invariants
///
/// `entry` is a file whose data is `listing`; this value alone removes it.
pub(crate) struct File<L: Listing> {
    entry: NonNull<ffi::proc_dir_entry>,
    _listing: Arc<L>,
    _dir: Arc<Dir>,
}

// SAFETY: The pointer is only handed to procfs, which has locks of its own.
unsafe impl<L: Listing> Send for File<L> {}
// SAFETY: As above.
unsafe impl<L: Listing> Sync for File<L> {}

impl<L: Listing> File<L> {
    /// Creates file `name` in `dir`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when there is such an entry already.
    pub(crate) fn new(dir: &Arc<Dir>, name: &'static CStr, listing: Arc<L>) -> Result<Self> {
        let data = core::ptr::from_ref(&*listing).cast_mut().cast();
        // SAFETY: `dir` lives. The operations live as long as the module and expect `data`, which
        // lives until `drop` has removed the file.
        let entry = unsafe {
            ffi::proc_create_seq_private(
                name.as_char_ptr(),
                FILE_MODE,
                dir.entry.as_ptr(),
                Ops::<L>::TABLE,
                0,
                data,
            )
        };
        let entry = NonNull::new(entry).ok_or(ENOMEM)?;
        // INVARIANT: Just created with `listing` as its data.
        Ok(Self {
            entry,
            _listing: listing,
            _dir: dir.clone(),
        })
    }
}

impl<L: Listing> Drop for File<L> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. Returns when no operation runs; files that are still open
        // fail with `EIO` from then on, without calling us.
        unsafe { ffi::proc_remove(self.entry.as_ptr()) };
    }
}

/// What procfs calls for an `L`.
///
/// The position of a file is 0 for the header and `at` + 1 for place `at`. What the kernel carries
/// from `start` or `next` to `show` is the position plus one, as a pointer that nobody follows.
struct Ops<L>(PhantomData<L>);

impl<L: Listing> Ops<L> {
    const TABLE: &'static ffi::seq_operations = &ffi::seq_operations {
        start: Some(Self::start),
        stop: Some(Self::stop),
        next: Some(Self::next),
        show: Some(Self::show),
    };

    /// # Safety
    ///
    /// `m` is a reader of a file that [`File::new`] created for an `L`.
    unsafe fn listing<'a>(m: *mut ffi::seq_file) -> &'a L {
        // SAFETY: By the invariant of `File` the file's data is an `L`, which outlives all
        // operations.
        unsafe { &*ffi::fgdp_helper_seq_pde_data(m).cast::<L>() }
    }

    fn find(listing: &L, pos: &mut i64) -> *mut c_void {
        let wanted = u64::try_from(*pos).unwrap_or(0);
        let found = match wanted.checked_sub(1) {
            None => Some(0),
            Some(at) => listing.seek(at).and_then(|at| at.checked_add(1)),
        };
        let Some(found) = found.and_then(|found| i64::try_from(found).ok()) else {
            return null_mut();
        };
        *pos = found;
        core::ptr::without_provenance_mut(found.wrapping_add(1) as usize)
    }

    /// # Safety
    ///
    /// Called by procfs for a reader of a file that [`File::new`] created for an `L`.
    unsafe extern "C" fn start(m: *mut ffi::seq_file, pos: *mut ffi::loff_t) -> *mut c_void {
        // SAFETY: The kernel calls this for a reader of our file, with its position.
        unsafe { Self::find(Self::listing(m), &mut *pos) }
    }

    /// # Safety
    ///
    /// Called by procfs for a reader of a file that [`File::new`] created for an `L`.
    unsafe extern "C" fn next(
        m: *mut ffi::seq_file,
        _v: *mut c_void,
        pos: *mut ffi::loff_t,
    ) -> *mut c_void {
        // SAFETY: The kernel calls this for a reader of our file, with its position.
        let (listing, pos) = unsafe { (Self::listing(m), &mut *pos) };
        *pos = pos.saturating_add(1);
        Self::find(listing, pos)
    }

    /// # Safety
    ///
    /// Called by procfs for a reader of a file that [`File::new`] created for an `L`.
    unsafe extern "C" fn stop(_m: *mut ffi::seq_file, _v: *mut c_void) {}

    /// # Safety
    ///
    /// Called by procfs for a reader of a file that [`File::new`] created for an `L`.
    unsafe extern "C" fn show(m: *mut ffi::seq_file, v: *mut c_void) -> c_int {
        // SAFETY: The kernel calls this for a reader of our file, under the reader's lock.
        let (listing, out) = unsafe {
            (
                Self::listing(m),
                SeqFile::from_raw(m.cast::<bindings::seq_file>()),
            )
        };
        match v.addr().checked_sub(2) {
            None => listing.header(out),
            Some(at) => listing.show(at as u64, out),
        }
        0
    }
}
