// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sending and receiving without a copy, by connected stream sockets: of `AF_FGDP`, or of TCP where FGDP carries the connection.
//!
//! The sender fills [`Memory`], which is in its guest's slot, and grants parts of it to the peer by [`send`], or gives them away
//! by [`give`]; the peer's program reads them where they are, in a [`Window`]. What cannot be granted or shown is copied, and
//! both sides are told so.
//!
//! Any TCP socket will do, such as a [`std::net::TcpStream`], once it is connected. Of a connection that is not carried
//! [`enable`], [`Memory::new`] and [`Window::new`] say `EOPNOTSUPP`, and the program sends and receives as ever. A new connection
//! may take them up to two seconds, until both guests have agreed. One that was carried can go back to TCP at any time: what
//! was granted arrives, what is sent from lent memory is copied, and the window says that bytes are for `recv(2)`.
//!
//! The interface beneath, and when it pays, is described in `Documentation/networking/fgdp-zerocopy.rst`.
//!
//! Programs in C have the same in `include/fgdp.h`.

mod memory;
mod stream;
mod sys;
#[cfg(test)]
mod tests;
mod window;

pub use memory::{completion, enable, give, send, Completion, Memory};
pub use stream::{family, Address, Listener, Stream};
pub use window::{Granted, Next, Window};

/// Bytes of a page: what is granted are whole ones.
pub const PAGE: usize = 4096;
