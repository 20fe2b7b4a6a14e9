// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pipe from one guest to another: what comes from standard input is read into memory that the peer reads as well, which
//! writes it to standard output from there. No program copies, and no kernel but where the pipe's ends do. By TCP that is so where
//! FGDP carries the connection, and else everything is copied.

mod common;
#[path = "common/place.rs"]
mod place;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use common::{Incoming, Outgoing, Span};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use place::Place;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Carries standard input to standard output in another guest
#[derive(Parser)]
#[command(name = "pipe")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send standard input to who receives at an address
    Send(Send),
    /// Wait for one sender, and write what it sends to standard output
    Recv(Recv),
}

#[derive(Args)]
struct Send {
    /// GUEST-ID:PORT, or HOST:PORT of TCP
    place: Place,
    /// Memory to lend, in MiB; with 0, everything is copied
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=1024))]
    lend: u16,
    /// Give pages away instead of lending them
    #[arg(long)]
    give: bool,
}

#[derive(Args)]
struct Recv {
    /// GUEST-ID:PORT; the id `any` is any guest. Or HOST:PORT of TCP, such as [::]:7000
    place: Place,
    /// Copy everything
    #[arg(long)]
    copy: bool,
}

/// Reads what is there, up to a whole piece; waits only for the first byte.
fn fill(mut input: &File, piece: &mut [u8]) -> Result<usize> {
    let mut len = 0;
    while len < piece.len() {
        if len > 0 {
            let mut there = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut there, PollTimeout::ZERO), Ok(n) if n > 0) {
                break;
            }
        }
        match input.read(&mut piece[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("standard input"),
        }
    }
    Ok(len)
}

fn send(options: &Send) -> Result<()> {
    let stream = options.place.connect().context("connect")?;
    let mut memory = Outgoing::new(&stream, usize::from(options.lend) << 20, PIECE);
    if options.give {
        memory.give();
    }
    // Not the standard library's own, which has a buffer.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut sent = vec![Span::default(); memory.len() / PIECE];
    let mut total = 0;
    'all: loop {
        for (n, span) in sent.iter_mut().enumerate() {
            memory.wait_for(*span)?;
            let start = n * PIECE;
            let len = fill(&input, &mut memory[start..start + PIECE])?;
            if len == 0 {
                break 'all;
            }
            *span = memory.send(start..start + len)?;
            total += len;
        }
    }
    stream.finish().context("shutdown")?;
    // The peer closes when it has everything.
    let mut answer = &stream;
    let n = answer.read(&mut [0; 1]).context("the peer's end")?;
    ensure!(n == 0, "the peer answered");
    memory.settle()?;
    eprintln!(
        "pipe: sent {total} bytes, {} calls without a copy",
        memory.granted
    );
    Ok(())
}

fn receive(options: &Recv) -> Result<()> {
    let listener = options.place.listen().context("listen")?;
    eprintln!("pipe: listening");
    let (stream, from) = listener.accept().context("accept")?;
    drop(listener);
    let mut incoming = Incoming::new(&stream, !options.copy);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    while let Some(piece) = incoming.next(usize::MAX)? {
        output.write_all(&piece).context("standard output")?;
    }
    let (in_place, copied) = (incoming.in_place, incoming.copied);
    eprintln!("pipe: received from {from}: {in_place} bytes in place, {copied} copied");
    Ok(())
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Send(options) => send(&options),
        Command::Recv(options) => receive(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pipe: {error:#}");
            ExitCode::FAILURE
        }
    }
}
