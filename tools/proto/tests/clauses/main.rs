// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The clauses of `Documentation/protocol.rst`, one test or more each: a test's
//! name begins with its clause.
#![allow(missing_docs)]

mod accepted;
mod basics;
//mod channel;
//mod header;
//mod host;
//mod hostile;
mod ids;
mod lanes;
mod memory;
//mod messages;
mod pool;
//mod records;
mod streams;
