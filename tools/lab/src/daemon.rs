// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process behind `lab up`: it owns all others and serves the command line.

use std::env;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use lab_agent::{Item, Kind};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::accel::Accel;
use crate::api::{self, Reply, Request, Status};
use crate::boot;
use crate::fgdp::Fgdpd;
use crate::guest::Guest;
use crate::net::Network;
use crate::options::{Kernel, UpOptions};
use crate::paths::Paths;
use crate::qemu::{Identity, Machine};
use crate::spawn::{spawner, Spawner};

/// The last line of progress when all guests are ready.
pub const READY: &str = "lab-ready";

/// Time that fgdpd has to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

struct Lab {
    paths: Paths,
    machine: Arc<Machine>,
    guests: Vec<Arc<Guest>>,
    fgdpd: Mutex<Option<Fgdpd>>,
    spawner: Spawner,
}

/// Tells the one who waits for `lab up`; he may have left.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub fn run(paths: &Paths, options: &UpOptions) -> Result<()> {
    fs::create_dir_all(&paths.state)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(paths.pid_file())?;
    let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        bail!("another lab is starting or running: run 'lab down' first");
    };
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    paths.create()?;

    let names = options.guest_names();
    let network = Network::prepare(options.net, &names)?;
    let (spawner, spawn_loop) = spawner();
    let stop = spawner.clone();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop.stop();
        }
    });
    let (paths, options, stop) = (paths.clone(), options.clone(), spawner.clone());
    let starter = thread::spawn(move || {
        let result = start(&paths, &options, network, &spawner);
        match &result {
            Ok(()) => say(READY),
            Err(error) => say(&format!("{error:#}")),
        }
        if let Err(Failure::Start(_)) = result {
            stop.stop();
        }
        // Whoever waits for `lab up` sees the end of the progress messages.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdout(&null);
        }
    });
    spawn_loop.run();
    drop(starter);
    Ok(())
}

/// Why `lab up` failed.
enum Failure {
    /// Nothing is left running.
    Start(anyhow::Error),
    /// The guests run, so that the cause can be looked at.
    Guest(anyhow::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(error) => write!(f, "{error:#}"),
            Self::Guest(error) => write!(
                f,
                "{error:#}\nthe guests are left running: 'lab exec' and 'lab log' may tell more"
            ),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Start(error.into())
    }
}

fn start(
    paths: &Paths,
    options: &UpOptions,
    network: Network,
    spawner: &Spawner,
) -> Result<(), Failure> {
    for dir in ["share/tree", "share/layer", "share/empty"] {
        fs::create_dir_all(paths.run.join(dir))?;
    }
    fs::create_dir_all(&paths.layer)?;
    network.serve(&paths.run)?;
    let accel = Accel::choose(paths, spawner)?;
    let machine = Arc::new(Machine {
        options: options.clone(),
        accel,
        kernel: match &options.image {
            Some(image) => image.clone(),
            None => boot::kernel_image(options.kernel)?,
        },
        initrd: boot::write_initrd(paths)?,
        network,
    });
    let identities: Vec<Identity> = options
        .guest_names()
        .into_iter()
        .enumerate()
        .map(|(index, name)| Identity { index, name })
        .collect();
    let fgdpd = (!options.no_fgdp)
        .then(|| Fgdpd::start(paths, options, &identities, spawner))
        .transpose()?;
    // Blocks until the guest's init has set up everything.
    let mut hooks = vec![vec!["cat".to_owned(), "/run/lab-ready".to_owned()]];
    if options.insmod() {
        let mut insmod = vec!["insmod".to_owned(), module(paths, options)?];
        insmod.extend(options.module_params.split_whitespace().map(str::to_owned));
        hooks.push(insmod);
    }
    let mut guests = Vec::new();
    for identity in identities {
        let devices = fgdpd
            .as_ref()
            .map(|fgdpd| fgdpd.qemu_args(&identity.name))
            .transpose()?
            .unwrap_or_default();
        let _ = fs::remove_file(paths.console(&identity.name));
        guests.push(Arc::new(Guest::new(
            identity,
            machine.clone(),
            paths,
            spawner,
            devices,
            hooks.clone(),
        )));
    }
    for guest in &guests {
        guest.start()?;
    }
    let lab = Arc::new(Lab {
        paths: paths.clone(),
        machine,
        guests,
        fgdpd: Mutex::new(fgdpd),
        spawner: spawner.clone(),
    });
    let listener = UnixListener::bind(paths.socket()).context("cannot make the lab's socket")?;
    let server = lab.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lab = server.clone();
            thread::spawn(move || {
                if let Err(error) = lab.serve(&stream) {
                    // Fails when the client has left.
                    let _ = api::send(&stream, &Reply::Error(format!("{error:#}")));
                }
            });
        }
    });
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    for guest in &lab.guests {
        guest
            .wait_ready(deadline.saturating_duration_since(Instant::now()))
            .map_err(Failure::Guest)?;
    }
    Ok(())
}

