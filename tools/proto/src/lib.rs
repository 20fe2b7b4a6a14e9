// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The core of the Fast Guest Data Path protocol.
//!
//! The sources are those of the kernel module; see [`proto`].
#![no_std]

#[path = "../../../rust/proto/mod.rs"]
pub mod proto;
