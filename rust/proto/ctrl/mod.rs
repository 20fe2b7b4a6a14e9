// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What happens beside the data: the channel of a peer, and connection ids.

mod channel;
mod ids;
mod pair;

pub use channel::{Action, Actions, Channel, Input};
pub use ids::{IdSlot, Ids};
pub use pair::{Member, Pair};
