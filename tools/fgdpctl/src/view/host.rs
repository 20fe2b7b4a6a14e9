// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables of a host: fgdpd at a glance, members, their counters, grants.

use std::collections::BTreeMap;

use super::{bytes, frames, join, or_dash, table};
use crate::model::{Grant, HostStatus, Member, MemberStats};

/// fgdpd at a glance.
pub(super) fn status(status: &HostStatus) -> String {
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

pub(super) fn member_table(members: &[Member]) -> String {
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

pub(super) fn stats_table(members: &[MemberStats]) -> String {
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

pub(super) fn grant_table(grants: &[Grant]) -> String {
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
