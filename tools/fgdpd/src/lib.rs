// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host daemon of the Fast Guest Data Path.
//!
//! It serves a virtio PCI device to each guest over vfio-user, owns the memory that the guests of a group share, and
//! knows who may share it. Two processes: [`supervisor`] holds what must not be lost, [`worker`] does the work.
#![deny(unsafe_code)]

pub mod abi;
pub mod config;
pub mod layout;
pub mod link;
pub mod memory;
pub mod plan;
pub mod qemu;
pub mod supervisor;
pub mod sys;
pub mod vfio;
pub mod worker;
