// SPDX-License-Identifier: GPL-2.0

//! The user's side of a copy: what `send()` reads from and `recv()` writes to.

pub(crate) use kernel::iov::{IovIterDest as IovDest, IovIterSource as IovSource};
