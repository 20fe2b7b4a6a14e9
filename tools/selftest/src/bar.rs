// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's root can do to the device's memory behind the module's back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::pattern::Random;
use crate::sys::Mapping;

/// Physical address and length of region `bar` of the first FGDP device.
fn region(bar: usize) -> Result<(u64, usize)> {
    let mut devices: Vec<PathBuf> = fs::read_dir("/sys/bus/pci/devices")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    devices.sort();
    for device in devices {
        if fs::read_to_string(device.join("vendor"))?.trim() != "0x1af4" {
            continue;
        }
        // A line for each region: first address, last address, flags.
        let regions: Vec<(u64, u64)> = fs::read_to_string(device.join("resource"))?
            .lines()
            .map(|line| {
                let mut numbers = line
                    .split_whitespace()
                    .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
                match (numbers.next(), numbers.next()) {
                    (Some(Ok(first)), Some(Ok(last))) if last > first => (first, last - first + 1),
                    _ => (0, 0),
                }
            })
            .collect();
        let length = |n: usize| regions.get(n).map_or(0, |(_, length)| *length);
        // Of virtio's devices only this one has its slot and a larger group.
        if length(2) >= 1 << 20 && length(4) > length(2) {
            let (start, length) = *regions.get(bar).context("no such region")?;
            ensure!(length > 0, "the device has no region {bar}");
            return Ok((start, length as usize));
        }
    }
    bail!("no FGDP device on the PCI bus")
}

/// Maps region `bar` as the module does, cached: the device's own files in sysfs map it uncached only.
fn map(bar: usize, write: bool) -> Result<Mapping> {
    let (start, len) = region(bar)?;
    Mapping::new("/dev/mem".as_ref(), start, len, write)
        .context("/dev/mem (boot with iomem=relaxed)")
}

/// Whether `text` is anywhere in region `bar`; prints where.
pub fn find(bar: usize, text: &str) -> Result<bool> {
    let memory = map(bar, false)?;
    let needle = text.as_bytes();
    ensure!(
        !needle.is_empty() && needle.len() <= 4096,
        "give a text of 1 to 4096 bytes"
    );
    // Overlapping windows, so that no border hides it.
    let mut window = vec![0; 1 << 20];
    let mut at = 0;
    while at < memory.len() {
        let n = memory.read(at, &mut window);
        if let Some(offset) = memchr::memmem::find(&window[..n], needle) {
            println!("found at offset {:#x} of region {bar}", at + offset);
            return Ok(true);
        }
        if n < window.len() {
            break;
        }
        at += n - needle.len();
    }
    println!("not in the {} bytes of region {bar}", memory.len());
    Ok(false)
}

/// Writes random words to random places of the own slot, most of them where the protocol keeps its indices.
pub fn scribble(seconds: u64, seed: u64) -> Result<()> {
    let memory = map(2, true)?;
    let words = memory.len() / 4;
    let head = (1 << 20) / 4;
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut written = 0u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            let limit = if random.next() % 4 == 0 {
                words
            } else {
                words.min(head)
            };
            let at = random.between(0, limit - 1) * 4;
            // Small numbers and those near the borders do more harm than any others.
            let value = match random.next() % 4 {
                0 => random.next() as u32,
                1 => (random.next() % 64) as u32,
                2 => u32::MAX - (random.next() % 64) as u32,
                _ => 1 << (random.next() % 32),
            };
            memory.write(at, value);
            written += 1;
        }
    }
    println!("wrote {written} words");
    Ok(())
}
