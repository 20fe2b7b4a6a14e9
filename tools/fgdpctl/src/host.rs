// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On the host: what fgdpd answers on its control socket, one JSON object per line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use serde::de::DeserializeOwned;
use serde_json::{json, Value};

use crate::model::{Look, Member};
use crate::What;

/// Where fgdpd listens unless it is configured otherwise.
pub const SOCKET: &str = "/run/fgdp/control.sock";

/// How long fgdpd may take: a worker that is being replaced is back in less.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer taken.
const MAX_ANSWER: u64 = 64 << 20;

/// fgdpd.
#[derive(Debug)]
pub struct Host {
    socket: PathBuf,
}

fn field<T: DeserializeOwned>(mut answer: Value, name: &str) -> Result<T> {
    let value = answer.get_mut(name).map(Value::take);
    let value = value.ok_or_else(|| anyhow!("the answer has no `{name}`"))?;
    Ok(serde_json::from_value(value)?)
}

impl Host {
    /// The fgdpd that listens at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn connect(&self) -> Result<UnixStream> {
        let path = self.socket.display();
        UnixStream::connect(&self.socket).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => anyhow!(
                "{path} is missing: start fgdpd, or give its socket with --socket (control.sock in its run_dir)"
            ),
            io::ErrorKind::ConnectionRefused => {
                anyhow!("{path}: nobody listens: start fgdpd (`systemctl start fgdpd`)")
            }
            io::ErrorKind::PermissionDenied => {
                anyhow!("{path}: permission denied: be root or in the group that owns the socket")
            }
            _ => anyhow!("{path}: {e}"),
        })
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = self.connect()?;
        let exchange = || -> Result<Value> {
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
            if !line.ends_with('\n') {
                bail!("the answer ends in the middle");
            }
            Ok(serde_json::from_str(&line)?)
        };
        let answer = exchange().map_err(|e| match e.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::WouldBlock => {
                anyhow!("no answer within {} s: see fgdpd's log", TIMEOUT.as_secs())
            }
            _ => e,
        });
        let answer = answer.with_context(|| self.socket.display().to_string())?;
        match answer.get("error") {
            Some(error) => bail!("fgdpd: {}", error.as_str().unwrap_or("refused")),
            None => Ok(answer),
        }
    }

    fn get<T: DeserializeOwned>(&self, command: &str, name: Option<&str>) -> Result<T> {
        let answer = self.ask(&json!({ "command": command }))?;
        match name {
            Some(name) => field(answer, name),
            None => serde_json::from_value(answer).map_err(Into::into),
        }
        .with_context(|| format!("fgdpd's answer to `{command}`: is it of fgdpctl's version?"))
    }

    /// Asks for `what`.
    ///
    /// # Errors
    ///
    /// When fgdpd does not answer, and for connections: these are between guests.
    pub fn look(&self, what: What) -> Result<Look> {
        Ok(match what {
            What::Status => Look::Host(self.get("status", None)?),
            What::Peers => Look::Members(self.get::<Vec<Member>>("peers", Some("members"))?),
            What::Stats => Look::MemberStats(self.get("stats", Some("members"))?),
            What::Connections => bail!(
                "connections do not pass through the host: run `fgdpctl connections` in a guest \
                 (here, `peers` shows the channels and `grants` the memory behind them)"
            ),
        })
    }

    /// Frames that members lent.
    ///
    /// # Errors
    ///
    /// When fgdpd does not answer.
    pub fn grants(&self) -> Result<Look> {
        Ok(Look::Grants(self.get("grants", Some("grants"))?))
    }

    /// Cuts the QEMU of `guest` off its devices, or off that in `group`.
    ///
    /// # Errors
    ///
    /// When fgdpd does not answer, or there is no such guest.
    pub fn kick(&self, guest: &str, group: Option<&str>) -> Result<Look> {
        let mut request = json!({ "command": "kick", "guest": guest });
        if let (Some(group), Some(request)) = (group, request.as_object_mut()) {
            request.insert("group".to_owned(), group.into());
        }
        Ok(Look::Kicked(field(self.ask(&request)?, "kicked")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    /// Answers one request with a captured line; returns the request.
    fn daemon(answer: &'static str) -> (tempfile::TempDir, Host, JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            line
        });
        (dir, Host::new(path), thread)
    }

    #[test]
    fn the_daemon_at_a_glance() {
        let (_dir, host, thread) = daemon(include_str!("../tests/data/host/status.json"));
        let Look::Host(status) = host.look(What::Status).unwrap() else {
            panic!("not a host's status");
        };
        assert_eq!(status.groups.len(), 1);
        assert_eq!(status.attached, 2);
        assert_eq!(thread.join().unwrap(), "{\"command\":\"status\"}\n");
    }

    #[test]
    fn members_of_the_groups() {
        let (_dir, host, _) = daemon(include_str!("../tests/data/host/peers.json"));
        let Look::Members(members) = host.look(What::Peers).unwrap() else {
            panic!("not members");
        };
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].channels, [members[1].slot]);
        assert_eq!(members[0].state, "ready");
    }

    #[test]
    fn counters_of_the_members() {
        let (_dir, host, _) = daemon(include_str!("../tests/data/host/stats.json"));
        let Look::MemberStats(members) = host.look(What::Stats).unwrap() else {
            panic!("not counters");
        };
        assert_eq!(members.len(), 2);
        assert!(members[0].counters["calls"].as_u64().unwrap() > 0);
    }

    #[test]
    fn frames_that_are_lent() {
        let (_dir, host, _) = daemon(include_str!("../tests/data/host/grants.json"));
        let Look::Grants(grants) = host.grants().unwrap() else {
            panic!("not grants");
        };
        assert!(!grants.is_empty() && grants.iter().all(|g| g.frames > 0));
    }

    #[test]
    fn a_refusal_is_the_daemons_own_words() {
        let (_dir, host, thread) = daemon("{\"error\":\"no attached guest `x`\"}\n");
        let error = host.kick("x", Some("g")).unwrap_err().to_string();
        assert_eq!(error, "fgdpd: no attached guest `x`");
        let request: Value = serde_json::from_str(&thread.join().unwrap()).unwrap();
        assert_eq!(request["group"], "g");
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        let (_dir, host, _) = daemon("{\"groups\":[");
        let error = format!("{:#}", host.look(What::Status).unwrap_err());
        assert!(error.contains("ends in the middle"), "{error}");
    }

    #[test]
    fn connections_are_the_guests_business() {
        let host = Host::new("/nonexistent".into());
        let error = host.look(What::Connections).unwrap_err().to_string();
        assert!(error.contains("in a guest"), "{error}");
    }

    #[test]
    fn a_missing_daemon_is_named_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let host = Host::new(path.clone());
        let error = host.look(What::Peers).unwrap_err().to_string();
        assert!(error.contains("start fgdpd"), "{error}");
        // A socket that its owner left behind.
        drop(UnixListener::bind(&path).unwrap());
        let error = host.look(What::Peers).unwrap_err().to_string();
        assert!(error.contains("nobody listens"), "{error}");
    }
}
