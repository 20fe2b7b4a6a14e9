// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables of connections: those of AF_FGDP and those of TCP.

use super::{bytes, or_dash, rate, table};
use crate::model::{Connection, Connections, Tcp};

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

/// Both tables, without those that are empty; with the look before and how many seconds ago it was, bytes have rates.
pub(super) fn both(all: &Connections, before: Option<(&Connections, f64)>) -> String {
    let tcp = all.tcp.as_deref().unwrap_or_default();
    let mut text = String::new();
    if !all.connections.is_empty() {
        let old = before.map(|(old, seconds)| (old.connections.as_slice(), seconds));
        text = connection_table(&all.connections, old);
    }
    if !tcp.is_empty() {
        let old = before.map(|(old, seconds)| (old.tcp.as_deref().unwrap_or_default(), seconds));
        if !text.is_empty() {
            text.push('\n');
        }
        text += &tcp_table(tcp, old);
    }
    match text.as_str() {
        "" => "no connection\n".to_owned(),
        _ => text,
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
            row.push(rate(c.rx_bytes, old.map(|o| o.rx_bytes), seconds));
            row.push(rate(c.tx_bytes, old.map(|o| o.tx_bytes), seconds));
        }
        row
    });
    table(&header, &numbers, rows)
}

/// TCP connections to peers. Rates are of both ways together.
pub(super) fn tcp_table(all: &[Tcp], before: Option<(&[Tcp], f64)>) -> String {
    let mut header = vec![
        "DEVICE", "COOKIE", "PEER", "LOCAL", "REMOTE", "OPENED", "SENDS", "RECEIVES", "RING-RX",
        "RING-TX", "TCP-RX", "TCP-TX", "REASON",
    ];
    if before.is_some() {
        header.extend(["RX/S", "TX/S"]);
    }
    let numbers = ["RING-RX", "RING-TX", "TCP-RX", "TCP-TX", "RX/S", "TX/S"];
    let rows = all.iter().map(|c| {
        let own = c.local.ip() == c.remote.ip();
        let peer = if own {
            "self"
        } else {
            c.peer.as_deref().unwrap_or("-")
        };
        let mut row = vec![
            c.device.clone(),
            c.cookie.clone(),
            peer.to_owned(),
            c.local.to_string(),
            c.remote.to_string(),
            c.opened.clone(),
            c.sends.clone(),
            c.receives.clone(),
            bytes(c.ring_rx_bytes),
            bytes(c.ring_tx_bytes),
            bytes(c.tcp_rx_bytes),
            bytes(c.tcp_tx_bytes),
            or_dash(c.reason.as_ref()),
        ];
        if let Some((old, seconds)) = before {
            let old = old.iter().find(|o| o.cookie == c.cookie);
            let rx = |c: &Tcp| c.ring_rx_bytes.saturating_add(c.tcp_rx_bytes);
            let tx = |c: &Tcp| c.ring_tx_bytes.saturating_add(c.tcp_tx_bytes);
            row.push(rate(rx(c), old.map(rx), seconds));
            row.push(rate(tx(c), old.map(tx), seconds));
        }
        row
    });
    table(&header, &numbers, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Look;
    use crate::view::{render, tables, Before};

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

    fn tcp(cookie: &str, ring_rx_bytes: u64) -> Tcp {
        Tcp {
            device: "fgdp1".into(),
            slot: 1,
            cookie: cookie.into(),
            local: "10.77.0.1:49152".parse().unwrap(),
            remote: "10.77.0.2:80".parse().unwrap(),
            peer: Some("b".into()),
            opened: "here".into(),
            sends: "tcp".into(),
            receives: "ring".into(),
            ring_rx_bytes,
            ring_tx_bytes: 0,
            tcp_rx_bytes: 100,
            tcp_tx_bytes: 0,
            reason: None,
        }
    }

    fn look(connections: Vec<Connection>, tcp: Option<Vec<Tcp>>) -> Look {
        Look::Connections(Connections { connections, tcp })
    }

    fn words(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split_whitespace().collect()
    }

    #[test]
    fn rates_belong_to_the_same_connection() {
        let old = look(vec![connection(1, 1000)], None);
        let new = look(vec![connection(1, 3000), connection(2, 500)], None);
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
    fn tcp_has_a_table_of_its_own() {
        let old = look(vec![connection(1, 0)], Some(vec![tcp("1a", 1000)]));
        let new = vec![tcp("1a", 3000), tcp("1b", 500)];
        let new = look(vec![connection(1, 0)], Some(new));
        let seconds = 2.0;
        let text = tables(
            &new,
            Some(Before {
                look: &old,
                seconds,
            }),
        );
        assert_eq!(words(&text, 2), [""; 0]);
        assert_eq!(words(&text, 4)[1..4], ["1a", "b", "10.77.0.1:49152"]);
        assert_eq!(words(&text, 4)[5..9], ["here", "tcp", "ring", "2.93Ki"]);
        assert_eq!(words(&text, 4)[12..], ["-", "1000", "0"]);
        assert_eq!(words(&text, 5)[12..], ["-", "-", "-"]);
    }

    #[test]
    fn json_names_addresses_as_people_do() {
        let text = render(&look(Vec::new(), Some(vec![tcp("1a", 0)])), true).unwrap();
        assert!(text.starts_with("{\"connections\":[],\"tcp\":[{"), "{text}");
        assert!(text.contains("\"remote\":\"10.77.0.2:80\""), "{text}");
    }

    #[test]
    fn nothing_is_said_in_words_and_as_an_empty_list() {
        let none = look(Vec::new(), None);
        assert_eq!(render(&none, false).unwrap(), "no connection\n");
        assert_eq!(render(&none, true).unwrap(), "{\"connections\":[]}\n");
    }
}
