// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables of a guest: the module at a glance, peers, counters.

use super::{frames, join, or_dash, table};
use crate::model::{GuestStatus, Peer, Stats};

/// A guest at a glance.
pub(super) fn status(status: &GuestStatus) -> String {
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

pub(super) fn peer_table(peers: &[Peer]) -> String {
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
        "ADDRESSES",
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
            join(&p.addresses),
        ]
    });
    table(
        &header,
        &["SLOT", "GEN", "LANES", "LENT", "USED", "ACCEPTED"],
        rows,
    )
}

pub(super) fn stats_table(stats: &Stats, before: Option<(&Stats, f64)>) -> String {
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
