// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why TCP connections to an address are carried by shared pages, or are not, and what to do about it.

mod checks;
mod facts;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::Result;
use serde::Serialize;

use crate::model::Tcp;
use facts::Facts;
pub use words::reason;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The other end's address.
    pub address: IpAddr,
    /// Its port; without one, all.
    pub port: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let (address, port) = if let Ok(both) = text.parse::<SocketAddr>() {
            (both.ip(), Some(both.port()))
        } else if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            (address, None)
        } else {
            return Err("give 10.0.0.2, 10.0.0.2:80, fd00::2 or [fd00::2]:80".to_owned());
        };
        if port == Some(0) {
            return Err("there is no port 0".to_owned());
        }
        Ok(Self {
            address: address.to_canonical(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

impl Target {
    /// Whether `connection` leads there.
    fn is_of(&self, connection: &Tcp) -> bool {
        connection.remote.ip() == self.address
            && self
                .port
                .is_none_or(|port| port == connection.remote.port())
    }
}

/// One thing that has to be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// It is so.
    pub ok: bool,
    /// What was found.
    pub says: String,
    /// What to do if it is not so.
    pub cure: Option<String>,
}

impl Check {
    fn good(check: &'static str, says: impl Into<String>) -> Self {
        Self {
            check,
            ok: true,
            says: says.into(),
            cure: None,
        }
    }

    fn bad(check: &'static str, says: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            check,
            ok: false,
            says: says.into(),
            cure: Some(cure.into()),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The other end's address.
    pub address: IpAddr,
    /// Its port, if one was asked about.
    pub port: Option<u16>,
    /// Whether a new connection would be carried, as far as this guest can know.
    pub would_carry: bool,
    /// All that was looked at, in the module's order.
    pub checks: Vec<Check>,
    /// Connections there that are open now.
    pub tcp: Vec<Tcp>,
    /// How many connections, to all peers, were not carried for each reason since the module was loaded.
    pub not_carried: BTreeMap<String, u64>,
}

impl Explanation {
    /// What was asked about.
    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            port: self.port,
        }
    }

    fn of(target: &Target, facts: Facts) -> Self {
        let checks = checks::all(target, &facts);
        Self {
            address: target.address,
            port: target.port,
            would_carry: checks.iter().all(|check| check.ok),
            checks,
            tcp: {
                let all = facts.tcp.into_iter();
                all.filter(|connection| target.is_of(connection)).collect()
            },
            not_carried: facts.not_carried,
        }
    }
}

/// Asks the module in this kernel.
///
/// # Errors
///
/// When something that is there cannot be read.
pub fn explain(target: &Target) -> Result<Explanation> {
    Ok(Explanation::of(target, facts::gather(target)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (text, address, port) in [
            ("10.77.0.2", "10.77.0.2", None),
            ("10.77.0.2:80", "10.77.0.2", Some(80)),
            ("fd77::2", "fd77::2", None),
            ("[fd77::2]", "fd77::2", None),
            ("[fd77::2]:80", "fd77::2", Some(80)),
            ("[::ffff:10.77.0.2]:80", "10.77.0.2", Some(80)),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.address.to_string(), address, "{text}");
            assert_eq!(target.port, port, "{text}");
            let again: Target = target.to_string().parse().unwrap();
            assert_eq!(again, target);
        }
        for wrong in [
            "",
            "b",
            "10.77.0",
            "10.77.0.2:",
            "10.77.0.2:0",
            "[fd77::2",
            "10.77.0.2:65536",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
