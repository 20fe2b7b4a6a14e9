// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The core of the Fast Guest Data Path protocol.
