// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lab's agent: runs in a guest and executes the commands that arrive on its virtio-serial port.

mod port;
mod session;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use lab_agent::{parse_credit, Exec, Exit, Frame, Hello, Item, Kind};

use port::Port;
use session::Session;

fn main() -> Result<()> {
    let (mut input, port) = Port::open()?;
    let port = Arc::new(port);
    let hello = Hello {
        boot_id: read_line("/proc/sys/kernel/random/boot_id")?,
        kernel: read_line("/proc/sys/kernel/osrelease")?,
    };
    let mut nonce = lab_agent::find_sync(&mut input)?;
    loop {
        port.answer_sync(&nonce)?;
        port.send_json(Kind::Hello, 0, &hello);
        let mut sessions = HashMap::new();
        nonce = loop {
            match lab_agent::read_item(&mut input) {
                Ok(Item::Frame(frame)) => handle(&port, &mut sessions, frame),
                Ok(Item::Sync(nonce)) => break nonce,
                Err(error) => {
                    eprintln!("lab-agent: {error}; waiting for the lab to start anew");
                    break lab_agent::find_sync(&mut input)?;
                }
            }
        };
        // The lab that started these is gone.
        for session in sessions.into_values() {
            session.abandon();
        }
    }
}

fn handle(port: &Arc<Port>, sessions: &mut HashMap<u32, Arc<Session>>, frame: Frame) {
    sessions.retain(|_, session| !session.is_over());
    let Frame {
        kind,
        session: id,
        payload,
    } = frame;
    if kind == Kind::Exec {
        let started = serde_json::from_slice::<Exec>(&payload)
            .context("the request is not valid JSON")
            .and_then(|exec| Session::start(port, id, &exec));
        match started {
            Ok(session) => {
                sessions.insert(id, session);
            }
            Err(error) => port.send_json(Kind::Exit, id, &Exit::NotStarted(format!("{error:#}"))),
        }
        return;
    }
    // A session that has just ended may still be addressed.
    let Some(session) = sessions.get(&id) else {
        return;
    };
    match kind {
        Kind::Stdin => session.stdin(payload),
        Kind::StdinEof => session.stdin_eof(),
        Kind::Credit => {
            if let Some((stream, bytes)) = parse_credit(&payload) {
                session.credit(stream, bytes);
            }
        }
        Kind::Signal => {
            if let Ok(number) = payload.try_into() {
                session.signal(i32::from_le_bytes(number));
            }
        }
        Kind::Abandon => session.abandon(),
        Kind::Exec | Kind::Hello | Kind::Stdout | Kind::Stderr | Kind::Exit => {}
    }
}

fn read_line(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path)
        .with_context(|| format!("cannot read {path}"))?
        .trim()
        .to_owned())
}
