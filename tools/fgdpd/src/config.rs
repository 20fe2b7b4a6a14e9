// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration file: its shape, and what makes it valid.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use uuid::Uuid;

use crate::abi;

/// The file as read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where sockets without a path of their own are made.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Permissions of the sockets, octal.
    #[serde(default = "default_socket_mode")]
    pub socket_mode: Spanned<String>,
    /// The groups.
    #[serde(default)]
    pub group: Vec<Group>,
    /// The guests.
    #[serde(default)]
    pub guest: Vec<Guest>,
}

/// How members of a group ring each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doorbell {
    /// Doorbell devices are served; a guest without one is rung through the daemon.
    Auto,
    /// The same as `auto`, but a guest without a doorbell device is refused.
    Ivshmem,
    /// Every ring goes through the daemon.
    Trap,
}

/// Whether the group's memory is made of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Huge {
    /// If the host has enough of them free.
    Auto,
    /// Or the daemon does not start.
    Always,
    /// No.
    Never,
}

/// A trust domain: guests that share memory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: Spanned<String>,
    /// How members ring each other.
    #[serde(default = "default_doorbell")]
    pub doorbell: Doorbell,
    /// Path of the doorbell devices' socket.
    pub doorbell_socket: Option<Spanned<PathBuf>>,
    /// Lanes per channel.
    #[serde(default = "default_lanes")]
    pub lanes: Spanned<u16>,
    /// Huge pages.
    #[serde(default = "default_huge")]
    pub huge: Huge,
    /// Memory kept for guests that a reload adds.
    #[serde(default = "default_spare")]
    pub spare: Spanned<String>,
}

/// A virtual machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its name.
    pub name: Spanned<String>,
    /// Its id, given to it and to its peers.
    pub id: Spanned<Uuid>,
    /// One device for each group it is in.
    #[serde(default)]
    pub device: Vec<Device>,
}

/// A guest's membership in a group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The group's name.
    pub group: Spanned<String>,
    /// The socket QEMU connects to.
    pub socket: Option<Spanned<PathBuf>>,
    /// Memory the guest writes.
    #[serde(default = "default_slot_size")]
    pub slot_size: Spanned<String>,
    /// The most it may offer to one peer; without it, its slot.
    pub peer_quota: Option<Spanned<String>>,
    /// Addresses it may claim.
    #[serde(default)]
    pub addresses: Vec<Spanned<IpAddr>>,
}

fn default_run_dir() -> PathBuf {
    "/run/fgdp".into()
}
fn default_socket_mode() -> Spanned<String> {
    Spanned::new(0..0, "0660".into())
}
fn default_doorbell() -> Doorbell {
    Doorbell::Auto
}
fn default_lanes() -> Spanned<u16> {
    Spanned::new(0..0, 2)
}
fn default_huge() -> Huge {
    Huge::Auto
}
fn default_spare() -> Spanned<String> {
    Spanned::new(0..0, "512M".into())
}
fn default_slot_size() -> Spanned<String> {
    Spanned::new(0..0, "256M".into())
}

/// One thing wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when it has none.
    pub line: usize,
    /// What is wrong, and the cure.
    pub text: String,
}

/// Everything wrong with a file.
#[derive(Debug)]
pub struct Problems {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            match problem.line {
                0 => write!(f, "{}: {}", self.path.display(), problem.text)?,
                line => write!(f, "{}:{line}: {}", self.path.display(), problem.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// "256M" as bytes; K, M and G are powers of 1024.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (text.get(..text.len() - 1)?, 10),
        b'M' | b'm' => (text.get(..text.len() - 1)?, 20),
        b'G' | b'g' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// An address as the device carries it: IPv6, IPv4 as `::ffff:a.b.c.d`.
pub fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let fail = |line, text| Problems {
        path: path.into(),
        list: vec![Problem { line, text }],
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        let cure =
            "name the configuration file with --config; tools/fgdpd/fgdpd.toml is an example";
        fail(0, format!("cannot be read: {e}; {cure}"))
    })?;
    let config: Config = toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(0, |span| line_of(&text, &span));
        fail(line, e.message().trim().replace('\n', "; "))
    })?;
    let list = check(&config, &text);
    if list.is_empty() {
        Ok(config)
    } else {
        Err(Problems {
            path: path.into(),
            list,
        })
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes()
        .iter()
        .take(span.start)
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}

