// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The side that answers.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};

use crate::drain::drain;
use crate::job::{Job, Mode, JOB_BYTES};
use crate::report::{tell, Cpu, Event};
use crate::sock::Stream;
use crate::sys::{self, Name};

/// Bytes that the receiver of a stream asks for at once, at least: small writes need not be read singly.
const RECV_BYTES: usize = 64 << 10;

/// Serves one client after the other.
pub fn serve(name: &Name) -> Result<()> {
    let socket = sys::socket(name).context("socket")?;
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)
        .context("SO_REUSEADDR")?;
    sys::listen(socket.as_fd(), name).context("bind and listen")?;
    tell(&Event::Ready)?;
    let mut buf = vec![0; RECV_BYTES];
    loop {
        let stream = sys::accept(socket.as_fd()).context("accept")?.into();
        // A client that goes away or talks nonsense must not end the others' service.
        if let Err(error) = answer(stream, &mut buf) {
            eprintln!("fgdp-perf: client: {error:#}");
        }
    }
}

fn answer(mut stream: Stream, buf: &mut Vec<u8>) -> Result<()> {
    let mut bytes = [0; JOB_BYTES];
    stream.read_exact(&mut bytes)?;
    let job = Job::decode(&bytes)?;
    if job.mode == Mode::Connect {
        return Ok(stream.write_all(&[1])?);
    }
    stream.set_options(&job)?;
    let size = job.size as usize;
    if buf.len() < size {
        buf.resize(size, 0);
    }
    let start = Cpu::now()?;
    stream.write_all(&[1])?;
    if job.mode == Mode::Rr {
        let buf = &mut buf[..size];
        loop {
            match stream.read_exact(buf) {
                Ok(()) => stream.write_all(buf)?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(stream.write_all(&Cpu::since(start)?.encode())?);
    }
    let arrived = drain(&mut stream, buf, job.pages)?;
    stream.write_all(&arrived.encode())?;
    Ok(stream.write_all(&Cpu::since(start)?.encode())?)
}
