// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands of the command line, as seen from its side.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use lab_agent::{credit, parse_credit, Exec, Exit, Item, Kind, MAX_PAYLOAD, WINDOW};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::api::{self, Reply, Request, Status};
use crate::daemon::READY;
use crate::fgdp;
use crate::options::{Kernel, UpOptions};
use crate::paths::{short, Paths};
use crate::qemu::Sockets;

fn connect(paths: &Paths) -> Result<UnixStream> {
    UnixStream::connect(paths.socket()).context("no lab is running: start one with 'lab up'")
}

fn request(stream: &UnixStream, request: &Request) -> Result<Reply> {
    api::send(stream, request)?;
    match api::receive(stream)? {
        Reply::Error(text) => bail!("{text}"),
        reply => Ok(reply),
    }
}

pub fn simple(paths: &Paths, what: &Request) -> Result<()> {
    if let Reply::Done(text) = request(&connect(paths)?, what)? {
        if !text.is_empty() {
            println!("{text}");
        }
    }
    Ok(())
}

fn get_status(paths: &Paths) -> Result<Status> {
    match request(&connect(paths)?, &Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => bail!("unexpected answer of the lab: {other:?}"),
    }
}

pub fn up(paths: &Paths, options: &UpOptions) -> Result<()> {
    options.parse_groups()?;
    if connect(paths).is_ok() {
        let status = get_status(paths)?;
        if status.options == *options && status.guests.iter().all(|guest| guest.ready) {
            println!("the lab is up already");
            return Ok(());
        }
        bail!("another lab is running: run 'lab down' first, or set FGDP_LAB=NAME to have a second one");
    }
    build(paths, options)?;
    fs::create_dir_all(&paths.state)?;
    let log_path = paths.state.join("lab.log");
    let log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut daemon = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .arg("daemon")
        .arg(serde_json::to_string(options)?)
        .current_dir(&paths.checkout)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // A terminal's Ctrl-C is for this process only.
        .process_group(0)
        .spawn()
        .context("cannot start the lab")?;
    let output = daemon.stdout.take().context("no output of the lab")?;
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        if !last.is_empty() {
            println!("{last}");
        }
        last = line?;
    }
    if last != READY {
        bail!(
            "{last}{}\n(logs are in {})",
            fgdp::tail(&log_path, 5),
            short(&paths.state)
        );
    }
    Ok(())
}

/// Builds what the lab runs of FGDP.
fn build(paths: &Paths, options: &UpOptions) -> Result<()> {
    if options.no_fgdp || options.no_build {
        return Ok(());
    }
    if !fgdp::build_command(paths)
        .status()
        .context("cannot run cargo")?
        .success()
    {
        bail!("fgdpd was not built (see above)");
    }
    if options.insmod() && options.module.is_none() {
        let mut command = Command::new(paths.checkout.join("tools/lab/modules"));
        command
            .current_dir(&paths.checkout)
            .stdout(File::create(paths.checkout.join("build/modules.log"))?);
        match options.kernel {
            Kernel::Stock => (),
            Kernel::Amd64 => {
                command.arg("amd64");
            }
            Kernel::Debug => {
                let dir = std::env::var("FGDP_DEBUG_KBUILD")
                    .context("FGDP_DEBUG_KBUILD is not set: call tools/lab/lab")?;
                command.arg(format!("KDIR={dir}"));
            }
        }
        if !command
            .status()
            .context("cannot run tools/lab/modules")?
            .success()
        {
            bail!("the module was not built (see above, and build/modules.log)");
        }
    }
    Ok(())
}

pub fn down(paths: &Paths) -> Result<()> {
    // A lab that does not answer is killed below, and the kernel kills what it started.
    let answered = connect(paths)
        .and_then(|stream| request(&stream, &Request::Down))
        .is_ok();
    let Ok(mut file) = File::options()
        .read(true)
        .write(true)
        .open(paths.pid_file())
    else {
        return Ok(());
    };
    let file = match (
        answered,
        Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock),
    ) {
        (_, Ok(lock)) => lock,
        (answered, Err(_)) => {
            if !answered {
                let mut text = String::new();
                file.rewind()?;
                file.read_to_string(&mut text)?;
                let pid = text
                    .trim()
                    .parse()
                    .context("the lab does not answer and its process is not known")?;
                kill(Pid::from_raw(pid), Signal::SIGKILL)
                    .with_context(|| format!("cannot kill the lab's process {pid}"))?;
            }
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => lock,
                Err((_, error)) => bail!("cannot wait for the lab's end: {error}"),
            }
        }
    };
    if paths.run.exists() {
        fs::remove_dir_all(&paths.run)
            .with_context(|| format!("cannot remove {}", paths.run.display()))?;
    }
    drop(file);
    Ok(())
}

