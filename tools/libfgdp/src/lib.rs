// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sending and receiving without a copy, by connected stream sockets of `AF_FGDP`.
//!
//! The sender fills [`Memory`], which is in its guest's slot, and grants parts of it to the peer by [`send`], or gives them away
//! by [`give`]; the peer's program reads them where they are, in a [`Window`]. What cannot be granted or shown is copied, and
//! both sides are told so. The interface beneath, and when it pays, is described in
//! `Documentation/networking/fgdp-zerocopy.rst`.
//!
//! Programs in C have the same in `include/fgdp.h`.

mod memory;
mod stream;
mod sys;
mod window;

pub use memory::{completion, enable, give, send, Completion, Memory};
pub use stream::{family, Address, Listener, Stream};
pub use window::{Granted, Next, Window};

/// Bytes of a page: what is granted are whole ones.
pub const PAGE: usize = 4096;
