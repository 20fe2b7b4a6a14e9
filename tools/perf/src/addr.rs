// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses as text.

use std::net::SocketAddr;

use anyhow::{bail, Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::sys::Name;

/// The paths that a socket can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// TCP over IPv4 or IPv6
    Tcp,
    /// A stream socket of AF_UNIX
    Unix,
    /// A stream socket of AF_FGDP
    Fgdp,
}

impl Family {
    /// The socket address that `text` means.
    pub fn parse(self, text: &str, number: u16) -> Result<Name> {
        match self {
            Self::Tcp => {
                let addr: SocketAddr = text.parse().with_context(|| {
                    format!("'{text}' is not ADDRESS:PORT, such as 10.77.0.1:7000")
                })?;
                Ok(Name::inet(addr))
            }
            Self::Unix => Name::unix(text),
            Self::Fgdp => {
                let (id, port) = text
                    .rsplit_once(':')
                    .with_context(|| format!("'{text}' is not GUEST-ID:PORT"))?;
                let port = port
                    .parse()
                    .with_context(|| format!("'{port}' is not a port"))?;
                Ok(Name::fgdp(number, guest_id(id)?, port))
            }
        }
    }
}

fn guest_id(text: &str) -> Result<[u8; 16]> {
    if text == "any" {
        return Ok([0; 16]);
    }
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("'{text}' is not a guest id: 32 hexadecimal digits, or `any`");
    }
    Ok(u128::from_str_radix(&digits, 16)?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_id_reads_a_uuid() {
        let id = guest_id("00000000-0000-0000-0000-0000000000a2").unwrap();
        assert_eq!(id[15], 0xa2);
        assert_eq!(id[..15], [0; 15]);
    }

    #[test]
    fn guest_id_refuses_other_text() {
        for text in [
            "",
            "1",
            "00000000-0000-0000-0000-0000000000g2",
            "+0000000000000000000000000000001",
        ] {
            assert!(guest_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_without_port_is_refused() {
        assert!(Family::Tcp.parse("10.77.0.1", 18).is_err());
        assert!(Family::Fgdp.parse("any", 18).is_err());
    }
}
