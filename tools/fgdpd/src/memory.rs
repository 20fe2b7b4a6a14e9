// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the host has the memory that the configuration asks for.

use anyhow::{bail, Result};

use crate::plan::Plan;

/// The value of a line of /proc/meminfo, in bytes or, for counts, as it is.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") {
        value << 10
    } else {
        value
    })
}

/// Refuses a plan that the host cannot keep.
pub fn check(plan: &Plan) -> Result<()> {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return Ok(());
    };
    check_against(plan, &text)
}

fn check_against(plan: &Plan, text: &str) -> Result<()> {
    let need = plan.memory();
    // Huge pages are reserved apart from the rest.
    let huge_free = meminfo(text, "HugePages_Free")
        .unwrap_or(0)
        .saturating_mul(2 << 20);
    let Some(available) = meminfo(text, "MemAvailable") else {
        return Ok(());
    };
    if need > available.saturating_add(huge_free) {
        let (need, have) = (need >> 20, available >> 20);
        bail!("the groups need {need}M of memory, the host has {have}M: lower slot_size or spare, or take guests out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::GroupPlan;

    fn plan(size: u64) -> Plan {
        let group = GroupPlan {
            index: 0,
            name: "g".into(),
            id: [0; 16],
            size,
            lanes: 1,
            huge: None,
            doorbell_socket: None,
            doorbell_required: false,
            members: Vec::new(),
        };
        Plan {
            groups: vec![group],
            next_dev: 0,
        }
    }

    #[test]
    fn more_than_the_host_has_is_refused() {
        let text = "MemTotal: 9 kB\nMemAvailable:    2048 kB\nHugePages_Free:        1\n";
        assert!(check_against(&plan(4 << 20), text).is_ok());
        let refused = check_against(&plan((4 << 20) + 1), text)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("need 4M") && refused.contains("lower slot_size"),
            "{refused}"
        );
    }
}
