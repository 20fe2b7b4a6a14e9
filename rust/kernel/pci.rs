// SPDX-License-Identifier: GPL-2.0

//! Doorbells of QEMU's `ivshmem-doorbell` device: one register write interrupts another guest.
//!
//! The device carries no data for us. Its memory holds a header that says which group it belongs
//! to, so that it finds its virtio device; one without that header is left to other drivers.
//!
//! Bells and those who listen to them come and go in any order; both meet in [`REGISTRY`].
//!
//! Lock order: the registry's mutex, then a bell's `listener` lock, which interrupt handlers take.

use super::{
    compat::{pci_device_table, IdInfo, Regs},
    ffi,
    irqlock::{new_irqlock, IrqLock}, //
};
use crate::proto::wire;
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::{
    device::Core,
    driver,
    error::to_result,
    io::Io,
    pci,
    prelude::*,
    sync::{aref::ARef, Arc},
};

/// Registers of BAR 0.
const IV_POSITION: usize = 8;
const DOORBELL: usize = 12;
const REGS: usize = 16;

const GROUP_ID: usize = 16;

/// Who is told that a bell rang.
pub(crate) trait Listener: Send + Sync {
    /// Vector `lane` of the bell was rung. Hard interrupt context.
    fn rung(&self, lane: u32);
    /// A bell for the listener's group is there from now on.
    fn bell(&self, bell: Arc<Bell>);
}

/// One doorbell device.
#[pin_data]
pub(crate) struct Bell {
    regs: Regs<REGS>,
    group: [u8; GROUP_ID],
    id: u16,
    vectors: u32,
    #[pin]
    listener: IrqLock<Option<Arc<dyn Listener>>>,
}

impl Bell {
    /// The id under which the members of the group ring this guest.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// How many lanes have a vector: 0 .. `vectors()`.
    pub(crate) fn vectors(&self) -> u32 {
        self.vectors
    }

    /// Rings `lane` of the member with doorbell id `peer`. Any context. False: the device is gone.
    pub(crate) fn ring(&self, peer: u16, lane: u32) -> bool {
        let Some(regs) = self.regs.try_access() else {
            return false;
        };
        regs.write32(u32::from(peer) << 16 | (lane & 0xffff), DOORBELL);
        true
    }
}

/// Bells by group, and who waits for the bell of which group.
struct Registry {
    bells: KVec<Arc<Bell>>,
    listeners: KVec<([u8; GROUP_ID], Arc<dyn Listener>)>,
}

kernel::sync::global_lock! {
    // SAFETY: Initialised by `Bells::new`, which runs before all others that use it.
    unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry {
        bells: KVec::new(),
        listeners: KVec::new(),
    };
}
static READY: AtomicBool = AtomicBool::new(false);

/// Tells `listener` of the doorbells of `group`, until [`unlisten`].
///
/// # Errors
///
/// `EEXIST` when the group has a listener.
pub(crate) fn listen(group: [u8; GROUP_ID], listener: Arc<dyn Listener>) -> Result {
    if !READY.load(Ordering::Acquire) {
        return Err(ENODEV);
    }
    let mut registry = REGISTRY.lock();
    if registry.listeners.iter().any(|(g, _)| *g == group) {
        return Err(EEXIST);
    }
    registry
        .listeners
        .push((group, listener.clone()), GFP_KERNEL)?;
    if let Some(bell) = registry.bells.iter().find(|b| b.group == group) {
        listener.bell(bell.clone());
        *bell.listener.lock() = Some(listener);
    }
    Ok(())
}

/// Ends [`listen`]: after this returns the listener is not told of a doorbell any more.
pub(crate) fn unlisten(group: &[u8; GROUP_ID]) {
    if !READY.load(Ordering::Acquire) {
        return;
    }
    let mut registry = REGISTRY.lock();
    registry.listeners.retain(|(g, _)| g != group);
    let bell = registry.bells.iter().find(|b| b.group == *group);
    let old = bell.and_then(|b| b.listener.lock().take());
    drop(registry);
    drop(old);
}

