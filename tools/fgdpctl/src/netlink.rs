// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The module's generic netlink family, as `include/uapi/linux/fgdp.h` defines it.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail, Context, Result};
use fgdp_proto::proto::wire::Reason;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::genl::{Genlmsghdr, GenlmsghdrBuilder, NoUserHeader};
use neli::nl::NlPayload;
use neli::router::synchronous::NlRouter;
use neli::utils::Groups;

use crate::model::{Connection, Peer, Stats};

const FAMILY: &str = "fgdp";
const VERSION: u8 = 1;

/// The commands.
mod cmd {
    pub const GET_CONNECTIONS: u8 = 1;
    pub const GET_PEERS: u8 = 2;
    pub const GET_STATS: u8 = 3;
}

/// Attributes of a connection.
mod conn {
    pub const DEVICE: u16 = 1;
    pub const ID: u16 = 2;
    pub const PEER_ID: u16 = 3;
    pub const STATE: u16 = 4;
    pub const TYPE: u16 = 5;
    pub const LOCAL_GUEST: u16 = 6;
    pub const LOCAL_PORT: u16 = 7;
    pub const REMOTE_GUEST: u16 = 8;
    pub const REMOTE_PORT: u16 = 9;
    pub const RX_BYTES: u16 = 10;
    pub const TX_BYTES: u16 = 11;
    pub const READABLE: u16 = 12;
    pub const UNACKED: u16 = 13;
    pub const TX_RING: u16 = 14;
    pub const RX_WAITS: u16 = 15;
    pub const TX_WAITS: u16 = 16;
}

/// Attributes of a peer.
mod peer {
    pub const DEVICE: u16 = 1;
    pub const TRANSPORT: u16 = 2;
    pub const SLOT: u16 = 3;
    pub const GUEST: u16 = 4;
    pub const NAME: u16 = 5;
    pub const STATE: u16 = 6;
    pub const GENERATION: u16 = 7;
    pub const CHANNEL_UP: u16 = 8;
    pub const LANES: u16 = 9;
    pub const LENT_FRAMES: u16 = 10;
    pub const USED_FRAMES: u16 = 11;
    pub const ACCEPTED_FRAMES: u16 = 12;
    pub const LAST_DOWN: u16 = 13;
}

/// Attributes of a counter.
mod stat {
    pub const DEVICE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const VALUE: u16 = 3;
}

/// The attributes of one entry.
#[derive(Debug, Default)]
struct Entry(BTreeMap<u16, Vec<u8>>);

impl Entry {
    /// A number of 4 or 8 bytes, `None` if it is not there.
    fn maybe(&self, attr: u16) -> Result<Option<u64>> {
        let Some(bytes) = self.0.get(&attr) else {
            return Ok(None);
        };
        if let Ok(four) = bytes.as_slice().try_into() {
            return Ok(Some(u32::from_ne_bytes(four).into()));
        }
        match bytes.as_slice().try_into() {
            Ok(eight) => Ok(Some(u64::from_ne_bytes(eight))),
            Err(_) => bail!("attribute {attr} is no number: {} bytes", bytes.len()),
        }
    }

    fn number(&self, attr: u16) -> Result<u64> {
        let number = self.maybe(attr)?;
        number.ok_or_else(|| {
            anyhow!("attribute {attr} is missing: is the module of fgdpctl's version?")
        })
    }

    fn u32(&self, attr: u16) -> Result<u32> {
        u32::try_from(self.number(attr)?).with_context(|| format!("attribute {attr}"))
    }

