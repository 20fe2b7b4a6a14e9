// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the lab keeps what.

use std::env;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{symlink, DirBuilderExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

/// Paths of one lab. Several labs may run side by side, told apart by the variable `FGDP_LAB`.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The checkout, mounted in the guests at the same path.
    pub checkout: PathBuf,
    /// Logs and files of this lab.
    pub state: PathBuf,
    /// Sockets: a short path, because a Unix socket's may have 107 bytes at most.
    pub run: PathBuf,
    /// The user's cache of FGDP.
    pub cache: PathBuf,
    /// Packages that `lab apt` added to the guests.
    pub layer: PathBuf,
}

impl Paths {
    pub fn new() -> Result<Self> {
        let checkout = PathBuf::from(
            env::var_os("FGDP_CHECKOUT").context("FGDP_CHECKOUT is not set: call tools/lab/lab")?,
        );
        let name = env::var("FGDP_LAB").unwrap_or_default();
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || name.len() > 16 {
            bail!("FGDP_LAB={name}: a lab's name has at most 16 letters, digits and dashes");
        }
        let suffix = if name.is_empty() {
            String::new()
        } else {
            format!("-{name}")
        };
        let state = checkout.join(format!("build/lab{suffix}"));
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let run = PathBuf::from(format!(
            "/tmp/fgdp-{}-{:08x}",
            nix::unistd::getuid(),
            hasher.finish() as u32
        ));
        let cache = PathBuf::from(
            env::var_os("FGDP_CACHE").context("FGDP_CACHE is not set: call tools/lab/lab")?,
        );
        let layer = PathBuf::from(
            env::var_os("FGDP_LAYER").context("FGDP_LAYER is not set: call tools/lab/lab")?,
        );
        Ok(Self {
            checkout,
            state,
            run,
            cache,
            layer,
        })
    }

    /// Makes the directories of a new lab; the old one's sockets go.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.state)
            .with_context(|| format!("cannot make {}", self.state.display()))?;
        if self.run.exists() {
            fs::remove_dir_all(&self.run)
                .with_context(|| format!("cannot clear {}", self.run.display()))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&self.run)
            .with_context(|| format!("cannot make {}", self.run.display()))?;
        let link = self.state.join("run");
        let _ = fs::remove_file(&link);
        symlink(&self.run, &link).with_context(|| format!("cannot make {}", link.display()))
    }

    /// The lab's own socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("lab.sock")
    }

    /// Locked and written by the running daemon.
    pub fn pid_file(&self) -> PathBuf {
        self.state.join("lab.pid")
    }

    pub fn console(&self, guest: &str) -> PathBuf {
        self.state.join(format!("{guest}.log"))
    }

    /// A program of this project, built in release mode.
    pub fn program(&self, name: &str) -> PathBuf {
        self.checkout.join("build/cargo/release").join(name)
    }
}

/// Shows a path relative to the current directory when that is shorter.
pub fn short(path: &Path) -> String {
    let relative = env::current_dir()
        .ok()
        .and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_owned));
    relative.as_deref().unwrap_or(path).display().to_string()
}