fn add(bell: &Arc<Bell>) -> Result {
    let mut registry = REGISTRY.lock();
    if registry.bells.iter().any(|b| b.group == bell.group) {
        return Err(EEXIST);
    }
    registry.bells.push(bell.clone(), GFP_KERNEL)?;
    if let Some((_, listener)) = registry.listeners.iter().find(|(g, _)| *g == bell.group) {
        listener.bell(bell.clone());
        *bell.listener.lock() = Some(listener.clone());
    }
    Ok(())
}

fn remove(bell: &Arc<Bell>) {
    let mut registry = REGISTRY.lock();
    registry.bells.retain(|b| !Arc::ptr_eq(b, bell));
    let old = bell.listener.lock().take();
    drop(registry);
    drop(old);
}

/// The MSI-X vectors of a device.
///
/// # Invariants
///
/// `pdev` has `count` vectors, which are ours.
struct Vectors {
    pdev: ARef<pci::Device>,
    count: u32,
}

fn raw(pdev: &pci::Device) -> *mut ffi::pci_dev {
    core::ptr::from_ref(pdev).cast_mut().cast()
}

impl Vectors {
    fn alloc(pdev: &pci::Device<Core<'_>>, max: u32) -> Result<Self> {
        // SAFETY: `pdev` is a valid device that is being probed.
        let count = unsafe { ffi::pci_alloc_irq_vectors(raw(pdev), 1, max, ffi::PCI_IRQ_MSIX) };
        to_result(count)?;
        // INVARIANT: The allocation succeeded.
        Ok(Self {
            pdev: pdev.into(),
            count: count.unsigned_abs(),
        })
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the vectors are ours; each `Line` on them is gone before.
        unsafe { ffi::pci_free_irq_vectors(raw(&self.pdev)) };
    }
}

/// What the interrupt handler of one vector needs.
struct Handler {
    bell: Arc<Bell>,
    lane: u32,
}

/// # Safety
///
/// Called by the interrupt core with the data of a [`Line`].
unsafe extern "C" fn interrupt(
    _irq: kernel::ffi::c_int,
    data: *mut kernel::ffi::c_void,
) -> ffi::irqreturn_t {
    // SAFETY: `data` is the handler that a `Line` owns until after `free_irq`.
    let handler = unsafe { &*data.cast::<Handler>() };
    if let Some(listener) = &*handler.bell.listener.lock() {
        listener.rung(handler.lane);
    }
    ffi::irqreturn_IRQ_HANDLED
}

/// A requested interrupt.
///
/// # Invariants
///
/// `irq` is requested with `handler` as its data.
struct Line {
    irq: u32,
    handler: KBox<Handler>,
}

impl Line {
    fn request(vectors: &Vectors, lane: u32, bell: &Arc<Bell>) -> Result<Self> {
        if lane >= vectors.count {
            return Err(EINVAL);
        }
        // SAFETY: `lane` is a vector of the device by the check and the invariant of `Vectors`.
        let irq = unsafe { ffi::pci_irq_vector(raw(&vectors.pdev), lane) };
        to_result(irq)?;
        let handler = KBox::new(
            Handler {
                bell: bell.clone(),
                lane,
            },
            GFP_KERNEL,
        )?;
        let data = core::ptr::from_ref(&*handler).cast_mut().cast();
        let irq = irq.unsigned_abs();
        // SAFETY: `interrupt` accepts `data`, which lives until `drop` has freed the interrupt.
        to_result(unsafe {
            ffi::request_threaded_irq(
                irq,
                Some(interrupt),
                None,
                0,
                c"fgdp-bell".as_char_ptr(),
                data,
            )
        })?;
        // INVARIANT: Just requested.
        Ok(Self { irq, handler })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let data = core::ptr::from_ref(&*self.handler).cast_mut().cast();
        // SAFETY: Requested with `data` by the type invariant. Waits for a handler that runs.
        unsafe { ffi::free_irq(self.irq, data) };
    }
}

