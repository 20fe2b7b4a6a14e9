// SPDX-License-Identifier: Apache-2.0 OR MIT
//! In a guest: what the module tells by netlink, or a copy of what it lists under `/proc/net/fgdp`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::de::DeserializeOwned;

use crate::listing;
use crate::model::{Connection, Connections, DeviceStatus, GuestStatus, Look, Peer, Stats, Tcp};
use crate::netlink::Netlink;
use crate::What;

/// Where the module puts its listings.
pub const PROC: &str = "/proc/net/fgdp";

/// The module.
#[derive(Debug)]
pub enum Guest {
    /// The one in this kernel.
    Kernel,
    /// Listings in this directory.
    Listings(PathBuf),
}

/// Says who the peers of `connections` are.
fn give_names(connections: &mut [Connection], peers: &[Peer]) {
    let names: HashMap<_, _> = peers
        .iter()
        .filter_map(|p| Some(((p.device.as_str(), p.guest.as_str()), p.name.as_ref()?)))
        .collect();
    for connection in connections {
        if let Some((guest, _)) = connection.remote.split_once(':') {
            let name = names.get(&(connection.device.as_str(), guest));
            connection.peer = name.map(|name| (*name).clone());
        }
    }
}

/// Says who the peers of TCP connections are.
pub fn give_tcp_names(tcp: &mut [Tcp], peers: &[Peer]) {
    for connection in tcp {
        let peer = peers
            .iter()
            .find(|p| (&p.device, p.slot) == (&connection.device, connection.slot));
        connection.peer = peer.and_then(|peer| peer.name.clone());
    }
}

fn status(peers: &[Peer], connections: &[Connection], stats: &Stats) -> GuestStatus {
    let mut devices: Vec<DeviceStatus> = Vec::new();
    for counter in stats.keys() {
        let Some((device, _)) = counter.split_once('.').filter(|(d, _)| *d != "module") else {
            continue;
        };
        if devices.last().is_some_and(|d| d.device == device) {
            continue;
        }
        let sum = |prefix: &str| -> i64 {
            let of_device = stats.iter().filter_map(|(name, value)| {
                let counter = name.strip_prefix(device)?.strip_prefix('.')?;
                counter.starts_with(prefix).then_some(*value)
            });
            of_device.sum()
        };
        let seen = || peers.iter().filter(|p| p.device == device);
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        devices.push(DeviceStatus {
            device: device.to_owned(),
            transport: seen().next().map_or("-", |p| &p.transport).to_owned(),
            peers_ready: count(seen().filter(|p| p.state == "ready").count()),
            channels_up: count(seen().filter(|p| p.channel == "up").count()),
            lent_frames: seen().map(|p| p.lent_frames).sum(),
            used_frames: seen().map(|p| p.used_frames).sum(),
            doorbells: sum("doorbells_rung_"),
            suppressed: sum("suppressed"),
            channels_down: sum("down_"),
        });
    }
    let mut by_state = std::collections::BTreeMap::new();
    for connection in connections {
        *by_state.entry(connection.state.clone()).or_default() += 1;
    }
    let setting = |name| stats.get(name).copied();
    GuestStatus {
        family: setting("module.family"),
        spin_usec: setting("module.spin_usec"),
        devices,
        connections: by_state,
    }
}

/// Reads listing `file` in `dir`.
fn read<T: DeserializeOwned>(dir: &Path, file: &str) -> Result<Vec<T>> {
    let path = dir.join(file);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "{} is missing: load the module with `modprobe fgdp`",
                path.display()
            )
        }
        text => text.with_context(|| path.display().to_string())?,
    };
    listing::parse(&text).with_context(|| path.display().to_string())
}

impl Guest {
    fn peers(&self) -> Result<Vec<Peer>> {
        match self {
            Self::Kernel => Netlink::open()?.peers(),
            Self::Listings(dir) => read(dir, "peers"),
        }
    }

    fn connections(&self) -> Result<Connections> {
        let (mut connections, mut tcp) = match self {
            Self::Kernel => {
                let module = Netlink::open()?;
                (module.connections()?, module.tcp()?)
            }
            Self::Listings(dir) => {
                let tcp = dir.join("tcp").exists().then(|| read(dir, "tcp"));
                (read(dir, "connections")?, tcp.transpose()?)
            }
        };
        let peers = self.peers()?;
        give_names(&mut connections, &peers);
        give_tcp_names(tcp.as_deref_mut().unwrap_or_default(), &peers);
        Ok(Connections { connections, tcp })
    }

    fn stats(&self) -> Result<Stats> {
        match self {
            Self::Kernel => Netlink::open()?.stats(),
            Self::Listings(dir) => Ok(read(dir, "stats")?.into_iter().collect()),
        }
    }

