// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guests' kernel and their initial RAM file system.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::options::Kernel;
use crate::paths::Paths;

/// Mounts the tree under an overlay and starts guest-init of the checkout in it. The variables come from the kernel's
/// command line. A machine that has an own init gets guest-init as one of its services.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /share /rw /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
stop() { echo "lab init: $1" >/dev/console; /bin/busybox sleep 1000000; }
/bin/busybox mount -t virtiofs -o ro share /share || stop "cannot mount the tree"
# A module on the stock kernel, built into the debug kernel.
/bin/busybox chroot /share/tree /sbin/modprobe overlay 2>/dev/null
/bin/busybox mount -t tmpfs -o mode=755 rw /rw
/bin/busybox mkdir /rw/upper /rw/work
/bin/busybox mount -t overlay -o lowerdir=/share/layer:/share/tree,upperdir=/rw/upper,workdir=/rw/work root /new ||
	stop "cannot mount the overlay"
/bin/busybox mkdir -p "/new$lab_src" /new/proc /new/sys /new/dev
/bin/busybox mount -t virtiofs -o ro src "/new$lab_src" || stop "cannot mount the checkout"
for dir in proc sys dev; do /bin/busybox mount --move /$dir /new/$dir; done
[ "$lab_init" ] || exec /bin/busybox switch_root /new /bin/bash "$lab_src/tools/lab/guest-init"
/bin/busybox mount -t tmpfs -o mode=755 run /new/run
/bin/busybox mkdir -p /new/run/systemd/system/multi-user.target.wants
/bin/busybox ln -s ../lab.service /new/run/systemd/system/multi-user.target.wants/
/bin/busybox cat >/new/run/systemd/system/lab.service <<END
[Service]
PassEnvironment=lab_src lab_name lab_guests lab_ip4 lab_ip6
ExecStart=/bin/bash $lab_src/tools/lab/guest-init
# What is run in the guest may outlive the agent's session, as on any machine.
KillMode=process
END
exec /bin/busybox switch_root /new "$lab_init"
"#;

/// Prints a mark and ends the machine: for finding out whether an accelerator boots a kernel.
const PROBE_INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo lab-probe-ok >/dev/console
/bin/busybox reboot -f
";

/// A kernel image.
pub fn kernel_image(kernel: Kernel) -> Result<PathBuf> {
    match kernel {
        Kernel::Stock | Kernel::Amd64 => {
            let release =
                env::var("FGDP_KERNEL").context("FGDP_KERNEL is not set: call tools/lab/lab")?;
            ["/usr/lib/modules", "/lib/modules"]
                .iter()
                .map(|dir| Path::new(dir).join(&release).join("vmlinuz"))
                .chain([PathBuf::from(format!("/boot/vmlinuz-{release}"))])
                .find(|path| path.exists())
                .with_context(|| {
                    format!("there is no image of kernel {release}: run 'tools/lab/toolbox setup'")
                })
        }
        Kernel::Debug => {
            let path = PathBuf::from(env::var_os("FGDP_DEBUG_KERNEL").unwrap_or_default());
            if !path.exists() {
                bail!("the debug kernel is not built: run 'tools/lab/toolbox debug-kernel'");
            }
            Ok(path)
        }
    }
}

/// Writes the initial RAM file system of the guests.
pub fn write_initrd(paths: &Paths) -> Result<PathBuf> {
    write(&paths.run.join("initrd"), INIT)
}

/// Writes the one that only says that the kernel booted.
pub fn write_probe_initrd(dir: &Path) -> Result<PathBuf> {
    write(&dir.join("probe-initrd"), PROBE_INIT)
}

fn write(path: &Path, init: &str) -> Result<PathBuf> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .context("busybox is missing: run 'sudo apt-get install -y busybox-static'")?;
    let mut archive = Cpio::default();
    for dir in ["bin", "dev"] {
        archive.entry(dir, 0o040_755, (0, 0), &[]);
    }
    archive.entry("dev/console", 0o020_600, (5, 1), &[]);
    archive.entry("bin/busybox", 0o100_755, (0, 0), &busybox);
    archive.entry("init", 0o100_755, (0, 0), init.as_bytes());
    archive.entry("TRAILER!!!", 0, (0, 0), &[]);
    let mut file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(&archive.bytes)?;
    Ok(path.to_owned())
}

/// An archive in cpio's "newc" format; not compressed, because the guest's CPU may be emulated.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let (major, minor) = device;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            major,
            minor,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// True if `path` is a character device that can be opened for reading and writing.
pub fn usable_device(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device())
        && fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .is_ok()
}
