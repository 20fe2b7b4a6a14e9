// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A daemon that really runs, and guests that talk to it as QEMU and a virtio driver do.
#![allow(dead_code, missing_docs)]

pub mod driver;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Daemon {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
    child: Child,
    log: Log,
}

/// What a daemon has logged.
type Log = Arc<Mutex<Vec<String>>>;

/// Two guests in one group, with `more` lines for the group.
pub fn two_guests(more: &str) -> String {
    format!(
        r#"
[[group]]
name = "g"
spare = "32M"
{more}
[[guest]]
name = "a"
id = "6e0f7a44-0b6c-4a5e-9a57-000000000001"
  [[guest.device]]
  group = "g"
  slot_size = "16M"
  addresses = ["10.77.0.1", "fd77::1"]
[[guest]]
name = "b"
id = "6e0f7a44-0b6c-4a5e-9a57-000000000002"
  [[guest.device]]
  group = "g"
  slot_size = "16M"
  addresses = ["10.77.0.2"]
"#
    )
}

impl Daemon {
    pub fn start(config: &str) -> Self {
        Self::start_by(config, &[])
    }

    /// Started by another program, which gets the command line.
    pub fn start_by(config: &str, program: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fgdpd.toml");
        let text = format!("run_dir = {:?}\n{config}", dir.path());
        std::fs::write(&path, text).unwrap();
        let log = Log::default();
        let child = Self::run(&path, program, &log);
        Self {
            dir,
            config: path,
            child,
            log,
        }
    }

    /// Another daemon with the same configuration.
    pub fn restart(&mut self) {
        self.wait();
        self.child = Self::run(&self.config, &[], &self.log);
    }

    fn run(path: &Path, program: &[&str], log: &Log) -> Child {
        let mut words = program.iter().copied().chain([env!("CARGO_BIN_EXE_fgdpd")]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .arg("--config")
            .arg(path)
            .env(
                "RUST_LOG",
                std::env::var("FGDPD_TEST_LOG").unwrap_or_else(|_| "info".into()),
            )
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Ready when the log says so; the rest of it is passed on.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            eprintln!("{line}");
            log.lock().unwrap().push(line.clone());
            if line.contains("worker runs") {
                break;
            }
        }
        let log = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
                log.lock().unwrap().push(line);
            }
        });
        child
    }

    /// How many lines of the log have `text`.
    pub fn logged(&self, text: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).count()
    }

    /// Processor time that the supervisor has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|n| n.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// One command on the control socket.
    pub fn ask(&self, command: &Value) -> Value {
        ask(&self.path("control.sock"), command)
    }

    pub fn status(&self) -> Value {
        self.ask(&serde_json::json!({"command": "status"}))
    }

    pub fn worker(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.status()["worker"].as_i64().unwrap()).unwrap())
    }

    /// The entry of a guest in `peers` or `stats`.
    pub fn member(&self, what: &str, guest: &str) -> Value {
        let all = self.ask(&serde_json::json!({"command": what}));
        all["members"]
            .as_array()
            .unwrap()
            .iter()
            .find(|m| m["guest"] == guest)
            .unwrap()
            .clone()
    }

    /// kill -9 of the worker; returns at once.
    pub fn kill_worker(&self) {
        kill(self.worker(), Signal::SIGKILL).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the daemon's end.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        until("the daemon to end", || self.child.try_wait().unwrap())
    }

    pub fn set_config(&self, config: &str) {
        let text = format!("run_dir = {:?}\n{config}", self.dir.path());
        std::fs::write(&self.config, text).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
            self.wait();
        }
    }
}

/// A worker that is just being killed does not answer: asked again until one does.
pub fn ask(socket: &Path, command: &Value) -> Value {
    until("an answer on the control socket", || {
        let mut stream = UnixStream::connect(socket).ok()?;
        writeln!(stream, "{command}").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    })
}

/// Polls a condition that has no event of its own.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
