// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's QEMU needs: as arguments, and as XML for libvirt.

use std::fmt::Write;
use std::path::Path;

use anyhow::{bail, Result};

use crate::plan::{bar_size, Plan};

/// Address space kept behind a root port, for BARs of these sizes: both, aligned to the larger.
fn reserve(slot: u64, group: u64) -> u64 {
    (bar_size(slot).max(bar_size(group)) * 2).max(1 << 30)
}

/// A path in an option of QEMU, where a comma ends a value unless there are two.
fn option_path(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Options and their values.
fn options(plan: &Plan, guest: &str) -> Result<Vec<(&'static str, String)>> {
    let mut out = Vec::new();
    for group in &plan.groups {
        for m in group.members.iter().filter(|m| m.name == guest) {
            let g = group.index;
            let gib = reserve(m.size, group.size).div_ceil(1 << 30);
            // A root port that cannot be unplugged: QEMU aborts when the device is taken away with MSI-X on.
            let port = format!(
                "pcie-root-port,id=fgdp-port{g},chassis={},slot={},hotplug=off,pref64-reserve={gib}G",
                200 + g,
                200 + g
            );
            out.push(("-device", port));
            // An answer later than the timeout breaks the device for good; the daemon may have to start a worker.
            let socket = serde_json::to_string(&m.socket.to_string_lossy())?;
            let device = format!(
                "{{\"driver\":\"vfio-user-pci\",\"id\":\"fgdp{g}\",\"bus\":\"fgdp-port{g}\",\"x-msg-timeout\":60000,\"socket\":{{\"type\":\"unix\",\"path\":{socket}}}}}"
            );
            out.push(("-device", device));
            if let Some(path) = &group.doorbell_socket {
                let path = option_path(path);
                out.push(("-chardev", format!("socket,id=fgdp-bell{g},path={path}")));
                // On the root bus, which refuses unplugging: it is not safe for the other members.
                let lanes = group.lanes;
                let bell = format!("ivshmem-doorbell,id=fgdp-doorbell{g},vectors={lanes},chardev=fgdp-bell{g},bus=pcie.0");
                out.push(("-device", bell));
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
    Ok(out)
}

/// A word that a shell takes as it is.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:=/@%+".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// The arguments, one option a line, quoted for a shell.
///
/// # Errors
///
/// When the guest has no device.
pub fn arguments(plan: &Plan, guest: &str) -> Result<String> {
    let lines = options(plan, guest)?;
    let lines: Vec<String> = lines
        .iter()
        .map(|(option, value)| format!("{option} {}", quoted(value)))
        .collect();
    Ok(lines.join("\n"))
}

/// Text in an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}

/// What to add to a domain of libvirt: elements of `<domain>`, which has to name QEMU's namespace.
///
/// # Errors
///
/// When the guest has no device.
pub fn libvirt(plan: &Plan, guest: &str) -> Result<String> {
    let mut out = String::from(
        "<!-- The first element of the file: <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> -->\n\
         <!-- Memory that QEMU shares with fgdpd; without it the guest's driver finds no host. -->\n\
         <memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n\
         <qemu:commandline>\n",
    );
    for (option, value) in options(plan, guest)? {
        writeln!(out, "  <qemu:arg value='{option}'/>")?;
        writeln!(out, "  <qemu:arg value='{}'/>", escaped(&value))?;
    }
    out.push_str("</qemu:commandline>");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(
            quoted("socket,id=a,path=/run/b.sock"),
            "socket,id=a,path=/run/b.sock"
        );
        assert_eq!(quoted(r#"{"a":"it's"}"#), r#"'{"a":"it'\''s"}'"#);
        assert_eq!(quoted("a b"), "'a b'");
    }

    #[test]
    fn text_survives_xml() {
        assert_eq!(escaped("a'b<&"), "a&apos;b&lt;&amp;");
        assert_eq!(option_path(Path::new("/run/a,b")), "/run/a,,b");
    }
}
