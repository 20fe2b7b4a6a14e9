// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The wake-up protocols under every interleaving and every order of memory that
//! the C11 model allows: `RUSTFLAGS=--cfg loom cargo test --release --test loom`.
//!
//! Each test is two threads, one per side. A side that sleeps waits for the other
//! one's notification and nothing else, so a lost wake-up is a deadlock, which
//! loom reports. The tests of the `without_fence` module show that it does.
#![cfg(loom)]
#![allow(missing_docs)]

mod carried;
mod carried_grants;
mod connections;
mod directory;
mod grants;
mod lanes;
mod memory;