pub fn status(paths: &Paths, json: bool) -> Result<()> {
    let status = get_status(paths)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("accelerator {}, fgdpd {}", status.accel, status.fgdpd);
    for guest in &status.guests {
        let pid = guest
            .pid
            .map(|pid| format!(", process {pid}"))
            .unwrap_or_default();
        println!(
            "{}  {}  {}{pid}  {}",
            guest.name,
            guest.address,
            guest.kernel.as_deref().unwrap_or("-"),
            guest.state
        );
    }
    Ok(())
}

pub fn log(paths: &Paths, guest: &str, follow: bool) -> Result<()> {
    let path = paths.console(guest);
    let mut command = Command::new("tail");
    command.args(["-n", "+1"]);
    if follow {
        command.arg("-F");
    }
    if !path.exists() {
        bail!("guest '{guest}' has no log: no lab with such a guest was started");
    }
    Err(command.arg(path).exec()).context("cannot run tail")
}

/// Runs a command with this process's standard streams and signals.
pub fn exec(paths: &Paths, guest: &str, exec: Exec) -> Result<ExitCode> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])?;
    let remote = Remote::start(paths, guest, exec)?;
    let mut out = remote.stream.try_clone()?;
    thread::spawn(move || {
        for signal in signals.forever() {
            // Fails when the command has just ended.
            let _ = lab_agent::write_frame(&mut out, Kind::Signal, 0, &signal.to_le_bytes());
        }
    });
    let exit = remote.run(io::stdin(), &mut io::stdout(), &mut io::stderr())?;
    Ok(match exit {
        Exit::Code(code) => ExitCode::from(code as u8),
        Exit::Signal(signal) => ExitCode::from(128 + signal as u8),
        Exit::NotStarted(why) => {
            eprintln!("lab: {guest}: {why}");
            ExitCode::from(127)
        }
        Exit::Lost(why) => {
            eprintln!("lab: guest {guest}: {why}");
            ExitCode::from(255)
        }
    })
}

/// A command that runs in a guest.
struct Remote {
    stream: UnixStream,
}

/// Bytes of standard input that may still be sent.
#[derive(Default)]
struct Room {
    left: Mutex<usize>,
    more: Condvar,
}

impl Remote {
    fn start(paths: &Paths, guest: &str, exec: Exec) -> Result<Self> {
        let stream = connect(paths)?;
        request(
            &stream,
            &Request::Exec {
                guest: guest.to_owned(),
                exec,
            },
        )?;
        Ok(Self { stream })
    }

    fn run(
        self,
        stdin: impl Read + Send + 'static,
        stdout: &mut impl Write,
        stderr: &mut impl Write,
    ) -> Result<Exit> {
        let room = Arc::new(Room {
            left: Mutex::new(WINDOW),
            more: Condvar::new(),
        });
        // Not joined: it may wait for input that nobody wants any more.
        let (sender, sender_room) = (self.stream.try_clone()?, room.clone());
        thread::spawn(move || send_input(sender, stdin, &sender_room));
        let mut input = self.stream.try_clone()?;
        let mut output = self.stream;
        loop {
            let frame = match lab_agent::read_item(&mut input) {
                Ok(Item::Frame(frame)) => frame,
                Ok(Item::Sync(_)) => bail!("unexpected answer of the lab"),
                Err(_) => return Ok(Exit::Lost("the lab went down".to_owned())),
            };
            let len = frame.payload.len();
            match frame.kind {
                Kind::Stdout => stdout
                    .write_all(&frame.payload)
                    .and_then(|()| stdout.flush())
                    .context("standard output")?,
                Kind::Stderr => stderr.write_all(&frame.payload).context("standard error")?,
                Kind::Credit => {
                    if let Some((Kind::Stdin, bytes)) = parse_credit(&frame.payload) {
                        *room.left.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
                        room.more.notify_all();
                    }
                }
                Kind::Exit => return Ok(serde_json::from_slice(&frame.payload)?),
                _ => {}
            }
            if let Kind::Stdout | Kind::Stderr = frame.kind {
                // Fails when the lab has gone down, which the next read tells.
                let _ =
                    lab_agent::write_frame(&mut output, Kind::Credit, 0, &credit(frame.kind, len));
            }
        }
    }
}

