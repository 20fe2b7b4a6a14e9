// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The side that measures.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::addr::Family;
use crate::drain::{Arrived, ARRIVED_BYTES};
use crate::job::{Job, Mode};
use crate::pages::Pages;
use crate::report::{tell, Cpu, Event, Report, Samples};
use crate::sock::Stream;
use crate::source::Source;
use crate::sys::Name;

/// The clock is read once in so many bytes of a stream.
const CLOCK_BYTES: usize = 64 << 10;

/// The part of the time that is spent before it counts.
const WARM_UP: u32 = 10;

struct Seen {
    elapsed: Duration,
    bytes: u64,
    ops: u64,
    samples: Samples,
    arrived: Option<Arrived>,
    cpu: Cpu,
    server_cpu: Option<Cpu>,
}

/// Measures `job` for `time` and prints the result.
pub fn measure(name: &Name, family: Family, job: Job, time: Duration) -> Result<()> {
    if job.pages != Pages::default() && job.mode != Mode::Stream {
        bail!("what is not copied is measured with --mode stream only");
    }
    let seen = match job.mode {
        Mode::Stream => stream(name, &job, time)?,
        Mode::Rr => round_trips(name, &job, time)?,
        Mode::Connect => connects(name, &job, time)?,
    };
    tell(&Event::Result(&Report {
        path: match family {
            Family::Tcp => "tcp",
            Family::Unix => "unix",
            Family::Fgdp => "fgdp",
        },
        mode: job.mode,
        size: job.size,
        busy_poll_usec: job.busy_poll,
        seconds: seen.elapsed.as_secs_f64(),
        bytes: seen.bytes,
        ops: seen.ops,
        latency_ns: seen.samples.latency(),
        arrived: seen.arrived,
        cpu: seen.cpu,
        server_cpu: seen.server_cpu,
    }))
}

fn open(name: &Name, job: &Job) -> Result<Stream> {
    let mut stream = Stream::connect(name)?;
    if job.mode != Mode::Connect {
        stream.set_options(job)?;
    }
    stream.write_all(&job.encode()).context("send")?;
    stream
        .read_exact(&mut [0])
        .context("the server's greeting")?;
    Ok(stream)
}

fn server_cpu(stream: &mut Stream) -> Result<Cpu> {
    let mut bytes = [0; 32];
    stream
        .read_exact(&mut bytes)
        .context("the server's report")?;
    Ok(Cpu::decode(&bytes))
}

fn stream(name: &Name, job: &Job, time: Duration) -> Result<Seen> {
    let mut stream = open(name, job)?;
    let mut source = Source::new(&stream, job.size as usize, job.pages)?;
    let batch = (CLOCK_BYTES / job.size as usize).max(1) as u64;
    let mut run = |time: Duration| -> Result<u64> {
        let start = Instant::now();
        let mut ops = 0;
        while start.elapsed() < time {
            for _ in 0..batch {
                source.send(&mut stream)?;
            }
            ops += batch;
        }
        // What is still on its way would be another's time.
        source.settle(&stream)?;
        Ok(ops)
    };
    let before = run(time / WARM_UP)?;
    let cpu = Cpu::now()?;
    tell(&Event::Start)?;
    let start = Instant::now();
    let ops = run(time)?;
    // The time counts until the last byte has arrived.
    stream.finish()?;
    let mut arrived = [0; ARRIVED_BYTES];
    stream
        .read_exact(&mut arrived)
        .context("the server's count")?;
    let elapsed = start.elapsed();
    tell(&Event::End)?;
    let bytes = ops * u64::from(job.size);
    let arrived = Arrived::decode(&arrived);
    let sent = (before + ops) * u64::from(job.size);
    if arrived.bytes != sent {
        bail!("{sent} bytes were sent, {} arrived", arrived.bytes);
    }
    let cpu = Cpu::since(cpu)?;
    let server_cpu = Some(server_cpu(&mut stream)?);
    Ok(Seen {
        elapsed,
        bytes,
        ops,
        samples: Samples::default(),
        arrived: Some(arrived),
        cpu,
        server_cpu,
    })
}

fn round_trips(name: &Name, job: &Job, time: Duration) -> Result<Seen> {
    let mut stream = open(name, job)?;
    let buf: Vec<u8> = (0..job.size).map(|i| (i % 251) as u8).collect();
    let mut back = vec![0; buf.len()];
    let mut run = |time: Duration, samples: &mut Samples| -> Result<(Duration, u64)> {
        let start = Instant::now();
        let mut last = start;
        let mut ops = 0;
        while last - start < time {
            stream.write_all(&buf).context("send")?;
            stream.read_exact(&mut back).context("receive")?;
            let now = Instant::now();
            samples.add(now - last);
            last = now;
            ops += 1;
        }
        if back != buf {
            bail!("the answer is not what was sent");
        }
        Ok((last - start, ops))
    };
    run(time / WARM_UP, &mut Samples::default())?;
    let mut samples = Samples::new();
    let cpu = Cpu::now()?;
    tell(&Event::Start)?;
    let (elapsed, ops) = run(time, &mut samples)?;
    tell(&Event::End)?;
    let cpu = Cpu::since(cpu)?;
    stream.finish()?;
    let server_cpu = Some(server_cpu(&mut stream)?);
    Ok(Seen {
        elapsed,
        bytes: ops * u64::from(job.size),
        ops,
        samples,
        arrived: None,
        cpu,
        server_cpu,
    })
}

fn connects(name: &Name, job: &Job, time: Duration) -> Result<Seen> {
    let run = |time: Duration, samples: &mut Samples| -> Result<(Duration, u64)> {
        let start = Instant::now();
        let mut last = start;
        let mut ops = 0;
        while last - start < time {
            drop(open(name, job)?);
            let now = Instant::now();
            samples.add(now - last);
            last = now;
            ops += 1;
        }
        Ok((last - start, ops))
    };
    run(time / WARM_UP, &mut Samples::default())?;
    let mut samples = Samples::new();
    let cpu = Cpu::now()?;
    tell(&Event::Start)?;
    let (elapsed, ops) = run(time, &mut samples)?;
    tell(&Event::End)?;
    let cpu = Cpu::since(cpu)?;
    Ok(Seen {
        elapsed,
        bytes: 0,
        ops,
        samples,
        arrived: None,
        cpu,
        server_cpu: None,
    })
}
