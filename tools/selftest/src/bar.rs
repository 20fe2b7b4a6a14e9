// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's root can do to the device's memory behind the module's back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::pattern::Random;
use crate::sys::Mapping;

/// The file of region `bar` of the first FGDP device: a virtio device with shared memory regions.
fn resource(bar: u8) -> Result<PathBuf> {
    let mut devices: Vec<PathBuf> = fs::read_dir("/sys/bus/pci/devices")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    devices.sort();
    for device in devices {
        let vendor = fs::read_to_string(device.join("vendor"))?;
        let file = device.join(format!("resource{bar}"));
        // Of virtio's devices only this one has both regions.
        if vendor.trim() == "0x1af4"
            && device.join("resource2").exists()
            && device.join("resource4").exists()
        {
            let size = fs::metadata(&file)?.len();
            let other = fs::metadata(device.join("resource4"))?.len();
            if other > 1 << 24 {
                ensure!(size > 0, "{} is empty", file.display());
                return Ok(file);
            }
        }
    }
    bail!("no FGDP device on the PCI bus")
}

/// Whether `text` is anywhere in region `bar`; prints where.
pub fn find(bar: u8, text: &str) -> Result<bool> {
    let path = resource(bar)?;
    let memory = Mapping::new(&path, false).with_context(|| path.display().to_string())?;
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
        if let Some(offset) = window[..n]
            .windows(needle.len())
            .position(|part| part == needle)
        {
            println!("found at offset {:#x} of {}", at + offset, path.display());
            return Ok(true);
        }
        if n < window.len() {
            break;
        }
        at += n - needle.len();
    }
    println!("not in the {} bytes of {}", memory.len(), path.display());
    Ok(false)
}

/// Writes random words to random places of the own slot, most of them where the protocol keeps its indices.
pub fn scribble(seconds: u64, seed: u64) -> Result<()> {
    let path = resource(2)?;
    let memory = Mapping::new(&path, true).with_context(|| path.display().to_string())?;
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
    println!("wrote {written} words to {}", path.display());
    Ok(())
}
