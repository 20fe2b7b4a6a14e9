// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a client streams.

use std::io::Write;

use anyhow::{Context, Result};

use crate::file::Sent;
use crate::lender::Lender;
use crate::pages::Pages;
use crate::sock::Stream;
use crate::sys::Private;

/// What memory holds when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What was sent before.
    Again,
    /// What was written since.
    Rewritten,
    /// What was written since it was mapped, and is sent once.
    Fresh,
}

impl Use {
    fn of(pages: Pages) -> Self {
        match pages {
            Pages { fresh: true, .. } => Self::Fresh,
            Pages { rewrite: true, .. } => Self::Rewritten,
            _ => Self::Again,
        }
    }
}

/// Writes all of a message, as fast as memory can be written.
pub fn fill(message: &mut [u8], content: u8) {
    message.fill(content);
    std::hint::black_box(message);
}

/// Messages of one size.
pub enum Source {
    /// Of private memory, copied.
    Copied(Copied),
    /// Of memory that the socket lends.
    Lent(Lender),
    /// Of a file.
    File(Sent),
}

impl Source {
    /// As `pages` says.
    pub fn new(stream: &Stream, size: usize, pages: Pages) -> Result<Self> {
        let how = Use::of(pages);
        Ok(if pages.lend {
            Self::Lent(Lender::new(stream, size, how)?)
        } else if pages.sendfile || pages.splice {
            Self::File(Sent::new(size, pages.splice)?)
        } else {
            Self::Copied(Copied::new(size, how)?)
        })
    }

    /// Sends the next message.
    pub fn send(&mut self, stream: &mut Stream) -> Result<()> {
        match self {
            Self::Copied(copied) => copied.send(stream),
            Self::Lent(lender) => lender.send(stream),
            Self::File(file) => file.send(stream),
        }
    }

    /// Waits until nobody reads what was lent.
    pub fn settle(&mut self, stream: &Stream) -> Result<()> {
        match self {
            Self::Lent(lender) => lender.settle(stream),
            Self::Copied(_) | Self::File(_) => Ok(()),
        }
    }
}

/// Messages of private memory.
pub struct Copied {
    message: Private,
    how: Use,
    sent: u8,
}

impl Copied {
    fn new(size: usize, how: Use) -> Result<Self> {
        let mut message = Private::new(size)?;
        fill(&mut message, 0);
        Ok(Self {
            message,
            how,
            sent: 0,
        })
    }

    fn send(&mut self, stream: &mut Stream) -> Result<()> {
        self.sent = self.sent.wrapping_add(1);
        match self.how {
            Use::Again => {}
            Use::Rewritten => fill(&mut self.message, self.sent),
            Use::Fresh => {
                self.message = Private::new(self.message.len())?;
                fill(&mut self.message, self.sent);
            }
        }
        stream.write_all(&self.message).context("send")
    }
}
