// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of memory that the socket lends.

use std::io::ErrorKind;
use std::ops::Range;

use anyhow::{bail, Context, Result};
use fgdp::{Completion, Memory};
use nix::poll::PollFlags;

use crate::sock::Stream;
use crate::source::{fill, Use};

/// Bytes of all messages that are sent in turn. Few, so that they are in caches as a ring's are.
const BYTES: usize = 16 << 20;

/// As many messages at most: fewer than there may be calls that are not complete.
const MESSAGES: usize = 64;

/// How many messages of `size` bytes are sent in turn: at least two, for the receiver looks at one while the next is sent.
fn messages(size: usize) -> usize {
    (BYTES / size).clamp(2, MESSAGES)
}

/// One of them.
#[derive(Default)]
struct Message {
    memory: Option<Memory>,
    /// The calls that sent it last.
    calls: Range<u32>,
}

/// Calls that are not complete.
#[derive(Default)]
struct Calls {
    /// The number of the next one.
    next: u32,
    open: Vec<u32>,
}

impl Calls {
    fn begin(&mut self) {
        self.open.push(self.next);
        self.next = self.next.wrapping_add(1);
    }

    fn complete(&mut self, done: Completion) {
        let count = done.last.wrapping_sub(done.first);
        self.open
            .retain(|call| call.wrapping_sub(done.first) > count);
    }

    fn are_complete(&self, calls: &Range<u32>) -> bool {
        !self.open.iter().any(|call| calls.contains(call))
    }
}

/// Sends messages in turn; one that the receiver may look at is neither written nor sent again.
pub struct Lender {
    messages: Vec<Message>,
    size: usize,
    how: Use,
    turn: usize,
    sent: u8,
    calls: Calls,
}

impl Lender {
    /// Messages of `size` bytes.
    pub fn new(stream: &Stream, size: usize, how: Use) -> Result<Self> {
        fgdp::enable(stream).context("SO_ZEROCOPY")?;
        let mut lender = Self {
            messages: Vec::new(),
            size,
            how,
            turn: 0,
            sent: 0,
            calls: Calls::default(),
        };
        for _ in 0..messages(size) {
            let mut message = Message::default();
            if how != Use::Fresh {
                message.memory = Some(lender.map(stream)?);
            }
            lender.messages.push(message);
        }
        Ok(lender)
    }

    fn map(&self, stream: &Stream) -> Result<Memory> {
        let mut memory = Memory::new(stream, self.size).context("mmap of memory to lend")?;
        fill(&mut memory[..self.size], self.sent);
        Ok(memory)
    }

    /// Sends the next message.
    pub fn send(&mut self, stream: &Stream) -> Result<()> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.messages.len();
        self.sent = self.sent.wrapping_add(1);
        self.await_back(stream, turn)?;
        let mut memory = match (self.messages[turn].memory.take(), self.how) {
            (Some(memory), Use::Again) => memory,
            (Some(mut memory), Use::Rewritten) => {
                fill(&mut memory[..self.size], self.sent);
                memory
            }
            (old, _) => {
                // The frames are to be had again.
                drop(old);
                self.map(stream)?
            }
        };
        let first = self.calls.next;
        let result = self.grant(stream, &mut memory);
        self.messages[turn] = Message {
            memory: Some(memory),
            calls: first..self.calls.next,
        };
        result
    }

    fn grant(&mut self, stream: &Stream, memory: &mut Memory) -> Result<()> {
        let mut rest = &memory[..self.size];
        while !rest.is_empty() {
            match fgdp::send(stream, rest) {
                Ok(n) => {
                    self.calls.begin();
                    rest = &rest[n..];
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.reap(stream)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("send"),
            }
        }
        Ok(())
    }

    /// Waits until message `turn` is nobody else's.
    fn await_back(&mut self, stream: &Stream, turn: usize) -> Result<()> {
        while !self.calls.are_complete(&self.messages[turn].calls) {
            self.reap(stream)?;
        }
        Ok(())
    }

    /// Waits until calls are complete.
    fn reap(&mut self, stream: &Stream) -> Result<()> {
        let mut over = false;
        loop {
            let mut some = false;
            while let Some(done) = fgdp::completion(stream).context("error queue")? {
                self.calls.complete(done);
                some = true;
            }
            if some {
                return Ok(());
            }
            if over {
                bail!("the connection ended before what was lent came back");
            }
            over = stream
                .wait(PollFlags::POLLERR)?
                .contains(PollFlags::POLLHUP);
        }
    }

    /// Waits until all messages are nobody else's.
    pub fn settle(&mut self, stream: &Stream) -> Result<()> {
        (0..self.messages.len()).try_for_each(|turn| self.await_back(stream, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_are_few() {
        assert_eq!(messages(4096), MESSAGES);
        assert_eq!(messages(2 << 20), 8);
        assert_eq!(messages(64 << 20), 2);
    }

    #[test]
    fn calls_complete_in_any_order() {
        let mut calls = Calls::default();
        (0..4).for_each(|_| calls.begin());
        let done = |first, last| Completion {
            first,
            last,
            copied: false,
        };
        calls.complete(done(2, 3));
        assert!(calls.are_complete(&(2..4)));
        assert!(!calls.are_complete(&(1..3)));
        calls.complete(done(0, 1));
        assert!(calls.are_complete(&(0..4)));
    }
}
