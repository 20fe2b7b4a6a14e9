// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's machine protocol: commands and events.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to one QEMU.
pub struct Qmp {
    inner: Mutex<Inner>,
}

struct Inner {
    stream: UnixStream,
    answers: Receiver<Value>,
}

impl Qmp {
    /// Connects and negotiates; `on_event` is called for each event with its name and data.
    pub fn connect(path: &Path, on_event: impl Fn(&str, &Value) + Send + 'static) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        let reader = BufReader::new(stream.try_clone()?);
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in reader.lines() {
                let Ok(line) = line else { return };
                let Ok(message) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if let Some(event) = message.get("event").and_then(Value::as_str) {
                    on_event(event, message.get("data").unwrap_or(&Value::Null));
                } else if message.get("QMP").is_none() && sender.send(message).is_err() {
                    return;
                }
            }
        });
        let qmp = Self {
            inner: Mutex::new(Inner { stream, answers }),
        };
        qmp.command("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments.
    pub fn command(&self, name: &str) -> Result<Value> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = json!({ "execute": name }).to_string();
        line.push('\n');
        inner
            .stream
            .write_all(line.as_bytes())
            .with_context(|| format!("QEMU does not take {name}"))?;
        let answer = inner
            .answers
            .recv_timeout(ANSWER_TIMEOUT)
            .with_context(|| format!("QEMU does not answer {name}"))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("QEMU refuses {name}: {answer}"),
        }
    }
}
