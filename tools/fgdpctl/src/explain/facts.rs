// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the checks look at, read once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result};

use super::Target;
use crate::guest::give_tcp_names;
use crate::model::{Peer, Tcp};
use crate::netlink::Netlink;

/// Which TCP connections are carried.
const SETTING: &str = "/proc/sys/net/fgdp/inet";
/// Lists of what is excluded, or alone is not: this and what of, and which.
const LISTS: &str = "/proc/sys/net/fgdp/inet_";
/// There while the module is loaded, in every network namespace.
const MODULE: &str = "/sys/module/fgdp";
/// Counters of connections that were not carried: this and the reason.
const NOT: &str = "module.inet_not_";

/// What is known of this guest.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The module is loaded.
    pub loaded: bool,
    /// It answers here.
    pub answers: bool,
    /// `net.fgdp.inet`, if the module has it.
    pub inet: Option<i64>,
    /// The lists of what is excluded, and of what alone is not; empty: anything goes.
    pub lists: Lists,
    /// The address is one of this guest.
    pub own: bool,
    /// Other members of the groups.
    pub peers: Vec<Peer>,
    /// TCP connections to them.
    pub tcp: Vec<Tcp>,
    /// Connections that were not carried, by reason.
    pub not_carried: BTreeMap<String, u64>,
}

/// The administrator's lists, as they are written.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Ports that are not carried.
    pub ports_deny: String,
    /// Ports that alone are.
    pub ports_allow: String,
    /// Control groups whose sockets are not carried.
    pub cgroups_deny: String,
    /// Control groups whose sockets alone are.
    pub cgroups_allow: String,
}

impl Lists {
    fn read() -> Result<Self> {
        Ok(Self {
            ports_deny: line("ports_deny")?,
            ports_allow: line("ports_allow")?,
            cgroups_deny: line("cgroups_deny")?,
            cgroups_allow: line("cgroups_allow")?,
        })
    }
}

/// Reads a list; empty when the module has none.
fn line(name: &str) -> Result<String> {
    Ok(text(&format!("{LISTS}{name}"))?.unwrap_or_default())
}

/// Reads a setting; `None` when there is no such file.
fn text(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.with_context(|| path.to_owned())?;
            Ok(Some(text.trim().to_owned()))
        }
    }
}

/// Reads a number; `None` when there is no such file.
fn number(path: &str) -> Result<Option<i64>> {
    text(path)?
        .map(|text| text.parse().with_context(|| path.to_owned()))
        .transpose()
}

/// Whether a connection to `address` would come back to this guest: then it would have the same address at both ends, or
/// one of the loopback's. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        // The port does not matter for the way.
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    // Without a way there it is not.
    source().is_ok_and(|source| source == address)
}

/// Reads all that is there for `target`.
///
/// # Errors
///
/// When something that is there cannot be read.
pub fn gather(target: &Target) -> Result<Facts> {
    let own = is_own(target.address);
    let Some(module) = Netlink::find()? else {
        return Ok(Facts {
            loaded: Path::new(MODULE).exists(),
            own,
            ..Facts::default()
        });
    };
    let peers = module.peers()?;
    let mut tcp = module.tcp()?.unwrap_or_default();
    give_tcp_names(&mut tcp, &peers);
    let stats = module.stats()?;
    let not_carried = stats.iter().filter_map(|(counter, value)| {
        let reason = counter.strip_prefix(NOT)?;
        let count = u64::try_from(*value).ok().filter(|n| *n > 0)?;
        Some((reason.to_owned(), count))
    });
    Ok(Facts {
        loaded: true,
        answers: true,
        inet: number(SETTING)?,
        lists: Lists::read()?,
        own,
        not_carried: not_carried.collect(),
        peers,
        tcp,
    })
}
