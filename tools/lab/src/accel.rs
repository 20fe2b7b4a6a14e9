// SPDX-License-Identifier: Apache-2.0 OR MIT
//! KVM or emulation: `/dev/kvm` may exist and still not run a stock kernel, so the choice is made by booting one.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::boot;
use crate::options::Kernel;
use crate::paths::Paths;
use crate::spawn::{tied, Spawner};

/// A kernel under KVM needs about one second to its first process.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    pub fn qemu_args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // The emulator runs string instructions byte by byte: without these flags the kernel copies with plain moves.
            Self::Tcg => [
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc",
            ],
        }
    }

    pub fn kernel_parameters(self) -> &'static str {
        match self {
            Self::Kvm => "",
            // The emulated clocks stutter when the host is busy; the kernel would turn to the HPET, which is very slow here.
            // virtiofsd writes programs into pages behind the emulator's back, and code that it translated from a page's
            // former content would run instead: the kernel must write to each page first. Debian's does so by default.
            Self::Tcg => "tsc=reliable init_on_alloc=1",
        }
    }

    /// The fastest one that works. The answer is kept until the machine is rebooted.
    pub fn choose(paths: &Paths, spawner: &Spawner) -> Result<Self> {
        match env::var("FGDP_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            Ok(other) => bail!("FGDP_ACCEL={other}: use kvm or tcg"),
            Err(_) => {}
        }
        if !boot::usable_device("/dev/kvm") {
            return Ok(Self::Tcg);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let answer = paths.cache.join(format!("accel-{}", boot_id.trim()));
        match fs::read_to_string(&answer).as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            _ => {}
        }
        println!("finding out whether KVM boots a kernel here (once)");
        let accel = if boots_under_kvm(paths, spawner)? {
            Self::Kvm
        } else {
            Self::Tcg
        };
        fs::write(&answer, accel.as_str())
            .with_context(|| format!("cannot write {}", answer.display()))?;
        Ok(accel)
    }
}

fn boots_under_kvm(paths: &Paths, spawner: &Spawner) -> Result<bool> {
    let mut command = tied("qemu-system-x86_64");
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "q35",
            "-m",
            "256",
            "-no-reboot",
        ])
        .args(Accel::Kvm.qemu_args())
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(boot::kernel_image(Kernel::Stock)?)
        .arg("-initrd")
        .arg(boot::write_probe_initrd(&paths.run)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawner.spawn(command)?;
    let output = child.stdout.take().context("no output of QEMU")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let found = BufReader::new(output)
            .split(b'\n')
            .map_while(Result::ok)
            .any(|line| line.starts_with(b"lab-probe-ok"));
        // Fails when the time is over.
        let _ = sender.send(found);
    });
    let works = receiver.recv_timeout(PROBE_TIMEOUT).unwrap_or(false);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    Ok(works)
}
