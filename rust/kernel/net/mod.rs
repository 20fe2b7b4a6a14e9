// SPDX-License-Identifier: GPL-2.0

//! Socket families: registration, sockets, messages.

pub(crate) mod consts;
pub(crate) mod errno;
pub(crate) mod family;
pub(crate) mod msg;
pub(crate) mod sock;
