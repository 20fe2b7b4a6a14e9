// SPDX-License-Identifier: GPL-2.0

//! Drivers for virtio devices with shared memory regions.
//!
//! A device's life, driven by the functions of [`Driver`]:
//!
//! 1. `probe`: configuration space and regions are read, queues found; nothing may be sent yet.
//! 2. `start`: the device is running.
//! 3. `interrupt`, any number of times, in hard interrupt context.
//! 4. `remove`: the device still works. Afterwards its queues are stopped, it is reset, what it had
//!    not returned is freed, and the driver's reference to its state is dropped.
//!
//! Suspend is refused: no peer could be told to wait.

mod queue;

pub(crate) use self::queue::{Buffer, NoAnswer, Queue};

use super::{
    ffi,
    shm::{GroupMem, SlotMem}, //
};
use core::{
    marker::{PhantomData, PhantomPinned},
    ptr::{null_mut, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};
use kernel::{
    bindings,
    container_of,
    device,
    error::{from_result, to_result},
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// A virtio driver.
pub(crate) trait Driver: Send + Sync + Sized + 'static {
    /// The state of a bound device.
    type Bound: Send + Sync + 'static;
    /// The driver's name.
    const NAME: &'static CStr;
    /// The virtio device id.
    const ID: u32;

    /// Sets a device up.
    fn probe(&self, setup: &mut Setup<'_>) -> Result<Arc<Self::Bound>>;
    /// The device is ready: queues can be filled, calls made. After an error `remove` is not
    /// called.
    fn start(&self, bound: &Arc<Self::Bound>) -> Result;
    /// The device returned buffers of queue `queue`. Hard interrupt context.
    fn interrupt(bound: &Arc<Self::Bound>, queue: u32);
    /// The device goes.
    fn remove(&self, bound: &Arc<Self::Bound>);
}

/// A device in `probe`.
pub(crate) struct Setup<'a> {
    vdev: NonNull<ffi::virtio_device>,
    callback: unsafe extern "C" fn(*mut ffi::virtqueue),
    queues: KVec<Queue>,
    found: bool,
    _probe: PhantomData<&'a ()>,
}

impl Setup<'_> {
    /// The device, for messages.
    pub(crate) fn device(&self) -> &device::Device {
        // SAFETY: `vdev` is valid during `probe`; both declarations are the kernel's
        // `struct device`.
        unsafe { device::Device::from_raw((&raw mut (*self.vdev.as_ptr()).dev).cast()) }
    }

    /// Reads the first `bytes.len()` bytes, a multiple of 4, of the configuration space.
    pub(crate) fn read_config(&self, bytes: &mut [u8]) -> Result {
        if bytes.len() % 4 != 0 {
            return Err(EINVAL);
        }
        // SAFETY: `vdev` is valid during `probe`; `bytes` has room for that many words.
        let ok = unsafe {
            ffi::fgdp_helper_virtio_cread_words(
                self.vdev.as_ptr(),
                0,
                bytes.as_mut_ptr().cast(),
                bytes.len() / 4,
            )
        };
        if ok {
            Ok(())
        } else {
            Err(ENXIO)
        }
    }

    /// The address of the first `len` bytes of region `id`.
    fn region(&self, id: u8, len: u64) -> Result<u64> {
        let mut region = ffi::virtio_shm_region::default();
        // SAFETY: `vdev` is valid during `probe`.
        if !unsafe { ffi::fgdp_helper_virtio_get_shm_region(self.vdev.as_ptr(), &mut region, id) } {
            dev_err!(self.device(), "no shared memory region {}\n", id);
            return Err(ENXIO);
        }
        if len > region.len {
            dev_err!(
                self.device(),
                "shared memory region {} has {} bytes, not {}\n",
                id,
                region.len,
                len
            );
            return Err(ENXIO);
        }
        Ok(region.addr)
    }

    /// Maps the first `len` bytes of region `id` to write to them.
    pub(crate) fn map_slot(&self, id: u8, len: u64) -> Result<SlotMem> {
        let addr = self.region(id, len)?;
        // SAFETY: The virtio core checked that the region lies inside a BAR of the device. No Rust
        // reference to it exists anywhere. The address stays the BAR's, and a device that went
        // reads as ones.
        unsafe { SlotMem::remap(addr, len) }
    }

    /// Maps the first `len` bytes of region `id` to read from them.
    pub(crate) fn map_group(&self, id: u8, len: u64) -> Result<GroupMem> {
        let addr = self.region(id, len)?;
        // SAFETY: As in `map_slot`.
        unsafe { GroupMem::remap(addr, len) }
    }

    /// Finds the device's queues: `names[n]` names queue n. Once per device.
    pub(crate) fn find_queues(&mut self, names: &[&'static CStr]) -> Result<&[Queue]> {
        if self.found || names.is_empty() {
            return Err(EBUSY);
        }
        let count = u32::try_from(names.len())?;
        let mut vqs = KVec::from_elem(null_mut::<ffi::virtqueue>(), names.len(), GFP_KERNEL)?;
        let mut infos = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        let mut queues = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for name in names {
            infos.push(
                ffi::virtqueue_info {
                    name: name.as_char_ptr(),
                    callback: Some(self.callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
        }
        // SAFETY: `vdev` is valid during `probe`; both arrays have `count` entries; the names are
        // static; the callback copes with a device that has no state yet.
        to_result(unsafe {
            ffi::fgdp_helper_virtio_find_vqs(
                self.vdev.as_ptr(),
                count,
                vqs.as_mut_ptr(),
                infos.as_mut_ptr(),
            )
        })?;
        self.found = true;
        for vq in &vqs {
            let vq = NonNull::new(*vq).ok_or(ENXIO)?;
            // SAFETY: `tear_down` detaches each queue in `self.queues` before it deletes them;
            // `queues` is either put there or dropped unused.
            queues.push(unsafe { Queue::new(vq) }?, GFP_KERNEL)?;
        }
        self.queues = queues;
        Ok(&self.queues)
    }
}

/// Stops the device and deletes its queues.
///
/// # Safety
///
/// `vdev` is valid; `queues` are all handles that were made of its virtqueues, which exist.
unsafe fn tear_down(vdev: NonNull<ffi::virtio_device>, queues: &[Queue]) {
    for queue in queues {
        queue.stop();
    }
    // SAFETY: No requirement but process context, which removal and probing are.
    unsafe { bindings::synchronize_rcu() };
    // SAFETY: `vdev` is valid; after `stop` and the grace period nobody notifies it.
    unsafe { ffi::virtio_reset_device(vdev.as_ptr()) };
    for queue in queues {
        // SAFETY: Stopped, a grace period ago, and the device was reset.
        unsafe { queue.detach() };
    }
    // SAFETY: Nobody uses the queues any more.
    unsafe { ffi::fgdp_helper_virtio_del_vqs(vdev.as_ptr()) };
}

/// What a bound device's `priv` points at.
struct Glue<D: Driver> {
    bound: Arc<D::Bound>,
    queues: KVec<Queue>,
}

/// The registration of a driver. Dropping it removes the driver from all devices.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<D: Driver> {
    #[pin]
    raw: Opaque<ffi::virtio_driver>,
    ids: [ffi::virtio_device_id; 2],
    driver: D,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: `raw` belongs to the driver core from registration to the end; `driver` is `Send`.
unsafe impl<D: Driver> Send for Registration<D> {}
// SAFETY: Nothing can be done with a shared reference but read `driver`, which is `Sync`.
unsafe impl<D: Driver> Sync for Registration<D> {}

impl<D: Driver> Registration<D> {
    /// Registers `driver`; devices that are present are probed before this returns.
    pub(crate) fn new(module: &'static ThisModule, driver: D) -> impl PinInit<Self, Error> {
        try_pin_init!(&this in Self {
            ids: [
                ffi::virtio_device_id { device: D::ID, vendor: ffi::VIRTIO_DEV_ANY_ID },
                ffi::virtio_device_id::default(),
            ],
            driver,
            _pin: PhantomPinned,
            raw <- Opaque::try_ffi_init(|slot: *mut ffi::virtio_driver| {
                // SAFETY: `slot` is ours to initialise; zero is a valid value of each member.
                unsafe {
                    slot.write_bytes(0, 1);
                    (*slot).driver.name = D::NAME.as_char_ptr();
                    (*slot).id_table = (&raw const (*this.as_ptr()).ids).cast();
                    (*slot).probe = Some(Self::probe);
                    (*slot).remove = Some(Self::remove);
                    (*slot).freeze = Some(Self::freeze);
                }
                // SAFETY: The driver is initialised; it stays where it is until `drop` unregisters
                // it.
                to_result(unsafe { ffi::__register_virtio_driver(slot, module.as_ptr().cast()) })
            }),
        })
    }

    /// # Safety
    ///
    /// `vdev` is bound, or about to be, to the driver of a `Registration<D>`.
    unsafe fn of<'a>(vdev: *mut ffi::virtio_device) -> &'a Self {
        // SAFETY: The driver pointer of the device is that of `raw` by this function's contract,
        // and the registration outlives the binding.
        unsafe {
            let driver = container_of!((*vdev).dev.driver, ffi::virtio_driver, driver);
            &*container_of!(Opaque::cast_from(driver), Self, raw)
        }
    }

    /// # Safety
    ///
    /// Called by the virtio core for a device that matched the registered driver.
    unsafe extern "C" fn probe(vdev: *mut ffi::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: The virtio core probes devices for the registered driver.
        let this = unsafe { Self::of(vdev) };
        from_result(|| {
            let vdev = NonNull::new(vdev).ok_or(EINVAL)?;
            let mut setup = Setup {
                vdev,
                callback: Self::callback,
                queues: KVec::new(),
                found: false,
                _probe: PhantomData,
            };
            // SAFETY: `vdev` is valid; the cell is read by `callback` alone until `probe` returns.
            let private = unsafe { AtomicPtr::from_ptr(&raw mut (*vdev.as_ptr()).priv_) };
            private.store(null_mut(), Ordering::Relaxed);
            let room = KBox::<Glue<D>>::new_uninit(GFP_KERNEL)?;
            let glue = match this.driver.probe(&mut setup) {
                Ok(bound) => room.write(Glue {
                    bound,
                    queues: setup.queues,
                }),
                Err(err) => {
                    if setup.found {
                        // SAFETY: The device is valid and its queues exist. Handles that
                        // `find_queues` did not return are not in `setup`; nothing uses them.
                        unsafe { tear_down(vdev, &setup.queues) };
                    }
                    return Err(err);
                }
            };
            let raw = KBox::into_raw(glue);
            private.store(raw.cast(), Ordering::Release);
            // SAFETY: The device has its queues, and the callback its state.
            unsafe { ffi::fgdp_helper_virtio_device_ready(vdev.as_ptr()) };
            // SAFETY: Lives until the lines below or `remove` free it.
            let glue = unsafe { &*raw };
            if let Err(err) = this.driver.start(&glue.bound) {
                // SAFETY: The queues exist, and the glue has the handles of all.
                unsafe { tear_down(vdev, &glue.queues) };
                private.store(null_mut(), Ordering::Relaxed);
                // SAFETY: After the reset there are no callbacks; nobody else knows the pointer.
                drop(unsafe { KBox::from_raw(raw) });
                return Err(err);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the virtio core for a device that `probe` bound.
    unsafe extern "C" fn remove(vdev: *mut ffi::virtio_device) {
        // SAFETY: The device is bound to this driver.
        let this = unsafe { Self::of(vdev) };
        let Some(vdev) = NonNull::new(vdev) else {
            return;
        };
        // SAFETY: `vdev` is valid; `callback` reads the cell atomically.
        let private = unsafe { AtomicPtr::from_ptr(&raw mut (*vdev.as_ptr()).priv_) };
        let raw = private.load(Ordering::Acquire).cast::<Glue<D>>();
        // SAFETY: A bound device has the glue that `probe` stored.
        let glue = unsafe { &*raw };
        this.driver.remove(&glue.bound);
        // SAFETY: The queues exist, and the glue has the handles of all.
        unsafe { tear_down(vdev, &glue.queues) };
        private.store(null_mut(), Ordering::Relaxed);
        // SAFETY: After the reset there are no callbacks; nobody else knows the pointer.
        drop(unsafe { KBox::from_raw(raw) });
    }

    /// # Safety
    ///
    /// Called by the virtio core for a device that `probe` bound.
    unsafe extern "C" fn freeze(vdev: *mut ffi::virtio_device) -> kernel::ffi::c_int {
        // SAFETY: `vdev` is valid; both declarations are the kernel's `struct device`.
        let dev: &device::Device =
            unsafe { device::Device::from_raw((&raw mut (*vdev).dev).cast()) };
        dev_err!(dev, "suspend is not supported: unload the module first\n");
        -(bindings::EOPNOTSUPP as kernel::ffi::c_int)
    }

    /// # Safety
    ///
    /// Called by the virtio core for a queue that `find_queues` found.
    unsafe extern "C" fn callback(vq: *mut ffi::virtqueue) {
        // SAFETY: The virtio core calls back with a valid queue of a valid device.
        let (private, index) = unsafe {
            let vdev = (*vq).vdev;
            (AtomicPtr::from_ptr(&raw mut (*vdev).priv_), (*vq).index)
        };
        let raw = private.load(Ordering::Acquire).cast::<Glue<D>>();
        // SAFETY: Null until `probe` stored the glue; freed after a reset that waits for callbacks.
        if let Some(glue) = unsafe { raw.as_ref() } {
            D::interrupt(&glue.bound, index);
        }
    }
}

#[pinned_drop]
impl<D: Driver> PinnedDrop for Registration<D> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by `new`.
        unsafe { ffi::unregister_virtio_driver(self.raw.get()) };
    }
}
