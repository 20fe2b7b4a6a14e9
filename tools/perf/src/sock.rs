// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connected socket of any family.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::job::Job;
use crate::sys::{self, Name};

/// A connected stream socket.
pub struct Stream(OwnedFd);

impl Stream {
    /// Connects to `name`.
    pub fn connect(name: &Name) -> Result<Self> {
        let fd = sys::socket(name).context("socket")?;
        sys::connect(fd.as_fd(), name).context("connect")?;
        Ok(Self::from(fd))
    }

    /// Prepares for `job`.
    pub fn set_options(&self, job: &Job) -> Result<()> {
        let fd = self.0.as_fd();
        // Others than TCP have no such option and no such delay.
        match sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1) {
            Ok(()) | Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error).context("TCP_NODELAY"),
        }
        if job.busy_poll > 0 {
            let usec = i32::try_from(job.busy_poll)?;
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, usec)
                .context("SO_BUSY_POLL")?;
        }
        if job.sndbuf > 0 {
            let bytes = i32::try_from(job.sndbuf)?;
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes).context("SO_SNDBUF")?;
        }
        Ok(())
    }

    /// Waits for one of `events`, or the end; what there is.
    pub fn wait(&self, events: PollFlags) -> Result<PollFlags> {
        let mut fds = [PollFd::new(self.0.as_fd(), events)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("poll"),
                Ok(_) => break,
            }
        }
        Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
    }

    /// Whether all that the peer sent was read, and nothing more comes.
    pub fn is_over(&self) -> nix::Result<bool> {
        match sys::peek(self.0.as_fd()) {
            Err(Errno::EAGAIN) => Ok(false),
            result => result.map(|n| n == 0),
        }
    }

    /// The peer reads the end of the stream.
    pub fn finish(&self) -> Result<()> {
        sys::shutdown_write(self.0.as_fd()).context("shutdown")
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        Ok(sys::recv(self.0.as_fd(), buf)?)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(sys::send(self.0.as_fd(), buf)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
