// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The module's generic netlink family, as `include/uapi/linux/fgdp.h` defines it.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{anyhow, bail, Context, Result};
use fgdp_proto::proto::wire::Reason;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::err::RouterError;
use neli::genl::{Genlmsghdr, GenlmsghdrBuilder, NoUserHeader};
use neli::nl::NlPayload;
use neli::router::synchronous::NlRouter;
use neli::utils::Groups;

use crate::model::{Connection, Peer, Stats, Tcp};

const FAMILY: &str = "fgdp";
const VERSION: u8 = 1;

/// The commands.
mod cmd {
    pub const GET_CONNECTIONS: u8 = 1;
    pub const GET_PEERS: u8 = 2;
    pub const GET_STATS: u8 = 3;
    pub const GET_TCP: u8 = 4;
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
    pub const ADDR: u16 = 14;
}

/// Attributes of a counter.
mod stat {
    pub const DEVICE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const VALUE: u16 = 3;
}

/// Attributes of a TCP connection.
mod tcp {
    pub const DEVICE: u16 = 1;
    pub const SLOT: u16 = 2;
    pub const COOKIE: u16 = 3;
    pub const LOCAL_ADDR: u16 = 4;
    pub const LOCAL_PORT: u16 = 5;
    pub const REMOTE_ADDR: u16 = 6;
    pub const REMOTE_PORT: u16 = 7;
    pub const ACTIVE: u16 = 8;
    pub const SENDS: u16 = 9;
    pub const RECEIVES: u16 = 10;
    pub const RING_RX_BYTES: u16 = 11;
    pub const RING_TX_BYTES: u16 = 12;
    pub const RX_BYTES: u16 = 13;
    pub const TX_BYTES: u16 = 14;
    pub const REASON: u16 = 15;
}

/// The attributes of one entry.
#[derive(Debug, Default)]
struct Entry(Vec<(u16, Vec<u8>)>);

impl Entry {
    /// All attributes of that number.
    fn all(&self, attr: u16) -> impl Iterator<Item = &[u8]> {
        let same = self.0.iter().filter(move |(n, _)| *n == attr);
        same.map(|(_, bytes)| bytes.as_slice())
    }

    fn first(&self, attr: u16) -> Option<&[u8]> {
        self.all(attr).next()
    }

