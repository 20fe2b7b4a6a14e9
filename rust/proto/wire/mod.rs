// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The contract of `include/uapi/linux/virtio_fgdp.h` in Rust: constants,
//! layouts, messages. A test compares both.

mod bytes;
mod call;
mod carry;
mod config;
mod dir;
mod event;
mod frames;
mod host;
mod layout;
mod msg;
mod reason;
mod slot;

pub use call::{
    encode_reply, BadRequest, Call, Channel, Hello, HostStats, Reply, ReplyBody, Request, Status,
    CALL_HDR, CALL_VERSION, MAX_REPLY, MAX_REQUEST,
};
pub use carry::Carry;
pub use config::{AttachError, BellHdr, Config};
pub use dir::{DirEntry, DirError, PeerClass, PeerState};
pub use event::{Doorbell, Event, EVENT_HDR};
pub use frames::{Frames, FramesOp, ParseError, Range, Ranges};
pub use host::{CallEntry, CallTable, HostHdr, CALL_ENTRY};
pub use layout::*;
pub use msg::{Kind, Msg, Refusal, MSG_WORDS};
pub use reason::Reason;
pub use slot::{ChanHdr, ChanState, SlotHdr};
