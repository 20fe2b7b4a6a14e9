// SPDX-License-Identifier: GPL-2.0

//! What Linux 7.3 changed in the kernel's Rust interfaces, so that the rest is the same for 7.2.
//!
//! `linux_7_2` comes from `Kbuild`.

use kernel::{module_param::ModuleParamAccess, pci, prelude::*};

/// Registers that are gone when the device is.
#[cfg(linux_7_2)]
pub(super) type Regs<const SIZE: usize> = kernel::devres::Devres<pci::Bar<'static, SIZE>>;
/// Registers that are gone when the device is.
#[cfg(not(linux_7_2))]
pub(super) type Regs<const SIZE: usize> = pci::DevresBar<SIZE>;

/// What a PCI driver is told of the table's entry that matched.
#[cfg(linux_7_2)]
pub(super) type IdInfo<'a, T> = &'a T;
/// What a PCI driver is told of the table's entry that matched.
#[cfg(not(linux_7_2))]
pub(super) type IdInfo<'a, T> = Option<&'a T>;

/// Makes a PCI driver's table; up to 7.2 the copy that modpost reads has a name of its own.
#[cfg(linux_7_2)]
macro_rules! pci_device_table {
    ($name:ident, $info:ty, $ids:tt) => {
        kernel::pci_device_table!($name, MODULE_TABLE, $info, $ids);
    };
}
/// Makes a PCI driver's table.
#[cfg(not(linux_7_2))]
macro_rules! pci_device_table {
    ($name:ident, $info:ty, $ids:tt) => {
        kernel::pci_device_table!($name, $info, $ids);
    };
}
pub(super) use pci_device_table;

/// A module parameter's value.
pub(crate) fn parameter<T: Copy>(parameter: &ModuleParamAccess<T>) -> T {
    #[cfg(linux_7_2)]
    return *parameter.value();
    #[cfg(not(linux_7_2))]
    return parameter.value();
}

/// Initialises the place `slot`.
///
/// # Safety
///
/// `slot` is valid for writes and never moved; after an error it holds no value.
pub(super) unsafe fn init_in_place<T, E>(slot: *mut T, init: impl PinInit<T, E>) -> Result<(), E> {
    #[cfg(linux_7_2)]
    // SAFETY: By this function's contract.
    return unsafe { init.__pinned_init(slot) };
    #[cfg(not(linux_7_2))]
    // SAFETY: By this function's contract.
    return unsafe { pin_init::raw_try_init(slot, init) };
}
