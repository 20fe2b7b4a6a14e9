// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the examples share: the two ends of a stream of which nothing is copied that need not be.

mod incoming;
mod outgoing;

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

pub use incoming::Incoming;
pub use outgoing::{Outgoing, Span};

/// Waits for what poll(2) tells of a descriptor; errors are told in any case.
pub fn wait(fd: impl AsFd, events: PollFlags) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), events)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
}
