// SPDX-License-Identifier: Apache-2.0 OR MIT
//! FGDP's host side: the daemon's configuration, the daemon, and the devices it gives the guests.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::options::{Doorbell, Group, UpOptions};
use crate::paths::Paths;
use crate::qemu::Identity;
use crate::spawn::{tied, Spawner};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A guest's membership in a group: one device.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// fgdpd's socket for this device.
    pub socket: PathBuf,
    /// fgdpd's doorbell socket of the group, unless the group rings by trap only.
    pub doorbell: Option<PathBuf>,
    /// Memory window for the device, in GiB.
    pub window: u64,
}

impl Attachment {
    /// QEMU's arguments for the guest's device with this number.
    pub fn qemu_args(&self, index: usize) -> Vec<String> {
        let number = index + 1;
        let mut args = vec![
            "-device".to_owned(),
            format!("pcie-root-port,id=rp{number},chassis={number},slot={number},pref64-reserve={}G,hotplug=off", self.window),
            "-device".to_owned(),
            serde_json::json!({
                "driver": "vfio-user-pci",
                "id": format!("fgdp{index}"),
                "bus": format!("rp{number}"),
                "socket": { "type": "unix", "path": self.socket },
                "x-msg-timeout": 60000,
            })
            .to_string(),
        ];
        if let Some(doorbell) = &self.doorbell {
            args.extend([
                "-chardev".to_owned(),
                format!("socket,id=doorbell{index},path={}", doorbell.display()),
                "-device".to_owned(),
                // On the root bus, which refuses to unplug it, at a slot that tells which device it belongs to.
                format!("ivshmem-doorbell,vectors={DOORBELL_VECTORS},chardev=doorbell{index},bus=pcie.0,addr={:#x}", 0x10 + index),
            ]);
        }
        args
    }
}

/// One vector for each lane that a guest may have.
const DOORBELL_VECTORS: u32 = 16;

/// The configuration of fgdpd for a lab.
pub struct Config {
    text: String,
    attachments: Vec<(String, Attachment)>,
}

impl Config {
    pub fn new(
        paths: &Paths,
        options: &UpOptions,
        groups: &[Group],
        guests: &[Identity],
    ) -> Result<Self> {
        let run = paths.run.join("fgdpd");
        let mut text = format!("# Made by the lab.\nrun_dir = {:?}\n", run);
        let mut attachments = Vec::new();
        for group in groups {
            // Slot 0 is the host's; its size is that of the others at most.
            let memory = u64::from(options.slot) * (group.members.len() as u64 + 1);
            writeln!(
                text,
                "\n[[group]]\nname = {:?}\nmemory = \"{memory}M\"\ndoorbell = {:?}",
                group.name,
                options.doorbell.as_str()
            )?;
        }
        for guest in guests {
            writeln!(
                text,
                "\n[[guest]]\nname = {:?}\nid = \"00000000-0000-0000-0000-{:012x}\"",
                guest.name,
                guest.index + 1
            )?;
            for group in groups
                .iter()
                .filter(|group| group.members.contains(&guest.name))
            {
                let socket = run.join(format!("{}-{}.sock", guest.name, group.name));
                writeln!(
                    text,
                    "\n  [[guest.device]]\n  group = {:?}\n  socket = {:?}\n  slot_size = \"{}M\"\n  addresses = [{:?}, {:?}]",
                    group.name,
                    socket,
                    options.slot,
                    guest.ipv4(),
                    guest.ipv6()
                )?;
                let doorbell = (options.doorbell != Doorbell::Trap)
                    .then(|| run.join(format!("doorbell-{}.sock", group.name)));
                // Own slot and the whole group, both rounded up to powers of two, and the registers.
                let slot = u64::from(options.slot).next_power_of_two();
                let all = (u64::from(options.slot) * (group.members.len() as u64 + 1))
                    .next_power_of_two();
                let window = ((slot + all) / 1024 + 1).next_power_of_two().max(16);
                attachments.push((
                    guest.name.clone(),
                    Attachment {
                        socket,
                        doorbell,
                        window,
                    },
                ));
            }
        }
        Ok(Self { text, attachments })
    }

    /// The devices of one guest.
    pub fn attachments(&self, guest: &str) -> Vec<Attachment> {
        self.attachments
            .iter()
            .filter(|(name, _)| name == guest)
            .map(|(_, attachment)| attachment.clone())
            .collect()
    }

    /// Starts fgdpd and waits until it serves every device.
    pub fn start(&self, paths: &Paths, spawner: &Spawner) -> Result<Child> {
        let file = paths.state.join("fgdpd.toml");
        fs::write(&file, &self.text).with_context(|| format!("cannot write {}", file.display()))?;
        fs::create_dir_all(paths.run.join("fgdpd"))?;
        let log_path = paths.state.join("fgdpd.log");
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut command = tied(paths.program("fgdpd"));
        command
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = spawner.spawn(command)?;
        let deadline = Instant::now() + START_TIMEOUT;
        for (guest, attachment) in &self.attachments {
            for socket in [Some(&attachment.socket), attachment.doorbell.as_ref()]
                .into_iter()
                .flatten()
            {
                while !socket.exists() {
                    if let Some(status) = child.try_wait()? {
                        bail!("fgdpd ended ({status}): {}", tail(&log_path, 5));
                    }
                    if Instant::now() > deadline {
                        bail!(
                            "fgdpd does not make {} for guest {guest}: {}",
                            socket.display(),
                            tail(&log_path, 5)
                        );
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(child)
    }
}

/// Process ids of fgdpd's workers: the children of its supervisor.
pub fn workers(supervisor: u32) -> Result<Vec<i32>> {
    let path = format!("/proc/{supervisor}/task/{supervisor}/children");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: fgdpd is not running"))?;
    Ok(text
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}

/// The last lines of a file, for a message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The command that builds what the lab needs of FGDP.
pub fn build_command(paths: &Paths) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--quiet", "-p", "fgdpd"])
        .current_dir(&paths.checkout);
    command
}
