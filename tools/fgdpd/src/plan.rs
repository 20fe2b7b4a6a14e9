// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the configuration comes to: groups with their memory, members with their slots.
//!
//! A group's memory is sized once, before any guest maps it, and its size is sealed. What `spare` adds to the
//! members' slots is where a reload puts new ones. Slots and places never move while the daemon runs.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::abi;
use crate::config::{self, Config, Doorbell, Huge};

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Position in the plan; never reused.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The same in all its devices.
    pub id: [u8; 16],
    /// Bytes of its memory.
    pub size: u64,
    /// Lanes per channel.
    pub lanes: u16,
    /// Huge pages wanted: `Some(true)` must, `None` if possible.
    pub huge: Option<bool>,
    /// Socket of the doorbell devices.
    pub doorbell_socket: Option<PathBuf>,
    /// A guest without doorbell device is refused.
    pub doorbell_required: bool,
    /// Those that may attach.
    pub members: Vec<MemberPlan>,
}

/// A guest's device in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPlan {
    /// Number of the device in the daemon; never reused.
    pub dev: u32,
    /// The guest's name.
    pub name: String,
    /// The guest's id.
    pub guest_id: [u8; 16],
    /// Its slot.
    pub slot: u32,
    /// Where the slot begins in the group's memory.
    pub offset: u64,
    /// Bytes of the slot.
    pub size: u64,
    /// Frames it may offer to one peer.
    pub quota: u64,
    /// Addresses it may claim.
    pub addrs: Vec<[u8; 16]>,
    /// The socket QEMU connects to.
    pub socket: PathBuf,
}

/// Everything the daemon serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The groups.
    pub groups: Vec<GroupPlan>,
    /// The next device's number.
    pub next_dev: u32,
}

/// Size of the BAR that holds `size` bytes.
pub fn bar_size(size: u64) -> u64 {
    size.checked_next_power_of_two()
        .unwrap_or(1 << 63)
        .max(1 << 20)
}

impl GroupPlan {
    /// The first `size` bytes that no member has.
    fn place(&self, size: u64) -> Option<u64> {
        let mut taken: Vec<(u64, u64)> = self.members.iter().map(|m| (m.offset, m.size)).collect();
        taken.sort_unstable();
        let mut at = abi::HOST_SLOT_SIZE;
        for (offset, len) in taken {
            if offset.saturating_sub(at) >= size {
                break;
            }
            at = at.max(offset + len);
        }
        (at + size <= self.size).then_some(at)
    }

    /// The lowest slot that no member has.
    fn free_slot(&self) -> Option<u32> {
        let most = u32::try_from(abi::MAX_SLOTS).ok()?;
        (1..most).find(|slot| self.members.iter().all(|m| m.slot != *slot))
    }
}

impl Plan {
    /// The plan for a checked configuration.
    pub fn new(config: &Config) -> Result<Self, String> {
        let mut plan = Self::default();
        plan.update(config, &|_| false)?;
        Ok(plan)
    }

    /// Total bytes of memory.
    pub fn memory(&self) -> u64 {
        self.groups.iter().map(|g| g.size).sum()
    }

