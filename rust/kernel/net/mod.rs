// SPDX-License-Identifier: GPL-2.0

//! Socket families: registration, sockets, messages.

pub(crate) mod addr;
pub(crate) mod anysock;
pub(crate) mod cgroup;
pub(crate) mod consts;
pub(crate) mod errno;
pub(crate) mod family;
pub(crate) mod inet;
pub(crate) mod msg;
pub(crate) mod namespace;
pub(crate) mod notice;
pub(crate) mod sock;
pub(crate) mod tcp;

/// Whether the running task may bind to reserved ports.
pub(crate) fn may_bind_reserved() -> bool {
    // SAFETY: `init_net` and its user namespace live for ever; process context.
    unsafe { super::ffi::fgdp_helper_may_bind_reserved() }
}
