// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Frames that an end of the model grants, and what the other end takes of them.
//!
//! A frame that is its owner's again is overwritten at once: whoever reads it after
//! that, or sends it by TCP, has other bytes than were written.

use std::collections::BTreeMap;

use fgdp_proto::proto::grant::Run;
use fgdp_proto::proto::stream::{Ring, Source, TxPath};
use fgdp_proto::proto::wire::FRAME_SIZE;

use super::ends::{check, pattern, POISON};
use super::world::World;
use crate::memory::first_extent;

/// Frames of an end: rings first, then that of the records, then those to grant.
const RECORDS: u32 = 31;
const FIRST: u32 = 32;
const LAST: u32 = 1500;

/// A grant that was taken out of the stream.
struct Held {
    place: u8,
    run: Run,
    /// Who wrote it, and the position of its first byte.
    thread: usize,
    from: u64,
}

/// One end's grants.
#[derive(Default)]
pub struct Grants {
    /// Own frames that are not back.
    lent: BTreeMap<u8, Run>,
    next: u32,
    /// What it took of the other end.
    held: Vec<Held>,
    /// Places that it has still when the channel is gone, and reads no more.
    late: Vec<u8>,
}

impl Grants {
    /// Frames that are free; not those that were so last.
    fn alloc(&mut self, frames: u32) -> u32 {
        let taken = |at| {
            let mut lent = self.lent.values();
            lent.any(|run| at < run.pfn + run.frames && run.pfn < at + frames)
        };
        while self.next < FIRST || self.next + frames > LAST || taken(self.next) {
            self.next = FIRST + (self.next + 1 - FIRST.min(self.next)) % (LAST - FIRST);
        }
        self.next
    }

    pub fn holds_any(&self) -> bool {
        !self.held.is_empty() || !self.late.is_empty()
    }

    pub fn lends_any(&self) -> bool {
        !self.lent.is_empty()
    }

    /// The channel ends: it reads no more what it holds.
    pub fn cut(&mut self) {
        self.late.extend(self.held.drain(..).map(|held| held.place));
    }
}

impl World<'_> {
    fn frames(&mut self, run: Run) -> &mut [u8] {
        let start = (run.pfn * FRAME_SIZE) as usize;
        &mut self.bytes[start..start + (run.frames * FRAME_SIZE) as usize]
    }

    /// A thread grants so many frames of bytes, if the stream goes by the ring.
    pub fn grant(&mut self, i: usize, thread: usize, frames: u32) {
        let blocked = thread == 1 && self.ends[i].inside != 0;
        if blocked || self.ends[i].fin || self.ends[i].tx_asleep {
            return;
        }
        let path = self.path(i);
        let base = first_extent(i as u32 + 1);
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return;
        };
        if path != TxPath::Ring {
            let stray = path == TxPath::Stray;
            assert!(stray || !conn.tx_can_grant(), "a grant on {path:?}");
            return;
        }
        if conn.tx_grant_frame().is_none() {
            assert!(conn.set_tx_grant_frame(&end.v, base + RECORDS));
        }
        if !conn.tx_can_grant() {
            return;
        }
        // The allocator counts from the first extent.
        let pfn = base + end.grants.alloc(frames);
        let run = Run { pfn, frames };
        let mut pos = end.wrote[thread];
        for b in self.frames(run) {
            *b = pattern(i, thread, pos);
            pos += 1;
        }
        let end = &mut self.ends[i];
        end.wrote[thread] = pos;
        let conn = end.conn.as_mut().unwrap();
        let (place, notify) = conn.tx_grant(&end.v, run).unwrap().unwrap();
        assert!(notify.ready, "READY follows each grant");
        let lent = Run {
            pfn: pfn - base,
            frames,
        };
        assert!(end.grants.lent.insert(place, lent).is_none(), "two grants");
        self.data(i, notify);
    }

    /// Takes the next grant, if it is what comes next.
    pub fn take(&mut self, i: usize) {
        if self.ends[i].rx_asleep || self.ends[i].eof {
            return;
        }
        self.ends[i].looked = None;
        let Source::Ring(unread) = self.source(i) else {
            return;
        };
        let end = &mut self.ends[i];
        let conn = end.conn.as_mut().unwrap();
        let before = conn.rx_before_grant();
        let Some(run) = conn.rx_next_grant() else {
            assert!(before <= unread);
            assert_eq!(conn.rx_take_grant(&end.v), None);
            return;
        };
        assert_eq!(before, 0);
        let place = conn.rx_take_grant(&end.v).unwrap();
        let bytes = self.frames(run).to_vec();
        let end = &mut self.ends[i];
        let thread = usize::from(bytes[0] >> 7);
        end.grants.held.push(Held {
            place,
            run,
            thread,
            from: end.got[thread],
        });
        for b in bytes {
            check(&mut end.got, 1 - i, b);
        }
    }

    /// Gives back the n-th that it has.
    pub fn give_back(&mut self, i: usize, n: usize) {
        let grants = &mut self.ends[i].grants;
        let place = if grants.held.is_empty() {
            let Some(place) = grants.late.pop() else {
                return;
            };
            place
        } else {
            let held = grants.held.swap_remove(n % grants.held.len());
            let mut got = [held.from; 2];
            for &mut b in self.frames(held.run) {
                assert_eq!(usize::from(b >> 7), held.thread, "frames reused");
                check(&mut got, 1 - i, b);
            }
            held.place
        };
        let end = &mut self.ends[i];
        let conn = end.conn.as_mut().unwrap();
        let notify = conn.rx_release(&end.v, place);
        assert!(!conn.rx_release(&end.v, place).ready, "released twice");
        self.space(i, notify);
    }

    pub fn give_all_back(&mut self, i: usize) {
        while self.ends[i].grants.holds_any() {
            self.give_back(i, 0);
        }
    }

    fn poison(&mut self, run: Run) {
        self.frames(run).fill(POISON);
    }

    pub fn poison_rings(&mut self, rings: [Option<Ring>; 2]) {
        for ring in rings.into_iter().flatten() {
            let (pfn, frames) = (ring.pfn, ring.frames);
            self.poison(Run { pfn, frames });
        }
    }

    /// Overwrites all that nobody reads any more.
    pub fn collect(&mut self, i: usize) {
        let base = first_extent(i as u32 + 1);
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return;
        };
        let keeps = conn.tx_keeps_bytes();
        let mut frame = None;
        let mut rings = [None; 2];
        if conn.done_seen() || end.told {
            rings = conn.take_tx_rings();
            frame = conn.take_tx_grant_frame();
            assert!(!keeps || (frame.is_none() && rings == [None; 2]));
        }
        let mut free = Vec::new();
        for place in conn.take_released().iter() {
            free.push(end.grants.lent.remove(&place).expect("returned twice"));
        }
        if end.told && !keeps {
            // The peer's close returns them (G-6).
            free.extend(std::mem::take(&mut end.grants.lent).into_values());
        }
        self.poison_rings(rings);
        if let Some(pfn) = frame {
            let at = u64::from(pfn) * u64::from(FRAME_SIZE);
            for off in (0..u64::from(FRAME_SIZE)).step_by(4) {
                self.ends[i].v.window.poke(at + off, u32::MAX);
            }
        }
        for run in free {
            let pfn = base + run.pfn;
            self.poison(Run { pfn, ..run });
        }
    }
}
