// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What supervisor and worker tell each other, over a socket that keeps messages whole.
//!
//! A worker that starts is told everything first: groups with their memory, devices with the client's state, ended
//! by [`ToWorker::Start`]. Requests that its predecessor left unanswered follow. So a worker never needs to ask, and
//! what the supervisor knows is only what QEMU told.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{de::DeserializeOwned, Deserialize, Serialize};

use crate::plan::GroupPlan;
use crate::sys::{self, SharedFd};

/// The longest message.
const MAX_LINK_MESSAGE: usize = 128 << 10;

/// A request of QEMU that waits for the worker's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Read `count` bytes of a region.
    Read {
        /// Region.
        region: u32,
        /// Offset in it.
        offset: u64,
        /// Bytes.
        count: u32,
    },
    /// Write to a region.
    Write {
        /// Region.
        region: u32,
        /// Offset in it.
        offset: u64,
        /// Bytes.
        data: Vec<u8>,
    },
    /// Guest memory appears; with its descriptor.
    Map(Dma),
    /// Guest memory goes.
    Unmap {
        /// First guest address.
        addr: u64,
        /// Bytes.
        size: u64,
        /// All of it.
        all: bool,
    },
    /// The descriptors of vectors from `start` on; bit n of `present`: a descriptor comes for `start + n`.
    Irqs {
        /// First vector.
        start: u32,
        /// Number of vectors.
        count: u32,
        /// Which of them have a descriptor.
        present: u32,
    },
    /// Reset of the device.
    Reset,
}

/// A piece of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dma {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// Offset in the file.
    pub offset: u64,
    /// The device may write to it.
    pub writable: bool,
}

/// From supervisor to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message: where the worker keeps its state, and the control socket. Two descriptors.
    Hello {
        /// Workers started before this one.
        restarts: u32,
    },
    /// A group, new or changed. One descriptor, its memory.
    Group(GroupPlan),
    /// A group's doorbell devices: id and process.
    Doorbells {
        /// Group.
        group: u32,
        /// Those connected.
        ids: Vec<(u32, i32)>,
    },
    /// QEMU connected.
    Attached {
        /// Device.
        dev: u32,
        /// Number of the connection, counted over all devices.
        serial: u64,
        /// QEMU's process; 0: unknown.
        pid: i32,
    },
    /// QEMU is gone.
    Detached {
        /// Device.
        dev: u32,
    },
    /// Guest memory that is known already. One descriptor.
    Mapped {
        /// Device.
        dev: u32,
        /// Where it is.
        dma: Dma,
    },
    /// Vectors that are known already; as [`Request::Irqs`].
    Vectors {
        /// Device.
        dev: u32,
        /// Which vectors have a descriptor.
        present: u32,
    },
    /// All has been told.
    Start,
    /// A request to answer.
    Request {
        /// Device.
        dev: u32,
        /// To be repeated in the answer.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// The guest rang these queues.
    Kick {
        /// Device.
        dev: u32,
        /// One bit per queue.
        queues: u32,
    },
    /// To be answered.
    Ping,
    /// End in order.
    Stop,
}

/// From worker to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// Everything told has been taken in.
    Started,
    /// The answer to [`ToWorker::Ping`].
    Pong,
    /// The answer to a request: data, or an errno.
    Reply {
        /// Device.
        dev: u32,
        /// Of the request.
        id: u64,
        /// Data of a read, empty for others.
        result: Result<Vec<u8>, i32>,
    },
    /// Cut the connection to this device's QEMU.
    Kick {
        /// Device.
        dev: u32,
    },
}

/// One end of the link.
#[derive(Debug)]
pub struct Link {
    sock: OwnedFd,
    output: VecDeque<(Vec<u8>, Vec<SharedFd>)>,
    buf: Vec<u8>,
}

impl Link {
    /// Takes over one end of a `SOCK_SEQPACKET` pair.
    pub fn new(sock: OwnedFd) -> Self {
        Self {
            sock,
            output: VecDeque::new(),
            buf: vec![0; MAX_LINK_MESSAGE],
        }
    }

    /// Sends a message with `fds`; what the socket does not take now waits for [`Self::flush`].
    pub fn send<T: Serialize>(&mut self, message: &T, fds: &[SharedFd]) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        if bytes.len() > MAX_LINK_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "link message too long",
            ));
        }
        self.output.push_back((bytes, fds.to_vec()));
        self.flush()
    }

    /// Goes on sending.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fds)) = self.output.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match sys::send_fds(self.sock.as_fd(), bytes, &fds) {
                Ok(_) => drop(self.output.pop_front()),
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

    /// The next message; `None` when there is none.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end is gone.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        match sys::recv_fds(self.sock.as_fd(), &mut self.buf) {
            Ok(got) if got.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) if got.truncated => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "link message truncated",
            )),
            Ok(got) => {
                let bytes = self.buf.get(..got.len).unwrap_or_default();
                let message = postcard::from_bytes(bytes).map_err(io::Error::other)?;
                Ok(Some((message, got.fds)))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}
