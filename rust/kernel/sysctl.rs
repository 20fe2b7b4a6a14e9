// SPDX-License-Identifier: GPL-2.0

//! Settings under `/proc/sys`: numbers, lists of ports, and lines of text.

use super::ffi;
use super::net::namespace::Net;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::ffi::{c_int, c_ulong, c_void};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{new_mutex, Mutex};

/// A table that the kernel knows. Dropping it takes it away, after running reads and writes.
struct Registered(*mut ffi::ctl_table_header);

// SAFETY: The kernel serialises what it does with the header.
unsafe impl Send for Registered {}
// SAFETY: As above; there are no methods by reference.
unsafe impl Sync for Registered {}

impl Registered {
    /// # Safety
    ///
    /// `table` stays where it is until this is dropped, and its handler fits what is around it.
    unsafe fn new(net: &Net, dir: &'static CStr, table: *mut ffi::ctl_table) -> Result<Self> {
        // SAFETY: By this function's contract.
        let header = unsafe { ffi::register_net_sysctl_sz(net.raw(), dir.as_char_ptr(), table, 1) };
        if header.is_null() {
            return Err(ENOMEM);
        }
        Ok(Self(header))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: Registered in `new`; no handler runs after this.
        unsafe { ffi::unregister_net_sysctl_table(self.0) };
    }
}

fn table(name: &'static CStr, handler: ffi::proc_handler) -> ffi::ctl_table {
    ffi::ctl_table {
        procname: name.as_char_ptr(),
        mode: 0o644,
        proc_handler: handler,
        ..Default::default()
    }
}

/// Is told of a new number.
pub(crate) trait Setting: Send + Sync + 'static {
    /// Somebody wrote `value`, which is within the limits. Process context.
    fn set(&self, value: i32);
}

/// Nobody is told: who needs the number looks.
impl Setting for () {
    fn set(&self, _value: i32) {}
}

/// # Invariants
///
/// While registered it does not move; `table` is a whole `struct ctl_table` array of one.
#[repr(C)]
struct NumberEntry<S: Setting> {
    // First, so that a pointer to it is one to the whole.
    table: ffi::ctl_table,
    value: Atomic<i32>,
    max: c_int,
    min: c_int,
    setting: S,
}

/// A number.
pub(crate) struct Number<S: Setting> {
    // Before what it refers to.
    _registered: Registered,
    entry: Pin<KBox<NumberEntry<S>>>,
}

// SAFETY: The raw pointers are to the entry itself and to constants.
unsafe impl<S: Setting> Send for Number<S> {}
// SAFETY: As above; the value is atomic.
unsafe impl<S: Setting> Sync for Number<S> {}

impl<S: Setting> Number<S> {
    /// Makes `dir/name` of `net`, from `min` to `max`, with `value` at first. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when the name is taken.
    pub(crate) fn new(
        net: &Net,
        dir: &'static CStr,
        name: &'static CStr,
        value: i32,
        (min, max): (i32, i32),
        setting: S,
    ) -> Result<Self> {
        let entry = NumberEntry {
            table: table(name, Some(number::<S>)),
            value: Atomic::new(value),
            max,
            min,
            setting,
        };
        let mut entry = KBox::pin(entry, GFP_KERNEL)?;
        // SAFETY: Nothing is moved out.
        let inner = unsafe { entry.as_mut().get_unchecked_mut() };
        inner.table.data = inner.value.as_ptr().cast();
        inner.table.maxlen = size_of::<c_int>() as c_int;
        inner.table.extra1 = (&raw mut inner.min).cast();
        inner.table.extra2 = (&raw mut inner.max).cast();
        // SAFETY: The entry is pinned, and dropped behind the registration.
        let registered = unsafe { Registered::new(net, dir, &raw mut inner.table) }?;
        Ok(Self {
            _registered: registered,
            entry,
        })
    }

    /// The number. Any context.
    pub(crate) fn get(&self) -> i32 {
        self.entry.value.load(Relaxed)
    }
}

/// # Safety
///
/// Called by the kernel with the table of a `NumberEntry<S>`.
unsafe extern "C" fn number<S: Setting>(
    table: *const ffi::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut ffi::loff_t,
) -> c_int {
    // SAFETY: The kernel's own, with what it expects.
    let result = unsafe { ffi::proc_dointvec_minmax(table, write, buffer, len, pos) };
    if result == 0 && write != 0 {
        // SAFETY: The table is the first field of a live `NumberEntry<S>`.
        let entry = unsafe { &*table.cast::<NumberEntry<S>>() };
        entry.setting.set(entry.value.load(Relaxed));
    }
    result
}

/// All port numbers.
const PORTS: usize = 1 << 16;

/// # Invariants
///
/// As [`NumberEntry`]; `bits` points to the first word of `words`.
#[repr(C)]
struct PortsEntry {
    // First, so that a pointer to it is one to the whole.
    table: ffi::ctl_table,
    bits: *mut c_ulong,
    words: KVVec<Atomic<u64>>,
    any: AtomicBool,
}

/// A list of ports and ranges of ports, as `net.ipv4.ip_local_reserved_ports`.
pub(crate) struct Ports {
    // Before what it refers to.
    _registered: Registered,
    entry: Pin<KBox<PortsEntry>>,
}

// SAFETY: The raw pointers are to the entry itself and to constants.
unsafe impl Send for Ports {}
// SAFETY: As above; the words are atomic.
unsafe impl Sync for Ports {}

