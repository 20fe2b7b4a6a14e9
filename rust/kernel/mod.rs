// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over the kernel's C interfaces: the only unsafe code of the module.

pub(crate) mod ffi;
pub(crate) mod iov;
pub(crate) mod lock;
pub(crate) mod net;
pub(crate) mod shm;
pub(crate) mod work;
