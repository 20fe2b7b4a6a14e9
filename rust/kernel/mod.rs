// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the kernel's C interfaces: the only unsafe code of the module.

pub(crate) mod atomic;
pub(crate) mod compat;
pub(crate) mod ffi;
pub(crate) mod genl;
pub(crate) mod iov;
pub(crate) mod irqlock;
pub(crate) mod lock;
pub(crate) mod mm;
mod module;
pub(crate) mod net;
pub(crate) mod pci;
pub(crate) mod proc;
pub(crate) mod random;
pub(crate) mod shm;
pub(crate) mod sysctl;
pub(crate) mod task;
pub(crate) mod uapi;
pub(crate) mod virtio;
pub(crate) mod window;
pub(crate) mod work;
