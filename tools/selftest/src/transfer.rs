// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Long transfers for system tests: both directions at once, every byte checked.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use nix::errno::Errno;

use crate::net::Net;
use crate::pattern::{Pattern, Random};
use crate::sock::Sock;
use crate::sys;
use crate::sys::lent::{completion, Lent};
use crate::sys::memory::PAGE;
use crate::sys::window::{self, Received, Window};

const PART: usize = 256 << 10;

/// What one side does.
pub struct Transfer {
    pub net: Net,
    pub port: u32,
    /// Bytes in each direction; without end if `None`.
    pub bytes: Option<u64>,
    /// Connections at the same time.
    pub connections: u64,
    /// Seed of the sizes of what is sent at once; the largest one if `None`.
    pub writes: Option<u64>,
    /// Grant what is sent, and read what is granted in place, while the connection can.
    pub grant: bool,
    /// Succeed when the stream ends with this error instead of its last byte.
    pub until: Option<Errno>,
}

fn send_granting(sock: &Sock, bytes: &[u8]) -> nix::Result<usize> {
    loop {
        while completion(sock.as_fd()).is_ok() {}
        match sock.send_flags(bytes, libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL) {
            Err(Errno::ENOBUFS) => {
                // Until some are complete.
                sys::poll(sock.as_fd(), 0, Duration::from_secs(60))?;
            }
            result => return result,
        }
    }
}

/// Content of one direction of one connection. The two sides' directions differ.
fn content(connection: u64, by_listener: bool) -> Pattern {
    Pattern(0x7472_616e_7366_6572 + connection * 2 + u64::from(by_listener))
}

impl Transfer {
    /// Waits for the peer's connections on the port.
    pub fn listen(&self) -> Result<()> {
        let listener = self.socket()?;
        listener.bind(&self.net.local(self.port)).context("bind")?;
        listener.listen(64).context("listen")?;
        println!("listening");
        self.run(true, || listener.accept().context("accept"))
    }

    /// Connects to the peer's port.
    pub fn connect(&self) -> Result<()> {
        self.run(false, || {
            let sock = self.socket()?;
            let name = self.net.remote(self.port);
            // The peer may start a little later.
            let deadline = Instant::now() + Duration::from_secs(30);
            while let Err(e) = sock.connect(&name) {
                let soon = matches!(e, Errno::ECONNREFUSED | Errno::EHOSTUNREACH);
                ensure!(soon && Instant::now() < deadline, "connect: {e}");
                thread::sleep(Duration::from_millis(20));
            }
            Ok(sock)
        })
    }

    fn socket(&self) -> Result<Sock> {
        Sock::new(self.net.domain(), libc::SOCK_STREAM).context("socket")
    }

    fn run(&self, listens: bool, mut next: impl FnMut() -> Result<Sock>) -> Result<()> {
        let mut socks = Vec::new();
        for number in 0..self.connections {
            let sock = next()?;
            // The listener takes them in the order in which its peer made them.
            socks.push((number, sock));
        }
        println!("connected");
        let start = Instant::now();
        let moved = thread::scope(|scope| {
            let workers: Vec<_> = socks
                .iter()
                .flat_map(|(number, sock)| {
                    let out = scope.spawn(move || self.pour(sock, content(*number, listens)));
                    let into = scope.spawn(move || self.drain(sock, content(*number, !listens)));
                    [out, into]
                })
                .collect();
            let mut moved = 0;
            for worker in workers {
                moved += worker.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            anyhow::Ok(moved)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "moved {moved} bytes in {seconds:.2} s, {:.1} MB/s",
            moved as f64 / seconds / 1e6
        );
        Ok(())
    }

    /// Whether `error` is how the transfer is to end. Says when it came.
    fn is_end(&self, what: &str, error: Errno, since: Instant) -> Result<()> {
        // The other direction may have taken the error of the socket.
        let expected = Some(error) == self.until || (self.until.is_some() && error == Errno::EPIPE);
        ensure!(
            expected,
            "{what}: {error} after {:.3} s without progress",
            since.elapsed().as_secs_f64()
        );
        println!(
            "{what} {error:?} after {:.3} s without progress",
            since.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn pour(&self, sock: &Sock, content: Pattern) -> Result<u64> {
        let mut writes = self.writes.map(|seed| Random(seed ^ content.0));
        let mut at = 0;
        let mut buf = vec![0; PART];
        sock.set(libc::SO_ZEROCOPY, i32::from(self.grant))
            .context("SO_ZEROCOPY")?;
        // Without it the connection is not carried. Other memory is not to change before it is complete.
        let lent = self.grant.then(|| Lent::new(sock.as_fd(), PART / PAGE));
        let mut lent = lent.and_then(|lent| lent.ok());
        let lends = lent.is_some();
        let mut last = Instant::now();
        loop {
            let left = self.bytes.map_or(PART as u64, |bytes| bytes - at);
            if left == 0 {
                break;
            }
            // As many small ones as large ones.
            let size = writes.as_mut().map_or(PART, |random| {
                let most = 1 << random.between(0, PART.ilog2() as usize);
                random.between(1, most)
            });
            let memory = match &mut lent {
                Some(memory) => memory.bytes(),
                None => &mut buf,
            };
            let part = memory
                .get_mut(..left.min(size as u64) as usize)
                .context("part")?;
            content.fill(at, part);
            let mut sent = 0;
            while sent < part.len() {
                let result = match lends {
                    true => send_granting(sock, &part[sent..]),
                    false => sock.send(&part[sent..]),
                };
                match result {
                    Ok(n) => sent += n,
                    Err(e) => {
                        self.is_end("send", e, last)?;
                        return Ok(at + sent as u64);
                    }
                }
                last = Instant::now();
            }
            at += sent as u64;
        }
        sock.shutdown(libc::SHUT_WR).context("shutdown")?;
        Ok(at)
    }

    fn drain(&self, sock: &Sock, content: Pattern) -> Result<u64> {
        let mut at = 0;
        let mut buf = vec![0; PART];
        let window = self.grant.then(|| Window::new(sock.as_fd()).ok()).flatten();
        let mut last = Instant::now();
        loop {
            let mut most = buf.len();
            if let Some(window) = &window {
                let mut got = window::receive(sock.as_fd()).context("receive")?;
                if got == Received::default() {
                    sys::poll(sock.as_fd(), libc::POLLIN, Duration::from_secs(60))?;
                    got = window::receive(sock.as_fd()).context("receive")?;
                }
                if got.length > 0 {
                    content.check(at, window.bytes(got))?;
                    window::release(sock.as_fd(), got.offset, got.length.into())
                        .context("release")?;
                    at += u64::from(got.length);
                    last = Instant::now();
                    continue;
                }
                // What comes behind that may be granted; without any the stream may have ended.
                if got.skip > 0 {
                    most = most.min(got.skip as usize);
                }
            }
            match sock.recv(&mut buf[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    content.check(at, &buf[..n])?;
                    at += n as u64;
                    last = Instant::now();
                }
                Err(e) => {
                    self.is_end("recv", e, last)?;
                    return Ok(at);
                }
            }
        }
        match self.bytes {
            Some(bytes) => ensure!(at == bytes, "the stream ended after {at} of {bytes} bytes"),
            // After a reset one direction has the error, the other the end.
            None => ensure!(self.until.is_some(), "the stream ended after {at} bytes"),
        }
        Ok(at)
    }
}
