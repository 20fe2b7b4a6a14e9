// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The contract of `include/uapi/linux/virtio_fgdp.h` in Rust: constants,
//! layouts, messages. A test compares both.

pub mod layout;
mod msg;
mod reason;
mod slot;

pub use layout::*;
pub use msg::{Kind, Msg, Refusal, MSG_WORDS};
pub use reason::Reason;
pub use slot::{ChanHdr, ChanState, SlotHdr};
