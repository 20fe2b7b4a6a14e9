// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One guest: its processes and its state.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use lab_agent::{Exec, Exit, Hello};
use serde_json::Value;

use crate::api::GuestStatus;
use crate::daemon::say;
use crate::fgdp::tail;
use crate::link::Link;
use crate::paths::Paths;
use crate::qemu::{self, Identity, Machine, Sockets};
use crate::qmp::Qmp;
use crate::spawn::Spawner;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A guest of the lab.
pub struct Guest {
    pub identity: Identity,
    machine: Arc<Machine>,
    paths: Paths,
    spawner: Spawner,
    devices: Vec<String>,
    /// Commands that make a booted guest ready.
    hooks: Vec<Vec<String>>,
    sockets: Sockets,
    /// Held while processes are started or stopped.
    life: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    running: Option<Running>,
    /// Counts starts and resets: a thread that waited for an earlier boot finds that it is over.
    boot: u64,
    since: Instant,
    kernel: Option<String>,
}

struct Running {
    pid: u32,
    link: Arc<Link>,
    qmp: Option<Arc<Qmp>>,
    servers: Vec<Child>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not running; the text says why.
    Off(String),
    Booting,
    Ready,
    /// Running, but one of the hooks failed.
    Failed(String),
}

impl Guest {
    pub fn new(
        identity: Identity,
        machine: Arc<Machine>,
        paths: &Paths,
        spawner: &Spawner,
        devices: Vec<String>,
        hooks: Vec<Vec<String>>,
    ) -> Self {
        let sockets = Sockets::new(&paths.run, &identity.name);
        let state = State {
            phase: Phase::Off("not started".to_owned()),
            running: None,
            boot: 0,
            since: Instant::now(),
            kernel: None,
        };
        Self {
            identity,
            machine,
            paths: paths.clone(),
            spawner: spawner.clone(),
            devices,
            hooks,
            sockets,
            life: Mutex::new(()),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Starts the virtual machine; returns while it boots.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let _life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().running.is_some() {
            bail!("guest {} is running", self.name());
        }
        for socket in self.sockets.all() {
            let _ = fs::remove_file(socket);
        }
        let mut servers = Vec::new();
        let result = self.start_processes(&mut servers);
        if result.is_err() {
            end(servers);
        }
        result
    }

    fn start_processes(self: &Arc<Self>, servers: &mut Vec<Child>) -> Result<()> {
        servers.push(self.spawn(
            "virtiofsd",
            qemu::share_server(&self.paths, &self.machine.options, &self.sockets.share),
        )?);
        servers.push(self.spawn(
            "virtiofsd",
            qemu::source_server(&self.paths, &self.sockets.source),
        )?);
        for (server, socket) in servers
            .iter_mut()
            .zip([&self.sockets.share, &self.sockets.source])
        {
            self.wait_for_socket("virtiofsd", server, socket)?;
        }
        let command = self
            .machine
            .qemu(&self.paths, &self.identity, &self.sockets, &self.devices);
        let mut qemu = self.spawn("qemu", command)?;
        let boot = {
            let mut state = self.lock();
            state.boot += 1;
            state.phase = Phase::Booting;
            state.since = Instant::now();
            state.boot
        };
        for socket in [&self.sockets.agent, &self.sockets.qmp] {
            if let Err(error) = self.wait_for_socket("qemu", &mut qemu, socket) {
                self.lock().phase = Phase::Off(format!("{error:#}"));
                end(vec![qemu]);
                return Err(error);
            }
        }
        let stream = UnixStream::connect(&self.sockets.agent)
            .context("cannot connect to the agent's port")?;
        let link = Arc::new(Link::new(&stream)?);
        self.lock().running = Some(Running {
            pid: qemu.id(),
            link: link.clone(),
            qmp: None,
            servers: std::mem::take(servers),
        });
        let guest = self.clone();
        thread::spawn(move || {
            let status = qemu.wait();
            let why = match status {
                Ok(status) if status.success() => "powered off".to_owned(),
                Ok(status) => format!("QEMU ended: {status}"),
                Err(error) => format!("QEMU is lost: {error}"),
            };
            guest.ended(boot, &why);
        });
        let (guest, events) = (self.clone(), link.clone());
        let qmp = Qmp::connect(&self.sockets.qmp, move |event, data| {
            guest.event(&events, event, data)
        })?;
        if let Some(running) = self.lock().running.as_mut() {
            running.qmp = Some(Arc::new(qmp));
        }
        let guest = self.clone();
        thread::spawn(move || {
            link.clone()
                .run(stream, |hello| guest.greeted(&link, hello))
        });
        Ok(())
    }

    fn spawn(&self, what: &str, mut command: Command) -> Result<Child> {
        let path = self.paths.state.join(format!("{}.{what}.log", self.name()));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.spawner.spawn(command)
    }

    fn wait_for_socket(&self, what: &str, child: &mut Child, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !listens(socket)? {
            let log = self.paths.state.join(format!("{}.{what}.log", self.name()));
            if let Some(status) = child.try_wait()? {
                bail!(
                    "guest {}: {what} ended ({status}): {}",
                    self.name(),
                    tail(&log, 5)
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "guest {}: {what} does not start: {}",
                    self.name(),
                    tail(&log, 5)
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn event(&self, link: &Link, event: &str, data: &Value) {
        match event {
            "VSERPORT_CHANGE" => {
                if data.get("open").and_then(Value::as_bool) == Some(true) {
                    if let Err(error) = link.synchronize() {
                        eprintln!("guest {}: {error:#}", self.name());
                    }
                } else {
                    link.down("the guest closed its agent's port");
                }
            }
            "RESET" => {
                link.down("the guest was rebooted");
                let mut state = self.lock();
                state.boot += 1;
                state.phase = Phase::Booting;
                state.since = Instant::now();
                self.changed.notify_all();
            }
            _ => {}
        }
    }

    fn greeted(self: &Arc<Self>, link: &Arc<Link>, hello: Hello) {
        let (boot, since) = {
            let mut state = self.lock();
            state.kernel = Some(hello.kernel);
            (state.boot, state.since)
        };
        let (guest, link) = (self.clone(), link.clone());
        thread::spawn(move || {
            let result = guest.run_hooks(&link);
            let mut state = guest.lock();
            if state.boot != boot {
                return;
            }
            match result {
                Ok(()) => {
                    say(&format!(
                        "guest {}: ready after {:.1} s",
                        guest.name(),
                        since.elapsed().as_secs_f64()
                    ));
                    state.phase = Phase::Ready;
                }
                Err(error) => state.phase = Phase::Failed(format!("{error:#}")),
            }
            guest.changed.notify_all();
        });
    }

    fn run_hooks(&self, link: &Link) -> Result<()> {
        for hook in &self.hooks {
            let exec = Exec {
                argv: hook.clone(),
                env: Vec::new(),
                cwd: String::new(),
            };
            let (exit, output) = link.output(&exec)?;
            if exit != Exit::Code(0) {
                bail!(
                    "guest {}: '{}' failed ({exit:?}): {}",
                    self.name(),
                    hook.join(" "),
                    output.trim()
                );
            }
        }
        Ok(())
    }

    fn ended(&self, boot: u64, why: &str) {
        let mut state = self.lock();
        // A reset counts as a boot; a start waits until the end was noted.
        if state.boot < boot {
            return;
        }
        eprintln!("guest {}: {why}", self.name());
        state.phase = Phase::Off(why.to_owned());
        state.boot += 1;
        let running = state.running.take();
        drop(state);
        if let Some(running) = running {
            running.link.down(why);
            end(running.servers);
        }
        self.changed.notify_all();
    }

    /// Waits until the guest is ready; fails when it ends or a hook fails.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let (state, result) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| state.phase == Phase::Booting)
            .unwrap_or_else(PoisonError::into_inner);
        let console = self.paths.console(self.name());
        if result.timed_out() {
            bail!(
                "guest {} is not ready after {} s; its console ends with:\n{}",
                self.name(),
                timeout.as_secs(),
                tail(&console, 10)
            );
        }
        match &state.phase {
            Phase::Ready => Ok(()),
            Phase::Failed(why) => bail!("{why}"),
            Phase::Off(why) => {
                let log = self.paths.state.join(format!("{}.qemu.log", self.name()));
                bail!("guest {} is off: {why}\n{}", self.name(), tail(&log, 5))
            }
            Phase::Booting => bail!("guest {} is booting", self.name()),
        }
    }

    /// The connection to the agent, whether or not the hooks have run.
    pub fn link(&self) -> Result<Arc<Link>> {
        let state = self.lock();
        match &state.running {
            Some(running) => Ok(running.link.clone()),
            None => match &state.phase {
                Phase::Off(why) => bail!(
                    "guest {} is off ({why}): run 'lab reboot {}' to start it",
                    self.name(),
                    self.name()
                ),
                _ => bail!("guest {} is not running", self.name()),
            },
        }
    }

    /// Kills the virtual machine and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        let _life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.lock();
        let Some(running) = &state.running else {
            return Ok(());
        };
        let pid = nix::unistd::Pid::from_raw(running.pid as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
            .context("cannot kill QEMU")?;
        let (_state, result) = self
            .changed
            .wait_timeout_while(state, START_TIMEOUT, |state| state.running.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            bail!("guest {}: QEMU (process {pid}) does not end", self.name());
        }
        Ok(())
    }

    /// Reboots the guest, or starts it when it is off; returns while it boots.
    pub fn reboot(self: &Arc<Self>, hard: bool) -> Result<()> {
        let (link, qmp, boot) = {
            let state = self.lock();
            match &state.running {
                Some(running) => (running.link.clone(), running.qmp.clone(), state.boot),
                None => {
                    drop(state);
                    return self.start();
                }
            }
        };
        if hard {
            qmp.context("QEMU has just been started")?
                .command("system_reset")?;
        } else {
            let exec = Exec {
                argv: ["busybox", "reboot", "-f"].map(str::to_owned).into(),
                env: Vec::new(),
                cwd: String::new(),
            };
            // Its end is not seen: the guest is gone before.
            let exit = link.output(&exec)?.0;
            if let Exit::Code(1..) | Exit::NotStarted(_) = exit {
                bail!(
                    "guest {} does not reboot ({exit:?}): try --hard",
                    self.name()
                );
            }
        }
        let (_state, result) = self
            .changed
            .wait_timeout_while(self.lock(), START_TIMEOUT, |state| state.boot == boot)
            .unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            bail!("guest {} does not reboot: try --hard", self.name());
        }
        Ok(())
    }

    pub fn status(&self) -> GuestStatus {
        let state = self.lock();
        GuestStatus {
            name: self.name().to_owned(),
            ready: state.phase == Phase::Ready,
            state: match &state.phase {
                Phase::Off(why) => format!("off ({why})"),
                Phase::Booting => "booting".to_owned(),
                Phase::Ready => "ready".to_owned(),
                Phase::Failed(why) => format!("failed ({why})"),
            },
            address: self.identity.ipv4(),
            pid: state.running.as_ref().map(|running| running.pid),
            kernel: state.kernel.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True once a process listens at the socket. Its file is there before: whoever connects then is refused. A look into the
/// kernel's list does not use up the one connection that virtiofsd takes. The list is of the main thread's network
/// namespace, from which all children start.
fn listens(socket: &Path) -> Result<bool> {
    /// `__SO_ACCEPTCON` in the column of flags.
    const ACCEPTS: u32 = 1 << 16;
    let list = fs::read_to_string("/proc/self/net/unix")
        .context("cannot read the kernel's list of sockets")?;
    Ok(list.lines().any(|line| {
        let mut words = line.split_whitespace();
        let flags = words
            .nth(3)
            .and_then(|word| u32::from_str_radix(word, 16).ok());
        // After the flags: type, state and inode.
        flags.is_some_and(|flags| flags & ACCEPTS != 0)
            && words.nth(3).map(Path::new) == Some(socket)
    }))
}

fn end(children: Vec<Child>) {
    for mut child in children {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_listens_only_while_somebody_has_it() {
        let path = std::env::temp_dir().join(format!("lab-listens-{}", std::process::id()));
        assert!(!listens(&path).unwrap());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(listens(&path).unwrap());
        let connected = UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        assert!(!listens(&path).unwrap());
        drop(connected);
        fs::remove_file(&path).unwrap();
    }
}
