// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One vfio-user connection: whole messages in, whole messages out, nothing blocks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::wire::{Header, HEADER, MAX_MESSAGE};
use crate::sys::{self, SharedFd};

/// A message with the descriptors that came with it.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Vec<u8>,
    /// Descriptors.
    pub fds: Vec<OwnedFd>,
}

/// The connection.
#[derive(Debug)]
pub struct Conn {
    stream: UnixStream,
    input: Vec<u8>,
    fds: Vec<OwnedFd>,
    output: VecDeque<(Vec<u8>, Option<SharedFd>)>,
}

impl Conn {
    /// Takes over an accepted connection.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            fds: Vec::new(),
            output: VecDeque::new(),
        })
    }

    /// The next whole message; `None` when it is not complete yet.
    ///
    /// # Errors
    /// `UnexpectedEof` when the client is gone, `InvalidData` when it does not speak vfio-user.
    pub fn receive(&mut self) -> io::Result<Option<Message>> {
        // Exactly one message is read: descriptors belong to the bytes they were sent with.
        loop {
            let need = match self.input.first_chunk::<HEADER>() {
                None => HEADER,
                Some(first) => {
                    let header = Header::parse(first);
                    let size = header.size as usize;
                    if !(HEADER..=MAX_MESSAGE).contains(&size) {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("message of {size} bytes"),
                        ));
                    }
                    if self.input.len() == size {
                        let body = self.input.split_off(HEADER);
                        self.input.clear();
                        return Ok(Some(Message {
                            header,
                            body,
                            fds: std::mem::take(&mut self.fds),
                        }));
                    }
                    size
                }
            };
            if !self.fill(need)? {
                return Ok(None);
            }
        }
    }

    /// Reads until `need` bytes are there or the socket is empty; false when nothing more can be had now.
    fn fill(&mut self, need: usize) -> io::Result<bool> {
        let have = self.input.len();
        let mut buf = [0u8; MAX_MESSAGE];
        let want = need.saturating_sub(have).min(MAX_MESSAGE);
        let Some(room) = buf.get_mut(..want) else {
            return Ok(false);
        };
        match sys::recv_fds(self.stream.as_fd(), room) {
            Ok(got) if got.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                self.fds.extend(got.fds);
                if got.truncated || self.fds.len() > sys::MAX_FDS {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "descriptors missing: too many in one message, or none left here (raise LimitNOFILE)",
                    ));
                }
                self.input
                    .extend_from_slice(buf.get(..got.len).unwrap_or_default());
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sends a message, with a descriptor if given; what the socket does not take now waits for [`Self::flush`].
    pub fn send(&mut self, bytes: Vec<u8>, fd: Option<SharedFd>) -> io::Result<()> {
        self.output.push_back((bytes, fd));
        self.flush()
    }

    /// Goes on sending.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fd)) = self.output.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
            match sys::send_fds(self.stream.as_fd(), bytes, &fds) {
                Ok(n) if n >= bytes.len() => drop(self.output.pop_front()),
                Ok(n) => {
                    bytes.drain(..n);
                    *fd = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub fn wants_out(&self) -> bool {
        !self.output.is_empty()
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
