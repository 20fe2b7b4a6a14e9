// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Measures what a program sees of a path between two guests: bytes per second, round trips, connects.
//!
//! A server serves one client after the other; the client chooses what is measured. Results are lines of JSON on standard
//! output: `start` and `end` frame the time that counts, so that an observer can read other clocks at the same moments.

mod addr;
mod client;
mod consumer;
mod drain;
mod file;
mod job;
mod lender;
mod pages;
mod report;
mod ring;
mod server;
mod shm;
mod sock;
mod source;
mod sys;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};

use addr::Family;
use job::{Job, Mode, MAX_SIZE};
use pages::Pages;

#[derive(Parser)]
#[command(name = "fgdp-perf", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients, one after the other, until killed
    Server {
        #[command(flatten)]
        end: End,
    },
    /// Measure one thing
    Client {
        #[command(flatten)]
        end: End,
        #[command(flatten)]
        what: What,
        /// Busy poll for so many microseconds before sleeping, on both sides (SO_BUSY_POLL)
        #[arg(long, value_name = "USEC", default_value_t = 0)]
        busy_poll: u32,
        /// Size of the socket's send buffer, on both sides (SO_SNDBUF) [default: the system's]
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        sndbuf: u32,
        #[command(flatten)]
        pages: Pages,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Measure bare shared memory between two guests without module, or between two processes: start both sides
    Shm {
        #[command(flatten)]
        memory: shm::Memory,
        #[command(flatten)]
        what: What,
        /// Which of the two sides this is
        #[arg(long, value_enum)]
        side: shm::Side,
    },
}

#[derive(Args)]
struct End {
    #[arg(long, value_enum)]
    family: Family,
    /// tcp: ADDRESS:PORT; unix: PATH, @NAME for an abstract one; fgdp: GUEST-ID:PORT (a UUID, or `any`)
    #[arg(long)]
    addr: String,
    /// The number of the family AF_FGDP, as the module's parameter `family` has it
    #[arg(long, value_name = "NUMBER", default_value_t = 18)]
    family_number: u16,
}

#[derive(Args)]
struct What {
    #[arg(long, value_enum)]
    mode: Mode,
    /// Bytes of each write, or of each request and answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SIZE)))]
    size: u32,
    /// How long to measure, after a warm-up of a tenth of that
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
}

impl What {
    fn job(&self, busy_poll: u32, sndbuf: u32, pages: Pages) -> Job {
        Job {
            mode: self.mode,
            size: self.size,
            busy_poll,
            sndbuf,
            pages,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=3600.0).contains(&value) => Ok(value),
        _ => Err("give seconds from 0.01 to 3600".to_owned()),
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Server { end } => server::serve(&end.resolve()?),
        Command::Client {
            end,
            what,
            busy_poll,
            sndbuf,
            pages,
        } => {
            let job = what.job(busy_poll, sndbuf, pages);
            client::measure(&end.resolve()?, end.family, job, what.time())
        }
        Command::Completion { shell } => {
            let mut out = std::io::stdout().lock();
            clap_complete::generate(shell, &mut Cli::command(), "fgdp-perf", &mut out);
            Ok(())
        }
        Command::Shm { memory, what, side } => {
            shm::measure(&memory, side, what.job(0, 0, Pages::default()), what.time())
        }
    }
}

impl End {
    fn resolve(&self) -> Result<sys::Name> {
        self.family.parse(&self.addr, self.family_number)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fgdp-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
