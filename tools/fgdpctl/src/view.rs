// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables for people, JSON for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{presets, CellAlignment, Table};

use crate::model::{
    Connection, Grant, GuestStatus, HostStatus, Look, Member, MemberStats, Peer, Stats,
};

/// `look` as JSON, one line, or as table.
///
/// # Errors
///
/// When it cannot be put into JSON.
pub fn render(look: &Look, json: bool) -> Result<String> {
    Ok(match json {
        true => format!("{}\n", serde_json::to_string(look)?),
        false => tables(look, None),
    })
}

/// The look before, and how many seconds ago it was.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The look.
    pub look: &'a Look,
    /// Seconds between the two.
    pub seconds: f64,
}

/// `look` as table; with the look before, counters have rates beside them.
pub fn tables(look: &Look, before: Option<Before<'_>>) -> String {
    match look {
        Look::Guest(status) => guest(status),
        Look::Host(status) => host(status),
        Look::Peers(peers) => list("no peer", peers, peer_table),
        Look::Members(members) => list("no guest is configured", members, member_table),
        Look::Connections(all) => {
            let old = before.and_then(|b| match b.look {
                Look::Connections(old) => Some((old.as_slice(), b.seconds)),
                _ => None,
            });
            list("no connection", all, |all| connection_table(all, old))
        }
        Look::Stats(stats) => {
            let old = before.and_then(|b| match b.look {
                Look::Stats(old) => Some((old, b.seconds)),
                _ => None,
            });
            stats_table(stats, old)
        }
        Look::MemberStats(members) => list("no guest is configured", members, member_stats_table),
        Look::Grants(grants) => list("no frames are lent", grants, grant_table),
        Look::Kicked(n) => format!("{n} device{} cut off\n", if *n == 1 { "" } else { "s" }),
    }
}

fn list<T>(none: &str, entries: &[T], table: impl FnOnce(&[T]) -> String) -> String {
    match entries {
        [] => format!("{none}\n"),
        entries => table(entries),
    }
}

/// A table whose columns with names in `numbers` are right-aligned.
fn table(header: &[&str], numbers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// Bytes with three digits and a unit of 1024.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if n < 1024 {
        return n.to_string();
    }
    // Exact to more digits than are shown.
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

