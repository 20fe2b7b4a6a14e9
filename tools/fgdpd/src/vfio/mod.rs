// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The server side of vfio-user, as QEMU's `vfio-user-pci` speaks it.
//!
//! This is an own server and not the one of crate `vfio_user`, because a connection here outlives the process that
//! works on it: it is accepted and read by the supervisor, requests that a killed worker left unanswered are handed
//! to the next one, and descriptors are kept beside them. That crate's server accepts, reads, calls back and answers
//! in one blocking call on one connection, cannot be given one that is already in use, takes lengths from the client
//! unchecked, and fixes `max_msg_fds` at 1. Its client is what the tests drive this server with.

pub mod conn;
pub mod session;
pub mod wire;
