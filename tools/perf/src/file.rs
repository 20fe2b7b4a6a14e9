// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages that are a file in memory, sent by the kernel.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use anyhow::{bail, Context, Result};
use nix::fcntl::{fcntl, splice, FcntlArg, OFlag, SpliceFFlags};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::sendfile::sendfile;
use nix::unistd::pipe2;

use crate::sock::Stream;
use crate::source::fill;

/// Bytes that a pipe is to hold: as many as somebody without privileges gets.
const PIPE_BYTES: i32 = 1 << 20;

/// A file that is all of a message.
pub struct Sent {
    file: File,
    size: usize,
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Sent {
    /// A file of `size` bytes, in the page cache; sent through a pipe if `piped`.
    pub fn new(size: usize, piped: bool) -> Result<Self> {
        let file = memfd_create("fgdp-perf", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
        let mut file = File::from(file);
        let mut content = vec![0; size];
        fill(&mut content, 1);
        file.write_all(&content).context("write of the file")?;
        let pipe = match piped {
            true => {
                let pipe = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
                // A smaller one does as well, only slower.
                let _smaller = fcntl(&pipe.1, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
                Some(pipe)
            }
            false => None,
        };
        Ok(Self { file, size, pipe })
    }

    /// Sends all of the file.
    pub fn send(&self, stream: &Stream) -> Result<()> {
        let mut at = 0;
        let mut rest = self.size;
        while rest > 0 {
            let n = match &self.pipe {
                None => sendfile(stream, &self.file, Some(&mut at), rest).context("sendfile")?,
                Some((out, into)) => {
                    let flags = SpliceFFlags::SPLICE_F_MOVE;
                    let n = splice(&self.file, Some(&mut at), into, None, rest, flags);
                    let n = n.context("splice of the file")?;
                    through(out, stream, n)?;
                    n
                }
            };
            if n == 0 {
                bail!("the file ended {rest} bytes early");
            }
            rest -= n;
        }
        Ok(())
    }
}

/// Moves the `n` bytes in a pipe to `stream`.
fn through(out: &OwnedFd, stream: &Stream, n: usize) -> Result<()> {
    let mut rest = n;
    while rest > 0 {
        let flags = SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(out, None, stream, None, rest, flags).context("splice to the socket")?;
        if n == 0 {
            bail!("the pipe ended {rest} bytes early");
        }
        rest -= n;
    }
    Ok(())
}