    /// Brings the plan to what `config` says. Members for which `in_use` is true cannot be removed or changed, only
    /// given other addresses; the error names the first obstacle, and the plan is then unchanged.
    pub fn update(&mut self, config: &Config, in_use: &dyn Fn(u32) -> bool) -> Result<(), String> {
        let mut next = self.clone();
        for group in &config.group {
            if next.groups.iter().all(|g| g.name != *group.name.get_ref()) {
                next.add_group(config, group);
            }
        }
        let wanted = wanted_members(config);
        for group in &mut next.groups {
            let Some(cfg) = config
                .group
                .iter()
                .find(|g| *g.name.get_ref() == group.name)
            else {
                if let Some(m) = group.members.iter().find(|m| in_use(m.dev)) {
                    return Err(format!(
                        "group `{}` cannot go: guest `{}` is attached; shut it down first",
                        group.name, m.name
                    ));
                }
                group.members.clear();
                continue;
            };
            let now = fixed_part(config, cfg);
            if now
                != (
                    group.lanes,
                    group.huge,
                    group.doorbell_socket.clone(),
                    group.doorbell_required,
                )
            {
                return Err(format!(
                    "group `{}`: lanes, huge and doorbell cannot change while the daemon runs; restart it",
                    group.name
                ));
            }
            let wanted = wanted.get(&group.name).map_or(&[][..], Vec::as_slice);
            for m in &group.members {
                let same = wanted
                    .iter()
                    .any(|w| w.guest_id == m.guest_id && w.size == m.size && w.socket == m.socket);
                if !same && in_use(m.dev) {
                    return Err(format!(
                        "guest `{}` is attached to group `{}`: shut it down before it is changed",
                        m.name, group.name
                    ));
                }
            }
            group.members.retain(|m| {
                wanted
                    .iter()
                    .any(|w| w.guest_id == m.guest_id && w.size == m.size && w.socket == m.socket)
            });
            for want in wanted {
                if let Some(have) = group
                    .members
                    .iter_mut()
                    .find(|m| m.guest_id == want.guest_id)
                {
                    have.addrs.clone_from(&want.addrs);
                    have.name.clone_from(&want.name);
                    have.quota = want.quota;
                    continue;
                }
                let offset = group.place(want.size).ok_or_else(|| {
                    let mib = want.size >> 20;
                    format!("group `{}` has no {mib}M left for guest `{}`: restart the daemon, or raise `spare` before the next start", group.name, want.name)
                })?;
                let slot = group
                    .free_slot()
                    .ok_or_else(|| format!("group `{}` is full", group.name))?;
                group.members.push(MemberPlan {
                    dev: next.next_dev,
                    slot,
                    offset,
                    ..want.clone()
                });
                next.next_dev += 1;
            }
        }
        *self = next;
        Ok(())
    }

    fn add_group(&mut self, config: &Config, group: &config::Group) {
        let name = group.name.get_ref().clone();
        let size = |text: &str| config::parse_size(text).unwrap_or(0);
        let devices = config
            .guest
            .iter()
            .flat_map(|g| &g.device)
            .filter(|d| *d.group.get_ref() == name);
        let slots: u64 = devices.map(|d| size(d.slot_size.get_ref())).sum();
        let index = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let namespace = Uuid::new_v5(
            &Uuid::NAMESPACE_URL,
            config.run_dir.as_os_str().as_encoded_bytes(),
        );
        let (lanes, huge, doorbell_socket, doorbell_required) = fixed_part(config, group);
        self.groups.push(GroupPlan {
            index,
            id: Uuid::new_v5(&namespace, name.as_bytes()).into_bytes(),
            size: abi::HOST_SLOT_SIZE + slots + size(group.spare.get_ref()),
            lanes,
            huge,
            doorbell_socket,
            doorbell_required,
            members: Vec::new(),
            name,
        });
    }
}

/// What cannot change while guests may have it: lanes, huge pages, doorbells.
fn fixed_part(
    config: &Config,
    group: &config::Group,
) -> (u16, Option<bool>, Option<PathBuf>, bool) {
    let huge = match group.huge {
        Huge::Auto => None,
        Huge::Always => Some(true),
        Huge::Never => Some(false),
    };
    let socket = (group.doorbell != Doorbell::Trap).then(|| config::doorbell_socket(config, group));
    (
        *group.lanes.get_ref(),
        huge,
        socket,
        group.doorbell == Doorbell::Ivshmem,
    )
}

/// By group name, what the configuration asks for; slot and place are still open.
fn wanted_members(config: &Config) -> HashMap<String, Vec<MemberPlan>> {
    let mut wanted: HashMap<String, Vec<MemberPlan>> = HashMap::new();
    for guest in &config.guest {
        for device in &guest.device {
            let size = config::parse_size(device.slot_size.get_ref()).unwrap_or(0);
            let quota = device
                .peer_quota
                .as_ref()
                .and_then(|q| config::parse_size(q.get_ref()))
                .unwrap_or(size);
            wanted
                .entry(device.group.get_ref().clone())
                .or_default()
                .push(MemberPlan {
                    dev: 0,
                    name: guest.name.get_ref().clone(),
                    guest_id: guest.id.get_ref().into_bytes(),
                    slot: 0,
                    offset: 0,
                    size,
                    quota: quota / 4096,
                    addrs: device
                        .addresses
                        .iter()
                        .map(|a| config::addr_bytes(*a.get_ref()))
                        .collect(),
                    socket: config::device_socket(config, guest, device),
                });
        }
    }
    wanted
}
