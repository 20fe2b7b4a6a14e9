// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Records of grants, releases and `grant_head`, that the fuzzer writes.

use fgdp_proto::proto::grant::{Accepted, Places, Run};
use fgdp_proto::proto::stream::{Conn, Ring, TxPath};
use fgdp_proto::proto::wire::*;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::memory::{accepted, base, first_extent, view, Group, Slot, SLOT};

const ID: u32 = 1 << 16 | 5;
type View<'a> = fgdp_proto::proto::mem::View<'a, Slot<'a>, Group>;

/// Both directions of a connection with grants.
pub fn z_5_grant(data: &[u8]) {
    // The end of the data is the end of the run.
    let _end = run(&mut Unstructured::new(data));
}

fn word(off: u64) -> u64 {
    base(2) + conn_entry(ID) + off
}

/// Grants of the victim that are out, and those of the peer that it took.
#[derive(Default)]
pub struct Grants {
    out: Places,
    held: Vec<u8>,
}

impl Grants {
    /// Kinds of [`Grants::act`].
    pub const ACTS: u8 = 8;

    /// The peer writes something about grants, or the victim does something with them.
    /// `entry`: the peer's entry in the group.
    pub fn act(
        &mut self,
        what: u8,
        u: &mut Unstructured<'_>,
        (group, entry): (&Group, u64),
        (conn, v, acc): (&mut Conn, &View<'_>, &Accepted),
    ) -> Result<()> {
        let (theirs, own) = (first_extent(2), first_extent(1));
        match what {
            // A grant as an honest peer would make it, or nearly so.
            0 => {
                let word = group.peek(entry + conn::RING_SERIAL);
                let count = word >> GRANTS_SHIFT;
                let frame = u64::from(group.peek(entry + conn::GRANT_PFN)) << FRAME_SHIFT;
                let at = frame + u64::from(count % GRANTS) * GRANT_SIZE;
                let position = group.peek(entry + conn::TAIL);
                let ahead = u32::from(u.arbitrary::<u16>()?);
                group.poke(at + grant::POSITION, position.wrapping_add(ahead / 8));
                group.poke(at + grant::PFN, theirs + 9 + ahead % 1600);
                group.poke(at + grant::FRAMES, u.int_in_range(0..=5)?);
                group.poke(at + grant::FLAGS, u32::from(u.ratio(1, 50)?));
                let next = word.wrapping_add(1 << GRANTS_SHIFT);
                group.poke(entry + conn::RING_SERIAL, next);
            }
            1 => {
                let off = conn::RELEASED + u.int_in_range(0..=7u64)? * 4;
                let bit = 1 << u.int_in_range(0..=31)?;
                group.poke(entry + off, group.peek(entry + off) ^ bit);
            }
            // It read a grant to its end, or a part of one.
            2 => {
                let head = group.peek(entry + conn::GRANT_HEAD);
                let whole = (head >> GRANT_HEAD_SHIFT).wrapping_add(1) << GRANT_HEAD_SHIFT;
                let head = match u.arbitrary()? {
                    true => whole,
                    false => head.wrapping_add(u.arbitrary::<u16>()?.into()),
                };
                group.poke(entry + conn::GRANT_HEAD, head);
            }
            3 => {
                let _there = conn.set_tx_grant_frame(v, own + u.int_in_range(0..=3)?);
            }
            4 => {
                let run = Run {
                    pfn: own.wrapping_add(u.arbitrary::<u16>()?.into()),
                    frames: u.int_in_range(0..=1200)?,
                };
                if let Ok(Some((place, _))) = conn.tx_grant(v, run) {
                    let end = (u64::from(run.pfn) + u64::from(run.frames)) << FRAME_SHIFT;
                    assert!(end <= base(1) + SLOT);
                    assert!(!self.out.has(place), "a place taken twice");
                    self.out.flip(place);
                }
            }
            5 => {
                if conn.rx_avail(v, acc).is_err() {
                    return Ok(());
                }
                let next = conn.rx_next_grant();
                let place = conn.rx_take_grant(v);
                assert_eq!(next.is_some(), place.is_some());
                if let (Some(run), Some(place)) = (next, place) {
                    assert!(acc.contains(run.pfn, run.frames));
                    assert!(!self.held.contains(&place), "two in one place");
                    self.held.push(place);
                }
            }
            6 => {
                let place = self.held.pop();
                let _ = conn.rx_release(v, place.unwrap_or(u.arbitrary()?));
                assert_eq!(conn.rx_has_taken(), !self.held.is_empty());
            }
            _ => {
                let _ = conn.tx_space(v);
                self.collect(conn);
            }
        }
        Ok(())
    }

    /// Frames come back once, and not while their bytes may have to go by TCP.
    fn collect(&mut self, conn: &mut Conn) {
        for place in conn.take_released().iter() {
            assert!(self.out.has(place), "returned twice, or never granted");
            self.out.flip(place);
        }
        if conn.tx_keeps_bytes() {
            assert_eq!(conn.take_tx_rings(), [None, None]);
            assert_eq!(conn.take_tx_grant_frame(), None);
        } else if conn.done_seen() {
            assert!(self.out.is_empty(), "never back");
            let _pfn = conn.take_tx_grant_frame();
        }
    }
}

/// What TCP is to send is in the own slot, and as long as the path says.
pub fn check_rest(conn: &mut Conn, v: &View<'_>, write_seq: u32, n: u32) {
    let path = conn.tx_path(v, write_seq);
    assert!(path.is_ok() || !conn.is_cut());
    let spans = conn.tx_rest_spans(v, u32::MAX);
    if let Ok(TxPath::Rest(rest)) = path {
        assert_eq!(spans.bytes(), rest);
        assert!(rest != 0 && conn.tx_keeps_bytes());
    }
    assert!(spans.iter().all(|s| s.off + u64::from(s.len) <= SLOT));
    conn.tx_rest_sent(v, n);
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let group = Group::new();
    let slot = group.slot(base(1));
    let v = view(&slot, &group);
    group.poke(word(conn::ID), ID);
    let carried = u.arbitrary()?;
    let mut conn = match carried {
        true => Conn::new_carried(ID),
        false => Conn::new(ID, Kind::Stream),
    };
    conn.init_entry(&v);
    conn.set_peer(&v, ID).unwrap();
    let mut acc = accepted();
    let (theirs, own) = (first_extent(2), first_extent(1));
    group.poke(word(conn::RING_PFN), theirs);
    group.poke(word(conn::RING_FRAMES), 8);
    group.poke(word(conn::RING_SERIAL), 1);
    group.poke(word(conn::GRANT_PFN), theirs + 8);
    if carried {
        group.poke(word(conn::TX_FLAGS), TX_RING);
        assert_eq!(conn.tx_switch(&v, 0), Ok(true));
    }
    let mut bad = None;
    let mut grants = Grants::default();
    let last = if carried { 13 } else { 8 } + Grants::ACTS - 1;
    while !u.is_empty() {
        match u.int_in_range(0..=last)? {
            n if n < Grants::ACTS => {
                grants.act(n, u, (&group, word(0)), (&mut conn, &v, &acc))?;
            }
            n => match n - Grants::ACTS {
                0 => {
                    let tail = group.peek(word(conn::TAIL));
                    let step = u32::from(u.arbitrary::<u16>()?);
                    group.poke(word(conn::TAIL), tail.wrapping_add(step / 2));
                }
                1 => {
                    let off = u.int_in_range(0..=31u64)? * 4;
                    group.poke(word(off), u.arbitrary()?);
                }
                2 => group.lie(u.int_in_range(0..=12)?, u.arbitrary()?),
                3 => {
                    if let Ok(avail) = conn.rx_avail(&v, &acc) {
                        check_part(&conn, &acc, avail, u.arbitrary()?);
                    }
                }
                4 | 5 => {
                    let n = u.arbitrary::<u16>()?;
                    let _ = conn.rx_consume(&v, u32::from(n) * 3);
                }
                6 => {
                    acc.remove(u.int_in_range(1..=2)?);
                }
                7 => {
                    let ring = Ring {
                        pfn: own + 64,
                        frames: 4,
                    };
                    let _ = conn.set_tx_ring(&v, ring);
                    let _ = conn.tx_publish(&v, u.arbitrary::<u16>()?.into());
                }
                8 => check_rest(&mut conn, &v, u.arbitrary::<u16>()?.into(), u.arbitrary()?),
                9 => {
                    // STOP, as an honest peer sets it, or its reset.
                    let (off, flag) = match u.ratio(3, 4)? {
                        true => (conn::RX_FLAGS, RX_STOP),
                        false => (conn::TX_FLAGS, TX_RST),
                    };
                    group.poke(word(off), group.peek(word(off)) | flag);
                }
                10 => {
                    let _ = match u.arbitrary()? {
                        true => conn.tx_back(&v),
                        false => conn.rx_stop(&v),
                    };
                }
                11 if bad.is_none() && !conn.done_seen() => conn.peer_done().unwrap(),
                11 => {
                    let _ = conn.poll_done(&v);
                }
                _ => {
                    conn.cut(&v);
                    conn.tx_final(&v);
                    assert_ne!(conn.tx_path(&v, 0), Ok(TxPath::Wait));
                    check_rest(&mut conn, &v, 0, u.arbitrary()?);
                }
            },
        }
        assert!(bad.is_none() || bad == conn.broken(), "not latched");
        bad = conn.broken();
        assert!(bad.is_none_or(|r| r.is_violation()));
    }
    Ok(())
}

/// Everything that is offered for reading is accepted, as far as one call shows it.
pub fn check_part(conn: &Conn, acc: &Accepted, avail: u32, at: u32) {
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
