// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cases, by what they are about.

mod accept;
mod ancillary;
mod back;
mod close;
mod connect;
mod files;
mod flags;
mod give;
mod large;
mod many;
mod memory;
mod names;
mod options;
mod poll;
mod process;
mod records;
mod shutdown;
mod signals;
mod strangers;
mod stream;
mod tcp;
mod uring;
mod window;
mod zerocopy;

use crate::case::Case;

/// Every case, the simple ones first.
pub fn all() -> Vec<Case> {
    [
        connect::CASES,
        names::CASES,
        accept::CASES,
        shutdown::CASES,
        close::CASES,
        poll::CASES,
        options::CASES,
        flags::CASES,
        ancillary::CASES,
        memory::CASES,
        files::CASES,
        signals::CASES,
        process::CASES,
        records::CASES,
        uring::CASES,
        tcp::CASES,
        stream::CASES,
        zerocopy::CASES,
        give::CASES,
        large::CASES,
        strangers::CASES,
        window::CASES,
        back::CASES,
        many::CASES,
    ]
    .concat()
}
