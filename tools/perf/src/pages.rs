// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Streams of which something is not copied.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use fgdp::{Memory, Next, Window};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::sock::Stream;

/// Messages that are sent in turn: one that the receiver still looks at is not granted again.
const MESSAGES: usize = 8;

fn wait(stream: &Stream, events: PollFlags) -> Result<()> {
    poll(
        &mut [PollFd::new(stream.as_fd(), events)],
        PollTimeout::NONE,
    )
    .context("poll")?;
    Ok(())
}

/// Sends messages of memory that the socket lends.
pub struct Lender {
    memory: Vec<Memory>,
    next: usize,
}

impl Lender {
    /// Messages like `message`.
    pub fn new(stream: &Stream, message: &[u8]) -> Result<Self> {
        fgdp::enable(stream).context("SO_ZEROCOPY")?;
        let mut memory = Vec::new();
        for _ in 0..MESSAGES {
            let mut one = Memory::new(stream, message.len()).context("mmap")?;
            one[..message.len()].copy_from_slice(message);
            memory.push(one);
        }
        Ok(Self { memory, next: 0 })
    }

    /// Sends the next message, of `size` bytes.
    pub fn send(&mut self, stream: &Stream, size: usize) -> Result<()> {
        let mut rest = &self.memory[self.next][..size];
        self.next = (self.next + 1) % MESSAGES;
        while !rest.is_empty() {
            match fgdp::send(stream, rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    wait(stream, PollFlags::POLLERR)?;
                    while fgdp::completion(stream).context("error queue")?.is_some() {}
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("send"),
            }
        }
        Ok(())
    }
}

/// Reads a byte of each line.
pub fn look(bytes: &[u8]) {
    let sum = bytes
        .iter()
        .step_by(64)
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);
}

/// Reads to the end of the stream what is granted where it is, the rest into `buf`; how many bytes that was.
pub fn drain(stream: &mut Stream, buf: &mut [u8], looks: bool) -> Result<u64> {
    let socket = stream.as_fd().try_clone_to_owned()?;
    let window = Window::new(&socket).context("mmap")?;
    let mut total = 0;
    let mut waited = false;
    loop {
        let most = match window.next().context("receive")? {
            Next::Granted(bytes) => {
                if looks {
                    look(&bytes);
                }
                total += bytes.len() as u64;
                waited = false;
                continue;
            }
            Next::Copied(n) => n.min(buf.len()),
            Next::Nothing if !waited => {
                wait(stream, PollFlags::POLLIN)?;
                waited = true;
                continue;
            }
            // Still nothing: the end.
            Next::Nothing => buf.len(),
        };
        match stream.read(&mut buf[..most])? {
            0 => return Ok(total),
            n => {
                if looks {
                    look(&buf[..n]);
                }
                total += n as u64;
                waited = false;
            }
        }
    }
}
