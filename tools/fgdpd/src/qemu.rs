// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The QEMU arguments of a guest.

use std::fmt::Write;

use anyhow::{bail, Result};

use crate::plan::{bar_size, Plan};

/// Address space kept behind a root port, for BARs of these sizes: both, aligned to the larger.
fn reserve(slot: u64, group: u64) -> u64 {
    (bar_size(slot).max(bar_size(group)) * 2).max(1 << 30)
}

/// The arguments, one option a line.
pub fn arguments(plan: &Plan, guest: &str) -> Result<String> {
    let mut out = String::new();
    for group in &plan.groups {
        for m in group.members.iter().filter(|m| m.name == guest) {
            let g = group.index;
            let gib = reserve(m.size, group.size).div_ceil(1 << 30);
            // A root port that cannot be unplugged: QEMU aborts when the device is taken away with MSI-X on.
            writeln!(out, "-device pcie-root-port,id=fgdp-port{g},chassis={},slot={},hotplug=off,pref64-reserve={gib}G", 200 + g, 200 + g)?;
            // An answer later than the timeout breaks the device for good; the daemon may have to start a worker.
            let socket = serde_json::to_string(&m.socket.to_string_lossy())?;
            writeln!(
                out,
                "-device '{{\"driver\":\"vfio-user-pci\",\"id\":\"fgdp{g}\",\"bus\":\"fgdp-port{g}\",\"x-msg-timeout\":60000,\"socket\":{{\"type\":\"unix\",\"path\":{socket}}}}}'"
            )?;
            if let Some(path) = &group.doorbell_socket {
                writeln!(
                    out,
                    "-chardev socket,id=fgdp-bell{g},path={}",
                    path.display()
                )?;
                // On the root bus, which refuses unplugging: it is not safe for the other members.
                writeln!(out, "-device ivshmem-doorbell,id=fgdp-doorbell{g},vectors={},chardev=fgdp-bell{g},bus=pcie.0", group.lanes)?;
            }
        }
    }
    if out.is_empty() {
        let names: Vec<&str> = plan
            .groups
            .iter()
            .flat_map(|g| &g.members)
            .map(|m| m.name.as_str())
            .collect();
        bail!(
            "no guest `{guest}` with a device; there are: {}",
            names.join(", ")
        );
    }
    Ok(out.trim_end().to_owned())
}