/// The module for the guests' kernel.
fn module(paths: &Paths, options: &UpOptions) -> Result<String> {
    if let Some(path) = &options.module {
        let full = paths.checkout.join(path);
        if !full.starts_with(&paths.checkout) || !full.exists() {
            bail!(
                "--module: {} is not a file inside {}",
                path.display(),
                paths.checkout.display()
            );
        }
        return Ok(full.display().to_string());
    }
    let variable = match options.kernel {
        Kernel::Stock | Kernel::Amd64 => "FGDP_KERNEL",
        Kernel::Debug => "FGDP_DEBUG_RELEASE",
    };
    let release =
        env::var(variable).with_context(|| format!("{variable} is not set: call tools/lab/lab"))?;
    let path = paths
        .checkout
        .join("build/module")
        .join(release)
        .join("fgdp.ko");
    if !path.exists() {
        bail!("{} is missing: run 'make modules'", path.display());
    }
    Ok(path.display().to_string())
}

impl Lab {
    fn serve(&self, stream: &UnixStream) -> Result<()> {
        let reply = match api::receive(stream)? {
            Request::Exec { guest, exec } => return self.exec(stream, &guest, &exec),
            Request::Kill { target } => {
                self.kill(&target)?;
                Reply::Done(String::new())
            }
            Request::Reboot { guest, hard } => {
                let guest = self.guest(&guest)?;
                guest.reboot(hard)?;
                guest.wait_ready(Duration::from_secs(self.machine.options.timeout))?;
                Reply::Done(String::new())
            }
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Down => {
                self.stop();
                api::send(stream, &Reply::Done(String::new()))?;
                self.spawner.stop();
                return Ok(());
            }
        };
        api::send(stream, &reply)
    }

    fn guest(&self, name: &str) -> Result<&Arc<Guest>> {
        self.guests
            .iter()
            .find(|guest| guest.name() == name)
            .with_context(|| {
                let names: Vec<&str> = self.guests.iter().map(|guest| guest.name()).collect();
                format!(
                    "there is no guest '{name}': this lab has {}",
                    names.join(", ")
                )
            })
    }

    fn exec(&self, stream: &UnixStream, name: &str, exec: &lab_agent::Exec) -> Result<()> {
        let link = self.guest(name)?.link()?;
        let (session, frames) = link.exec(exec).with_context(|| format!("guest {name}"))?;
        api::send(stream, &Reply::Done(String::new()))?;
        let (mut input, mut output) = (stream.try_clone()?, stream.try_clone()?);
        thread::scope(|scope| {
            scope.spawn(move || {
                for frame in &frames {
                    let last = frame.kind == Kind::Exit;
                    if lab_agent::write_frame(&mut output, frame.kind, 0, &frame.payload).is_err()
                        || last
                    {
                        break;
                    }
                }
                // Ends the other direction's read as well.
                let _ = output.shutdown(std::net::Shutdown::Both);
            });
            while let Ok(Item::Frame(frame)) = lab_agent::read_item(&mut input) {
                let allowed = matches!(
                    frame.kind,
                    Kind::Stdin | Kind::StdinEof | Kind::Credit | Kind::Signal
                );
                if !allowed || session.send(frame.kind, &frame.payload).is_err() {
                    break;
                }
            }
            // The client is gone or the command has ended; in the first case its end is not awaited.
            session.abandon();
        });
        Ok(())
    }

    fn kill(&self, target: &str) -> Result<()> {
        if !target.starts_with("fgdpd") {
            return self.guest(target)?.kill();
        }
        let fgdpd = self.fgdpd.lock().unwrap_or_else(PoisonError::into_inner);
        let fgdpd = fgdpd.as_ref().context("this lab runs without fgdpd")?;
        let victims = match target {
            "fgdpd" => fgdpd.workers()?,
            "fgdpd-supervisor" => vec![fgdpd.child.id() as i32],
            _ => bail!("'{target}' cannot be killed: name a guest, fgdpd or fgdpd-supervisor"),
        };
        if victims.is_empty() {
            bail!("fgdpd has no worker to kill");
        }
        for pid in victims {
            kill(Pid::from_raw(pid), Signal::SIGKILL)
                .with_context(|| format!("cannot kill process {pid}"))?;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let fgdpd = match self
            .fgdpd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            None => "none".to_owned(),
            Some(fgdpd) => match fgdpd.child.try_wait() {
                Ok(None) => format!("running (process {})", fgdpd.child.id()),
                Ok(Some(status)) => format!("ended ({status})"),
                Err(error) => error.to_string(),
            },
        };
        Status {
            options: self.machine.options.clone(),
            accel: self.machine.accel.as_str().to_owned(),
            fgdpd,
            guests: self.guests.iter().map(|guest| guest.status()).collect(),
        }
    }

    fn stop(&self) {
        for guest in &self.guests {
            if let Err(error) = guest.kill() {
                eprintln!("{error:#}");
            }
        }
        if let Some(Fgdpd { mut child, .. }) = self
            .fgdpd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let deadline = Instant::now() + STOP_TIMEOUT;
            while let Ok(None) = child.try_wait() {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.paths.run) {
            eprintln!("cannot remove {}: {error}", self.paths.run.display());
        }
    }
}
