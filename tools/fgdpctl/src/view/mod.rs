// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables for people, JSON for programs.

mod connections;
mod explain;
mod guest;
mod host;

use anyhow::Result;
use comfy_table::{presets, CellAlignment, Table};

use crate::model::Look;

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
        Look::Guest(status) => guest::status(status),
        Look::Host(status) => host::status(status),
        Look::Peers(peers) => list("no peer", peers, guest::peer_table),
        Look::Members(members) => list("no guest is configured", members, host::member_table),
        Look::Connections(all) => {
            let old = before.and_then(|b| match b.look {
                Look::Connections(old) => Some((old, b.seconds)),
                _ => None,
            });
            connections::both(all, old)
        }
        Look::Stats(stats) => {
            let old = before.and_then(|b| match b.look {
                Look::Stats(old) => Some((old, b.seconds)),
                _ => None,
            });
            guest::stats_table(stats, old)
        }
        Look::MemberStats(members) => list("no guest is configured", members, host::stats_table),
        Look::Grants(grants) => list("no frames are lent", grants, host::grant_table),
        Look::Explain(explanation) => explain::lines(explanation),
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

/// Addresses with commas between them.
fn join<T: ToString>(list: &[T]) -> String {
    match list {
        [] => "-".to_owned(),
        list => list
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// How much `now` is more than `then`, in bytes per second.
fn rate(now: u64, then: Option<u64>, seconds: f64) -> String {
    then.map_or_else(
        || "-".to_owned(),
        |then| bytes((now.saturating_sub(then) as f64 / seconds) as u64),
    )
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

    fn words(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split_whitespace().collect()
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
}