    fn text(&self, attr: u16) -> Option<String> {
        let bytes = self.0.get(&attr)?.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A guest id as UUID.
    fn guest(&self, attr: u16) -> Option<String> {
        let mut text = String::new();
        for (n, byte) in self.0.get(&attr)?.iter().enumerate() {
            let dash = if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
            text += &format!("{dash}{byte:02x}");
        }
        Some(text)
    }

    fn device(&self, attr: u16) -> Result<Option<String>> {
        Ok(self.maybe(attr)?.map(|n| format!("fgdp{n}")))
    }
}

/// What the kernel calls a number; `?` for what a newer one has.
fn name(names: &[&str], number: u64) -> String {
    let name = usize::try_from(number).ok().and_then(|n| names.get(n));
    (*name.unwrap_or(&"?")).to_owned()
}

fn connection(entry: &Entry) -> Result<Connection> {
    let count = |attr| entry.maybe(attr).map(Option::unwrap_or_default);
    let id =
        |attr| -> Result<Option<u32>> { entry.maybe(attr)?.map(|_| entry.u32(attr)).transpose() };
    let local = entry.guest(conn::LOCAL_GUEST);
    let remote = match entry.guest(conn::REMOTE_GUEST) {
        Some(guest) => format!("{guest}:{}", entry.number(conn::REMOTE_PORT)?),
        None => "-".to_owned(),
    };
    let states = ["?", "listen", "opening", "open", "closing", "dead"];
    let types = ["?", "stream", "?", "?", "?", "seqpacket"];
    Ok(Connection {
        device: entry
            .device(conn::DEVICE)?
            .unwrap_or_else(|| "-".to_owned()),
        id: id(conn::ID)?,
        peer_id: id(conn::PEER_ID)?,
        state: name(&states, entry.number(conn::STATE)?),
        kind: name(&types, entry.number(conn::TYPE)?),
        local: format!(
            "{}:{}",
            local.as_deref().unwrap_or("*"),
            entry.number(conn::LOCAL_PORT)?
        ),
        remote,
        peer: None,
        rx_bytes: count(conn::RX_BYTES)?,
        tx_bytes: count(conn::TX_BYTES)?,
        readable: count(conn::READABLE)?,
        unacked: count(conn::UNACKED)?,
        tx_ring: count(conn::TX_RING)?,
        rx_waits: count(conn::RX_WAITS)?,
        tx_waits: count(conn::TX_WAITS)?,
    })
}

fn peer(entry: &Entry) -> Result<Peer> {
    let reason = Reason::from_u32(entry.u32(peer::LAST_DOWN)?);
    Ok(Peer {
        device: format!("fgdp{}", entry.number(peer::DEVICE)?),
        transport: entry
            .text(peer::TRANSPORT)
            .unwrap_or_else(|| "?".to_owned()),
        slot: entry.u32(peer::SLOT)?,
        guest: entry.guest(peer::GUEST).unwrap_or_else(|| "?".to_owned()),
        name: entry.text(peer::NAME),
        state: name(&["absent", "attached", "ready"], entry.number(peer::STATE)?),
        generation: entry.u32(peer::GENERATION)?,
        channel: name(&["down", "up"], entry.number(peer::CHANNEL_UP)?),
        lanes: entry.u32(peer::LANES)?,
        lent_frames: entry.number(peer::LENT_FRAMES)?,
        used_frames: entry.number(peer::USED_FRAMES)?,
        accepted_frames: entry.number(peer::ACCEPTED_FRAMES)?,
        last_down: reason.map_or("?", Reason::name).to_owned(),
    })
}

fn stat(entry: &Entry) -> Result<(String, i64)> {
    let device = entry.device(stat::DEVICE)?;
    let counter = entry.text(stat::NAME).unwrap_or_else(|| "?".to_owned());
    let value = i64::try_from(entry.number(stat::VALUE)?).unwrap_or(i64::MAX);
    Ok((
        format!("{}.{counter}", device.as_deref().unwrap_or("module")),
        value,
    ))
}

/// A socket to the module.
pub struct Netlink {
    router: NlRouter,
    family: u16,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netlink({})", self.family)
    }
}

