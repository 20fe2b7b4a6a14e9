// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Extents, the frames in them, and their way to the peer and back.

mod accepted;
pub mod bitmap;
mod ledger;
mod life;
mod places;
mod pool;

pub use accepted::{Accepted, Extent, Lent, MAX_EXTENTS};
pub use ledger::{Call, Entry, Ledger, Notice, Run};
pub use places::Places;
pub use pool::{FramePool, NoRun, Unit};
