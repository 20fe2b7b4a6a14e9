// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of a guest's virtual machine and of its file servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accel::Accel;
use crate::net::Network;
use crate::options::UpOptions;
use crate::paths::Paths;
use crate::spawn::tied;

/// What all guests of a lab have in common.
pub struct Machine {
    pub options: UpOptions,
    pub accel: Accel,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub network: Network,
}

/// What tells a guest from the others.
#[derive(Clone, Debug)]
pub struct Identity {
    pub index: usize,
    pub name: String,
}

impl Identity {
    pub fn ipv4(&self) -> String {
        format!("10.77.0.{}", self.index + 1)
    }

    pub fn ipv6(&self) -> String {
        format!("fd77::{:x}", self.index + 1)
    }
}

/// Sockets of one guest.
pub struct Sockets {
    pub agent: PathBuf,
    pub qmp: PathBuf,
    pub share: PathBuf,
    pub source: PathBuf,
}

impl Sockets {
    pub fn new(run: &Path, name: &str) -> Self {
        let socket = |what: &str| run.join(format!("{name}-{what}.sock"));
        Self {
            agent: socket("agent"),
            qmp: socket("qmp"),
            share: socket("share"),
            source: socket("src"),
        }
    }

    pub fn all(&self) -> [&Path; 4] {
        [&self.agent, &self.qmp, &self.share, &self.source]
    }
}

impl Machine {
    /// QEMU for one guest; `devices` are the arguments for those of FGDP.
    pub fn qemu(
        &self,
        paths: &Paths,
        guest: &Identity,
        sockets: &Sockets,
        devices: &[String],
    ) -> Command {
        let options = &self.options;
        let mut command = tied("qemu-system-x86_64");
        let mut arg = |flag: &str, value: String| {
            command.arg(flag).arg(value);
        };
        arg("-name", format!("{},debug-threads=on", guest.name));
        arg("-machine", "q35,memory-backend=mem".to_owned());
        arg(
            "-object",
            format!("memory-backend-memfd,id=mem,size={}M,share=on", options.mem),
        );
        arg("-m", options.mem.to_string());
        arg("-smp", options.smp.to_string());
        arg("-display", "none".to_owned());
        arg("-kernel", self.kernel.display().to_string());
        arg("-initrd", self.initrd.display().to_string());
        arg("-append", self.kernel_parameters(paths, guest));
        arg(
            "-chardev",
            format!(
                "file,id=console,path={},append=on",
                paths.console(&guest.name).display()
            ),
        );
        arg("-serial", "chardev:console".to_owned());
        arg(
            "-chardev",
            format!(
                "socket,id=agent,path={},server=on,wait=off",
                sockets.agent.display()
            ),
        );
        arg("-device", "virtio-serial-pci,max_ports=2".to_owned());
        arg(
            "-device",
            format!(
                "virtserialport,id=agentport,chardev=agent,name={}",
                lab_agent::PORT_NAME
            ),
        );
        arg(
            "-qmp",
            format!("unix:{},server=on,wait=off", sockets.qmp.display()),
        );
        for (tag, socket) in [("share", &sockets.share), ("src", &sockets.source)] {
            arg(
                "-chardev",
                format!("socket,id={tag},path={}", socket.display()),
            );
            arg(
                "-device",
                format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=512"),
            );
        }
        arg("-device", "virtio-rng-pci".to_owned());
        command.args(["-nodefaults", "-no-user-config"]);
        command.args(self.accel.qemu_args());
        command.args(self.network.qemu_args(guest.index, &guest.name, &paths.run));
        command.args(devices);
        command.args(options.qemu_args.split_whitespace());
        command
    }

    fn kernel_parameters(&self, paths: &Paths, guest: &Identity) -> String {
        format!(
            "console=ttyS0 panic=-1 net.ifnames=0 random.trust_cpu=on \
             lab_src={} lab_name={} lab_guests={} lab_ip4={} lab_ip6={} {} {} {}",
            paths.checkout.display(),
            guest.name,
            self.options.guests,
            guest.ipv4(),
            guest.ipv6(),
            // systemd would mount /tmp over a checkout that is there.
            match &self.options.tree {
                Some(_) => "lab_init=/sbin/init systemd.mask=tmp.mount",
                None => "",
            },
            self.accel.kernel_parameters(),
            self.options.append
        )
    }
}

/// The server of the guest's root: the tree, and above it the packages of `lab apt`, or what else was changed in it.
pub fn share_server(paths: &Paths, options: &UpOptions, socket: &Path) -> Command {
    let root = paths.run.join("share");
    let empty = paths.run.join("share/empty");
    // Bound in a namespace of its own: what else is mounted on the tree here (the host's /tmp, /dev, ...) stays out.
    let script = r#"
        mount --bind "$2" "$1/tree" && mount --bind "$3" "$1/layer" &&
        exec setpriv --pdeathsig KILL -- "$4" --socket-path "$5" --shared-dir "$1" --sandbox none --no-announce-submounts --cache always --readonly --log-level warn
    "#;
    let mut command = tied("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        script,
        "share",
    ]);
    command
        .arg(root)
        .arg(options.tree.as_deref().unwrap_or(Path::new("/")))
        .arg(match (&options.tree, &options.layer) {
            (_, Some(layer)) => layer,
            (Some(_), None) => &empty,
            (None, None) => &paths.layer,
        })
        .arg(VIRTIOFSD)
        .arg(socket);
    command
}

/// The server of the checkout: its files change while the guest runs, so the guest asks again after one second.
pub fn source_server(paths: &Paths, socket: &Path) -> Command {
    let mut command = tied(VIRTIOFSD);
    command
        .arg("--socket-path")
        .arg(socket)
        .arg("--shared-dir")
        .arg(&paths.checkout);
    command.args([
        "--sandbox",
        "none",
        "--cache",
        "auto",
        "--readonly",
        "--log-level",
        "warn",
    ]);
    command
}

const VIRTIOFSD: &str = "/usr/libexec/virtiofsd";
