// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One command and its streams.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{bail, Context, Result};
use lab_agent::{credit, Exec, Exit, Kind, MAX_PAYLOAD, WINDOW};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running command. It leads its own process group, which all signals go to.
pub struct Session {
    group: Pid,
    stdin: Mutex<Option<Sender<Vec<u8>>>>,
    stdout: Window,
    stderr: Window,
    /// Readable once the command has ended.
    ended: EventFd,
    over: AtomicBool,
}

/// Bytes that a stream may still send; waiting for more ends when the session is abandoned.
struct Window {
    left: Mutex<Option<usize>>,
    more: Condvar,
}

impl Window {
    fn new() -> Self {
        Self {
            left: Mutex::new(Some(WINDOW)),
            more: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may be sent; `None` when nobody wants it any more.
    fn wait(&self) -> Option<usize> {
        let left = self
            .more
            .wait_while(self.lock(), |left| *left == Some(0))
            .unwrap_or_else(PoisonError::into_inner);
        *left
    }

    fn take(&self, bytes: usize) {
        if let Some(left) = self.lock().as_mut() {
            *left = left.saturating_sub(bytes);
        }
    }

    fn give(&self, bytes: usize) {
        if let Some(left) = self.lock().as_mut() {
            *left = left.saturating_add(bytes).min(WINDOW);
        }
        self.more.notify_all();
    }

    fn close(&self) {
        *self.lock() = None;
        self.more.notify_all();
    }
}

impl Session {
    /// Starts the command; its output and end are sent to `port` from now on.
    pub fn start(port: &Arc<crate::Port>, id: u32, exec: &Exec) -> Result<Arc<Self>> {
        let Some((program, arguments)) = exec.argv.split_first() else {
            bail!("no command given")
        };
        let cwd = if Path::new(&exec.cwd).is_dir() {
            exec.cwd.as_str()
        } else {
            "/"
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs([
                ("PATH", PATH),
                ("HOME", "/root"),
                ("USER", "root"),
                ("LANG", "C.UTF-8"),
                ("SHELL", "/bin/bash"),
            ])
            .envs(exec.env.iter().map(|(key, value)| (key, value)))
            .current_dir(cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| program.clone())?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("the command has no standard streams");
        };
        let (sender, receiver) = mpsc::channel();
        let session = Arc::new(Self {
            group: Pid::from_raw(child.id() as i32),
            stdin: Mutex::new(Some(sender)),
            stdout: Window::new(),
            stderr: Window::new(),
            ended: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            over: AtomicBool::new(false),
        });
        let pumps = [
            (Kind::Stdout, OwnedFd::from(stdout)),
            (Kind::Stderr, OwnedFd::from(stderr)),
        ]
        .map(|(kind, pipe)| {
            let (session, port) = (session.clone(), port.clone());
            thread::spawn(move || session.pump_output(&port, id, kind, pipe))
        });
        let feeder = (session.clone(), port.clone());
        thread::spawn(move || feeder.0.feed_input(&feeder.1, id, stdin.into(), &receiver));
        let (waiter, port) = (session.clone(), port.clone());
        thread::spawn(move || {
            let exit = waiter.wait(child);
            for pump in pumps {
                // A pump that panicked has nothing more to send.
                let _ = pump.join();
            }
            waiter.over.store(true, Ordering::Release);
            port.send_json(Kind::Exit, id, &exit);
        });
        Ok(session)
    }

    /// True once the command has ended and its output was sent.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub fn stdin(&self, bytes: Vec<u8>) {
        if let Some(sender) = self.stdin_lock().as_ref() {
            // Fails when the feeder is done with a command that closed its input; the bytes have no reader.
            let _ = sender.send(bytes);
        }
    }

    pub fn stdin_eof(&self) {
        *self.stdin_lock() = None;
    }

    pub fn credit(&self, stream: Kind, bytes: usize) {
        match stream {
            Kind::Stdout => self.stdout.give(bytes),
            Kind::Stderr => self.stderr.give(bytes),
            _ => {}
        }
    }

    pub fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            self.kill(signal);
        }
    }

    /// Kills the command; whatever it still writes is dropped.
    pub fn abandon(&self) {
        self.stdin_eof();
        self.stdout.close();
        self.stderr.close();
        self.kill(Signal::SIGKILL);
    }

    fn kill(&self, signal: Signal) {
        if !self.is_over() {
            // ESRCH: it has ended by itself.
            let _ = killpg(self.group, signal);
        }
    }

    fn stdin_lock(&self) -> MutexGuard<'_, Option<Sender<Vec<u8>>>> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, mut child: Child) -> Exit {
        let status = child.wait();
        // Cannot fail: the counter is written once.
        let _ = self.ended.write(1);
        match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Lost("unknown exit status".to_owned()),
            },
            Err(error) => Exit::Lost(format!("cannot wait for the command: {error}")),
        }
    }

    /// Sends what the command writes until it has ended and the pipe is empty. A process that the command left behind in
    /// the background may keep the pipe open; that does not hold up the end.
    fn pump_output(&self, port: &crate::Port, id: u32, kind: Kind, pipe: OwnedFd) {
        let window = if kind == Kind::Stdout {
            &self.stdout
        } else {
            &self.stderr
        };
        let mut pipe = File::from(pipe);
        let mut buffer = vec![0; MAX_PAYLOAD];
        while wait_for(&pipe, PollFlags::POLLIN, &self.ended) {
            let Some(room) = window.wait() else { return };
            let len = room.min(MAX_PAYLOAD);
            match pipe.read(&mut buffer[..len]) {
                Ok(0) => return,
                Ok(n) => {
                    window.take(n);
                    port.send(kind, id, &buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    eprintln!("lab-agent: cannot read a command's output: {error}");
                    return;
                }
            }
        }
    }

    /// Writes what the host sends to the command, and gives the host room for more.
    fn feed_input(&self, port: &crate::Port, id: u32, pipe: OwnedFd, input: &Receiver<Vec<u8>>) {
        let mut pipe = set_nonblocking(&pipe).is_ok().then(|| File::from(pipe));
        for bytes in input {
            let mut rest = &bytes[..];
            while let (Some(file), false) = (pipe.as_mut(), rest.is_empty()) {
                if !wait_for(&*file, PollFlags::POLLOUT, &self.ended) {
                    pipe = None;
                    break;
                }
                match file.write(rest) {
                    Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::Interrupted | ErrorKind::WouldBlock
                        ) => {}
                    // The command does not read any more: as on a local pipe, the rest is lost.
                    Err(_) => pipe = None,
                }
            }
            port.send(Kind::Credit, id, &credit(Kind::Stdin, bytes.len()));
        }
    }
}

/// Waits until `file` is ready, or the command has ended: false if it ended and `file` is still not ready.
fn wait_for(file: &impl AsFd, flags: PollFlags, ended: &EventFd) -> bool {
    loop {
        let mut fds = [
            PollFd::new(file.as_fd(), flags),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => {
                eprintln!("lab-agent: poll: {error}");
                return false;
            }
        }
        let [file_ready, is_ended] = fds.map(|fd| fd.any() == Some(true));
        if file_ready {
            return true;
        }
        if is_ended {
            return false;
        }
    }
}

fn set_nonblocking(pipe: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