fn send_input(mut stream: UnixStream, mut stdin: impl Read, room: &Room) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let left = {
            let left = room.left.lock().unwrap_or_else(PoisonError::into_inner);
            *room
                .more
                .wait_while(left, |left| *left == 0)
                .unwrap_or_else(PoisonError::into_inner)
        };
        let sent = match stdin.read(&mut buffer[..left.min(MAX_PAYLOAD)]) {
            Ok(n) if n > 0 => {
                *room.left.lock().unwrap_or_else(PoisonError::into_inner) -= n;
                lab_agent::write_frame(&mut stream, Kind::Stdin, 0, &buffer[..n])
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The end, or an input that cannot be read, which is no input.
            _ => {
                let _ = lab_agent::write_frame(&mut stream, Kind::StdinEof, 0, &[]);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Runs a shell script in a guest; its messages go to standard error, and it must succeed.
fn script(
    paths: &Paths,
    guest: &str,
    script: &str,
    argument: &str,
    stdin: impl Read + Send + 'static,
    stdout: &mut impl Write,
) -> Result<()> {
    let argv = ["sh", "-ec", script, "lab", argument]
        .map(str::to_owned)
        .into();
    let remote = Remote::start(
        paths,
        guest,
        Exec {
            argv,
            env: Vec::new(),
            cwd: String::new(),
        },
    )?;
    match remote.run(stdin, stdout, &mut io::stderr())? {
        Exit::Code(0) => Ok(()),
        other => bail!("guest {guest}: {argument}: {other:?}"),
    }
}

pub fn push(paths: &Paths, guest: &str, source: &Path, target: &str) -> Result<()> {
    let meta = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
    if meta.is_dir() {
        return push_dir(paths, guest, source, target, None);
    }
    let name = source
        .file_name()
        .context("the source has no name")?
        .to_string_lossy();
    let mode = meta.permissions().mode() & 0o7777;
    let text = format!(
        "t=$1; if [ -d \"$t\" ]; then t=$t/'{}'; fi; cat >\"$t.lab-part\"; chmod {mode:o} \"$t.lab-part\"; mv -f \"$t.lab-part\" \"$t\"",
        name.replace('\'', "'\\''")
    );
    let file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
    script(paths, guest, &text, target, file, &mut io::sink())
}

/// Copies a directory into a guest, of its files only those that are newer than `since`.
fn push_dir(
    paths: &Paths,
    guest: &str,
    source: &Path,
    target: &str,
    since: Option<&Path>,
) -> Result<()> {
    let mut tar = Command::new("tar");
    if let Some(since) = since {
        // Given with a slash in it, it is a file's name to tar.
        tar.arg(format!("--newer={}", since.display()));
    }
    let mut tar = tar
        .arg("-C")
        .arg(source)
        .args(["-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = tar.stdout.take().context("no output of tar")?;
    script(
        paths,
        guest,
        "mkdir -p \"$1\"; tar -C \"$1\" -xf -",
        target,
        archive,
        &mut io::sink(),
    )?;
    if !tar.wait()?.success() {
        bail!("{} was not read completely", source.display());
    }
    Ok(())
}

pub fn pull(paths: &Paths, guest: &str, source: &str, target: &Path) -> Result<()> {
    let mut kind = Vec::new();
    script(
        paths,
        guest,
        "if [ -d \"$1\" ]; then echo d; else stat -L -c %a -- \"$1\"; fi",
        source,
        io::empty(),
        &mut kind,
    )?;
    let kind = String::from_utf8_lossy(&kind);
    if kind.trim() == "d" {
        fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(target)
            .args(["-xf", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        let mut archive = tar.stdin.take().context("no input of tar")?;
        script(
            paths,
            guest,
            "tar -C \"$1\" -cf - .",
            source,
            io::empty(),
            &mut archive,
        )?;
        drop(archive);
        if !tar.wait()?.success() {
            bail!("{} was not written completely", target.display());
        }
        return Ok(());
    }
    let path = if target.is_dir() {
        target.join(
            Path::new(source)
                .file_name()
                .context("the source has no name")?,
        )
    } else {
        target.to_owned()
    };
    let mut file =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    script(
        paths,
        guest,
        "exec cat -- \"$1\"",
        source,
        io::empty(),
        &mut file,
    )?;
    if let Ok(mode) = u32::from_str_radix(kind.trim(), 8) {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

pub fn apt(paths: &Paths, packages: &[String]) -> Result<()> {
    let now = paths.run.join("apt-now");
    if paths.run.exists() {
        File::create(&now).with_context(|| format!("cannot write {}", now.display()))?;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "bash"]);
    command
        .arg(paths.checkout.join("tools/lab/apt-layer"))
        .arg(&paths.layer)
        .args(packages);
    if !command.status().context("cannot run apt-layer")?.success() {
        bail!("the packages were not installed (see above)");
    }
    let Ok(status) = get_status(paths) else {
        return Ok(());
    };
    for guest in status.guests.iter().filter(|guest| guest.ready) {
        // What was in the layer when the guest came up, or at the last call, it has.
        let last = paths.run.join(format!("apt-{}", guest.name));
        let booted = Sockets::new(&paths.run, &guest.name).qmp;
        let since = if modified(&last) > modified(&booted) {
            &last
        } else {
            &booted
        };
        // What it remembers of files that the layer has anew leads nowhere: ESTALE.
        script(
            paths,
            &guest.name,
            "echo 2 >\"$1\"",
            "/proc/sys/vm/drop_caches",
            io::empty(),
            &mut io::sink(),
        )?;
        push_dir(paths, &guest.name, &paths.layer, "/", Some(since))?;
        let stamp = fs::metadata(&now)?.modified()?;
        File::create(&last)
            .and_then(|file| file.set_modified(stamp))
            .with_context(|| format!("cannot write {}", last.display()))?;
    }
    Ok(())
}
