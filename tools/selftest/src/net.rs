// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses of the families that the cases run over.

use std::net::Ipv4Addr;

use anyhow::{ensure, Context, Result};

/// A guest's id.
pub type GuestId = [u8; 16];

/// Where the sockets of a run live.
#[derive(Clone, Copy, Debug)]
pub enum Net {
    /// `AF_FGDP` under its number.
    Fgdp {
        /// The family's number.
        family: u8,
        /// The other side's guest id; zero is this guest.
        peer: GuestId,
    },
    /// TCP over IPv4, to see that a case expects what TCP does.
    Tcp {
        /// The other side's address.
        peer: Ipv4Addr,
    },
}

/// Lets the kernel choose a port, in `AF_FGDP`.
pub const FGDP_PORT_ANY: u32 = u32::MAX;

/// `struct sockaddr_fgdp`.
pub fn fgdp_name(family: u16, reserved: u16, port: u32, guest: &GuestId) -> Vec<u8> {
    let mut name = Vec::with_capacity(24);
    name.extend_from_slice(&family.to_ne_bytes());
    name.extend_from_slice(&reserved.to_ne_bytes());
    name.extend_from_slice(&port.to_ne_bytes());
    name.extend_from_slice(guest);
    name
}

fn inet_name(addr: Ipv4Addr, port: u32) -> Vec<u8> {
    let mut name = Vec::with_capacity(16);
    name.extend_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    name.extend_from_slice(&(port as u16).to_be_bytes());
    name.extend_from_slice(&addr.octets());
    name.extend_from_slice(&[0; 8]);
    name
}

impl Net {
    /// The number that `socket(2)` takes.
    pub fn domain(&self) -> i32 {
        match self {
            Self::Fgdp { family, .. } => i32::from(*family),
            Self::Tcp { .. } => libc::AF_INET,
        }
    }

    /// Whether this is `AF_FGDP`.
    pub fn is_fgdp(&self) -> bool {
        matches!(self, Self::Fgdp { .. })
    }

    /// Whether this is TCP that FGDP carries, as the setting of this guest says.
    pub fn is_carried(&self) -> bool {
        let Self::Tcp { peer } = self else {
            return false;
        };
        let level = std::fs::read_to_string("/proc/sys/net/fgdp/inet");
        let level = level.ok().and_then(|text| text.trim().parse::<i32>().ok());
        level.unwrap_or(0) > i32::from(peer.is_loopback())
    }

    /// A port of this side, any address.
    pub fn local(&self, port: u32) -> Vec<u8> {
        match self {
            Self::Fgdp { family, .. } => fgdp_name((*family).into(), 0, port, &[0; 16]),
            Self::Tcp { .. } => inet_name(Ipv4Addr::UNSPECIFIED, port),
        }
    }

    /// A port of the kernel's choice on this side.
    pub fn any(&self) -> Vec<u8> {
        match self {
            Self::Fgdp { .. } => self.local(FGDP_PORT_ANY),
            Self::Tcp { .. } => self.local(0),
        }
    }

    /// A port of the other side.
    pub fn remote(&self, port: u32) -> Vec<u8> {
        match self {
            Self::Fgdp { family, peer } => fgdp_name((*family).into(), 0, port, peer),
            Self::Tcp { peer } => inet_name(*peer, port),
        }
    }

    /// The port in `name`, which the kernel gave.
    pub fn port_of(&self, name: &[u8]) -> Result<u32> {
        let family = name.first_chunk().context("a name without family")?;
        ensure!(
            i32::from(u16::from_ne_bytes(*family)) == self.domain(),
            "a name of another family: {name:?}"
        );
        match self {
            Self::Fgdp { .. } => {
                ensure!(name.len() == 24, "sockaddr_fgdp of {} bytes", name.len());
                let port = name.get(4..8).context("no port")?;
                Ok(u32::from_ne_bytes(port.try_into()?))
            }
            Self::Tcp { .. } => {
                let port = name.get(2..4).context("no port")?;
                Ok(u16::from_be_bytes(port.try_into()?).into())
            }
        }
    }
}

/// Reads a guest id: a UUID or 32 hexadecimal digits.
pub fn parse_guest(text: &str) -> Result<GuestId> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    ensure!(
        digits.len() == 32 && digits.chars().all(|c| c.is_ascii_hexdigit()),
        "'{text}' is not a guest id: give 32 hexadecimal digits, with or without dashes"
    );
    Ok(u128::from_str_radix(&digits, 16)?.to_be_bytes())
}
