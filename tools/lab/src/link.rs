// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to a guest's agent, shared by all sessions with that guest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{bail, Context, Result};
use lab_agent::{Exec, Exit, Frame, Hello, Item, Kind, NONCE_LEN, SYNC};
use serde::Serialize;

/// One end of a guest's virtio-serial port. Outlives the guest's reboots, not its QEMU.
pub struct Link {
    state: Mutex<State>,
    out: Mutex<UnixStream>,
}

struct State {
    /// Set from the time a synchronization is sent until its answer is found.
    expected: Option<[u8; NONCE_LEN]>,
    up: bool,
    next: u32,
    sessions: HashMap<u32, Sender<Frame>>,
}

/// A command in a guest.
pub struct Session<'a> {
    link: &'a Link,
    id: u32,
}

impl Link {
    pub fn new(stream: &UnixStream) -> io::Result<Self> {
        let state = State {
            expected: None,
            up: false,
            next: 1,
            sessions: HashMap::new(),
        };
        Ok(Self {
            state: Mutex::new(state),
            out: Mutex::new(stream.try_clone()?),
        })
    }

    /// Starts anew with an agent that has just opened the port: sessions with the one before it are lost.
    pub fn synchronize(&self) -> Result<()> {
        let mut nonce = [0; NONCE_LEN];
        File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        self.down("the guest or its agent was restarted");
        self.lock().expected = Some(nonce);
        let mut message = SYNC.to_vec();
        message.extend_from_slice(&nonce);
        self.out()
            .write_all(&message)
            .context("cannot write to the agent's port")
    }

    /// Ends all sessions; new ones are refused until the next greeting.
    pub fn down(&self, why: &str) {
        let mut state = self.lock();
        state.up = false;
        for (id, session) in state.sessions.drain() {
            let payload = serde_json::to_vec(&Exit::Lost(why.to_owned())).unwrap_or_default();
            // Fails when the client has left.
            let _ = session.send(Frame {
                kind: Kind::Exit,
                session: id,
                payload,
            });
        }
    }

    /// Reads until the port's socket closes; calls `on_hello` for each greeting.
    pub fn run(&self, mut stream: UnixStream, on_hello: impl Fn(Hello)) {
        let mut buffer = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            self.consume(&mut buffer, &on_hello);
        }
    }

    fn consume(&self, buffer: &mut Vec<u8>, on_hello: &impl Fn(Hello)) {
        loop {
            let mut state = self.lock();
            if let Some(nonce) = state.expected {
                let mark = [&SYNC[..], &nonce].concat();
                match buffer.windows(mark.len()).position(|window| window == mark) {
                    Some(at) => {
                        buffer.drain(..at + mark.len());
                        state.expected = None;
                    }
                    None => {
                        let keep = buffer.len().min(mark.len() - 1);
                        buffer.drain(..buffer.len() - keep);
                        return;
                    }
                }
            }
            drop(state);
            let mut rest = &buffer[..];
            let item = match lab_agent::read_item(&mut rest) {
                Ok(item) => item,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => {
                    eprintln!("the agent's stream is damaged: {error}");
                    buffer.clear();
                    if let Err(error) = self.synchronize() {
                        eprintln!("{error:#}");
                    }
                    return;
                }
            };
            let used = buffer.len() - rest.len();
            buffer.drain(..used);
            match item {
                Item::Frame(frame) if frame.kind == Kind::Hello => {
                    match serde_json::from_slice(&frame.payload) {
                        Ok(hello) => {
                            self.lock().up = true;
                            on_hello(hello);
                        }
                        Err(error) => eprintln!("the agent's greeting is not understood: {error}"),
                    }
                }
                Item::Frame(frame) => self.deliver(frame),
                // The answer to an earlier synchronization.
                Item::Sync(_) => {}
            }
        }
    }

    fn deliver(&self, frame: Frame) {
        let mut state = self.lock();
        let session = if frame.kind == Kind::Exit {
            state.sessions.remove(&frame.session)
        } else {
            state.sessions.get(&frame.session).cloned()
        };
        if let Some(session) = session {
            // Fails when the client has left; the agent has been told.
            let _ = session.send(frame);
        }
    }

    /// Starts a command. Its frames arrive at the receiver; the last one is [`Kind::Exit`].
    pub fn exec(&self, exec: &Exec) -> Result<(Session<'_>, Receiver<Frame>)> {
        let (sender, frames) = channel();
        let id = {
            let mut state = self.lock();
            if !state.up {
                bail!("its agent does not answer");
            }
            let id = state.next;
            state.next = state.next.wrapping_add(1).max(1);
            state.sessions.insert(id, sender);
            id
        };
        let session = Session { link: self, id };
        session.send_json(Kind::Exec, exec)?;
        Ok((session, frames))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn out(&self) -> MutexGuard<'_, UnixStream> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session<'_> {
    pub fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        lab_agent::write_frame(&mut *self.link.out(), kind, self.id, payload)
    }

    fn send_json(&self, kind: Kind, value: &impl Serialize) -> Result<()> {
        lab_agent::write_json(&mut *self.link.out(), kind, self.id, value)
            .context("cannot write to the agent's port")
    }
}

impl Link {
    /// Runs a command without input and returns its output, both streams together.
    pub fn output(&self, exec: &Exec) -> Result<(Exit, String)> {
        let (session, frames) = self.exec(exec)?;
        let mut text = Vec::new();
        session.send(Kind::StdinEof, &[])?;
        for frame in &frames {
            match frame.kind {
                Kind::Stdout | Kind::Stderr => {
                    text.extend_from_slice(&frame.payload);
                    session.send(
                        Kind::Credit,
                        &lab_agent::credit(frame.kind, frame.payload.len()),
                    )?;
                }
                Kind::Exit => {
                    return Ok((
                        serde_json::from_slice(&frame.payload)?,
                        String::from_utf8_lossy(&text).into_owned(),
                    ))
                }
                _ => {}
            }
        }
        bail!("the guest is gone")
    }
}

impl Session<'_> {
    /// Ends the session, unless the command has ended: it is killed, and `frames` closes.
    pub fn abandon(&self) {
        let unfinished = self.link.lock().sessions.remove(&self.id).is_some();
        if unfinished {
            // Fails when the guest is gone, and the command with it.
            let _ = self.send(Kind::Abandon, &[]);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.abandon();
    }
}
