// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shows peers, connections and counters of the Fast Guest Data Path.

mod explain;
mod guest;
mod host;
mod http;
mod listing;
mod metrics;
mod model;
mod netlink;
mod source;
mod view;
mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Error, Result};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use fgdpd::{config, plan::Plan, qemu};

use explain::Target;
use model::Look;
use source::Source;

/// Shows peers, connections and counters of the Fast Guest Data Path.
///
/// In a guest it asks the module, on the host fgdpd; it finds out itself where it runs. It also prints what QEMU and libvirt
/// need to give a guest its devices.
#[derive(Debug, Parser)]
#[command(name = "fgdpctl", version, about)]
struct Cli {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Place {
    /// Ask the fgdpd that listens here (default: /run/fgdp/control.sock, if the module is not loaded).
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "proc")]
    socket: Option<PathBuf>,
    /// Read the module's listings here, say a copy of /proc/net/fgdp, instead of asking it by netlink.
    #[arg(long, global = true, value_name = "DIR")]
    proc: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// What runs and how it is doing.
    Status,
    /// Members of the group.
    Peers,
    /// Connections of sockets, and TCP connections to peers.
    Connections,
    /// Counters.
    Stats,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs and how it is doing.
    Status,
    /// Who is in the group, and the channels between the members.
    Peers,
    /// Connections of this guest: state, peer, bytes, ring sizes, waits; and TCP connections to peers, with the way that
    /// they take.
    Connections,
    /// Why TCP connections to an address would be carried by shared pages, or would not, and what to do about it.
    ///
    /// Ends with 0 if they would, with 1 if they would not, with 2 if that cannot be said.
    Explain {
        /// The other end: 10.0.0.2, 10.0.0.2:80, fd00::2 or [fd00::2]:80.
        #[arg(value_name = "ADDRESS[:PORT]")]
        target: Target,
    },
    /// Counters.
    Stats,
    /// Frames that members lent to each other (host).
    Grants,
    /// Cut a guest's QEMU off its device (host).
    Kick {
        /// Name of the guest in fgdpd's configuration.
        guest: String,
        /// Only its device in this group.
        #[arg(long)]
        group: Option<String>,
    },
    /// Print all counters as metrics for Prometheus.
    Metrics {
        /// Answer one request on standard input and output with them: for a socket that systemd has accepted.
        #[arg(long)]
        http: bool,
    },
    /// Print the arguments that a guest's QEMU needs for its devices, one option a line (host).
    QemuArgs(Attach),
    /// Print what a guest's domain in libvirt needs for its devices (host).
    LibvirtXml(Attach),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Show it again every second, with rates.
    Watch {
        /// What to show.
        #[arg(value_enum, default_value_t = What::Stats)]
        what: What,
        /// Seconds between two looks.
        #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
        interval: f64,
        /// End after so many looks.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Attach {
    /// Name of the guest in fgdpd's configuration.
    guest: String,
    /// Configuration of fgdpd.
    #[arg(
        long,
        default_value = "/etc/fgdp/fgdpd.toml",
        value_name = "FILE",
        conflicts_with_all = ["socket", "proc", "json"]
    )]
    config: PathBuf,
}

impl Attach {
    /// What `write` says of the configuration's plan.
    fn print(&self, write: impl Fn(&Plan, &str) -> Result<String>) -> Result<ExitCode> {
        let plan = Plan::new(&config::load(&self.config)?).map_err(Error::msg)?;
        print(&format!("{}\n", write(&plan, &self.guest)?))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=86_400.0).contains(&value) {
        Ok(value)
    } else {
        Err("give 0.05 to 86400 seconds".to_owned())
    }
}

/// How [`Command::Explain`] ends when there is no answer.
const NO_ANSWER: u8 = 2;

fn explain(cli: &Cli, target: &Target) -> Result<ExitCode> {
    if cli.place.socket.is_some() || cli.place.proc.is_some() {
        bail!("`explain` asks the module in this kernel: leave out --socket and --proc, and run it in a guest");
    }
    let explanation = explain::explain(target)?;
    let end = match explanation.would_carry {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    print(&view::render(&Look::Explain(explanation), cli.json)?)?;
    Ok(end)
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let source = || Source::find(cli.place.socket.as_deref(), cli.place.proc.as_deref());
    let what = match &cli.command {
        Command::Status => What::Status,
        Command::Peers => What::Peers,
        Command::Connections => What::Connections,
        Command::Stats => What::Stats,
        Command::Explain { target } => return explain(cli, target),
        Command::Metrics { http } => {
            let page = || metrics::page(&source()?);
            match http {
                true => http::serve(io::stdin().lock(), io::stdout().lock(), page)?,
                false => {
                    print(&page()?)?;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::QemuArgs(attach) => return attach.print(qemu::arguments),
        Command::LibvirtXml(attach) => return attach.print(qemu::libvirt),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "fgdpctl", &mut script);
            print(&String::from_utf8(script)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Grants => {
            let grants = source()?.host("grants")?.grants()?;
            print(&view::render(&grants, cli.json)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Kick { guest, group } => {
            let kicked = source()?.host("kick")?.kick(guest, group.as_deref())?;
            print(&view::render(&kicked, cli.json)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Watch {
            what,
            interval,
            count,
        } => {
            watch::run(&source()?, *what, *interval, *count, cli.json)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    print(&view::render(&source()?.look(what)?, cli.json)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output. False: the reader has gone, which is no error.
fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(&cli).unwrap_or_else(|e| {
        eprintln!("fgdpctl: {e:#}");
        match cli.command {
            Command::Explain { .. } => NO_ANSWER.into(),
            _ => ExitCode::FAILURE,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_interval_is_a_bounded_number() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "1e9", "x", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
