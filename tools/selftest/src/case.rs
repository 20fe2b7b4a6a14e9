// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a case is, and what its two functions have at hand.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::control::Control;
use crate::net::Net;
use crate::pattern::{Pattern, Random};
use crate::sock::Sock;

/// The socket types of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    SeqPacket,
}

impl Kind {
    /// The number that `socket(2)` takes.
    pub fn number(self) -> i32 {
        match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::SeqPacket => libc::SOCK_SEQPACKET,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::SeqPacket => "seqpacket",
        }
    }
}

/// Which families a case says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    Any,
    Fgdp,
    Tcp,
    /// `AF_FGDP`, and TCP where it is carried: what lends memory.
    Lending,
    /// TCP where it is carried.
    Carried,
}

/// One side of a case.
pub type Side = fn(&mut Ctx) -> Result<()>;

/// One case: what a client and a server do, and see.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    /// The families that it is run over.
    pub families: Families,
    /// Seconds that it may take.
    pub seconds: u64,
    pub client: Side,
    pub server: Side,
}

impl Case {
    /// A case for stream sockets of any family.
    pub const fn stream(name: &'static str, client: Side, server: Side) -> Self {
        Self {
            name,
            kind: Kind::Stream,
            families: Families::Any,
            seconds: 30,
            client,
            server,
        }
    }

    /// A case for sockets that keep records, which TCP has not.
    pub const fn records(name: &'static str, client: Side, server: Side) -> Self {
        let case = Self::stream(name, client, server);
        Self {
            kind: Kind::SeqPacket,
            families: Families::Fgdp,
            ..case
        }
    }

    /// Not run over TCP.
    pub const fn fgdp(self) -> Self {
        Self {
            families: Families::Fgdp,
            ..self
        }
    }

    /// Run where sockets lend memory.
    pub const fn lending(self) -> Self {
        Self {
            families: Families::Lending,
            ..self
        }
    }

    /// Run over TCP that is carried.
    pub const fn carried(self) -> Self {
        Self {
            families: Families::Carried,
            ..self
        }
    }

    /// A case for TCP, carried or not.
    pub const fn tcp(name: &'static str, client: Side, server: Side) -> Self {
        let case = Self::stream(name, client, server);
        Self {
            families: Families::Tcp,
            ..case
        }
    }

    /// Whether it is run over `net`.
    pub fn suits(&self, net: &Net) -> bool {
        match self.families {
            Families::Any => true,
            Families::Fgdp => net.is_fgdp(),
            Families::Tcp => !net.is_fgdp(),
            Families::Lending => net.is_fgdp() || net.is_carried(),
            Families::Carried => net.is_carried(),
        }
    }

    /// May take `seconds`.
    pub const fn within(self, seconds: u64) -> Self {
        Self { seconds, ..self }
    }

    /// The name in lists and results.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.kind.name(), self.name)
    }
}

/// A case found that the machine lacks what it needs.
#[derive(Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// What a side of a case has at hand.
pub struct Ctx<'a> {
    pub net: Net,
    pub kind: Kind,
    pub random: Random,
    control: &'a Control,
    case: u32,
    deadline: Instant,
}

impl<'a> Ctx<'a> {
    pub fn new(net: Net, case: &Case, number: u32, seed: u64, control: &'a Control) -> Self {
        Self {
            net,
            kind: case.kind,
            random: Random(seed),
            control,
            case: number,
            deadline: Instant::now() + Duration::from_secs(case.seconds),
        }
    }

    /// Tells the other side.
    pub fn tell(&self, token: &str) -> Result<()> {
        self.control.send(self.case, token, "")
    }

    /// Tells the other side a value.
    pub fn tell_value(&self, token: &str, value: impl fmt::Display) -> Result<()> {
        self.control.send(self.case, token, &value.to_string())
    }

    /// Waits until the other side tells.
    pub fn wait(&self, token: &str) -> Result<()> {
        self.wait_value(token).map(drop)
    }

    /// Waits until the other side tells a value.
    pub fn wait_value(&self, token: &str) -> Result<String> {
        self.control.expect(self.case, token, self.deadline)
    }

    /// A new socket.
    pub fn socket(&self) -> Result<Sock> {
        Sock::new(self.net.domain(), self.kind.number()).context("socket")
    }

    /// A socket that is bound to a port of the kernel's choice.
    pub fn bound(&self) -> Result<(Sock, u32)> {
        let sock = self.socket()?;
        sock.bind(&self.net.any()).context("bind")?;
        let port = self.net.port_of(&sock.name().context("getsockname")?)?;
        Ok((sock, port))
    }

    /// Listens, and tells the other side where.
    pub fn serve(&self, backlog: i32) -> Result<Sock> {
        let (sock, port) = self.bound()?;
        sock.listen(backlog).context("listen")?;
        self.tell_value("port", port)?;
        Ok(sock)
    }

    /// Waits for the other side's port; its name.
    pub fn server_name(&self) -> Result<Vec<u8>> {
        let port = self.wait_value("port")?.parse().context("port")?;
        Ok(self.net.remote(port))
    }

    /// Connects to the port that the other side tells.
    pub fn dial(&self) -> Result<Sock> {
        let name = self.server_name()?;
        self.dial_name(&name)
    }

    /// Connects to `name`.
    pub fn dial_name(&self, name: &[u8]) -> Result<Sock> {
        let sock = self.socket()?;
        sock.connect(name).context("connect")?;
        Ok(sock)
    }

    /// Listens and takes the one connection that comes.
    pub fn accept_one(&self) -> Result<Sock> {
        let listener = self.serve(1)?;
        listener.accept().context("accept")
    }

    /// Content that both sides know, different for each case and `index`.
    pub fn pattern(&self, index: u64) -> Pattern {
        Pattern((u64::from(self.case) << 32) + index)
    }
}

/// Fails unless an expression matches a pattern.
#[macro_export]
macro_rules! want {
    ($got:expr, $want:pat $(if $guard:expr)?) => {
        match $got {
            $want $(if $guard)? => {}
            other => anyhow::bail!(
                "line {}: {} gives {:?}, not {}",
                line!(),
                stringify!($got),
                other,
                stringify!($want $(if $guard)?)
            ),
        }
    };
}

/// Fails unless two values are the same.
#[macro_export]
macro_rules! same {
    ($got:expr, $want:expr) => {{
        let (got, want) = (&$got, &$want);
        anyhow::ensure!(
            got == want,
            "line {}: {} is {:?}, not {:?}",
            line!(),
            stringify!($got),
            got,
            want
        );
    }};
}