impl Ports {
    /// Makes `dir/name` of `net`, empty at first. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Number::new`].
    pub(crate) fn new(net: &Net, dir: &'static CStr, name: &'static CStr) -> Result<Self> {
        let mut words = KVVec::with_capacity(PORTS / 64, GFP_KERNEL)?;
        for _ in 0..PORTS / 64 {
            words.push(Atomic::new(0u64), GFP_KERNEL)?;
        }
        let entry = PortsEntry {
            table: table(name, Some(ports)),
            bits: words.as_mut_ptr().cast(),
            words,
            any: AtomicBool::new(false),
        };
        let mut entry = KBox::pin(entry, GFP_KERNEL)?;
        // SAFETY: Nothing is moved out.
        let inner = unsafe { entry.as_mut().get_unchecked_mut() };
        inner.table.data = (&raw mut inner.bits).cast();
        inner.table.maxlen = PORTS as c_int;
        // SAFETY: The entry is pinned, and dropped behind the registration.
        let registered = unsafe { Registered::new(net, dir, &raw mut inner.table) }?;
        Ok(Self {
            _registered: registered,
            entry,
        })
    }

    /// Whether the list is empty. Any context.
    pub(crate) fn is_empty(&self) -> bool {
        !self.entry.any.load(Ordering::Acquire)
    }

    /// Whether `port` is in the list. Any context.
    pub(crate) fn has(&self, port: u16) -> bool {
        let word = self.entry.words.get(usize::from(port / 64));
        word.is_some_and(|word| word.load(Relaxed) >> (port % 64) & 1 != 0)
    }
}

/// # Safety
///
/// Called by the kernel with the table of a `PortsEntry`.
unsafe extern "C" fn ports(
    table: *const ffi::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut ffi::loff_t,
) -> c_int {
    // SAFETY: The kernel's own, with what it expects.
    let result = unsafe { ffi::proc_do_large_bitmap(table, write, buffer, len, pos) };
    if write != 0 {
        // SAFETY: The table is the first field of a live `PortsEntry`.
        let entry = unsafe { &*table.cast::<PortsEntry>() };
        let any = entry.words.iter().any(|word| word.load(Relaxed) != 0);
        entry.any.store(any, Ordering::Release);
    }
    result
}

/// Bytes of a line, with its end.
const LINE: usize = 1024;

/// Takes a new line.
pub(crate) trait Line: Send + Sync + 'static {
    /// Somebody wrote `line`. Process context; one at a time.
    ///
    /// # Errors
    ///
    /// The line is not good: the old one stays.
    fn set(&self, line: &CStr) -> Result;
}

/// # Invariants
///
/// As [`NumberEntry`].
#[pin_data]
#[repr(C)]
struct TextEntry<S: Line> {
    // First, so that a pointer to it is one to the whole.
    table: ffi::ctl_table,
    #[pin]
    line: Mutex<[u8; LINE]>,
    taker: S,
}

/// A line of text.
pub(crate) struct Text<S: Line> {
    // Before what it refers to.
    _registered: Registered,
    entry: Pin<KBox<TextEntry<S>>>,
}

// SAFETY: The raw pointers are to constants.
unsafe impl<S: Line> Send for Text<S> {}
// SAFETY: As above.
unsafe impl<S: Line> Sync for Text<S> {}

impl<S: Line> Text<S> {
    /// Makes `dir/name` of `net`, empty at first. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Number::new`].
    pub(crate) fn new(
        net: &Net,
        dir: &'static CStr,
        name: &'static CStr,
        taker: S,
    ) -> Result<Self> {
        let mut table = table(name, Some(text::<S>));
        table.maxlen = LINE as c_int;
        let init = pin_init!(TextEntry {
            table,
            line <- new_mutex!([0; LINE], "fgdp_sysctl_text"),
            taker,
        });
        let mut entry = KBox::pin_init(init, GFP_KERNEL)?;
        // SAFETY: Nothing is moved out.
        let inner = unsafe { entry.as_mut().get_unchecked_mut() };
        // SAFETY: The entry is pinned, and dropped behind the registration.
        let registered = unsafe { Registered::new(net, dir, &raw mut inner.table) }?;
        Ok(Self {
            _registered: registered,
            entry,
        })
    }

    /// Who takes the lines.
    pub(crate) fn taker(&self) -> &S {
        &self.entry.taker
    }
}

/// # Safety
///
/// Called by the kernel with the table of a `TextEntry<S>`.
unsafe extern "C" fn text<S: Line>(
    table: *const ffi::ctl_table,
    write: c_int,
    buffer: *mut c_void,
    len: *mut usize,
    pos: *mut ffi::loff_t,
) -> c_int {
    // SAFETY: The table is the first field of a live `TextEntry<S>`.
    let (entry, mut copy) = unsafe { (&*table.cast::<TextEntry<S>>(), table.read()) };
    let mut line = entry.line.lock();
    // A line that is not good leaves the old one, and the kernel's function changes what it is
    // given.
    let Ok(mut new) = KBox::new(*line, GFP_KERNEL) else {
        return ENOMEM.to_errno();
    };
    copy.data = new.as_mut_ptr().cast();
    // SAFETY: The kernel's own; `copy` has room for a line.
    let result = unsafe { ffi::proc_dostring(&copy, write, buffer, len, pos) };
    if result != 0 || write == 0 {
        return result;
    }
    let taken = CStr::from_bytes_until_nul(&*new)
        .map_err(|_| EINVAL)
        .and_then(|text| entry.taker.set(text));
    match taken {
        Ok(()) => {
            *line = *new;
            0
        }
        Err(e) => e.to_errno(),
    }
}