impl Netlink {
    /// Finds the family.
    ///
    /// # Errors
    ///
    /// When the module is not loaded.
    pub fn open() -> Result<Self> {
        let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
            .map_err(|e| anyhow!("netlink: {e}"))?;
        let family = router.resolve_genl_family(FAMILY).map_err(|e| {
            anyhow!("netlink family `{FAMILY}`: {e}: load the module with `modprobe fgdp`")
        })?;
        Ok(Self { router, family })
    }

    fn dump<T>(&self, cmd: u8, entry: impl Fn(&Entry) -> Result<T>) -> Result<Vec<T>> {
        let ask = || -> Result<Vec<T>> {
            let request = GenlmsghdrBuilder::<u8, u16, NoUserHeader>::default()
                .cmd(cmd)
                .version(VERSION)
                .build()?;
            let answers = self
                .router
                .send::<_, _, u16, Genlmsghdr<u8, u16>>(
                    self.family,
                    NlmF::REQUEST | NlmF::DUMP,
                    NlPayload::Payload(request),
                )
                .map_err(|e| anyhow!("{e}"))?;
            let mut entries = Vec::new();
            for answer in answers {
                let answer = answer.map_err(|e| anyhow!("{e}"))?;
                let Some(message) = answer.get_payload() else {
                    continue;
                };
                let attrs = message.attrs().iter();
                let attrs = attrs.map(|a| {
                    let bytes: &[u8] = a.nla_payload().as_ref();
                    (*a.nla_type().nla_type(), bytes.to_vec())
                });
                entries.push(entry(&Entry(attrs.collect()))?);
            }
            Ok(entries)
        };
        ask().with_context(|| format!("netlink family `{FAMILY}`, command {cmd}"))
    }

    /// Members of the groups.
    ///
    /// # Errors
    ///
    /// When the module goes, or answers something else than this version knows.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        self.dump(cmd::GET_PEERS, peer)
    }

    /// Connections and sockets that listen.
    ///
    /// # Errors
    ///
    /// As [`Netlink::peers`].
    pub fn connections(&self) -> Result<Vec<Connection>> {
        self.dump(cmd::GET_CONNECTIONS, connection)
    }

    /// Counters.
    ///
    /// # Errors
    ///
    /// As [`Netlink::peers`].
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.dump(cmd::GET_STATS, stat)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attrs: &[(u16, &[u8])]) -> Entry {
        Entry(attrs.iter().map(|(n, b)| (*n, b.to_vec())).collect())
    }

    #[test]
    fn numbers_have_four_or_eight_bytes() {
        let e = entry(&[
            (1, &7u32.to_ne_bytes()),
            (2, &(1u64 << 40).to_ne_bytes()),
            (3, &[0; 5]),
        ]);
        assert_eq!(e.number(1).unwrap(), 7);
        assert_eq!(e.number(2).unwrap(), 1 << 40);
        assert!(e.u32(2).is_err());
        assert!(e.number(3).is_err());
        assert_eq!(e.maybe(4).unwrap(), None);
        let error = e.number(4).unwrap_err().to_string();
        assert!(error.contains("attribute 4 is missing"), "{error}");
    }

    #[test]
    fn what_listens_has_one_end() {
        let one = 1u32.to_ne_bytes();
        let e = entry(&[
            (conn::STATE, &one),
            (conn::TYPE, &5u32.to_ne_bytes()),
            (conn::LOCAL_PORT, &80u32.to_ne_bytes()),
            (conn::READABLE, &one),
        ]);
        let c = connection(&e).unwrap();
        assert_eq!((c.state.as_str(), c.kind.as_str()), ("listen", "seqpacket"));
        assert_eq!((c.local.as_str(), c.remote.as_str()), ("*:80", "-"));
        assert_eq!((c.id, c.readable, c.rx_bytes), (None, 1, 0));
    }

    #[test]
    fn what_a_newer_module_says_is_not_mistaken() {
        assert_eq!(name(&["down", "up"], 2), "?");
        let guest = entry(&[(1, &[0xab; 16])]).guest(1).unwrap();
        assert_eq!(guest, "abababab-abab-abab-abab-abababababab");
    }
}
