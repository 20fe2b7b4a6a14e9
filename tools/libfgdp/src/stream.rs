// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stream sockets of `AF_FGDP`, which the standard library cannot open.

use std::fmt;
use std::fs;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use crate::sys::socket::{self, Name};

const STATS: &str = "/proc/net/fgdp/stats";

/// The number of the family `AF_FGDP`, which the module chooses.
///
/// # Errors
///
/// `ENOENT` without the module, and in other network namespaces than the first.
pub fn family() -> io::Result<u16> {
    let stats = fs::read_to_string(STATS)?;
    let found = stats.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.find(|word| *word == "module.family")?;
        words.next()?.parse().ok()
    });
    found.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Where a socket is: as text `GUEST-ID:PORT`, a guest's id being 32 hexadecimal digits, with or without dashes, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The guest's id. All zero is any guest to listeners, and this guest to who connects.
    pub guest: [u8; 16],
    /// The port.
    pub port: u32,
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let wrong = || {
            let text = format!(
                "'{text}' is not GUEST-ID:PORT, with an id of 32 hexadecimal digits, or `any`"
            );
            Error::new(ErrorKind::InvalidInput, text)
        };
        let (guest, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if guest == "any" {
            let guest = [0; 16];
            return Ok(Self { guest, port });
        }
        let digits: String = guest.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let guest = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?;
        let guest = guest.to_be_bytes();
        Ok(Self { guest, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.guest.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        write!(f, ":{}", self.port)
    }
}

impl Address {
    fn name(&self, family: u16) -> Name {
        Name {
            family,
            reserved: 0,
            port: self.port,
            guest: self.guest,
        }
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Connects to who listens at `address`.
    ///
    /// # Errors
    ///
    /// Those of [`family`], `socket(2)` and `connect(2)`.
    pub fn connect(address: &Address) -> io::Result<Self> {
        let family = family()?;
        let fd = socket::stream(family)?;
        socket::connect(fd.as_fd(), &address.name(family))?;
        Ok(Self(fd))
    }

    /// Ends sending: the peer reads the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn finish(&self) -> io::Result<()> {
        socket::finish(self.0.as_fd())
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

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.0.as_fd(), bytes)
    }
}

/// Sends copies, without `SIGPIPE`.
impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        crate::sys::send(self.0.as_fd(), bytes, libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// Those of [`family`], `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let family = family()?;
        let fd = socket::stream(family)?;
        socket::listen(fd.as_fd(), &address.name(family))?;
        Ok(Self(fd))
    }

    /// Waits for a connection; who opened it.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`.
    pub fn accept(&self) -> io::Result<(Stream, Address)> {
        let (fd, name) = socket::accept(self.0.as_fd())?;
        let from = Address {
            guest: name.guest,
            port: name.port,
        };
        Ok((Stream(fd), from))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let text = "9f0c1f3e-6f5b-4c59-8f57-0d8a8b0d7a01:4294967294";
        let address: Address = text.parse().unwrap();
        assert_eq!(
            (address.guest[0], address.guest[15], address.port),
            (0x9f, 1, 0xffff_fffe)
        );
        assert_eq!(address.to_string(), text);
        assert_eq!("any:7".parse::<Address>().unwrap().guest, [0; 16]);
    }

    #[test]
    fn other_text_is_no_address() {
        for text in [
            "",
            "any",
            "any:",
            "any:-1",
            "any:4294967296",
            "1:7",
            "+0000000000000000000000000000001:7",
            "00000000-0000-0000-0000-0000000000g2:7",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
