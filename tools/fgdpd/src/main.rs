// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Command line of fgdpd.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fgdpd::{config, memory, plan::Plan, qemu, supervisor, worker};
use tracing_subscriber::EnvFilter;

/// Serves the FGDP device to virtual machines.
#[derive(Debug, Parser)]
#[command(name = "fgdpd", version, about)]
struct Args {
    /// Configuration file.
    #[arg(
        short,
        long,
        default_value = "/etc/fgdp/fgdpd.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Check the configuration and the host, start nothing.
    #[arg(long)]
    check: bool,
    /// Print the arguments that GUEST's QEMU needs.
    #[arg(long, value_name = "GUEST")]
    print_qemu_args: Option<String>,
    /// error, warn, info, debug or trace; without it, RUST_LOG, else info.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Started by the supervisor.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("fgdpd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let filter = match &args.log_level {
        Some(level) => EnvFilter::try_new(level)?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    // The service manager's journal has its own clock.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if journal {
        log.without_time().with_ansi(false).init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
    if args.worker {
        return worker::run();
    }
    if args.check || args.print_qemu_args.is_some() {
        let config = config::load(&args.config)?;
        let plan = Plan::new(&config).map_err(anyhow::Error::msg)?;
        if let Some(guest) = &args.print_qemu_args {
            println!("{}", qemu::arguments(&plan, guest)?);
            return Ok(());
        }
        memory::check(&plan)?;
        let (groups, members) = (
            plan.groups.len(),
            plan.groups.iter().map(|g| g.members.len()).sum::<usize>(),
        );
        println!(
            "{}: {groups} groups, {members} devices, {}M of memory",
            args.config.display(),
            plan.memory() >> 20
        );
        return Ok(());
    }
    supervisor::run(supervisor::Options {
        config: args.config,
        log_level: args.log_level,
    })
}
