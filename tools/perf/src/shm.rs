// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bare shared memory: both sides spin on it, nobody enters a kernel.
//!
//! Between guests the memory is the device's: BAR2 is what a guest writes, BAR4 what it reads of all. The module must not be
//! loaded, for it believes that memory its own. Each side marks its area and looks for the other's mark, in steps of
//! 1 MiB, so that nobody needs to know where slots are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use clap::{Args, ValueEnum};

use crate::job::{Job, Mode};
use crate::report::{tell, Cpu, Event, Report, Samples};
use crate::ring::{Area, Pair, AREA_BYTES, DONE, MAGIC, RING_BYTES};
use crate::sys::Mapping;

/// Which part a side has. Each marks its area by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Answers
    Server,
    /// Measures
    Client,
}

impl Side {
    fn mark(self) -> u32 {
        match self {
            Self::Server => 0x5345_5256,
            Self::Client => 0x434c_4e54,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }
}

/// Which memory.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Memory {
    /// The PCI device of the group, such as /sys/bus/pci/devices/0000:01:00.0
    #[arg(long)]
    device: Option<PathBuf>,
    /// A file that both processes map, such as one in /dev/shm
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Where an area starts, counted in its slot: behind what a host may have put in front.
const STEP: usize = 1 << 20;

/// How long one side waits for the other.
const MEET_TIME: Duration = Duration::from_secs(30);

/// Measures `job`, or answers the side that does.
pub fn measure(memory: &Memory, side: Side, job: Job, time: Duration) -> Result<()> {
    if job.mode == Mode::Connect {
        bail!("bare memory has no connections: choose stream or rr");
    }
    if job.size > RING_BYTES {
        bail!("{} bytes do not fit the ring of {RING_BYTES}", job.size);
    }
    let (own, window, off) = open(memory, side)?;
    let area = Area { map: &own, off };
    for word in (0..4096).step_by(4) {
        area.store(word, 0);
    }
    area.store(MAGIC, side.mark());
    let other = meet(&window, side.other().mark())?;
    let mut pair = Pair::new(
        area,
        Area {
            map: &window,
            off: other,
        },
    );
    // The client cleared its area, so words of an earlier run are gone on both sides once both marks are seen.
    let result = match side {
        Side::Server => answer(&mut pair, &job),
        Side::Client => ask(&mut pair, &job, time),
    };
    pair.own.store(DONE, 1);
    if result.is_ok() {
        // The other side still reads here.
        wait(|| pair.other.load(DONE) != 0 || pair.other.load(MAGIC) == 0)?;
    }
    pair.own.store(MAGIC, 0);
    result
}

fn open(memory: &Memory, side: Side) -> Result<(Mapping, Mapping, usize)> {
    if let Some(path) = &memory.file {
        let len = 2 * STEP.max(AREA_BYTES.next_multiple_of(STEP));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.with_context(|| path.display().to_string())?;
        file.set_len(len as u64)?;
        let off = if side == Side::Server { 0 } else { len / 2 };
        return Ok((
            Mapping::new(&file, len, true)?,
            Mapping::new(&file, len, false)?,
            off,
        ));
    }
    let device = memory.device.as_deref().context("no device")?;
    if Path::new("/sys/module/fgdp").exists() {
        bail!("the module fgdp is loaded: run 'rmmod fgdp' first");
    }
    let own = resource(device, 2, true)?;
    let off = own
        .len()
        .checked_sub(AREA_BYTES.next_multiple_of(STEP))
        .context("the slot is too small")?;
    Ok((own, resource(device, 4, false)?, off))
}

fn resource(device: &Path, bar: u32, writable: bool) -> Result<Mapping> {
    // Write-combining where the kernel offers it; uncached memory would be a trap for each access on real hardware.
    let names = [format!("resource{bar}_wc"), format!("resource{bar}")];
    let path = names
        .iter()
        .map(|name| device.join(name))
        .find(|path| path.exists());
    let path = path.with_context(|| format!("{} has no BAR{bar}", device.display()))?;
    let open = File::options().read(true).write(writable).open(&path);
    let file = open.with_context(|| path.display().to_string())?;
    let len = usize::try_from(fs::metadata(&path)?.len())?;
    Mapping::new(&file, len, writable).with_context(|| path.display().to_string())
}

fn wait(ready: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > MEET_TIME {
            bail!("the other side does not answer");
        }
        std::hint::spin_loop();
    }
    Ok(())
}

fn meet(window: &Mapping, mark: u32) -> Result<usize> {
    let start = Instant::now();
    while start.elapsed() < MEET_TIME {
        for off in (0..window.len()).step_by(STEP) {
            if off + AREA_BYTES <= window.len() && window.load(off) == mark {
                return Ok(off);
            }
        }
    }
    bail!("the other side does not start");
}

fn answer(pair: &mut Pair<'_>, job: &Job) -> Result<()> {
    let mut buf = vec![0; (job.size as usize).max(if job.mode == Mode::Rr { 0 } else { 64 << 10 })];
    loop {
        match job.mode {
            Mode::Rr if pair.read_exact(&mut buf) => pair.write(&buf),
            Mode::Stream if pair.read(&mut buf) > 0 => {}
            Mode::Stream if pair.other.load(DONE) == 0 => std::hint::spin_loop(),
            _ => return Ok(()),
        }
    }
}

fn ask(pair: &mut Pair<'_>, job: &Job, time: Duration) -> Result<()> {
    let buf = vec![7; job.size as usize];
    let mut back = vec![0; buf.len()];
    let batch = ((64 << 10) / buf.len()).max(1) as u64;
    let mut run = |time: Duration, samples: &mut Samples| {
        let start = Instant::now();
        let mut last = start;
        let mut ops = 0u64;
        while last - start < time {
            if job.mode == Mode::Stream {
                (0..batch).for_each(|_| pair.write(&buf));
                ops += batch;
                last = Instant::now();
            } else {
                pair.write(&buf);
                pair.read_exact(&mut back);
                let now = Instant::now();
                samples.add(now - last);
                last = now;
                ops += 1;
            }
        }
        (last - start, ops)
    };
    run(time / 10, &mut Samples::default());
    let mut samples = Samples::new();
    let cpu = Cpu::now()?;
    tell(&Event::Start)?;
    let (elapsed, ops) = run(time, &mut samples);
    tell(&Event::End)?;
    tell(&Event::Result(&Report {
        path: "shm",
        mode: job.mode,
        size: job.size,
        busy_poll_usec: 0,
        seconds: elapsed.as_secs_f64(),
        bytes: ops * u64::from(job.size),
        ops,
        latency_ns: samples.latency(),
        arrived: None,
        cpu: Cpu::since(cpu)?,
        server_cpu: None,
    }))
}
