// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's root can do to the device's memory behind the module's back.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{fence, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use fgdp_proto::proto::mem::Mem;
use fgdp_proto::proto::wire::{conn_entry, lane_area, DirEntry, HostHdr, MAX_LANES};

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

/// The group's memory as the protocol's core reads it.
struct Group<'a>(&'a Mapping);

impl Mem for Group<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn load(&self, off: u64) -> u32 {
        u32::from_le(usize::try_from(off).map_or(0, |off| self.0.word(off)))
    }

    fn load_acquire(&self, off: u64) -> u32 {
        let value = self.load(off);
        fence(Ordering::Acquire);
        value
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Where the slots are that the host's directory lists. The rest of the region is room for more guests: no memory is behind it,
/// and the host answers each access by itself.
fn slots(memory: &Mapping) -> Result<Vec<Range<usize>>> {
    let group = Group(memory);
    let host = HostHdr::read(&group).map_err(|e| anyhow!("the group's header: {e:?}"))?;
    let mut slots = Vec::new();
    for slot in 1..host.dir_entries {
        let entry = DirEntry::read(&group, host.dir_offset, slot)
            .map_err(|e| anyhow!("entry {slot} of the directory: {e:?}"))?;
        let end = entry.slot_offset.saturating_add(entry.slot_size);
        ensure!(
            end <= group.size(),
            "slot {slot} is outside the group's memory"
        );
        if entry.slot_size > 0 {
            slots.push(entry.slot_offset as usize..end as usize);
        }
    }
    ensure!(!slots.is_empty(), "the directory lists no slot");
    Ok(slots)
}

const FIND_WINDOW: usize = 64 << 10;

/// Whether `text` is anywhere in region `bar`; prints where.
pub fn find(bar: usize, text: &str) -> Result<bool> {
    let memory = map(bar, false)?;
    let needle = text.as_bytes();
    ensure!(
        !needle.is_empty() && needle.len() <= 4096 && !needle.contains(&0),
        "give a text of 1 to 4096 bytes"
    );
    // The end of a text that crosses a window's border is copied with its beginning. Most windows were never written:
    // they are passed over by words, which an emulated guest does many times faster than a search by bytes.
    let mut window = vec![0; FIND_WINDOW + needle.len() - 1];
    let ranges = if bar == 4 {
        slots(&memory)?
    } else {
        Vec::from([Range {
            start: 0,
            end: memory.len(),
        }])
    };
    for range in &ranges {
        for at in range.clone().step_by(FIND_WINDOW) {
            if memory.is_zero(at, FIND_WINDOW) {
                continue;
            }
            let n = memory.read(at, &mut window);
            if let Some(offset) = memchr::memmem::find(&window[..n], needle) {
                println!("found at offset {:#x} of region {bar}", at + offset);
                return Ok(true);
            }
        }
    }
    let searched: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    println!("not in the {searched} bytes of region {bar}");
    Ok(false)
}

/// Where the areas of the channels to the first seven slots end.
const CHANNELS: usize = 1 << 20;

/// A random place of a slot of `len` bytes: anywhere, among the channels, or where the protocol keeps its indices. The indices are
/// few: places taken evenly would seldom meet one between its writing by the module and its reading by the peer.
fn place(random: &mut Random, len: usize) -> usize {
    let mut below = |n: u32| random.between(0, n as usize - 1) as u32;
    let word = u64::from(4 * below(32));
    let at = match below(4) {
        0 => return random.between(0, len / 4 - 1) * 4,
        1 => return random.between(0, len.min(CHANNELS) / 4 - 1) * 4,
        2 => lane_area(1 + below(7), below(MAX_LANES)) + word,
        _ => conn_entry(below(64)) + word,
    };
    at as usize
}

/// Writes random words to random places of the own slot, most of them where the protocol keeps its indices.
pub fn scribble(seconds: u64, seed: u64) -> Result<()> {
    let memory = map(2, true)?;
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut written = 0u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            let at = place(&mut random, memory.len());
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
