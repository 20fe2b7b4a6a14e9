// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What has to be so for a TCP connection to be carried: one function per check.

use super::facts::Facts;
use super::words::{last_down, reason};
use super::{Check, Target};
use crate::model::Peer;

/// A check. `None` when there is nothing to look at, as an earlier one says.
type Ask = fn(&Target, &Facts) -> Option<Check>;

/// The checks in the module's order.
const CHECKS: [Ask; 8] = [
    module, setting, address, ports, cgroups, state, channel, answer,
];

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
        _ if peer.state != "ready" => format!("{} ({})", name(peer), peer.state),
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
            "if it is of a guest on this host: `modprobe fgdp` there, and have it in `addresses` of that guest in \
             fgdpd.toml; else TCP is the way there",
        )
    })
}

/// Whether a list of ports and ranges, as the kernel writes it, has `port`.
fn has(list: &str, port: u16) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&port),
            _ => false,
        }
    })
}

fn ports(target: &Target, facts: &Facts) -> Option<Check> {
    const NAME: &str = "ports";
    let (deny, allow) = (&facts.lists.ports_deny, &facts.lists.ports_allow);
    if deny.is_empty() && allow.is_empty() {
        return None;
    }
    let Some(port) = target.port else {
        return Some(Check::good(
            NAME,
            format!("it depends on the port: denied are '{deny}', allowed '{allow}'"),
        ));
    };
    Some(if has(deny, port) {
        Check::bad(
            NAME,
            format!("port {port} is in net.fgdp.inet_ports_deny ({deny})"),
            "take it out of the list",
        )
    } else if !allow.is_empty() && !has(allow, port) {
        Check::bad(
            NAME,
            format!("port {port} is not in net.fgdp.inet_ports_allow ({allow})"),
            "put it into the list, or empty the list",
        )
    } else {
        Check::good(NAME, format!("the lists of ports let {port} be carried"))
    })
}

fn cgroups(_: &Target, facts: &Facts) -> Option<Check> {
    let (deny, allow) = (&facts.lists.cgroups_deny, &facts.lists.cgroups_allow);
    (!deny.is_empty() || !allow.is_empty()).then(|| {
        Check::good(
            "cgroups",
            format!(
                "it depends on the program's control group: denied are '{deny}', allowed '{allow}'"
            ),
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
            format!("the channel to {who} is up, lanes: {lanes}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing;
    use crate::model::Tcp;

    /// A guest where everything is as it has to be.
    fn facts() -> Facts {
        Facts {
            loaded: true,
            answers: true,
            inet: Some(1),
            peers: listing::parse(include_str!("../../tests/data/proc/peers")).unwrap(),
            ..Facts::default()
        }
    }

    fn bad(target: &str, facts: &Facts) -> Vec<&'static str> {
        let checks = all(&target.parse().unwrap(), facts);
        assert!(checks.iter().all(|c| c.ok != c.cure.is_some()));
        checks.iter().filter(|c| !c.ok).map(|c| c.check).collect()
    }

    fn b(facts: &mut Facts) -> &mut Peer {
        facts
            .peers
            .iter_mut()
            .find(|p| p.transport == "virtio")
            .unwrap()
    }

    #[test]
    fn nothing_is_missing() {
        assert_eq!(bad("10.77.0.2:80", &facts()), [""; 0]);
        assert_eq!(bad("fd77::2", &facts()), [""; 0]);
    }

    #[test]
    fn without_the_module_there_is_nothing_else_to_look_at() {
        let mut facts = Facts::default();
        let only = all(&"10.77.0.2".parse().unwrap(), &facts);
        assert_eq!(only.len(), 1);
        assert_eq!(only[0].cure.as_deref(), Some("modprobe fgdp"));
        facts.loaded = true;
        let only = all(&"10.77.0.2".parse().unwrap(), &facts);
        assert!(only[0].says.contains("namespace"), "{:?}", only);
    }

    #[test]
    fn the_setting_is_for_others_first() {
        let mut facts = facts();
        facts.inet = Some(0);
        assert_eq!(bad("10.77.0.2", &facts), ["setting"]);
        (facts.inet, facts.own) = (Some(1), true);
        assert_eq!(bad("10.77.0.1", &facts), ["setting"]);
        facts.inet = Some(2);
        assert_eq!(bad("10.77.0.1", &facts), [""; 0]);
        facts.inet = None;
        assert_eq!(bad("10.77.0.1", &facts), ["setting"]);
    }

    #[test]
    fn lists_of_ports_need_a_port() {
        let mut facts = facts();
        facts.lists.ports_deny = "22,6000-6010".into();
        assert_eq!(bad("10.77.0.2:22", &facts), ["ports"]);
        assert_eq!(bad("10.77.0.2:6005", &facts), ["ports"]);
        assert_eq!(bad("10.77.0.2:6011", &facts), [""; 0]);
        assert_eq!(bad("10.77.0.2", &facts), [""; 0]);
        facts.lists.ports_allow = "80".into();
        assert_eq!(bad("10.77.0.2:81", &facts), ["ports"]);
        assert_eq!(bad("10.77.0.2:80", &facts), [""; 0]);
        facts.lists.cgroups_deny = "/system.slice".into();
        let all = all(&"10.77.0.2:80".parse().unwrap(), &facts);
        assert!(all.iter().any(|c| c.check == "cgroups" && c.ok));
    }

    #[test]
    fn an_address_is_a_peers_or_this_guests() {
        let mut facts = facts();
        assert_eq!(bad("10.77.0.9", &facts), ["address"]);
        let checks = all(&"10.77.0.9".parse().unwrap(), &facts);
        let found = checks.iter().find(|c| c.check == "address").unwrap();
        assert!(found.says.contains("b (10.77.0.2, fd77::2)"), "{found:?}");
        facts.peers.clear();
        assert_eq!(bad("10.77.0.2", &facts), ["address"]);
        (facts.inet, facts.own) = (Some(2), true);
        assert_eq!(bad("10.77.0.1", &facts), ["address"]);
    }

    #[test]
    fn a_peer_is_ready_and_has_a_channel() {
        let mut facts = facts();
        b(&mut facts).channel = "down".into();
        b(&mut facts).last_down = "abi".into();
        assert_eq!(bad("10.77.0.2", &facts), ["channel"]);
        b(&mut facts).state = "attached".into();
        assert_eq!(bad("10.77.0.2", &facts), ["state", "channel"]);
    }

    #[test]
    fn what_the_peer_answers_counts_for_its_port() {
        let mut facts = facts();
        facts.tcp = listing::parse(include_str!("../../tests/data/proc/tcp")).unwrap();
        assert_eq!(bad("10.77.0.2", &facts), ["answer"]);
        assert_eq!(bad("10.77.0.2:6001", &facts), ["answer"]);
        assert_eq!(bad("10.77.0.2:80", &facts), [""; 0]);
        // One that is carried is newer news than one that is not, or as new.
        let carried: Tcp = facts.tcp[1].clone();
        facts.tcp.push(Tcp {
            remote: "10.77.0.2:6001".parse().unwrap(),
            ..carried
        });
        assert_eq!(bad("10.77.0.2", &facts), [""; 0]);
    }
}
