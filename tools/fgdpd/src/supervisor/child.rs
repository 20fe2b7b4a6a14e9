// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The worker as its parent sees it.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::socket::{socketpair, AddressFamily, SockFlag, SockType};

use super::Options;
use crate::link::Link;

/// A running worker.
#[derive(Debug)]
pub struct Child {
    /// To and from it.
    pub link: Link,
    /// When it was started.
    pub started: Instant,
    /// Ticks since it was asked for a sign of life and last gave one; `None` when it is not asked.
    pub silence: Option<u32>,
    process: std::process::Child,
}

impl Child {
    /// Starts a worker. Its end of the link is its standard input.
    pub fn start(options: &Options) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        // The path of the running image: an upgrade on disk must not meet the old supervisor's messages.
        let mut command = Command::new("/proc/self/exe");
        command.arg("--worker").stdin(Stdio::from(theirs));
        if let Some(level) = &options.log_level {
            command.args(["--log-level", level]);
        }
        let process = command.spawn().context("cannot start the worker")?;
        Ok(Self {
            link: Link::new(ours),
            started: Instant::now(),
            silence: None,
            process,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Ends it; that it has ended is heard of as of any death.
    pub fn kill(&mut self) {
        if let Err(e) = self.process.kill() {
            tracing::debug!("worker: {e}");
        }
    }

    /// Makes sure it has ended; how it did.
    pub fn end(mut self) -> String {
        self.kill();
        self.process
            .wait()
            .map_or_else(|e| e.to_string(), |status| status.to_string())
    }
}
