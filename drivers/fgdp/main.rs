// SPDX-License-Identifier: GPL-2.0

//! Fast Guest Data Path.

use kernel::prelude::*;

#[path = "../../rust/kernel/mod.rs"]
mod sys;

module! {
    type: Fgdp,
    name: "fgdp",
    authors: ["The FGDP authors"],
    description: "Fast Guest Data Path: sockets over pages shared by co-resident guests",
    license: "GPL",
}

struct Fgdp;

impl kernel::Module for Fgdp {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("sock {}\n", core::mem::size_of::<sys::ffi::sock>());
        Ok(Fgdp)
    }
}
