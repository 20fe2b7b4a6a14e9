// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the other end is: in a guest, or at a host that TCP knows.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use fgdp::{Address, Listener, Stream};

/// `GUEST-ID:PORT`, or `HOST:PORT` of TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket of `AF_FGDP`.
    Fgdp(Address),
    /// A name and a port, or an address and a port.
    Tcp(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Fgdp(address));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(format!("'{text}' is neither GUEST-ID:PORT nor HOST:PORT")),
        }
    }
}

impl Place {
    /// Connects to who listens there.
    pub fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Fgdp(address) => Stream::connect(address),
            Self::Tcp(address) => TcpStream::connect(address).map(|tcp| OwnedFd::from(tcp).into()),
        }
    }

    /// Listens there.
    pub fn listen(&self) -> io::Result<Door> {
        match self {
            Self::Fgdp(address) => Listener::bind(address).map(Door::Fgdp),
            Self::Tcp(address) => TcpListener::bind(address).map(Door::Tcp),
        }
    }
}

/// A socket that listens.
pub enum Door {
    /// Of `AF_FGDP`.
    Fgdp(Listener),
    /// Of TCP.
    Tcp(TcpListener),
}

impl Door {
    /// Waits for a connection; who opened it.
    pub fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Self::Fgdp(listener) => {
                let (stream, from) = listener.accept()?;
                Ok((stream, from.to_string()))
            }
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                Ok((OwnedFd::from(stream).into(), from.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_from_a_host() {
        let guest = "any:7000";
        let place = guest.parse::<Place>();
        assert_eq!(place, Ok(Place::Fgdp(guest.parse().unwrap())));
        for host in ["10.77.0.2:7000", "[fd77::2]:7000", "b.example:7000"] {
            assert_eq!(host.parse(), Ok(Place::Tcp(host.to_owned())));
        }
    }

    #[test]
    fn other_text_is_no_place() {
        for text in ["", "7000", ":7000", "host", "host:", "host:65536"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
