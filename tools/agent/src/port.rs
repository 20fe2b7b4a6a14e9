// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-serial port.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use lab_agent::{Kind, NONCE_LEN, PORT_NAME, SYNC};
use serde::Serialize;

/// The port's sending side, shared by all sessions.
pub struct Port {
    out: Mutex<File>,
}

/// The port's receiving side.
pub struct PortReader {
    file: File,
}

impl Port {
    /// Finds the port by its name and opens it.
    pub fn open() -> Result<(PortReader, Self)> {
        let path = find()?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let reader = PortReader {
            file: file.try_clone()?,
        };
        Ok((
            reader,
            Self {
                out: Mutex::new(file),
            },
        ))
    }

    pub fn answer_sync(&self, nonce: &[u8; NONCE_LEN]) -> io::Result<()> {
        let mut message = SYNC.to_vec();
        message.extend_from_slice(nonce);
        self.lock().write_all(&message)
    }

    /// Sends one frame. A failure means that the host is gone; it will synchronize when it is back.
    pub fn send(&self, kind: Kind, session: u32, payload: &[u8]) {
        if let Err(error) = lab_agent::write_frame(&mut *self.lock(), kind, session, payload) {
            eprintln!("lab-agent: cannot send: {error}");
        }
    }

    pub fn send_json(&self, kind: Kind, session: u32, value: &impl Serialize) {
        if let Err(error) = lab_agent::write_json(&mut *self.lock(), kind, session, value) {
            eprintln!("lab-agent: cannot send: {error}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, File> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for PortReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer)? {
                // The host's side is not connected. The driver has no event for its return that poll() would wait for.
                0 => thread::sleep(Duration::from_millis(50)),
                n => return Ok(n),
            }
        }
    }
}

fn find() -> Result<PathBuf> {
    let class = "/sys/class/virtio-ports";
    for entry in fs::read_dir(class)
        .with_context(|| format!("cannot read {class}: no virtio-serial device?"))?
    {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    bail!("no virtio-serial port is named {PORT_NAME}")
}
