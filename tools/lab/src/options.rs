// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the user may choose for a lab.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{bail, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Options of `lab up`.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpOptions {
    /// Number of guests
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub guests: u8,
    /// The stock Debian kernel for virtual machines, that for any machine, or a small one with the kernel's own checks
    #[arg(long, value_enum, default_value = "stock")]
    pub kernel: Kernel,
    /// Virtual CPUs of each guest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub smp: u8,
    /// Memory of each guest in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=65536))]
    pub mem: u32,
    /// Groups and their members, such as g1:a,b;g2:c [default: one group of all guests]
    #[arg(long, default_value = "")]
    pub groups: String,
    /// The guests' ordinary network: a QEMU socket, a bridge in an own network namespace, or none
    #[arg(long, value_enum, default_value = "stream")]
    pub net: Net,
    /// Without fgdpd, device and module
    #[arg(long)]
    pub no_fgdp: bool,
    /// Do not load the module
    #[arg(long)]
    pub no_insmod: bool,
    /// Load this module, which must be inside the checkout, instead of building one
    #[arg(long)]
    pub module: Option<PathBuf>,
    /// Use the host daemon and the module as they were built last
    #[arg(long)]
    pub no_build: bool,
    /// Parameters for the module, such as "family=18"
    #[arg(long, default_value = "")]
    pub module_params: String,
    /// How the guests ring each other
    #[arg(long, value_enum, default_value = "auto")]
    pub doorbell: Doorbell,
    /// Size of each guest's slot in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(4..=16384))]
    pub slot: u32,
    /// More parameters for the guests' kernel
    #[arg(long, default_value = "")]
    pub append: String,
    /// More arguments for QEMU, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub qemu_args: String,
    /// Boot this machine, a directory tree, by its own init instead of the toolbox; the module is what it has
    #[arg(long, value_name = "DIR", requires = "no_insmod", requires = "image")]
    pub tree: Option<PathBuf>,
    /// What was changed in the tree: the upper directory of an overlay
    #[arg(long, value_name = "DIR", requires = "tree")]
    pub layer: Option<PathBuf>,
    /// The kernel's image, instead of the one that --kernel says
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Seconds within which the guests must be ready
    #[arg(long, default_value_t = 180)]
    pub timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Kernel {
    Stock,
    Amd64,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Net {
    Stream,
    Tap,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Doorbell {
    Auto,
    Ivshmem,
    Trap,
}

impl Doorbell {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ivshmem => "ivshmem",
            Self::Trap => "trap",
        }
    }
}

/// A group and its members' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub members: Vec<String>,
}

impl UpOptions {
    pub fn insmod(&self) -> bool {
        !self.no_fgdp && !self.no_insmod
    }

    /// a, b, c, ...
    pub fn guest_names(&self) -> Vec<String> {
        (0..self.guests)
            .map(|index| char::from(b'a' + index).to_string())
            .collect()
    }

    /// The groups, checked against the guests.
    pub fn parse_groups(&self) -> Result<Vec<Group>> {
        let guests = self.guest_names();
        if self.groups.is_empty() {
            return Ok(vec![Group {
                name: "default".to_owned(),
                members: guests,
            }]);
        }
        let mut groups: Vec<Group> = Vec::new();
        for part in self.groups.split(';').filter(|part| !part.is_empty()) {
            let Some((name, members)) = part.split_once(':') else {
                bail!("--groups: '{part}' is not NAME:GUEST,GUEST");
            };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                bail!("--groups: '{name}' is no group's name: use letters, digits and dashes");
            }
            if groups.iter().any(|group| group.name == name) {
                bail!("--groups: group '{name}' is there twice");
            }
            let members: Vec<String> = members.split(',').map(str::to_owned).collect();
            let mut seen = BTreeSet::new();
            for member in &members {
                if !guests.contains(member) {
                    bail!(
                        "--groups: there is no guest '{member}' (--guests {} gives {})",
                        self.guests,
                        guests.join(", ")
                    );
                }
                if !seen.insert(member) {
                    bail!("--groups: guest '{member}' is in group '{name}' twice");
                }
            }
            groups.push(Group {
                name: name.to_owned(),
                members,
            });
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Up {
        #[command(flatten)]
        options: UpOptions,
    }

    fn groups(arguments: &[&str]) -> Result<Vec<Group>> {
        Up::parse_from([&["up"], arguments].concat())
            .options
            .parse_groups()
    }

    #[test]
    fn all_guests_share_one_group_by_default() {
        assert_eq!(
            groups(&[]).unwrap(),
            [Group {
                name: "default".into(),
                members: vec!["a".into(), "b".into()]
            }]
        );
    }

    #[test]
    fn groups_are_parsed() {
        let parsed = groups(&["--guests", "3", "--groups", "g1:a,b;g2:c,a"]).unwrap();
        assert_eq!(parsed.len(), 2);
        assert_eq!(
            parsed[1],
            Group {
                name: "g2".into(),
                members: vec!["c".into(), "a".into()]
            }
        );
    }

    #[test]
    fn wrong_groups_are_refused() {
        for spec in ["g1", "g1:a,c", "g1:a,a", "g1:a;g1:b", "g 1:a", ":a"] {
            assert!(groups(&["--groups", spec]).is_err(), "{spec}");
        }
    }
}
