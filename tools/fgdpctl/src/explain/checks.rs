// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What has to be so for a TCP connection to be carried: one function per check.

use super::facts::Facts;
use super::words::{last_down, reason};
use super::{Check, Target};
use crate::model::Peer;

/// A check. `None` when there is nothing to look at, as an earlier one says.
type Ask = fn(&Target, &Facts) -> Option<Check>;

/// The checks in the module's order. What the administrator excludes, by port or by cgroup, comes behind `setting`.
const CHECKS: [Ask; 6] = [module, setting, address, state, channel, answer];

/// All checks that there is something to look at for.
pub fn all(target: &Target, facts: &Facts) -> Vec<Check> {
    CHECKS.iter().filter_map(|ask| ask(target, facts)).collect()
}

fn module(_: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "module";
    Some(if facts.answers {
        Check::good(NAME, "the module fgdp is loaded")
    } else if facts.loaded {
        Check::bad(
            NAME,
            "the module fgdp is loaded, but is not for this network namespace",
            "run the program in the first network namespace (`nsenter -t 1 -n`)",
        )
    } else {
        Check::bad(NAME, "the module fgdp is not loaded", "modprobe fgdp")
    })
}

fn setting(_: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "setting";
    if !facts.answers {
        return None;
    }
    Some(match (facts.inet, facts.own) {
        (None, _) => Check::bad(
            NAME,
            "this module does not carry TCP: it has no net.fgdp.inet",
            "load a newer module",
        ),
        (Some(0), false) => Check::bad(
            NAME,
            "net.fgdp.inet is 0: no TCP connection is carried",
            "`sysctl net.fgdp.inet=1`, here and in the peer",
        ),
        (Some(level @ ..=1), true) => Check::bad(
            NAME,
            format!("net.fgdp.inet is {level}, and the address is this guest's own"),
            "`sysctl net.fgdp.inet=2`",
        ),
        (Some(level), _) => Check::good(NAME, format!("net.fgdp.inet is {level}")),
    })
}

/// Whose the target's address is. The module takes only peers that are ready; others explain why there is none.
fn peer<'a>(target: &Target, facts: &'a Facts) -> Option<&'a Peer> {
    let of = |peer: &&Peer| {
        if facts.own {
            peer.transport == "loopback"
        } else {
            peer.addresses.contains(&target.address)
        }
    };
    let ready = facts.peers.iter().filter(|peer| peer.state == "ready");
    Iterator::chain(ready, &facts.peers).find(of)
}

/// What people call a peer.
fn name(peer: &Peer) -> &str {
    match peer.name.as_deref() {
        Some(name) => name,
        None if peer.transport == "loopback" => "this guest",
        None => &peer.guest,
    }
}

/// A peer and its addresses.
fn with_addresses(peer: &Peer) -> String {
    let all: Vec<_> = peer.addresses.iter().map(ToString::to_string).collect();
    match all.as_slice() {
        [] => format!("{} (no address)", name(peer)),
        all => format!("{} ({})", name(peer), all.join(", ")),
    }
}

fn address(target: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "address";
    if !facts.answers {
        return None;
    }
    let address = target.address;
    if let Some(peer) = peer(target, facts) {
        return Some(Check::good(
            NAME,
            match facts.own {
                true => format!("{address} is this guest's own: {} is for it", peer.device),
                false => format!(
                    "{address} is {}'s, in slot {} of {}",
                    name(peer),
                    peer.slot,
                    peer.device
                ),
            },
        ));
    }
    if facts.own {
        return Some(Check::bad(
            NAME,
            format!("{address} is this guest's own, and the module has no loopback device"),
            "load the module without `loopback_mib=0`",
        ));
    }
    let others = facts.peers.iter().filter(|p| p.transport != "loopback");
    let others: Vec<_> = others.map(with_addresses).collect();
    Some(if others.is_empty() {
        Check::bad(
            NAME,
            format!("{address} is nobody's: no other guest is in a group with this one"),
            "`fgdpctl peers` on the host shows who is configured and attached; each guest needs its device and the module",
        )
    } else {
        Check::bad(
            NAME,
            format!("{address} is no peer's; there are {}", others.join("; ")),
            "if a guest on this host has it, allow it in `addresses` of that guest in fgdpd.toml and reload fgdpd; \
             else TCP is the way there",
        )
    })
}

fn state(target: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "state";
    let peer = peer(target, facts)?;
    let who = name(peer);
    Some(match peer.state.as_str() {
        "ready" => Check::good(NAME, format!("{who} is ready")),
        "attached" => Check::bad(
            NAME,
            format!("{who} has its device, but its module is not ready"),
            format!("`modprobe fgdp` in {who}"),
        ),
        state => Check::bad(
            NAME,
            format!("{who} is {state}"),
            format!("start {who} with its device, and `modprobe fgdp` in it"),
        ),
    })
}

fn channel(target: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "channel";
    let peer = peer(target, facts)?;
    let who = name(peer);
    if peer.channel == "up" {
        let lanes = peer.lanes;
        return Some(Check::good(
            NAME,
            format!("the channel to {who} is up, with {lanes} lanes"),
        ));
    }
    let (why, cure) = last_down(&peer.last_down);
    let reason = &peer.last_down;
    Some(Check::bad(
        NAME,
        format!("no channel to {who} is up: {why} ({reason})"),
        cure,
    ))
}

/// The peer decides for itself, and this guest learns that from its answers alone.
fn answer(target: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "answer";
    let peer = peer(target, facts)?;
    let who = name(peer);
    let all = facts.tcp.iter();
    let there: Vec<_> = all
        .filter(|c| (&c.device, c.slot) == (&peer.device, peer.slot) && target.is_of(c))
        .collect();
    if there
        .iter()
        .any(|c| c.reason.is_none() && (c.sends == "ring" || c.receives == "ring"))
    {
        return Some(Check::good(
            NAME,
            format!("{who} agreed to carry what is open now"),
        ));
    }
    let refused = there
        .iter()
        .filter(|c| c.reason.as_deref() == Some("refused"));
    match refused.count() {
        0 => None,
        n => Some(Check::bad(
            NAME,
            format!("{who} refused to carry what is open now ({n})"),
            reason("refused").1,
        )),
    }
}
