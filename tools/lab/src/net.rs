// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guests' ordinary network.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context, Result};
use nix::sched::{unshare, CloneFlags};

use crate::options::Net;
use crate::switch;

/// How the guests are connected with each other.
pub enum Network {
    None,
    /// Two guests: their QEMUs talk directly.
    Pair,
    /// More guests: through the switch in the daemon.
    Switch,
    /// A bridge of tap interfaces in the daemon's own network namespace.
    Tap,
}

impl Network {
    /// Must be called before the daemon has threads: with `--net tap` it changes the process's network namespace.
    pub fn prepare(net: Net, names: &[String]) -> Result<Self> {
        Ok(match net {
            Net::None => Self::None,
            Net::Stream if names.len() <= 2 => Self::Pair,
            Net::Stream => Self::Switch,
            Net::Tap => {
                make_bridge(names)?;
                Self::Tap
            }
        })
    }

    pub fn serve(&self, run: &Path) -> Result<()> {
        if let Self::Switch = self {
            switch::serve(
                UnixListener::bind(run.join("net.sock"))
                    .context("cannot make the switch's socket")?,
            );
        }
        Ok(())
    }

    /// QEMU's arguments for the guest with this index.
    pub fn qemu_args(&self, index: usize, name: &str, run: &Path) -> Vec<String> {
        let path = run.join("net.sock");
        let path = path.display();
        let netdev = match self {
            Self::None => return Vec::new(),
            Self::Pair if index == 0 => {
                format!("stream,id=net,server=on,addr.type=unix,addr.path={path}")
            }
            Self::Pair | Self::Switch => {
                format!("stream,id=net,server=off,addr.type=unix,addr.path={path},reconnect-ms=200")
            }
            Self::Tap => format!("tap,id=net,ifname=fgdp-{name},script=no,downscript=no"),
        };
        let device = format!(
            "virtio-net-pci,netdev=net,mac=52:54:00:77:00:{:02x},romfile=",
            index + 1
        );
        ["-netdev".to_owned(), netdev, "-device".to_owned(), device].into()
    }
}

fn make_bridge(names: &[String]) -> Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("--net tap: /dev/net/tun cannot be opened: run 'sudo modprobe tun', or use --net stream")?;
    unshare(CloneFlags::CLONE_NEWNET)
        .context("--net tap needs a network namespace of its own: use --net stream")?;
    ip("link set lo up")?;
    ip("link add fgdp type bridge forward_delay 0")
        .context("--net tap needs bridges: run 'sudo modprobe bridge', or use --net stream")?;
    ip("link set fgdp up")?;
    for name in names {
        ip(&format!("tuntap add fgdp-{name} mode tap vnet_hdr"))?;
        ip(&format!("link set fgdp-{name} master fgdp up"))?;
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot run ip")?;
    if !output.status.success() {
        bail!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