struct BellDriver;

/// Fields are dropped in this order: interrupts, vectors, then what the handlers use.
struct Bound {
    _lines: KVec<Line>,
    _vectors: Vectors,
    bell: Arc<Bell>,
}

pci_device_table!(
    BELL_TABLE,
    <BellDriver as pci::Driver>::IdInfo,
    [(
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, 0x1110),
        ()
    )]
);

/// Reads the header in the device's memory; `None` if the device is not ours.
fn group(pdev: &pci::Device<Core<'_>>) -> Result<Option<[u8; GROUP_ID]>> {
    if pdev.resource_len(2)? < wire::BellHdr::SIZE as u64 {
        return Ok(None);
    }
    let memory = pdev.iomap_region(2, c"fgdp-bell")?;
    let mut bytes = [0u8; wire::BellHdr::SIZE];
    for (n, word) in bytes.chunks_exact_mut(4).enumerate() {
        word.copy_from_slice(&memory.try_read32(n * 4)?.to_le_bytes());
    }
    Ok(wire::BellHdr::parse(&bytes).map(|h| h.group_id))
}

impl pci::Driver for BellDriver {
    type IdInfo = ();
    type Data<'bound> = Bound;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &BELL_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: IdInfo<'bound, Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pdev.enable_device_mem()?;
        let Some(group) = group(pdev)? else {
            return Err(ENODEV);
        };
        pdev.set_master();
        let regs = pdev.iomap_region_sized::<REGS>(0, c"fgdp-bell")?;
        let id = regs.read32(IV_POSITION);
        let Ok(id) = u16::try_from(id) else {
            dev_err!(
                pdev,
                "no doorbell id: is fgdpd, the server of this device's socket, running?\n"
            );
            return Err(ENXIO);
        };
        let vectors = Vectors::alloc(pdev, wire::MAX_LANES)?;
        let bell = Arc::pin_init(
            try_pin_init!(Bell {
                regs: regs.into_devres()?,
                group,
                id,
                vectors: vectors.count,
                listener <- new_irqlock!(None),
            }),
            GFP_KERNEL,
        )?;
        let mut lines = KVec::with_capacity(vectors.count as usize, GFP_KERNEL)?;
        for lane in 0..vectors.count {
            lines.push(Line::request(&vectors, lane, &bell)?, GFP_KERNEL)?;
        }
        add(&bell).inspect_err(|_| {
            dev_err!(
                pdev,
                "a second doorbell device for the same group: remove one from the guest\n"
            );
        })?;
        dev_info!(pdev, "doorbell {} with {} lanes\n", id, bell.vectors);
        Ok(Bound {
            _lines: lines,
            _vectors: vectors,
            bell,
        })
    }

    fn unbind<'bound>(_pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        remove(&this.bell);
    }
}

/// The registration of the driver for doorbell devices. Dropping it removes the driver from all
/// devices.
pub(crate) struct Bells {
    registration: Option<Pin<KBox<driver::Registration<pci::Adapter<BellDriver>>>>>,
}

impl Bells {
    /// Registers the driver; devices that are present are probed before this returns. Once per
    /// module.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        if READY.load(Ordering::Acquire) {
            return Err(EBUSY);
        }
        // SAFETY: Once, as `READY` is set only here and never cleared; callers are the module's
        // initialisation.
        unsafe { REGISTRY.init() };
        READY.store(true, Ordering::Release);
        let registration = driver::Registration::new(c"fgdp-bell", module);
        Ok(Self {
            registration: Some(KBox::pin_init(registration, GFP_KERNEL)?),
        })
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        self.registration = None;
        // Statics are not dropped with the module: free the tables, which are empty after the
        // driver went.
        let mut registry = REGISTRY.lock();
        registry.bells = KVec::new();
        registry.listeners = KVec::new();
    }
}
