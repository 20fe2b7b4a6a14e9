// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why TCP connections to an address are carried, or are not, for people.

use std::collections::BTreeSet;

use super::connections::tcp_table;
use crate::explain::{reason, Explanation};

/// The answer, what it comes from, and the cures.
pub(super) fn lines(e: &Explanation) -> String {
    let not = if e.would_carry { "" } else { " not" };
    let mut text = format!(
        "{}: a new TCP connection would{not} be carried by shared pages\n\n",
        e.target()
    );
    for check in &e.checks {
        let mark = if check.ok { "ok" } else { "NO" };
        text += &format!("{mark}  {:8} {}\n", check.check, check.says);
        if let Some(cure) = &check.cure {
            text += &format!("    {:8} -> {cure}\n", "");
        }
    }
    if e.would_carry && !e.checks.iter().any(|check| check.check == "answer") {
        text += "\nThe other end decides for itself: net.fgdp.inet has to be on there, too.\n";
    }
    if !e.tcp.is_empty() {
        text += &format!("\nopen now:\n{}", tcp_table(&e.tcp, None));
    }
    let open: BTreeSet<_> = e.tcp.iter().filter_map(|c| c.reason.as_deref()).collect();
    for name in open {
        let (why, cure) = reason(name);
        text += &format!("{name}: {why}\n    -> {cure}\n");
    }
    if !e.not_carried.is_empty() {
        let counts = e.not_carried.iter();
        let counts: Vec<_> = counts.map(|(name, n)| format!("{n} {name}")).collect();
        text += &format!(
            "\nnot carried, or not to the end, since the module was loaded (all peers): {}\n",
            counts.join(", ")
        );
    }
    text
}
