// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Records of grants, and releases, that the fuzzer writes.

use fgdp_proto::proto::grant::{Accepted, Places, Run};
use fgdp_proto::proto::stream::{Conn, Ring};
use fgdp_proto::proto::wire::*;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::memory::{accepted, base, first_extent, view, Group, SLOT};

const ID: u32 = 1 << 16 | 5;

/// Both directions of a connection with grants.
pub fn z_5_grant(data: &[u8]) {
    // The end of the data is the end of the run.
    let _end = run(&mut Unstructured::new(data));
}

fn word(off: u64) -> u64 {
    base(2) + conn_entry(ID) + off
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let group = Group::new();
    let slot = group.slot(base(1));
    let v = view(&slot, &group);
    group.poke(word(conn::ID), ID);
    let mut conn = Conn::new(ID, Kind::Stream);
    conn.init_entry(&v);
    conn.set_peer(&v, ID).unwrap();
    let mut acc = accepted();
    let (theirs, own) = (first_extent(2), first_extent(1));
    group.poke(word(conn::RING_PFN), theirs);
    group.poke(word(conn::RING_FRAMES), 8);
    group.poke(word(conn::RING_SERIAL), 1);
    group.poke(word(conn::GRANT_PFN), theirs + 8);
    let mut bad = None;
    let mut out = Places::default();
    while !u.is_empty() {
        match u.int_in_range(0..=11)? {
            // A grant as an honest peer would make it, or nearly so.
            0 => {
                let count = group.peek(word(conn::RING_SERIAL)) >> GRANTS_SHIFT;
                let frame = u64::from(group.peek(word(conn::GRANT_PFN))) << FRAME_SHIFT;
                let at = frame + u64::from(count % GRANTS) * GRANT_SIZE;
                let position = group.peek(word(conn::TAIL));
                let ahead = u32::from(u.arbitrary::<u16>()?);
                group.poke(at + grant::POSITION, position.wrapping_add(ahead / 8));
                group.poke(at + grant::PFN, theirs + 9 + ahead % 1600);
                group.poke(at + grant::FRAMES, u.int_in_range(0..=5)?);
                group.poke(at + grant::FLAGS, u32::from(u.ratio(1, 50)?));
                let word_now = group.peek(word(conn::RING_SERIAL));
                group.poke(
                    word(conn::RING_SERIAL),
                    word_now.wrapping_add(1 << GRANTS_SHIFT),
                );
            }
            1 => {
                let tail = group.peek(word(conn::TAIL));
                let step = u32::from(u.arbitrary::<u16>()?);
                group.poke(word(conn::TAIL), tail.wrapping_add(step / 2));
            }
            2 => {
                let off = u.int_in_range(0..=31u64)? * 4;
                group.poke(word(off), u.arbitrary()?);
            }
            3 => group.lie(u.int_in_range(0..=12)?, u.arbitrary()?),
            4 => {
                if let Ok(avail) = conn.rx_avail(&v, &acc) {
                    check_part(&conn, &acc, avail, u.arbitrary()?);
                }
            }
            5 | 6 => {
                let n = u.arbitrary::<u16>()?;
                let _ = conn.rx_consume(&v, u32::from(n) * 3);
            }
            7 => {
                acc.remove(u.int_in_range(1..=2)?);
            }
            8 => {
                let _taken = conn.set_tx_grant_frame(&v, own + u.int_in_range(0..=3)?);
            }
            9 => {
                let run = Run {
                    pfn: own.wrapping_add(u.arbitrary::<u16>()?.into()),
                    frames: u.int_in_range(0..=1200)?,
                };
                if let Ok(Some((place, _))) = conn.tx_grant(&v, run) {
                    let end = (u64::from(run.pfn) + u64::from(run.frames)) << FRAME_SHIFT;
                    assert!(end <= base(1) + SLOT);
                    assert!(!out.has(place), "a place taken twice");
                    out.flip(place);
                }
            }
            10 => {
                let off = conn::RELEASED + u.int_in_range(0..=7u64)? * 4;
                let bit = 1 << u.int_in_range(0..=31)?;
                group.poke(word(off), group.peek(word(off)) ^ bit);
            }
            _ => {
                let _ = conn.tx_space(&v);
                for place in conn.take_released().iter() {
                    assert!(out.has(place), "returned twice, or never granted");
                    out.flip(place);
                }
                let ring = Ring {
                    pfn: own + 64,
                    frames: 4,
                };
                let _ = conn.set_tx_ring(&v, ring);
            }
        }
        assert!(bad.is_none() || bad == conn.broken(), "not latched");
        bad = conn.broken();
        assert!(bad.is_none_or(|r| r.is_violation()));
    }
    Ok(())
}

/// Everything that is offered for reading is accepted, as far as one call shows it.
fn check_part(conn: &Conn, acc: &Accepted, avail: u32, at: u32) {
    let spans = conn.rx_spans(0, u32::MAX);
    assert!(spans.bytes() == avail || spans.as_slice().len() == 4);
    for span in &spans {
        let first = (span.off >> FRAME_SHIFT) as u32;
        let last = ((span.off + u64::from(span.len) - 1) >> FRAME_SHIFT) as u32;
        assert!(acc.contains(first, last - first + 1), "outside the extents");
    }
    let part = conn.rx_spans(at, 100).bytes();
    // Four pieces are less than 100 bytes if they are of the ring between grants.
    assert!(part <= 100 && (part == 0) == (at >= avail));
}
