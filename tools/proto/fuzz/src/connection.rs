// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A connection whose other side the fuzzer plays.

use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::stream::{Conn, Ring, Source, TxPath};
use fgdp_proto::proto::wire::*;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::grants::{check_part, check_rest, Grants};
use crate::memory::{accepted, base, first_extent, view, Group, SLOT};

const ID: u32 = 1 << 16 | 3;

/// All words of a connection entry, on a stream.
pub fn s_12_connection(data: &[u8]) {
    // The end of the data is the end of the run.
    let _end = run(Conn::new(ID, Kind::Stream), &mut Unstructured::new(data));
}

/// The same with records, whose headers lie in the ring.
pub fn s_13_record(data: &[u8]) {
    let _end = run(Conn::new(ID, Kind::SeqPacket), &mut Unstructured::new(data));
}

/// The same on a connection that carries TCP.
pub fn t_11_carried(data: &[u8]) {
    let _end = run(Conn::new_carried(ID), &mut Unstructured::new(data));
}

/// Offset in the group of a word of the peer's entry.
fn word(off: u64) -> u64 {
    base(2) + conn_entry(ID) + off
}

fn run(mut conn: Conn, u: &mut Unstructured<'_>) -> Result<()> {
    let group = Group::new();
    let slot = group.slot(base(1));
    let v = view(&slot, &group);
    group.poke(word(conn::ID), ID);
    let kind = conn.kind();
    let carried = conn.is_carried();
    let last = if carried { 24 + Grants::ACTS } else { 17 };
    let mut grants = Grants::default();
    conn.init_entry(&v);
    conn.set_peer(&v, ID).unwrap();
    let mut acc = accepted();
    // Grants are of carried ones here; z_5_grant has them on others.
    let check = if carried { check_part } else { check_rx };
    let mut bad = None;
    let mut see = |broken: Option<Reason>| {
        assert!(bad.is_none() || bad == broken, "not latched");
        assert!(broken.is_none_or(|r| r.is_violation()));
        bad = broken;
    };
    while !u.is_empty() {
        match u.int_in_range(0..=last)? {
            // A ring as an honest peer would give it, or nearly so.
            0 => {
                let pfn = first_extent(2) + u32::from(u.arbitrary::<u16>()?) % 1600;
                group.poke(word(conn::RING_PFN), pfn);
                group.poke(word(conn::RING_FRAMES), 4 << u.int_in_range(0..=9)?);
                group.poke(word(conn::RING_BASE), group.peek(word(conn::TAIL)));
                let serial = group.peek(word(conn::RING_SERIAL));
                group.poke(word(conn::RING_SERIAL), serial.wrapping_add(1));
            }
            1 => {
                let tail = group.peek(word(conn::TAIL));
                let step = u32::from(u.arbitrary::<u16>()?);
                group.poke(word(conn::TAIL), tail.wrapping_add(step));
            }
            2 => {
                let head = group.peek(word(conn::HEAD));
                let step = u32::from(u.arbitrary::<u16>()?);
                group.poke(word(conn::HEAD), head.wrapping_add(step));
            }
            3 => {
                let off = u.int_in_range(0..=31u64)? * 4;
                group.poke(word(off), u.arbitrary()?);
            }
            4 => group.lie(u.int_in_range(0..=12)?, u.arbitrary()?),
            5 => {
                if let Ok(avail) = conn.rx_avail(&v, &acc) {
                    check(&conn, &acc, avail, u.arbitrary()?);
                }
            }
            6 => {
                let _ = conn.rx_consume(&v, u32::from(u.arbitrary::<u16>()?));
            }
            7 => {
                // A record header where the next one is expected.
                if let Some(span) = conn.rx_spans(0, RECORD_HDR).as_slice().first() {
                    group.poke(span.off & !3, u.arbitrary::<u16>()?.into());
                }
                if let Ok(Some(len)) = conn.rx_record(&v) {
                    assert_eq!(kind, Kind::SeqPacket);
                    assert_eq!(conn.rx_spans(RECORD_HDR, len).bytes(), len);
                    let _ = conn.rx_consume_record(&v);
                }
            }
            8 => {
                let _ = conn.arm_data_low(&v, u.arbitrary()?);
            }
            9 => {
                let pfn = first_extent(1) + u.int_in_range(0..=1535)?;
                let frames = 4 << u.int_in_range(0..=9)?;
                if conn.set_tx_ring(&v, Ring { pfn, frames }).is_ok() {
                    let end = (u64::from(pfn) + u64::from(frames)) << FRAME_SHIFT;
                    assert!(end <= base(1) + SLOT);
                }
            }
            10 => {
                if let Ok(space) = conn.tx_space(&v) {
                    let spans = conn.tx_spans(&v, 0, u32::MAX);
                    assert_eq!(spans.bytes(), space);
                    assert!(spans.iter().all(|s| s.off + u64::from(s.len) <= SLOT));
                    let len = u32::from(u.arbitrary::<u16>()?);
                    let bytes = match kind {
                        Kind::Stream => len,
                        Kind::SeqPacket if conn.tx_record(&v, len) => {
                            Conn::record_size(len).unwrap()
                        }
                        Kind::SeqPacket => 0,
                    };
                    let _ = conn.tx_publish(&v, bytes);
                }
            }
            11 => {
                let _ = conn.reap_tx_ring(&v);
                let _ = conn.arm_space(&v, u.arbitrary()?);
            }
            12 => {
                let _ = conn.release_tx_ring(&v);
            }
            13 => {
                let _ = conn.arm_close(&v);
                let _ = conn.poll_done(&v);
            }
            14 => {
                let _ = conn.tx_fin(&v);
            }
            15 => {
                let _ = conn.shut_rx(&v);
            }
            16 => {
                acc.remove(u.int_in_range(1..=2)?);
            }
            18 => {
                let flags = word(conn::TX_FLAGS);
                group.poke(flags, group.peek(flags) | 1 << u.int_in_range(0..=4)?);
            }
            19 => {
                let flags = word(conn::RX_FLAGS);
                group.poke(flags, group.peek(flags) | 1 << u.int_in_range(0..=2)?);
            }
            20 => {
                let (copied, next) = (u.arbitrary()?, u.arbitrary()?);
                let source = conn.rx_source(&v, &acc, copied, next);
                if conn.rx_stopped() {
                    assert_eq!(source, Ok(Source::Back));
                } else if let Ok(Source::Ring(unread)) = source {
                    check(&conn, &acc, unread, copied);
                }
            }
            21 => {
                let _ = conn.tx_switch(&v, u.arbitrary()?);
            }
            22 => {
                check_rest(&mut conn, &v, u.arbitrary()?, u.arbitrary()?);
            }
            23 => {
                let _ = match u.arbitrary()? {
                    true => conn.tx_back(&v),
                    false => conn.rx_stop(&v),
                };
            }
            24 => {
                conn.cut(&v);
                conn.tx_final(&v);
                assert_ne!(conn.tx_path(&v, 0), Ok(TxPath::Wait));
            }
            n @ 25.. => {
                grants.act(n - 25, u, (&group, word(0)), (&mut conn, &v, &acc))?;
            }
            _ => {
                let unacked = conn.tx_unacked(&v);
                assert!(unacked.is_err() || unacked.is_ok_and(|n| n <= 8 << 20));
            }
        }
        see(conn.broken());
    }
    Ok(())
}

/// Everything that is offered for reading is accepted, and as long as it says.
fn check_rx(conn: &Conn, acc: &Accepted, avail: u32, at: u32) {
    assert!(avail <= 8 << 20, "more than two rings hold");
    let spans = conn.rx_spans(0, u32::MAX);
    assert_eq!(spans.bytes(), avail);
    for span in &spans {
        let first = (span.off >> FRAME_SHIFT) as u32;
        let last = ((span.off + u64::from(span.len) - 1) >> FRAME_SHIFT) as u32;
        assert!(acc.contains(first, last - first + 1), "outside the extents");
    }
    assert_eq!(
        conn.rx_spans(at, 100).bytes(),
        avail.saturating_sub(at).min(100)
    );
}
