// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lab: guests for developing and testing FGDP, on one machine and without root where user namespaces allow it.

mod accel;
mod api;
mod boot;
mod client;
mod daemon;
mod fgdp;
mod guest;
mod link;
mod net;
mod options;
mod paths;
mod qemu;
mod qmp;
mod spawn;
mod switch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use options::UpOptions;
use paths::Paths;

#[derive(Parser)]
#[command(
    name = "lab",
    about = "Guests for developing and testing FGDP",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Boot the guests a, b, c, ... and leave them running
    Up(UpOptions),
    /// Run a command in a guest; standard streams, signals and exit code are carried
    Exec {
        /// The guest: a, b, ...
        guest: String,
        /// Set a variable in the command's environment (NAME=VALUE)
        #[arg(short, long, value_parser = parse_env)]
        env: Vec<(String, String)>,
        /// The command's working directory in the guest
        #[arg(short = 'C', long, default_value = "")]
        cwd: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Copy a file or directory into a guest
    Push {
        /// The guest: a, b, ...
        guest: String,
        /// File or directory here
        source: std::path::PathBuf,
        /// Path in the guest
        target: String,
    },
    /// Copy a file or directory out of a guest
    Pull {
        /// The guest: a, b, ...
        guest: String,
        /// Path in the guest
        source: String,
        /// File or directory here
        target: std::path::PathBuf,
    },
    /// Make Debian packages available in the guests: in running ones at once, in later ones from their boot
    Apt {
        /// Debian packages
        #[arg(required = true)]
        packages: Vec<String>,
    },
    /// Print a guest's console, with all kernel messages since `lab up`
    Log {
        /// The guest: a, b, ...
        guest: String,
        /// Go on printing as it grows
        #[arg(short, long)]
        follow: bool,
    },
    /// Kill a guest's virtual machine or a part of the host daemon, without notice
    Kill {
        /// A guest, `fgdpd` (its worker) or `fgdpd-supervisor`
        target: String,
    },
    /// Reboot a guest, or start one that was killed, and wait until it is ready
    Reboot {
        /// The guest: a, b, ...
        guest: String,
        /// Reset the virtual machine instead of asking the guest's kernel
        #[arg(long)]
        hard: bool,
    },
    /// Show the guests and their states
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop everything
    Down,
    /// The process behind `lab up`
    #[command(hide = true)]
    Daemon {
        /// UpOptions as JSON
        options: String,
    },
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("'{text}' is not NAME=VALUE"))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> Result<ExitCode> {
    let paths = Paths::new()?;
    match command {
        Cmd::Up(options) => client::up(&paths, &options)?,
        Cmd::Exec {
            guest,
            env,
            cwd,
            command,
        } => {
            return client::exec(
                &paths,
                &guest,
                lab_agent::Exec {
                    argv: command,
                    env,
                    cwd,
                },
            );
        }
        Cmd::Push {
            guest,
            source,
            target,
        } => client::push(&paths, &guest, &source, &target)?,
        Cmd::Pull {
            guest,
            source,
            target,
        } => client::pull(&paths, &guest, &source, &target)?,
        Cmd::Apt { packages } => client::apt(&paths, &packages)?,
        Cmd::Log { guest, follow } => client::log(&paths, &guest, follow)?,
        Cmd::Kill { target } => client::simple(&paths, &api::Request::Kill { target })?,
        Cmd::Reboot { guest, hard } => {
            client::simple(&paths, &api::Request::Reboot { guest, hard })?
        }
        Cmd::Status { json } => client::status(&paths, json)?,
        Cmd::Down => client::down(&paths)?,
        Cmd::Daemon { options } => daemon::run(&paths, &serde_json::from_str(&options)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
