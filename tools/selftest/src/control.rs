// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The channel over which the two sides of a case agree who does what when.
//!
//! One line a message: number of the case, token, value. A side whose case was cut short leaves
//! lines behind; the number tells the next case to skip them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout};

const LINE_MAX: usize = 4096;

/// The token by which a side says that its function has failed.
pub const FAILED: &str = "FAILED";

/// The token by which the server says how its side has ended.
pub const OUTCOME: &str = "OUTCOME";

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Number of the case it belongs to.
    pub case: u32,
    /// What it is.
    pub token: String,
    /// What it says; may be empty.
    pub value: String,
}

/// One end of the channel. Not buffered: two processes read from it in turn.
pub struct Control(File);

impl Control {
    /// An end over a connected stream socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self(File::from(fd))
    }

    /// Sends a message.
    pub fn send(&self, case: u32, token: &str, value: &str) -> Result<()> {
        let value = value.replace('\n', "; ");
        let mut line = format!("{case} {token} {value}");
        while line.len() > LINE_MAX - 1 {
            line.pop();
        }
        line.push('\n');
        (&self.0)
            .write_all(line.as_bytes())
            .context("control channel")
    }

    /// The next message, whichever it is; `None` when the other side is gone.
    pub fn next(&self, deadline: Option<Instant>) -> Result<Option<Message>> {
        let mut line = Vec::new();
        loop {
            self.wait(deadline)?;
            let mut byte = [0];
            match (&self.0).read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) => line.extend_from_slice(&byte),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e).context("control channel"),
            }
            ensure!(
                line.len() <= LINE_MAX,
                "a line of more than {LINE_MAX} bytes on the control channel"
            );
        }
        let line = String::from_utf8(line).context("control channel")?;
        let mut parts = line.splitn(3, ' ');
        let case = parts.next().unwrap_or_default().parse();
        Ok(Some(Message {
            case: case.with_context(|| format!("line '{line}' on the control channel"))?,
            token: parts.next().unwrap_or_default().to_owned(),
            value: parts.next().unwrap_or_default().to_owned(),
        }))
    }

    /// Waits for `token` of `case`; its value.
    pub fn expect(&self, case: u32, token: &str, deadline: Instant) -> Result<String> {
        loop {
            let message = self
                .next(Some(deadline))
                .with_context(|| format!("waiting for '{token}'"))?
                .with_context(|| format!("the other side is gone; waiting for '{token}'"))?;
            if message.case < case {
                continue;
            }
            if message.token == FAILED {
                bail!("the other side failed; waiting for '{token}'");
            }
            ensure!(
                message.case == case && message.token == token,
                "the other side said '{}', not '{token}'",
                message.token
            );
            return Ok(message.value);
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<()> {
        let Some(deadline) = deadline else {
            return Ok(());
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "nothing came in time");
            let step = left.min(Duration::from_secs(30)).as_millis() as u16 + 1;
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, PollTimeout::from(step)) {
                Ok(n) if n > 0 => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e).context("control channel"),
            }
        }
    }
}
