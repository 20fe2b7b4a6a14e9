// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Extents, and the frames in them.

mod accepted;
mod pool;

pub use accepted::{Accepted, Extent, MAX_EXTENTS};
pub use pool::{FramePool, NoRun, Unit};
