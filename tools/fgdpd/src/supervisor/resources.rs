// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the supervisor holds for groups and devices: memory, listening sockets, connections.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use tracing::{info, warn};

use crate::abi;
use crate::plan::{bar_size, GroupPlan, MemberPlan};
use crate::supervisor::bell::BellServer;
use crate::sys::{self, SharedFd};
use crate::vfio::session::{Regions, Session};
use crate::vfio::wire::{self, RegionInfo};

/// A listening socket that removes its path when dropped.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`; a path that a dead daemon left is taken over.
    pub fn bind(path: &Path, mode: u32) -> Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| {
                format!(
                    "cannot make {}: create it and give it to the daemon's user",
                    dir.display()
                )
            })?;
        }
        if path.exists() {
            match UnixStream::connect(path) {
                Ok(_) => bail!(
                    "{} is served by another process: stop it, or configure another path",
                    path.display()
                ),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).with_context(|| {
                        format!("cannot remove the stale socket {}", path.display())
                    })?
                }
                Err(e) => bail!("{} is in the way ({e}): remove it", path.display()),
            }
        }
        let socket = UnixListener::bind(path)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        socket.set_nonblocking(true)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self {
            socket,
            path: path.into(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), "socket not removed: {e}");
        }
    }
}

/// A group's memory and doorbell server.
#[derive(Debug)]
pub struct GroupRes {
    /// The memory.
    pub memory: SharedFd,
    /// The same, for reading only.
    pub read_only: SharedFd,
    /// The doorbell devices' server, if the group has one.
    pub bell: Option<BellServer>,
    _bell_path: Option<Listener>,
}

impl GroupRes {
    /// Makes what the plan says.
    pub fn new(plan: &GroupPlan, mode: u32) -> Result<Self> {
        let name = format!("fgdp-{}", plan.name);
        let mib = plan.size >> 20;
        let huge = match plan.huge {
            Some(false) => None,
            want => match sys::sealed_memfd(&name, plan.size, true) {
                Ok(fd) => Some(fd),
                Err(e) if want == Some(true) => bail!(
                    "group `{}`: {mib}M of huge pages cannot be had ({e}): raise vm.nr_hugepages by {}, or set huge = \"auto\"",
                    plan.name,
                    mib / 2
                ),
                Err(_) => None,
            },
        };
        info!(group = %plan.name, mib, huge = huge.is_some(), "group memory");
        let memory = match huge {
            Some(fd) => fd,
            None => sys::sealed_memfd(&name, plan.size, false).with_context(|| {
                format!("group `{}`: {mib}M of memory cannot be had", plan.name)
            })?,
        };
        let read_only = sys::reopen_read_only(memory.as_fd())
            .context("cannot open group memory for reading only")?;
        let (mut bell, mut bell_path) = (None, None);
        if let Some(path) = &plan.doorbell_socket {
            let listener = Listener::bind(path, mode)?;
            let socket = listener.socket.try_clone()?;
            bell = Some(BellServer::new(
                socket,
                crate::layout::bell_header(&plan.id),
                plan.lanes,
            ));
            bell_path = Some(listener);
        }
        Ok(Self {
            memory: memory.into(),
            read_only: read_only.into(),
            bell,
            _bell_path: bell_path,
        })
    }
}

/// A device: its socket, its regions, and the QEMU on it.
#[derive(Debug)]
pub struct DeviceRes {
    /// Where QEMU connects.
    pub listener: Listener,
    /// What QEMU is told of the regions.
    pub regions: Regions,
    /// For logs: guest and group.
    pub label: String,
    /// The connection.
    pub session: Option<Session>,
}

impl DeviceRes {
    /// Makes the socket and regions of a member.
    pub fn new(plan: &GroupPlan, member: &MemberPlan, group: &GroupRes, mode: u32) -> Result<Self> {
        let mut info = [RegionInfo::default(); wire::NUM_REGIONS as usize];
        let (read, write, map) = (
            wire::REGION_F_READ,
            wire::REGION_F_WRITE,
            wire::REGION_F_MMAP,
        );
        let regions = [
            (
                0,
                RegionInfo {
                    flags: read | write,
                    size: abi::BAR0_SIZE,
                    file_offset: 0,
                    mappable: 0,
                },
            ),
            (
                2,
                RegionInfo {
                    flags: read | write | map,
                    size: bar_size(member.size),
                    file_offset: member.offset,
                    mappable: member.size,
                },
            ),
            (
                4,
                RegionInfo {
                    flags: read | map,
                    size: bar_size(plan.size),
                    file_offset: 0,
                    mappable: plan.size,
                },
            ),
            (
                wire::REGION_CONFIG,
                RegionInfo {
                    flags: read | write,
                    size: 256,
                    file_offset: 0,
                    mappable: 0,
                },
            ),
        ];
        for (index, region) in regions {
            if let Some(slot) = info.get_mut(index as usize) {
                *slot = region;
            }
        }
        let regions = Regions {
            info,
            slot: group.memory.clone(),
            group: group.read_only.clone(),
        };
        let listener = Listener::bind(&member.socket, mode)?;
        let label = format!("{}/{}", member.name, plan.name);
        Ok(Self {
            listener,
            regions,
            label,
            session: None,
        })
    }

    /// Takes a waiting connection; true if there is a new session.
    pub fn accept(&mut self, serial: u64) -> io::Result<bool> {
        let stream = match self.listener.socket.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        };
        if let Some(session) = &self.session {
            warn!(guest = %self.label, pid = session.pid, "second connection refused: the device is in use by this process");
            return Ok(false);
        }
        let conn = crate::vfio::conn::Conn::new(stream)?;
        let session = Session::new(conn, serial, self.label.clone());
        info!(guest = %self.label, pid = session.pid, "attached");
        self.session = Some(session);
        Ok(true)
    }
}