struct Check<'a> {
    text: &'a str,
    list: Vec<Problem>,
}

impl Check<'_> {
    fn say(&mut self, span: Range<usize>, text: impl Into<String>) {
        let line = if span.is_empty() {
            0
        } else {
            line_of(self.text, &span)
        };
        self.list.push(Problem {
            line,
            text: text.into(),
        });
    }

    fn size(&mut self, value: &Spanned<String>, what: &str, min: u64) -> u64 {
        match parse_size(value.get_ref()) {
            None => {
                self.say(
                    value.span(),
                    format!(
                        "{what} `{}` is not a size: write it like \"256M\"",
                        value.get_ref()
                    ),
                );
                0
            }
            Some(n) if n < min || n % abi::EXTENT_SIZE != 0 => {
                let min = min >> 20;
                self.say(
                    value.span(),
                    format!("{what} must be a multiple of 2M and at least {min}M"),
                );
                0
            }
            Some(n) => n,
        }
    }
}

fn check(config: &Config, text: &str) -> Vec<Problem> {
    let mut c = Check {
        text,
        list: Vec::new(),
    };
    if u32::from_str_radix(config.socket_mode.get_ref(), 8).is_err() {
        c.say(
            config.socket_mode.span(),
            "socket_mode must be octal, like \"0660\"",
        );
    }
    if config.group.is_empty() {
        c.say(0..0, "no group: add [[group]] with a name");
    }
    let mut groups: HashMap<&str, usize> = HashMap::new();
    let mut sockets: HashMap<PathBuf, usize> = HashMap::new();
    for (n, group) in config.group.iter().enumerate() {
        check_group(&mut c, config, group);
        if groups.insert(group.name.get_ref(), n).is_some() {
            c.say(
                group.name.span(),
                format!("group `{}` exists twice: rename one", group.name.get_ref()),
            );
        }
        claim_socket(
            &mut c,
            &mut sockets,
            doorbell_socket(config, group),
            group.name.span(),
        );
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut ids: HashMap<Uuid, &str> = HashMap::new();
    let mut addrs: HashMap<(usize, [u8; 16]), &str> = HashMap::new();
    let mut members = vec![0usize; config.group.len()];
    for (n, guest) in config.guest.iter().enumerate() {
        let name = guest.name.get_ref();
        check_name(&mut c, &guest.name, "guest");
        if names.insert(name, n).is_some() {
            c.say(
                guest.name.span(),
                format!("guest `{name}` exists twice: rename one"),
            );
        }
        if let Some(other) = ids.insert(*guest.id.get_ref(), name) {
            c.say(
                guest.id.span(),
                format!("guest `{other}` has the same id: make a new one with uuidgen"),
            );
        }
        let id = guest.id.get_ref();
        // The family's wildcard, and its loopback.
        for (reserved, meaning) in [
            (Uuid::nil(), "any guest"),
            (Uuid::max(), "the guest itself"),
        ] {
            if *id == reserved {
                let text = format!("id {id} means {meaning}: make another with uuidgen");
                c.say(guest.id.span(), text);
            }
        }
        let mut seen = Vec::new();
        for device in &guest.device {
            let group_name = device.group.get_ref();
            let Some(&g) = groups.get(group_name.as_str()) else {
                c.say(
                    device.group.span(),
                    format!("there is no group `{group_name}`: add it, or correct the name"),
                );
                continue;
            };
            if seen.contains(&g) {
                c.say(
                    device.group.span(),
                    format!("guest `{name}` is in group `{group_name}` twice: remove one device"),
                );
            }
            seen.push(g);
            if let Some(count) = members.get_mut(g) {
                *count += 1;
                if *count == abi::MAX_SLOTS {
                    let most = abi::MAX_SLOTS - 1;
                    c.say(
                        device.group.span(),
                        format!("group `{group_name}` has more than {most} members: split it"),
                    );
                }
            }
            check_device(&mut c, device);
            claim_socket(
                &mut c,
                &mut sockets,
                device_socket(config, guest, device),
                device.group.span(),
            );
            for addr in &device.addresses {
                let ip = addr.get_ref();
                if let Some(other) = addrs.insert((g, addr_bytes(*ip)), name) {
                    let text = format!("address {ip} is already given to guest `{other}` in group `{group_name}`: remove one");
                    c.say(addr.span(), text);
                }
            }
        }
    }
    c.list
}

fn check_name(c: &mut Check<'_>, name: &Spanned<String>, what: &str) {
    let text = name.get_ref();
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 31 || !text.bytes().all(ok) || text.starts_with('.') {
        c.say(
            name.span(),
            format!("{what} name `{text}` must be 1 to 31 letters, digits, '-', '_' or '.'"),
        );
    }
}

fn check_group(c: &mut Check<'_>, config: &Config, group: &Group) {
    check_name(c, &group.name, "group");
    let lanes = usize::from(*group.lanes.get_ref());
    if !(1..=abi::MAX_LANES).contains(&lanes) {
        c.say(
            group.lanes.span(),
            format!("lanes must be 1 to {}", abi::MAX_LANES),
        );
    }
    c.size(&group.spare, "spare", 0);
    if group.doorbell == Doorbell::Trap && group.doorbell_socket.is_some() {
        let span = group.doorbell_socket.as_ref().map_or(0..0, Spanned::span);
        c.say(
            span,
            "doorbell_socket is useless with doorbell = \"trap\": remove one",
        );
    }
    let path = doorbell_socket(config, group);
    check_path(c, &path, group.name.span());
}

fn check_device(c: &mut Check<'_>, device: &Device) {
    let size = c.size(&device.slot_size, "slot_size", abi::MIN_SLOT_SIZE);
    if let Some(quota) = &device.peer_quota {
        let bytes = c.size(quota, "peer_quota", abi::EXTENT_SIZE);
        if size != 0 && bytes > size {
            c.say(
                quota.span(),
                "peer_quota is larger than the slot: lower it or raise slot_size",
            );
        }
    }
    if let Some(more) = device.addresses.get(abi::MAX_ADDRS) {
        c.say(
            more.span(),
            format!("a device has at most {} addresses", abi::MAX_ADDRS),
        );
    }
    for addr in &device.addresses {
        let ip = addr.get_ref();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            c.say(
                addr.span(),
                format!("{ip} is not an address of one host: give a unicast address"),
            );
        }
    }
}

