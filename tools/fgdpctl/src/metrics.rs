// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What there is to see, as metrics for Prometheus (OpenMetrics text).

use std::collections::BTreeMap;

use anyhow::{bail, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::{Connections, HostStatus, Look, Member, MemberStats, Peer, Stats};
use crate::source::Source;
use crate::What;

type Labels = Vec<(&'static str, String)>;

/// Metrics, made anew for each page: what it shows was counted elsewhere.
#[derive(Default)]
struct Page {
    counters: BTreeMap<String, (String, Family<Labels, Counter>)>,
    gauges: BTreeMap<String, (String, Family<Labels, Gauge>)>,
}

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.map(|(name, value)| (name, value.to_owned())).into()
}

impl Page {
    fn count(&mut self, name: &str, help: &str, labels: Labels, value: u64) {
        let (_, family) = self
            .counters
            .entry(name.to_owned())
            .or_insert_with(|| (help.to_owned(), Family::default()));
        family.get_or_create(&labels).inc_by(value);
    }

    fn show(&mut self, name: &str, help: &str, labels: Labels, value: u64) {
        let (_, family) = self
            .gauges
            .entry(name.to_owned())
            .or_insert_with(|| (help.to_owned(), Family::default()));
        family
            .get_or_create(&labels)
            .inc_by(i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn text(self) -> Result<String> {
        let mut registry = Registry::with_prefix("fgdp");
        for (name, (help, family)) in self.counters {
            registry.register(name, help, family);
        }
        for (name, (help, family)) in self.gauges {
            registry.register(name, help, family);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn stats(&mut self, stats: &Stats) {
        for (name, value) in stats {
            let value = u64::try_from(*value).unwrap_or(0);
            let Some((device, counter)) = name.split_once('.') else {
                continue;
            };
            if device == "module" {
                if let Some(reason) = counter.strip_prefix("inet_not_") {
                    let help = "TCP connections to peers that were not carried, or not to the end";
                    self.count("tcp_not_carried", help, labels([("reason", reason)]), value);
                } else if let Some(what) = counter.strip_prefix("inet_") {
                    let help = "TCP connections to peers: candidates, carried, refused by the peer, back to TCP";
                    self.count("tcp_connections", help, labels([("what", what)]), value);
                }
                continue;
            }
            if let Some(reason) = counter.strip_prefix("down_") {
                let help = "Channels that ended";
                let labels = labels([("device", device), ("reason", reason)]);
                self.count("channels_down", help, labels, value);
            } else if let Some(way) = counter.strip_prefix("doorbells_rung_") {
                let help = "Doorbells rung";
                let labels = labels([("device", device), ("way", way)]);
                self.count("doorbells_rung", help, labels, value);
            } else if let Some(way) = counter.strip_prefix("doorbells_received_") {
                let help = "Doorbells of peers";
                let labels = labels([("device", device), ("way", way)]);
                self.count("doorbells_received", help, labels, value);
            } else {
                let help = format!("The module's counter {counter}");
                self.count(counter, &help, labels([("device", device)]), value);
            }
        }
    }

    fn peers(&mut self, peers: &[Peer]) {
        for peer in peers {
            let name = peer.name.as_deref().unwrap_or(&peer.guest);
            let of =
                |more: Labels| [labels([("device", &peer.device), ("peer", name)]), more].concat();
            let help = "1 while the channel to a peer is up";
            let up = u64::from(peer.channel == "up");
            self.show("channel_up", help, of(Labels::new()), up);
            let help = "Frames of 4 KiB: lent to a peer, those of them in use, and lent by it";
            for (what, frames) in [
                ("lent", peer.lent_frames),
                ("used", peer.used_frames),
                ("borrowed", peer.accepted_frames),
            ] {
                self.show("frames", help, of(labels([("what", what)])), frames);
            }
        }
    }

    fn connections(&mut self, all: &Connections) {
        let help = "Bytes of the connections that are open now, by the path that they took";
        let mut bytes = |path: &str, direction: &str, bytes: u64| {
            let labels = labels([("path", path), ("direction", direction)]);
            self.show("open_bytes", help, labels, bytes);
        };
        for connection in &all.connections {
            bytes("fgdp", "rx", connection.rx_bytes);
            bytes("fgdp", "tx", connection.tx_bytes);
        }
        for tcp in all.tcp.iter().flatten() {
            bytes("ring", "rx", tcp.ring_rx_bytes);
            bytes("ring", "tx", tcp.ring_tx_bytes);
            bytes("tcp", "rx", tcp.tcp_rx_bytes);
            bytes("tcp", "tx", tcp.tcp_tx_bytes);
        }
        for connection in &all.connections {
            let help = "Sockets of the family";
            let labels = labels([("type", &connection.kind), ("state", &connection.state)]);
            self.show("sockets", help, labels, 1);
        }
        for tcp in all.tcp.iter().flatten() {
            let help = "TCP connections to peers that are open now, by the way of the next byte and why it is not the ring";
            let reason = tcp.reason.as_deref().unwrap_or("");
            let labels = labels([
                ("sends", &tcp.sends),
                ("receives", &tcp.receives),
                ("reason", reason),
            ]);
            self.show("tcp_open", help, labels, 1);
        }
    }

    fn host(&mut self, status: &HostStatus) {
        let help = "How often the worker was started again";
        self.count("worker_restarts", help, Labels::new(), status.restarts);
        let help = "Devices with a QEMU";
        self.show("attached_devices", help, Labels::new(), status.attached);
        for group in &status.groups {
            let of = || labels([("group", &group.name)]);
            self.show("group_bytes", "Size of a group's memory", of(), group.size);
            let help = "Guests that may be in a group";
            self.show("group_members", help, of(), group.members);
        }
    }

    fn members(&mut self, members: &[Member]) {
        for member in members {
            let of = || labels([("group", &member.group), ("guest", &member.guest)]);
            let help = "1 while a guest's driver is ready";
            let ready = u64::from(member.state == "ready");
            self.show("member_ready", help, of(), ready);
            let help = "Channels that a guest has open";
            let channels = u64::try_from(member.channels.len()).unwrap_or(u64::MAX);
            self.show("member_channels", help, of(), channels);
        }
    }

    fn member_stats(&mut self, members: &[MemberStats]) {
        for member in members {
            let of = || labels([("group", &member.group), ("guest", &member.guest)]);
            for (name, value) in &member.counters {
                let Some(value) = value.as_u64() else {
                    continue;
                };
                let metric = format!("member_{name}");
                let help = format!("fgdpd's `{name}` of a guest");
                // The others only grow.
                match name.as_str() {
                    "events_waiting" | "frames_offered" | "frames_accepted" => {
                        self.show(&metric, &help, of(), value);
                    }
                    _ => self.count(&metric, &help, of(), value),
                }
            }
        }
    }
}

/// Everything that the source can tell.
///
/// # Errors
///
/// When the source does not answer.
pub fn page(source: &Source) -> Result<String> {
    let whats: &[What] = match source {
        Source::Guest(_) => &[What::Stats, What::Peers, What::Connections],
        Source::Host(_) => &[What::Status, What::Peers, What::Stats],
    };
    let mut page = Page::default();
    for what in whats {
        match source.look(*what)? {
            Look::Stats(stats) => page.stats(&stats),
            Look::Peers(peers) => page.peers(&peers),
            Look::Connections(all) => page.connections(&all),
            Look::Host(status) => page.host(&status),
            Look::Members(members) => page.members(&members),
            Look::MemberStats(members) => page.member_stats(&members),
            other => bail!("no metrics of {other:?}"),
        }
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::guest::Guest;

    #[test]
    fn a_guest_has_counters_frames_and_bytes() {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/proc"));
        let text = page(&Source::Guest(Guest::Listings(dir))).unwrap();
        for line in [
            "fgdp_doorbells_rung_total{device=\"fgdp1\",way=\"ivshmem\"} 677",
            "fgdp_messages_sent_total{device=\"fgdp1\"} 689",
            "# TYPE fgdp_frames gauge",
            "# TYPE fgdp_open_bytes gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
