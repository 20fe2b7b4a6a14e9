// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The core of the Fast Guest Data Path protocol, without I/O.
//!
//! Everything here is arithmetic over words of memory that somebody else may
//! write: no locks, no clock, no allocation, no logging, no `unsafe`. The
//! module is compiled into the kernel module and into the crate `fgdp-proto`,
//! which the host daemon, the tests and the fuzzers use, so each rule of the
//! protocol exists once. The numbers in the comments (`R-3`) are the clauses of
//! `Documentation/protocol.rst`.
//!
//! Layers, outermost last:
//!
//! - [`wire`]: the layouts and messages of `include/uapi/linux/virtio_fgdp.h`;
//! - [`mem`]: words of shared memory, and the two views of it;
//! - [`ring`]: lanes, the message rings between two members;
//! - [`grant`]: extents and the frames in them;
//! - [`stream`]: one connection;
//! - [`ctrl`]: one peer's channel, connection ids.
//!
//! Whatever a peer wrote is fetched once, checked, and used from the private
//! copy. A value that cannot be right latches a [`wire::Reason`]; from then on
//! every call on that object returns it.
#![deny(unsafe_code)]
// Each of the crates that compile this file uses a part of it, and only in
// `fgdp-proto` do the items leave the crate.
#![allow(dead_code, unreachable_pub)]

pub mod ctrl;
pub mod grant;
pub mod mem;
pub mod ring;
pub mod stream;
pub mod wire;
