// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the cases: a child process for each side of each, results as KTAP.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::case::{Case, Ctx, Side, Skipped};
use crate::cases;
use crate::control::{Control, FAILED, OUTCOME};
use crate::net::Net;
use crate::sys;

/// How much longer than the case itself its process may live.
const GRACE: Duration = Duration::from_secs(5);

/// How a side, or a case, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

impl Outcome {
    fn encode(&self) -> String {
        match self {
            Self::Passed => "pass".into(),
            Self::Skipped(why) => format!("skip {why}"),
            Self::Failed(why) => format!("fail {why}"),
        }
    }

    fn decode(text: &str) -> Self {
        match text.split_once(' ') {
            None if text == "pass" => Self::Passed,
            Some(("skip", why)) => Self::Skipped(why.into()),
            Some(("fail", why)) => Self::Failed(why.into()),
            _ => Self::Failed(format!("ended with '{text}'")),
        }
    }

    fn with_peer(self, peer: Self) -> Self {
        match (self, peer) {
            (Self::Failed(a), Self::Failed(b)) => Self::Failed(format!("client: {a}; server: {b}")),
            (Self::Failed(a), _) => Self::Failed(format!("client: {a}")),
            (_, Self::Failed(b)) => Self::Failed(format!("server: {b}")),
            (Self::Skipped(a), _) | (_, Self::Skipped(a)) => Self::Skipped(a),
            (Self::Passed, Self::Passed) => Self::Passed,
        }
    }
}

fn run_side(net: Net, case: &Case, side: Side, number: u32, control: &Control) -> Outcome {
    let mut ctx = Ctx::new(net, case, number, u64::from(number) << 8, control);
    let outcome = match side(&mut ctx) {
        Ok(()) => return Outcome::Passed,
        Err(e) => match e.downcast_ref::<Skipped>() {
            Some(why) => Outcome::Skipped(why.0.clone()),
            None => Outcome::Failed(format!("{e:#}")),
        },
    };
    // The other side need not wait for what will not come. If it is gone, it does not.
    if let Err(e) = control.send(number, FAILED, "") {
        return Outcome::Failed(format!("{outcome:?}, and then: {e:#}"));
    }
    outcome
}

/// Runs one side in a child process, which signals, limits and leaks end with.
fn run_in_child(
    net: Net,
    case: &Case,
    side: Side,
    number: u32,
    control: &Control,
) -> Result<Outcome> {
    let (ours, theirs) = sys::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC)?;
    std::io::stdout().flush()?;
    let child = sys::fork(|| {
        let outcome = run_side(net, case, side, number, control).encode();
        let text = outcome.as_bytes();
        let text = text.get(..text.len().min(2000)).unwrap_or(text);
        i32::from(sys::send(theirs.as_fd(), text, libc::MSG_NOSIGNAL).is_err())
    })?;
    drop(theirs);
    let deadline = Instant::now() + Duration::from_secs(case.seconds) + GRACE;
    let left = PollTimeout::try_from(deadline - Instant::now()).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    let ready = nix::poll::poll(&mut fds, left)?;
    let mut text = [0; 2048];
    let n = if ready == 0 {
        0
    } else {
        sys::recv(ours.as_fd(), &mut text, 0)?
    };
    if n == 0 {
        let why = end_child(child, ready == 0)?;
        control.send(number, FAILED, "")?;
        return Ok(Outcome::Failed(why));
    }
    end_child(child, false)?;
    Ok(Outcome::decode(&String::from_utf8_lossy(&text[..n])))
}

fn end_child(child: Pid, stuck: bool) -> Result<String> {
    if stuck {
        kill(child, Signal::SIGKILL)?;
    }
    let deadline = Instant::now() + GRACE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            _ if stuck => return Ok("did not end in time and was killed".into()),
            status => return Ok(format!("ended with {status:?}")),
        }
        if Instant::now() > deadline {
            // Asleep in the kernel, deaf to signals; or it does not end closing its sockets.
            kill(child, Signal::SIGKILL)?;
            return Ok(format!("process {child} does not end"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The cases that `filter` names and `net` can run.
pub fn selected(net: Option<Net>, filter: &[String]) -> Vec<Case> {
    cases::all()
        .into_iter()
        .filter(|case| net.is_none_or(|net| case.suits(&net)))
        .filter(|case| {
            let name = case.full_name();
            filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()))
        })
        .collect()
}

/// The client's side of a run; whether nothing failed.
pub fn client(net: Net, control: &Control, filter: &[String]) -> Result<bool> {
    let cases = selected(Some(net), filter);
    println!("KTAP version 1\n1..{}", cases.len());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (number, case) in (1u32..).zip(&cases) {
        let name = case.full_name();
        control.send(number, "case", &name)?;
        let start = Instant::now();
        let own = run_in_child(net, case, case.client, number, control)?;
        let peer = peer_outcome(control, number, case)?;
        let outcome = own.with_peer(peer);
        let ms = start.elapsed().as_millis();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("ok {number} {name} # {ms} ms");
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("ok {number} {name} # SKIP {why}");
            }
            Outcome::Failed(why) => {
                failed += 1;
                println!("not ok {number} {name} # {ms} ms\n# {name}: {why}");
            }
        }
        std::io::stdout().flush()?;
    }
    println!("# Totals: pass:{passed} fail:{failed} xfail:0 xpass:0 skip:{skipped} error:0");
    Ok(failed == 0)
}

fn peer_outcome(control: &Control, number: u32, case: &Case) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(case.seconds) + 3 * GRACE;
    loop {
        let message = control
            .next(Some(deadline))?
            .context("the server is gone")?;
        if message.case == number && message.token == OUTCOME {
            return Ok(Outcome::decode(&message.value));
        }
        ensure!(message.case <= number, "the server is ahead: {message:?}");
    }
}

/// The server's side of a run: does what the client asks for until that goes away.
pub fn server(net: Net, control: &Control) -> Result<()> {
    let cases = cases::all();
    while let Some(message) = control.next(None)? {
        if message.token != "case" {
            // Left behind by a case that was cut short.
            continue;
        }
        let Some(case) = cases.iter().find(|case| case.full_name() == message.value) else {
            bail!(
                "the client asks for '{}', which is not known here",
                message.value
            );
        };
        let outcome = run_in_child(net, case, case.server, message.case, control)?;
        control.send(message.case, OUTCOME, &outcome.encode())?;
    }
    Ok(())
}