fn check_path(c: &mut Check<'_>, path: &Path, span: Range<usize>) {
    // sun_path holds 108 bytes with its NUL.
    if path.as_os_str().len() > 107 {
        c.say(
            span,
            format!(
                "socket path `{}` is longer than 107 bytes: shorten run_dir or name one",
                path.display()
            ),
        );
    }
}

fn claim_socket(
    c: &mut Check<'_>,
    sockets: &mut HashMap<PathBuf, usize>,
    path: PathBuf,
    span: Range<usize>,
) {
    check_path(c, &path, span.clone());
    let line = line_of(c.text, &span);
    if let Some(other) = sockets.insert(path.clone(), line) {
        c.say(
            span,
            format!(
                "socket {} is already used at line {other}: give another `socket`",
                path.display()
            ),
        );
    }
}

/// The socket of a group's doorbell devices.
pub fn doorbell_socket(config: &Config, group: &Group) -> PathBuf {
    match &group.doorbell_socket {
        Some(path) => config.run_dir.join(path.get_ref()),
        None => config
            .run_dir
            .join(format!("{}.doorbell.sock", group.name.get_ref())),
    }
}

/// The socket of a guest's device.
pub fn device_socket(config: &Config, guest: &Guest, device: &Device) -> PathBuf {
    match &device.socket {
        Some(path) => config.run_dir.join(path.get_ref()),
        None => config.run_dir.join(format!(
            "{}-{}.sock",
            guest.name.get_ref(),
            device.group.get_ref()
        )),
    }
}
