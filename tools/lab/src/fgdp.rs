// SPDX-License-Identifier: Apache-2.0 OR MIT
//! FGDP's host side: the daemon, its configuration, and the devices it gives the guests.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::options::UpOptions;
use crate::paths::Paths;
use crate::qemu::Identity;
use crate::spawn::{tied, Spawner};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The host daemon of a lab.
pub struct Fgdpd {
    program: PathBuf,
    config: PathBuf,
    /// The supervisor process.
    pub child: Child,
}

impl Fgdpd {
    /// Writes the configuration, starts the daemon and waits until it serves every device.
    pub fn start(
        paths: &Paths,
        options: &UpOptions,
        guests: &[Identity],
        spawner: &Spawner,
    ) -> Result<Self> {
        let run = paths.run.join("fgdpd");
        fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
        let config = paths.state.join("fgdpd.toml");
        fs::write(&config, configuration(&run, options, guests)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log_path = paths.state.join("fgdpd.log");
        let log = File::create(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        // The service manager's protocol: the daemon says when it is ready.
        let notify_path = paths.run.join("notify.sock");
        let notify =
            UnixDatagram::bind(&notify_path).context("cannot make the notification socket")?;
        let program = paths.program("fgdpd");
        let mut command = tied(&program);
        command
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify_path);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = spawner.spawn(command)?;
        let deadline = Instant::now() + START_TIMEOUT;
        notify.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut message = [0; 4096];
        loop {
            let len = notify.recv(&mut message).unwrap_or(0);
            let text = String::from_utf8_lossy(message.get(..len).unwrap_or_default());
            if text.lines().any(|line| line == "READY=1") {
                break;
            }
            if let Some(status) = child.try_wait()? {
                bail!("fgdpd ended ({status}): {}", tail(&log_path, 5));
            }
            if Instant::now() > deadline {
                bail!("fgdpd does not become ready: {}", tail(&log_path, 5));
            }
        }
        Ok(Self {
            program,
            config,
            child,
        })
    }

    /// QEMU's arguments for a guest's devices, as the daemon wants them; none for a guest without group.
    pub fn qemu_args(&self, guest: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.config)?;
        if !text.contains(&format!("name = \"{guest}\"")) {
            return Ok(Vec::new());
        }
        let output = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .args(["--print-qemu-args", guest])
            .output()
            .context("cannot run fgdpd")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut args = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (option, value) = line
                .split_once(' ')
                .with_context(|| format!("fgdpd prints '{line}'"))?;
            // One option a line; a value with JSON is in quotes for the shell.
            let value = value
                .strip_prefix('\'')
                .and_then(|value| value.strip_suffix('\''))
                .unwrap_or(value);
            args.extend([option.to_owned(), value.to_owned()]);
        }
        Ok(args)
    }

    /// Process ids of the workers: the children of the supervisor.
    pub fn workers(&self) -> Result<Vec<i32>> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).context("fgdpd is not running")?;
        Ok(text
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }
}

fn configuration(run: &Path, options: &UpOptions, guests: &[Identity]) -> Result<String> {
    let groups = options.parse_groups()?;
    let mut text = format!("# Made by the lab.\nrun_dir = {run:?}\n");
    for group in &groups {
        writeln!(
            text,
            "\n[[group]]\nname = {:?}\ndoorbell = {:?}",
            group.name,
            options.doorbell.as_str()
        )?;
        writeln!(text, "lanes = {}", options.smp)?;
    }
    for guest in guests {
        let mut own = groups
            .iter()
            .filter(|group| group.members.contains(&guest.name))
            .peekable();
        if own.peek().is_none() {
            continue;
        }
        writeln!(text, "\n[[guest]]\nname = {:?}", guest.name)?;
        writeln!(
            text,
            "id = \"00000000-0000-0000-0000-{:012x}\"",
            guest.index + 0xa
        )?;
        for group in own {
            writeln!(
                text,
                "\n  [[guest.device]]\n  group = {:?}\n  slot_size = \"{}M\"",
                group.name, options.slot
            )?;
            writeln!(
                text,
                "  addresses = [\"{}\", \"{}\"]",
                guest.ipv4(),
                guest.ipv6()
            )?;
        }
    }
    Ok(text)
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