fn frames(n: u64) -> String {
    bytes(n.saturating_mul(4096))
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

fn guest(status: &GuestStatus) -> String {
    let total: u64 = status.connections.values().sum();
    let by_state: Vec<_> = status
        .connections
        .iter()
        .map(|(s, n)| format!("{n} {s}"))
        .collect();
    let more = match by_state.as_slice() {
        [] => String::new(),
        states => format!(" ({})", states.join(", ")),
    };
    let header = [
        "DEVICE",
        "TRANSPORT",
        "PEERS",
        "CHANNELS",
        "LENT",
        "USED",
        "DOORBELLS",
        "SUPPRESSED",
        "ENDED",
    ];
    let rows = status.devices.iter().map(|d| {
        vec![
            d.device.clone(),
            d.transport.clone(),
            d.peers_ready.to_string(),
            d.channels_up.to_string(),
            frames(d.lent_frames),
            frames(d.used_frames),
            d.doorbells.to_string(),
            d.suppressed.to_string(),
            d.channels_down.to_string(),
        ]
    });
    format!(
        "module: loaded, socket family {}, looks for {} us before it sleeps\nconnections: {total}{more}\n\n{}",
        or_dash(status.family),
        or_dash(status.spin_usec),
        table(&header, &header[2..], rows)
    )
}

fn host(status: &HostStatus) -> String {
    let header = [
        "GROUP", "SIZE", "LANES", "GUESTS", "DOORBELL", "BELLS", "ID",
    ];
    let rows = status.groups.iter().map(|g| {
        vec![
            g.name.clone(),
            bytes(g.size),
            g.lanes.to_string(),
            g.members.to_string(),
            g.doorbell.clone(),
            g.doorbell_devices.to_string(),
            g.id.clone(),
        ]
    });
    format!(
        "fgdpd: version {}, ABI {}, supervisor {}, worker {} (started again {} times)\ndevices attached: {}\n\n{}",
        status.version,
        status.abi,
        status.supervisor,
        status.worker,
        status.restarts,
        status.attached,
        table(&header, &["SIZE", "LANES", "GUESTS", "BELLS"], rows)
    )
}

fn peer_table(peers: &[Peer]) -> String {
    let header = [
        "DEVICE",
        "SLOT",
        "NAME",
        "STATE",
        "GEN",
        "CHANNEL",
        "LANES",
        "LENT",
        "USED",
        "ACCEPTED",
        "LAST-DOWN",
        "GUEST",
    ];
    let rows = peers.iter().map(|p| {
        let own = if p.transport == "loopback" {
            "(loopback)"
        } else {
            "-"
        };
        vec![
            p.device.clone(),
            p.slot.to_string(),
            p.name.clone().unwrap_or_else(|| own.to_owned()),
            p.state.clone(),
            p.generation.to_string(),
            p.channel.clone(),
            p.lanes.to_string(),
            frames(p.lent_frames),
            frames(p.used_frames),
            frames(p.accepted_frames),
            p.last_down.clone(),
            p.guest.clone(),
        ]
    });
    table(
        &header,
        &["SLOT", "GEN", "LANES", "LENT", "USED", "ACCEPTED"],
        rows,
    )
}

fn member_table(members: &[Member]) -> String {
    let header = [
        "GROUP",
        "GUEST",
        "SLOT",
        "STATE",
        "GEN",
        "PID",
        "LANES",
        "SIZE",
        "BELL",
        "CHANNELS",
        "ADDRESSES",
    ];
    let rows = members.iter().map(|m| {
        let name = |slot: &u32| {
            let found = members
                .iter()
                .find(|o| o.group == m.group && o.slot == *slot);
            found.map_or_else(|| slot.to_string(), |o| o.guest.clone())
        };
        let channels: Vec<_> = m.channels.iter().map(name).collect();
        let join = |list: &[String]| match list {
            [] => "-".to_owned(),
            list => list.join(","),
        };
        vec![
            m.group.clone(),
            m.guest.clone(),
            m.slot.to_string(),
            m.state.clone(),
            m.generation.to_string(),
            or_dash(m.pid.filter(|pid| *pid > 0)),
            m.lanes.to_string(),
            bytes(m.slot_size),
            or_dash(m.doorbell_id),
            join(&channels),
            join(&m.addresses),
        ]
    });
    table(
        &header,
        &["SLOT", "GEN", "PID", "LANES", "SIZE", "BELL"],
        rows,
    )
}

/// The port of `guest:port`, with its colon.
fn port(endpoint: &str) -> String {
    endpoint
        .rsplit_once(':')
        .map_or_else(|| endpoint.to_owned(), |(_, port)| format!(":{port}"))
}

/// The peer's name, else the beginning of its id, and its port.
fn remote(c: &Connection) -> String {
    match c.remote.split_once(':') {
        // Both ends are in this guest.
        Some((guest, port)) if c.local.starts_with(guest) => format!("self:{port}"),
        Some((guest, port)) => {
            let short = guest.split('-').next().unwrap_or(guest);
            format!("{}:{port}", c.peer.as_deref().unwrap_or(short))
        }
        None => c.remote.clone(),
    }
}

fn connection_table(all: &[Connection], before: Option<(&[Connection], f64)>) -> String {
    let mut header = vec![
        "DEVICE", "ID", "PEER-ID", "STATE", "TYPE", "LOCAL", "REMOTE", "RX", "TX", "READABLE",
        "UNACKED", "RING", "RX-WAITS", "TX-WAITS",
    ];
    if before.is_some() {
        header.extend(["RX/S", "TX/S"]);
    }
    let numbers: Vec<_> = header
        .iter()
        .copied()
        .filter(|h| !["DEVICE", "STATE", "TYPE", "LOCAL", "REMOTE"].contains(h))
        .collect();
    let rows = all.iter().map(|c| {
        let mut row = vec![
            c.device.clone(),
            or_dash(c.id),
            or_dash(c.peer_id),
            c.state.clone(),
            c.kind.clone(),
            port(&c.local),
            remote(c),
            bytes(c.rx_bytes),
            bytes(c.tx_bytes),
            c.readable.to_string(),
            c.unacked.to_string(),
            bytes(c.tx_ring),
            c.rx_waits.to_string(),
            c.tx_waits.to_string(),
        ];
        if let Some((old, seconds)) = before {
            let old = old
                .iter()
                .find(|o| c.id.is_some() && (&o.device, o.id) == (&c.device, c.id));
            let rate = |now: u64, then: Option<u64>| {
                then.map_or_else(
                    || "-".to_owned(),
                    |then| bytes((now.saturating_sub(then) as f64 / seconds) as u64),
                )
            };
            row.push(rate(c.rx_bytes, old.map(|o| o.rx_bytes)));
            row.push(rate(c.tx_bytes, old.map(|o| o.tx_bytes)));
        }
        row
    });
    table(&header, &numbers, rows)
}

fn stats_table(stats: &Stats, before: Option<(&Stats, f64)>) -> String {
    let Some((old, seconds)) = before else {
        let rows = stats
            .iter()
            .map(|(name, value)| vec![name.clone(), value.to_string()]);
        return table(&["COUNTER", "VALUE"], &["VALUE"], rows);
    };
    let rows = stats.iter().map(|(name, value)| {
        let moved = old.get(name).map_or(0, |then| value.saturating_sub(*then));
        let rate = if moved == 0 {
            String::new()
        } else {
            format!("{:.0}", moved as f64 / seconds)
        };
        vec![name.clone(), value.to_string(), rate]
    });
    table(&["COUNTER", "VALUE", "/S"], &["VALUE", "/S"], rows)
}

fn member_stats_table(members: &[MemberStats]) -> String {
    // Counters as rows: there are more of them than guests.
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (n, member) in members.iter().enumerate() {
        for (name, value) in &member.counters {
            let row = rows
                .entry(name)
                .or_insert_with(|| vec!["-".to_owned(); members.len()]);
            if let Some(place) = row.get_mut(n) {
                *place = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
            }
        }
    }
    let names: Vec<_> = members
        .iter()
        .map(|m| format!("{}/{}", m.group, m.guest))
        .collect();
    let mut header = vec!["COUNTER"];
    header.extend(names.iter().map(String::as_str));
    let rows = rows.into_iter().map(|(name, values)| {
        let mut row = vec![name.to_owned()];
        row.extend(values);
        row
    });
    table(&header, &header[1..], rows)
}

fn grant_table(grants: &[Grant]) -> String {
    let header = [
        "GROUP", "OWNER", "PEER", "EXTENT", "FRAMES", "SIZE", "STATE",
    ];
    let rows = grants.iter().map(|g| {
        let state = match (g.revoked, g.accepted) {
            (true, _) => "revoked",
            (_, true) => "accepted",
            _ => "offered",
        };
        vec![
            g.group.clone(),
            g.owner.to_string(),
            g.peer.to_string(),
            g.extent.to_string(),
            g.frames.to_string(),
            frames(g.frames),
            state.to_owned(),
        ]
    });
    table(&header, &header[1..6], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (n, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.00Ki"),
            (16 << 10, "16.0Ki"),
            (1_022_976, "999Ki"),
            (1_023_999, "0.98Mi"),
            (300 << 20, "300Mi"),
            (u64::MAX, "16.0Ei"),
        ] {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    fn connection(id: u32, rx_bytes: u64) -> Connection {
        Connection {
            device: "fgdp1".into(),
            id: Some(id),
            peer_id: Some(7),
            state: "open".into(),
            kind: "stream".into(),
            local: "0a:49152".into(),
            remote: "0b0c-11:80".into(),
            peer: None,
            rx_bytes,
            tx_bytes: 0,
            readable: 0,
            unacked: 0,
            tx_ring: 65536,
            rx_waits: 0,
            tx_waits: 0,
        }
    }

    fn words(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split_whitespace().collect()
    }

    #[test]
    fn rates_belong_to_the_same_connection() {
        let old = Look::Connections(vec![connection(1, 1000)]);
        let new = Look::Connections(vec![connection(1, 3000), connection(2, 500)]);
        let text = tables(
            &new,
            Some(Before {
                look: &old,
                seconds: 2.0,
            }),
        );
        assert_eq!(words(&text, 1)[5..8], [":49152", "0b0c:80", "2.93Ki"]);
        assert_eq!(words(&text, 1)[14..], ["1000", "0"]);
        assert_eq!(words(&text, 2)[14..], ["-", "-"]);
    }

    #[test]
    fn a_guest_that_talks_to_itself_is_named_so() {
        let mut own = connection(1, 0);
        own.local = "0b0c-11:81".into();
        assert_eq!(remote(&own), "self:80");
        own.local = "0a0c-11:81".into();
        own.peer = Some("b".into());
        assert_eq!(remote(&own), "b:80");
    }

    #[test]
    fn only_moving_counters_have_rates() {
        let stats = |n| Look::Stats([("a".to_owned(), n), ("b".to_owned(), 5)].into());
        let (old, new) = (stats(10), stats(20));
        let text = tables(
            &new,
            Some(Before {
                look: &old,
                seconds: 0.5,
            }),
        );
        assert_eq!(words(&text, 1), ["a", "20", "20"]);
        assert_eq!(words(&text, 2), ["b", "5"]);
        assert_eq!(
            words(&render(&new, false).unwrap(), 0),
            ["COUNTER", "VALUE"]
        );
    }

    #[test]
    fn nothing_is_said_in_words_and_as_an_empty_list() {
        let none = Look::Connections(Vec::new());
        assert_eq!(render(&none, false).unwrap(), "no connection\n");
        assert_eq!(render(&none, true).unwrap(), "{\"connections\":[]}\n");
    }
}