    /// Reads `what`.
    ///
    /// # Errors
    ///
    /// When the module is not loaded or lists something else than this version knows.
    pub fn look(&self, what: What) -> Result<Look> {
        Ok(match what {
            What::Status => {
                let (peers, connections) = (self.peers()?, self.connections()?);
                Look::Guest(status(&peers, &connections.connections, &self.stats()?))
            }
            What::Peers => Look::Peers(self.peers()?),
            What::Connections => Look::Connections(self.connections()?),
            What::Stats => Look::Stats(self.stats()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: &str = include_str!("../tests/data/proc/peers");
    const CONNECTIONS: &str = include_str!("../tests/data/proc/connections");
    const STATS: &str = include_str!("../tests/data/proc/stats");

    #[test]
    fn peers_of_a_guest() {
        let peers: Vec<Peer> = listing::parse(PEERS).unwrap();
        let b = peers.iter().find(|p| p.transport == "virtio").unwrap();
        assert_eq!(b.name.as_deref(), Some("b"));
        assert_eq!((b.state.as_str(), b.channel.as_str()), ("ready", "up"));
        assert_eq!(b.addresses.len(), 2);
        assert!(b.lent_frames >= b.used_frames && b.used_frames > 0);
        let own = peers.iter().find(|p| p.transport == "loopback").unwrap();
        assert_eq!(own.name, None);
    }

    #[test]
    fn connections_of_a_guest() {
        let mut all: Vec<Connection> = listing::parse(CONNECTIONS).unwrap();
        give_names(&mut all, &listing::parse::<Peer>(PEERS).unwrap());
        let to_b = all.iter().find(|c| c.state == "open").unwrap();
        assert_eq!(to_b.peer.as_deref(), Some("b"));
        assert!(to_b.id.is_some() && to_b.peer_id.is_some());
        assert!(to_b.tx_bytes > 0 && to_b.tx_ring > 0);
        let listening = all.iter().find(|c| c.state == "listen").unwrap();
        assert_eq!((listening.id, listening.remote.as_str()), (None, "-"));
    }

    #[test]
    fn tcp_connections_of_a_guest() {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc"));
        let all = Guest::Listings(dir.to_owned()).connections().unwrap();
        let [refused, carried] = all.tcp.unwrap().try_into().unwrap();
        assert_eq!(refused.reason.as_deref(), Some("refused"));
        assert_eq!((carried.reason, carried.receives.as_str()), (None, "ring"));
        assert_eq!(carried.remote.to_string(), "[fd77::2]:6001");
        assert_eq!(carried.peer.as_deref(), Some("b"));
        assert_eq!(carried.ring_rx_bytes, 200_000);
    }

    #[test]
    fn a_module_that_does_not_carry_tcp_has_no_part_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let older = PEERS
            .replace("addresses ", "")
            .replace("10.77.0.2,fd77:0:0:0:0:0:0:2 ", "");
        let older = older.replace(" - - ready", " - ready");
        fs::write(dir.path().join("peers"), older).unwrap();
        fs::write(dir.path().join("connections"), CONNECTIONS).unwrap();
        let guest = Guest::Listings(dir.path().to_owned());
        assert_eq!(guest.connections().unwrap().tcp, None);
        assert!(guest
            .peers()
            .unwrap()
            .iter()
            .all(|p| p.addresses.is_empty()));
    }

    #[test]
    fn a_guest_at_a_glance() {
        let peers: Vec<Peer> = listing::parse(PEERS).unwrap();
        let connections: Vec<Connection> = listing::parse(CONNECTIONS).unwrap();
        let stats = listing::parse(STATS).unwrap().into_iter().collect();
        let status = status(&peers, &connections, &stats);
        assert_eq!(status.family, Some(18));
        assert_eq!(status.devices.len(), 2);
        assert_eq!(status.devices[1].transport, "virtio");
        assert_eq!(status.devices[1].channels_up, 1);
        assert!(status.devices[1].doorbells > 0);
        let counted: u64 = status.connections.values().sum();
        assert_eq!(counted, u64::try_from(connections.len()).unwrap());
    }

    #[test]
    fn another_module_is_told_from_this_one() {
        let text = PEERS.replace("last_down", "why");
        let error = format!("{:#}", listing::parse::<Peer>(&text).unwrap_err());
        assert!(
            error.contains("`last_down`") && error.contains("version"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_module_is_named_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::Listings(dir.path().join("none"));
        let error = guest.look(What::Peers).unwrap_err().to_string();
        assert!(error.contains("modprobe fgdp"), "{error}");
    }
}
