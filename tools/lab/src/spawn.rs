// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting child processes that cannot outlive the daemon.

use std::ffi::OsStr;
use std::process::{Child, Command};
use std::sync::mpsc::{channel, Receiver, Sender};

use anyhow::{Context, Result};

/// Starts children on the main thread: the kernel ties the signal they get at their parent's death to the thread that
/// started them.
#[derive(Clone)]
pub struct Spawner(Sender<Job>);

/// Sender's end is in the threads, this one in the main thread.
pub struct SpawnLoop(Receiver<Job>);

enum Job {
    Spawn(Command, Sender<std::io::Result<Child>>),
    Stop,
}

pub fn spawner() -> (Spawner, SpawnLoop) {
    let (sender, receiver) = channel();
    (Spawner(sender), SpawnLoop(receiver))
}

impl Spawner {
    pub fn spawn(&self, command: Command) -> Result<Child> {
        let program = format!(
            "{:?}",
            command.get_args().nth(3).unwrap_or(command.get_program())
        );
        let (sender, receiver) = channel();
        self.0
            .send(Job::Spawn(command, sender))
            .context("the lab is stopping")?;
        receiver
            .recv()
            .context("the lab is stopping")?
            .with_context(|| format!("cannot start {program}"))
    }

    /// Ends the main thread's loop, and with it the daemon.
    pub fn stop(&self) {
        // Fails when it has stopped already.
        let _ = self.0.send(Job::Stop);
    }
}

impl SpawnLoop {
    pub fn run(self) {
        for job in self.0 {
            match job {
                Job::Spawn(mut command, reply) => {
                    // The asking thread waits for the answer.
                    let _ = reply.send(command.spawn());
                }
                Job::Stop => return,
            }
        }
    }
}

/// A command that is killed when the daemon dies.
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
