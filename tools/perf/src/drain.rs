// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Receiving all of a stream.

use std::io::Read;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use fgdp::{Granted, Next, Window};
use nix::poll::PollFlags;
use serde::Serialize;

use crate::consumer::{read, Consumer};
use crate::pages::Pages;
use crate::sock::Stream;

/// What arrived, until the end of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arrived {
    pub bytes: u64,
    /// Those of them that were read where they are.
    pub in_place: u64,
    /// The grants that these came in.
    pub grants: u64,
}

/// Bytes of [`Arrived`] on the wire.
pub const ARRIVED_BYTES: usize = 24;

impl Arrived {
    /// As three little-endian numbers.
    pub fn encode(&self) -> [u8; ARRIVED_BYTES] {
        let mut bytes = [0; ARRIVED_BYTES];
        let words = [self.bytes, self.in_place, self.grants];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reverse of [`Arrived::encode`].
    pub fn decode(bytes: &[u8; ARRIVED_BYTES]) -> Self {
        let mut words = [0; 3];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut one = [0; 8];
            one.copy_from_slice(from);
            *word = u64::from_le_bytes(one);
        }
        let [bytes, in_place, grants] = words;
        Self {
            bytes,
            in_place,
            grants,
        }
    }
}

/// Reads to the end of the stream; what is copied is copied to `buf`.
pub fn drain(stream: &mut Stream, buf: &mut [u8], pages: Pages) -> Result<Arrived> {
    let consumer = Consumer::of(pages);
    if pages.window {
        in_place(stream, buf, consumer)
    } else {
        copied(stream, buf, consumer)
    }
}

fn copied(stream: &mut Stream, buf: &mut [u8], consumer: Consumer) -> Result<Arrived> {
    let mut arrived = Arrived::default();
    loop {
        match stream.read(buf)? {
            0 => return Ok(arrived),
            n => {
                consumer.consume(&mut buf[..n]);
                arrived.bytes += n as u64;
            }
        }
    }
}

/// Reads what is granted where it is.
fn in_place(stream: &mut Stream, buf: &mut [u8], consumer: Consumer) -> Result<Arrived> {
    let socket = stream.as_fd().try_clone_to_owned()?;
    let window = match consumer {
        Consumer::Writer => Window::new_writable(&socket),
        Consumer::Blind | Consumer::Reader => Window::new(&socket),
    };
    let window = window.context("mmap of the window")?;
    let mut arrived = Arrived::default();
    let mut waited = false;
    loop {
        let most = match window.next().context("receive")? {
            Next::Granted(granted) => {
                arrived.bytes += granted.len() as u64;
                arrived.in_place += granted.len() as u64;
                arrived.grants += 1;
                consume(consumer, granted)?;
                waited = false;
                continue;
            }
            Next::Copied(n) => n.min(buf.len()),
            // Not by reading: what is granted in between would be copied.
            Next::Nothing if waited && stream.is_over().context("receive")? => return Ok(arrived),
            Next::Nothing => {
                stream.wait(PollFlags::POLLIN)?;
                waited = true;
                continue;
            }
        };
        waited = false;
        match stream.read(&mut buf[..most])? {
            0 => return Ok(arrived),
            n => {
                consumer.consume(&mut buf[..n]);
                arrived.bytes += n as u64;
            }
        }
    }
}

fn consume(consumer: Consumer, mut granted: Granted<'_>) -> Result<()> {
    match consumer {
        Consumer::Blind => {}
        Consumer::Reader => read(&granted),
        Consumer::Writer => {
            let bytes = granted.bytes_mut().context("the window is not writable")?;
            consumer.consume(bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_survives_the_wire() {
        let arrived = Arrived {
            bytes: 1 << 40,
            in_place: 2,
            grants: 3,
        };
        assert_eq!(Arrived::decode(&arrived.encode()), arrived);
    }
}
