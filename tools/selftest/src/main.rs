// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests what a socket of AF_FGDP does, inside one guest and between two.
//!
//! Each case is a client function and a server function. Over loopback both run in one process
//! tree; over a pair one guest runs the server, the other the client, and they agree over a TCP
//! connection. The client prints KTAP. Over `--family tcp` the same cases show that they expect
//! what TCP does.

mod bar;
mod case;
mod cases;
mod control;
mod dial;
mod forge;
mod grants;
mod net;
mod pattern;
mod runner;
mod sock;
mod sys;
mod transfer;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use control::Control;
use forge::Forge;
use net::{parse_guest, GuestId, Net};
use nix::errno::Errno;
use transfer::Transfer;

#[derive(Parser)]
#[command(version, about = "Tests what a socket of AF_FGDP does")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the cases
    List {
        #[command(flatten)]
        select: Select,
    },
    /// Run both sides in this guest
    Loopback {
        #[command(flatten)]
        select: Select,
        #[command(flatten)]
        family: FamilyArgs,
    },
    /// Run the client's side and print the results
    Client {
        #[command(flatten)]
        select: Select,
        #[command(flatten)]
        family: FamilyArgs,
        /// The server's address for the control connection
        #[arg(long, default_value = "10.77.0.2:7080")]
        control: SocketAddr,
        /// The server's guest id
        #[arg(long, value_parser = parse_guest)]
        peer: Option<GuestId>,
    },
    /// Run the server's side for one client
    Server {
        #[command(flatten)]
        family: FamilyArgs,
        /// Where to wait for the client's control connection
        #[arg(long, default_value = "0.0.0.0:7080")]
        control: SocketAddr,
        /// The client's guest id
        #[arg(long, value_parser = parse_guest)]
        peer: Option<GuestId>,
    },
    /// Move much data both ways at once and check every byte
    Transfer {
        /// Wait for the peer's connections instead of making them
        #[arg(long)]
        listen: bool,
        #[command(flatten)]
        remote: RemoteArgs,
        /// MiB in each direction; 0 is without end
        #[arg(long, default_value_t = 64)]
        mib: u64,
        /// Connections at the same time
        #[arg(long, default_value_t = 1)]
        connections: u64,
        /// Seed of the sizes of what is sent at once; without one they are all large
        #[arg(long)]
        writes: Option<u64>,
        /// Grant what is sent and read in place what is granted, while the connections can
        #[arg(long)]
        grant: bool,
        /// Succeed when the connection is reset
        #[arg(long)]
        until_reset: bool,
    },
    /// Connect once and print how that ends
    Connect(RemoteArgs),
    /// Connect without waiting; print `waits` when that is under way, and how it ends
    Dial(RemoteArgs),
    /// Grant memory to a peer that holds it, and wait until it is back
    Lend(RemoteArgs),
    /// Hold what a peer grants until the connection is over
    Hold(RemoteArgs),
    /// Look for a text in the device's memory
    Find {
        /// 2 is the own slot, 4 the whole group
        #[arg(long, default_value_t = 4)]
        bar: usize,
        text: String,
    },
    /// Say to a peer what the module would not
    Forge {
        #[command(subcommand)]
        what: Forge,
    },
    /// Scribble over the own slot
    Scribble {
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct Select {
    /// Only cases whose name contains this; may be given several times
    #[arg(long)]
    filter: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Family {
    Fgdp,
    Tcp,
}

#[derive(Args)]
struct FamilyArgs {
    /// What the cases run over
    #[arg(long, value_enum, default_value = "fgdp")]
    family: Family,
    /// Number of AF_FGDP: the module's parameter `family`
    #[arg(long, default_value_t = 18)]
    number: u8,
}

impl FamilyArgs {
    fn net(&self, guest: GuestId, addr: Ipv4Addr) -> Net {
        match self.family {
            Family::Fgdp => Net::Fgdp {
                family: self.number,
                peer: guest,
            },
            Family::Tcp => Net::Tcp { peer: addr },
        }
    }
}

#[derive(Args)]
struct RemoteArgs {
    #[command(flatten)]
    family: FamilyArgs,
    /// The peer's guest id
    #[arg(long, value_parser = parse_guest)]
    peer: Option<GuestId>,
    /// The peer's address, for TCP
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    address: Ipv4Addr,
    /// Port of the listening side
    #[arg(long, default_value_t = 5000)]
    port: u32,
}

impl RemoteArgs {
    fn net(&self) -> Net {
        self.family.net(self.peer.unwrap_or_default(), self.address)
    }
}

fn loopback(net: Net, filter: &[String]) -> Result<bool> {
    let (client, server) = sys::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC)?;
    let mut client = Some(client);
    let child = sys::fork(|| {
        // Else the server never sees the client go.
        drop(client.take());
        match runner::server(net, &Control::new(server)) {
            Ok(()) => 0,
            Err(e) => {
                eprintln!("server: {e:#}");
                1
            }
        }
    })?;
    let control = Control::new(client.context("the control channel is the child's")?);
    let passed = runner::client(net, &control, filter)?;
    drop(control);
    nix::sys::wait::waitpid(child, None)?;
    Ok(passed)
}

fn v4(addr: SocketAddr) -> Ipv4Addr {
    match addr {
        SocketAddr::V4(addr) => *addr.ip(),
        SocketAddr::V6(_) => Ipv4Addr::LOCALHOST,
    }
}

fn call(addr: SocketAddr) -> Result<TcpStream> {
    // The server may start a little later than the client.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect(addr) {
            Ok(stream) => return Ok(stream),
            Err(e) if Instant::now() > deadline => {
                return Err(e).with_context(|| format!("no server at {addr}"))
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn run(command: &Command) -> Result<bool> {
    match command {
        Command::List { select } => {
            for case in runner::selected(None, &select.filter) {
                println!("{}", case.full_name());
            }
            Ok(true)
        }
        Command::Loopback { select, family } => {
            loopback(family.net([0; 16], Ipv4Addr::LOCALHOST), &select.filter)
        }
        Command::Client {
            select,
            family,
            control,
            peer,
        } => {
            let stream = call(*control)?;
            stream.set_nodelay(true)?;
            let net = family.net(peer.unwrap_or_default(), v4(*control));
            runner::client(net, &Control::new(OwnedFd::from(stream)), &select.filter)
        }
        Command::Server {
            family,
            control,
            peer,
        } => {
            let listener = TcpListener::bind(control)
                .with_context(|| format!("cannot wait for the client at {control}"))?;
            let (stream, from) = listener.accept()?;
            stream.set_nodelay(true)?;
            let net = family.net(peer.unwrap_or_default(), v4(from));
            runner::server(net, &Control::new(OwnedFd::from(stream))).map(|()| true)
        }
        Command::Transfer {
            listen,
            remote,
            mib,
            connections,
            writes,
            grant,
            until_reset,
        } => {
            let transfer = Transfer {
                net: remote.net(),
                port: remote.port,
                bytes: (*mib > 0).then_some(*mib << 20),
                connections: *connections,
                writes: *writes,
                grant: *grant,
                until: until_reset.then_some(Errno::ECONNRESET),
            };
            if *listen {
                transfer.listen()
            } else {
                transfer.connect()
            }
            .map(|()| true)
        }
        Command::Connect(remote) => {
            let net = remote.net();
            let sock = sock::Sock::new(net.domain(), libc::SOCK_STREAM).context("socket")?;
            match sock.connect(&net.remote(remote.port)) {
                Ok(()) => println!("connected"),
                Err(e) => println!("{e:?}"),
            }
            Ok(true)
        }
        Command::Dial(remote) => {
            println!("{}", dial::dial(&remote.net(), remote.port)?);
            Ok(true)
        }
        Command::Lend(remote) => grants::lend(&remote.net(), remote.port).map(|()| true),
        Command::Hold(remote) => grants::hold(&remote.net(), remote.port).map(|()| true),
        Command::Forge { what } => forge::forge(what).map(|()| true),
        Command::Find { bar, text } => bar::find(*bar, text),
        Command::Scribble { seconds, seed } => bar::scribble(*seconds, *seed).map(|()| true),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("fgdp-selftest: {e:#}");
            ExitCode::from(2)
        }
    }
}
