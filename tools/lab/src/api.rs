// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the command line and the lab's daemon say to each other: a line of JSON each way; after an accepted
//! [`Request::Exec`] the frames of [`lab_agent`] with session 0.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{bail, Context, Result};
use serde::{de::DeserializeOwned, Deserialize, Serialize};

/// Longest request or reply, in bytes.
const MAX_LINE: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run a command in a guest.
    Exec {
        guest: String,
        exec: lab_agent::Exec,
    },
    /// Kill a guest or fgdpd.
    Kill {
        target: String,
    },
    /// Reboot or start a guest and wait for it.
    Reboot {
        guest: String,
        hard: bool,
    },
    Status,
    /// Stop everything; the reply comes when all is stopped.
    Down,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done(String),
    Status(Box<Status>),
    Error(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub options: crate::options::UpOptions,
    /// "kvm" or "tcg".
    pub accel: String,
    pub fgdpd: String,
    pub guests: Vec<GuestStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GuestStatus {
    pub name: String,
    /// "ready", "booting" or why it is off.
    pub state: String,
    pub ready: bool,
    pub address: String,
    /// Process id of QEMU.
    pub pid: Option<u32>,
    /// Kernel release, once known.
    pub kernel: Option<String>,
}

pub fn send(stream: &UnixStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut stream = stream;
    stream
        .write_all(&line)
        .context("the lab's connection broke")
}

/// Receives one message. Reads byte by byte past nothing: what follows the line stays in the stream.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<T> {
    let mut line = Vec::new();
    // A capacity of 1 keeps the reader from taking bytes that follow the line.
    BufReader::with_capacity(1, stream.take(MAX_LINE)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        bail!("the lab closed the connection");
    }
    serde_json::from_slice(&line)
        .context("the lab's answer is not understood: is an older lab running? Try 'lab down'")
}