    /// A number of 4 or 8 bytes, `None` if it is not there.
    fn maybe(&self, attr: u16) -> Result<Option<u64>> {
        let Some(bytes) = self.first(attr) else {
            return Ok(None);
        };
        if let Ok(four) = bytes.try_into() {
            return Ok(Some(u32::from_ne_bytes(four).into()));
        }
        match bytes.try_into() {
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
        let bytes = self.first(attr)?.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A guest id as UUID.
    fn guest(&self, attr: u16) -> Option<String> {
        let mut text = String::new();
        for (n, byte) in self.first(attr)?.iter().enumerate() {
            let dash = if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
            text += &format!("{dash}{byte:02x}");
        }
        Some(text)
    }

    /// An address and a port.
    fn socket(&self, addr: u16, port: u16) -> Result<SocketAddr> {
        let bytes = self.first(addr);
        let bytes = bytes.ok_or_else(|| anyhow!("attribute {addr} is missing"))?;
        let number = u16::try_from(self.number(port)?);
        let number = number.with_context(|| format!("attribute {port}"))?;
        Ok(SocketAddr::new(address(addr, bytes)?, number))
    }

    fn device(&self, attr: u16) -> Result<Option<String>> {
        Ok(self.maybe(attr)?.map(|n| format!("fgdp{n}")))
    }
}

/// An address of attribute `attr`; an IPv4 one comes as IPv6.
fn address(attr: u16, bytes: &[u8]) -> Result<IpAddr> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(Ipv6Addr::from(bytes).to_canonical()),
        Err(_) => bail!("attribute {attr} is no address: {} bytes", bytes.len()),
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
    let types = ["tcp", "stream", "?", "?", "?", "seqpacket"];
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
        addresses: {
            let all = entry.all(peer::ADDR);
            all.map(|bytes| address(peer::ADDR, bytes))
                .collect::<Result<_>>()?
        },
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

fn tcp_connection(entry: &Entry) -> Result<Tcp> {
    let ways = ["?", "tcp", "ring", "between", "reset"];
    let reasons = [
        "",
        "off",
        "taken",
        "early",
        "no_channel",
        "no_memory",
        "refused",
        "program",
        "peer",
        "channel_end",
        "policy",
    ];
    let reason = name(&reasons, entry.number(tcp::REASON)?);
    Ok(Tcp {
        device: format!("fgdp{}", entry.number(tcp::DEVICE)?),
        slot: entry.u32(tcp::SLOT)?,
        cookie: format!("{:x}", entry.number(tcp::COOKIE)?),
        local: entry.socket(tcp::LOCAL_ADDR, tcp::LOCAL_PORT)?,
        remote: entry.socket(tcp::REMOTE_ADDR, tcp::REMOTE_PORT)?,
        peer: None,
        opened: name(&["there", "here"], entry.number(tcp::ACTIVE)?),
        sends: name(&ways, entry.number(tcp::SENDS)?),
        receives: name(&ways, entry.number(tcp::RECEIVES)?),
        ring_rx_bytes: entry.number(tcp::RING_RX_BYTES)?,
        ring_tx_bytes: entry.number(tcp::RING_TX_BYTES)?,
        tcp_rx_bytes: entry.number(tcp::RX_BYTES)?,
        tcp_tx_bytes: entry.number(tcp::TX_BYTES)?,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
    })
}

/// `EOPNOTSUPP`: how netlink answers a command that a family does not have.
const NO_COMMAND: i32 = 95;

/// A refusal of the kernel's with its number.
fn refusal<T, P>(error: RouterError<T, P>) -> anyhow::Error
where
    RouterError<T, P>: std::fmt::Display,
{
    match &error {
        RouterError::Nlmsgerr(e) => io::Error::from_raw_os_error(-e.error()).into(),
        _ => anyhow!("{error}"),
    }
}

/// The number of a refusal.
fn number_of(error: &anyhow::Error) -> Option<i32> {
    let io = error.root_cause().downcast_ref::<io::Error>();
    io.and_then(io::Error::raw_os_error)
}

fn connect() -> Result<NlRouter> {
    let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
        .map_err(|e| anyhow!("netlink: {e}"))?;
    Ok(router)
}

/// The module's family.
#[derive(Debug)]
pub struct Netlink {
    family: u16,
}

impl Netlink {
    /// Finds the family; `None` when there is none: the module is not loaded.
    ///
    /// # Errors
    ///
    /// When netlink does not work.
    pub fn find() -> Result<Option<Self>> {
        /// `ENOENT`.
        const NO_FAMILY: i32 = 2;
        match connect()?.resolve_genl_family(FAMILY).map_err(refusal) {
            Ok(family) => Ok(Some(Self { family })),
            Err(e) if number_of(&e) == Some(NO_FAMILY) => Ok(None),
            Err(e) => Err(e.context(format!("netlink family `{FAMILY}`"))),
        }
    }

    /// Finds the family.
    ///
    /// # Errors
    ///
    /// When the module is not loaded.
    pub fn open() -> Result<Self> {
        Self::find()?.ok_or_else(|| {
            anyhow!("there is no netlink family `{FAMILY}`: load the module with `modprobe fgdp`")
        })
    }

    fn dump<T>(&self, cmd: u8, entry: impl Fn(&Entry) -> Result<T>) -> Result<Vec<T>> {
        let ask = || -> Result<Vec<T>> {
            let request = GenlmsghdrBuilder::<u8, u16, NoUserHeader>::default()
                .cmd(cmd)
                .version(VERSION)
                .build()?;
            // The router reads in a thread of its own. If that reads an answer while the request is still in the kernel,
            // the kernel may leave EINVAL behind for whatever is asked next on the same socket.
            let router = connect()?;
            let answers = router
                .send::<_, _, u16, Genlmsghdr<u8, u16>>(
                    self.family,
                    NlmF::REQUEST | NlmF::DUMP,
                    NlPayload::Payload(request),
                )
                .map_err(|e| anyhow!("{e}"))?;
            let mut entries = Vec::new();
            for answer in answers {
                let answer = answer.map_err(refusal)?;
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

    /// TCP connections to peers; `None` from a module that does not have the command.
    ///
    /// # Errors
    ///
    /// As [`Netlink::peers`].
    pub fn tcp(&self) -> Result<Option<Vec<Tcp>>> {
        match self.dump(cmd::GET_TCP, tcp_connection) {
            Err(e) if number_of(&e) == Some(NO_COMMAND) => Ok(None),
            tcp => tcp.map(Some),
        }
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

    #[test]
    fn an_address_of_ipv4_is_shown_as_such() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 77, 0, 2]);
        let (number, port, ring) = (6u32.to_ne_bytes(), 80u32.to_ne_bytes(), 2u32.to_ne_bytes());
        let mut attrs: Vec<(u16, &[u8])> = (1..=15).map(|n| (n, number.as_slice())).collect();
        let six = "fd77::1".parse::<Ipv6Addr>().unwrap().octets();
        for (attr, bytes) in [
            (tcp::LOCAL_ADDR, six.as_slice()),
            (tcp::REMOTE_ADDR, &mapped),
            (tcp::REMOTE_PORT, &port),
            (tcp::SENDS, &ring),
        ] {
            attrs[usize::from(attr) - 1].1 = bytes;
        }
        let found = tcp_connection(&entry(&attrs)).unwrap();
        assert_eq!(found.local.to_string(), "[fd77::1]:6");
        assert_eq!(found.remote.to_string(), "10.77.0.2:80");
        assert_eq!(
            (found.sends.as_str(), found.receives.as_str()),
            ("ring", "?")
        );
        assert_eq!(found.reason.as_deref(), Some("refused"));
        attrs[usize::from(tcp::REMOTE_ADDR) - 1].1 = &number;
        assert!(tcp_connection(&entry(&attrs)).is_err());
    }
}
