// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A server of files that sends blocks from where it keeps them, and a client that reads them there.
//!
//! Blocks that were asked for stay in memory that is lent to the peer: a block that is asked for again is granted again, and
//! nobody copies it. What cannot be lent, or not be shown, is copied; neither side has to know of the other's trouble.

mod cache;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fgdp::Address;

/// Serves files to other guests from memory that they read as well
#[derive(Parser)]
#[command(name = "file-server")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the files of a directory until killed
    Serve(Serve),
    /// Write files that a server has to standard output, one after the other
    Get(Get),
}

#[derive(Args)]
struct Serve {
    /// GUEST-ID:PORT; the id `any` is any guest
    address: Address,
    /// Where the files are
    directory: PathBuf,
    /// Memory to lend for each connection, in MiB; with 0, everything is copied
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u16).range(..=4096))]
    lend: u16,
}

#[derive(Args)]
struct Get {
    /// GUEST-ID:PORT
    address: Address,
    /// Files of the server's directory
    #[arg(required = true)]
    names: Vec<String>,
    /// Copy everything
    #[arg(long)]
    copy: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => server::serve(&options),
        Command::Get(options) => client::get(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("file-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
