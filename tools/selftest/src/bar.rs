// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's root can do to the device's memory behind the module's back.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{fence, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use fgdp_proto::proto::mem::{Mem, MemMut};
use fgdp_proto::proto::wire::{conn_entry, lane_area, DirEntry, HostHdr, MAX_LANES};

use crate::pattern::Random;
use crate::sys::Mapping;

/// The devices of virtio's vendor, QEMU's doorbells among them.
fn devices() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let device = entry?.path();
        if fs::read_to_string(device.join("vendor"))?.trim() == "0x1af4" {
            found.push(device);
        }
    }
    found.sort();
    Ok(found)
}

/// Physical address and length of each region of `device`; 0 for those that it has not.
fn regions(device: &Path) -> Result<Vec<(u64, u64)>> {
    // A line for each region: first address, last address, flags.
    let lines = fs::read_to_string(device.join("resource"))?;
    let region = |line: &str| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16));
        match (numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(last))) if last > first => (first, last - first + 1),
            _ => (0, 0),
        }
    };
    Ok(lines.lines().map(region).collect())
}

/// Physical address and length of region `bar` of the first FGDP device.
fn region(bar: usize) -> Result<(u64, usize)> {
    for device in devices()? {
        let regions = regions(&device)?;
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

/// A register of `ivshmem-doorbell`: whom to interrupt, by which vector.
const DOORBELL: usize = 12;

/// Rings lane `lane` of the member with doorbell id `id`, as the module does.
pub fn ring(id: u32, lane: u32) -> Result<()> {
    for device in devices()? {
        if fs::read_to_string(device.join("device"))?.trim() == "0x1110" {
            let (start, _) = *regions(&device)?.first().context("no registers")?;
            let registers = Mapping::new(&device.join("resource0"), 0, 4096, true)?;
            registers.write((start % 4096) as usize + DOORBELL, (id << 16) | lane);
            return Ok(());
        }
    }
    bail!("no doorbell device on the PCI bus")
}

/// A region as the protocol's core sees it.
pub struct Memory(Mapping);

impl Memory {
    /// The own slot, to be written.
    pub fn slot() -> Result<Self> {
        map(2, true).map(Self)
    }

    /// The whole group, to be read.
    pub fn group() -> Result<Self> {
        map(4, false).map(Self)
    }
}

impl Mem for Memory {
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

impl MemMut for Memory {
    fn store(&self, off: u64, value: u32) {
        if let Ok(off) = usize::try_from(off) {
            self.0.write(off, value.to_le());
        }
    }

    fn store_release(&self, off: u64, value: u32) {
        fence(Ordering::Release);
        self.store(off, value);
    }
}

/// The host's directory: slots that somebody has, and what it says about them.
pub fn directory(group: &Memory) -> Result<Vec<(u32, DirEntry)>> {
    let host = HostHdr::read(group).map_err(|e| anyhow!("the group's header: {e:?}"))?;
    let mut slots = Vec::new();
    for slot in 1..host.dir_entries {
        let entry = DirEntry::read(group, host.dir_offset, slot)
            .map_err(|e| anyhow!("entry {slot} of the directory: {e:?}"))?;
        let end = entry.slot_offset.saturating_add(entry.slot_size);
        ensure!(
            end <= group.size(),
            "slot {slot} is outside the group's memory"
        );
        if entry.slot_size > 0 {
            slots.push((slot, entry));
        }
    }
    ensure!(!slots.is_empty(), "the directory lists no slot");
    Ok(slots)
}

/// Where the slots are that the host's directory lists. The rest of the region is room for more guests: no memory is behind it,
/// and the host answers each access by itself.
fn slots(group: &Memory) -> Result<Vec<Range<usize>>> {
    let range = |(_, entry): &(u32, DirEntry)| {
        entry.slot_offset as usize..(entry.slot_offset + entry.slot_size) as usize
    };
    Ok(directory(group)?.iter().map(range).collect())
}

const FIND_WINDOW: usize = 64 << 10;

/// Whether `text` is anywhere in region `bar`; prints where.
pub fn find(bar: usize, text: &str) -> Result<bool> {
    let memory = Memory(map(bar, false)?);
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
            end: memory.0.len(),
        }])
    };
    for range in &ranges {
        for at in range.clone().step_by(FIND_WINDOW) {
            if memory.0.is_zero(at, FIND_WINDOW) {
                continue;
            }
            let n = memory.0.read(at, &mut window);
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
