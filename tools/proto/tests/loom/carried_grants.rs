// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Carried connections: a consumer reads of rings and grants until it stops, and what
//! the producer then sends by TCP is what was not read.

use std::sync::Arc;

use fgdp_proto::proto::grant::Run;
use fgdp_proto::proto::mem::View;
use fgdp_proto::proto::stream::{Conn, Source, TxPath};
use fgdp_proto::proto::wire::{conn, conn_entry, FRAME_SHIFT, FRAME_SIZE};
use loom::sync::Notify;
use loom::thread;

use crate::carried::{carried, SEQ};
use crate::connections::{accepted, tell, words, ID, SMALL};
use crate::grants::{grant_words, FRAME, RECORDS};
use crate::memory::{base, explore, slot, view, Group, Slot};

/// What the consumer does before it stops.
#[derive(Clone, Copy)]
enum Read {
    Bytes(u32),
    Take,
    /// Gives back what it took.
    Release,
}

/// Bytes of the ring, and of the grant.
type Bytes = [u32; 2];

/// Four bytes by the ring, a frame, and four bytes more.
const ALL: Bytes = [8, FRAME_SIZE];

fn entry(member: u32, off: u64) -> u64 {
    base(member) + conn_entry(ID) + off
}

fn group(loose: Option<u64>) -> Arc<Group> {
    let mut all = words(0, &[]);
    all.extend(grant_words());
    all.push((entry(1, conn::TCP_SEQ), 0));
    all.push((entry(2, conn::GRANT_HEAD), 0));
    match loose {
        Some(off) => Group::loose(&all, off),
        None => Group::new(&all, true),
    }
}

/// Everything is published; the bell is for the consumer.
fn send(conn: &mut Conn, v: &View<'_, Slot, Group>, bell: &Notify) {
    assert!(conn.tx_switch(v, SEQ).unwrap());
    conn.set_tx_ring(v, SMALL).unwrap();
    assert!(conn.set_tx_grant_frame(v, RECORDS));
    tell(bell, conn.tx_publish(v, 4).unwrap());
    let run = Run {
        pfn: FRAME,
        frames: 1,
    };
    tell(bell, conn.tx_grant(v, run).unwrap().unwrap().1);
    tell(bell, conn.tx_publish(v, 4).unwrap());
}

/// What went by TCP, in the order of the stream.
fn rest(conn: &mut Conn, v: &View<'_, Slot, Group>, room: &Notify) -> Bytes {
    let mut sent = [0; 2];
    loop {
        match conn.tx_path(v, SEQ).expect("nobody breaks a rule") {
            TxPath::Rest(n) => {
                let off = conn.tx_rest_spans(v, n).as_slice()[0].off + v.slot_base;
                let granted = off >= u64::from(FRAME) << FRAME_SHIFT;
                let grant = SMALL.start() + 4;
                let across = off < grant && off + u64::from(n) > grant;
                assert!(granted || !across, "a byte overtook the grant");
                sent[usize::from(granted)] += n;
                conn.tx_rest_sent(v, n);
            }
            TxPath::Back => return sent,
            TxPath::Ring => room.wait(),
            other => panic!("{other:?}"),
        }
    }
}

/// The consumer does all of `reads`, and waits for what is not there; then it stops, and
/// gives back what it has.
fn consume(s: &Slot, reads: &[Read], data: &Notify, room: &Notify) -> Bytes {
    let v = view(s);
    let (mut conn, accepted) = (carried(s), accepted());
    let (mut got, mut taken) = ([0; 2], None);
    for &read in reads {
        let want = match read {
            Read::Bytes(n) => n,
            Read::Take => FRAME_SIZE,
            Read::Release => {
                let place = taken.take().expect("one is taken");
                tell(room, conn.rx_release(&v, place));
                continue;
            }
        };
        loop {
            match conn.rx_source(&v, &accepted, SEQ, SEQ).unwrap() {
                Source::Ring(n) if n >= want => break,
                Source::Ring(_) | Source::Tcp => {
                    if !conn.arm_data(&v).unwrap() {
                        data.wait();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let granted = conn.rx_before_grant() == 0;
        match read {
            Read::Take => {
                let place = conn.rx_take_grant(&v);
                taken = Some(place.expect("a grant is next"));
            }
            _ => tell(room, conn.rx_consume(&v, want).unwrap()),
        }
        got[usize::from(granted)] += want;
    }
    tell(room, conn.rx_stop(&v));
    if let Some(place) = taken {
        tell(room, conn.rx_release(&v, place));
    }
    got
}

/// The producer looks so many times while the consumer reads. `ahead`: all was
/// published before.
fn run(reads: &'static [Read], looks: u32, ahead: bool, loose: Option<u64>) {
    let group = group(loose);
    let (data, room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let s = slot(&group, 1);
    let v = view(&s);
    let mut conn = carried(&s);
    if ahead {
        send(&mut conn, &v, &data);
    }
    let consumer = {
        let (s, data, room) = (slot(&group, 2), data.clone(), room.clone());
        thread::spawn(move || consume(&s, reads, &data, &room))
    };
    if !ahead {
        send(&mut conn, &v, &data);
    }
    for _ in 0..looks {
        conn.tx_space(&v).expect("nobody breaks a rule");
    }
    let sent = rest(&mut conn, &v, &room);
    let got = consumer.join().unwrap();
    assert_eq!([got[0] + sent[0], got[1] + sent[1]], ALL, "lost or doubled");
}

const TAKEN: &[Read] = &[Read::Bytes(4), Read::Take, Read::Bytes(2)];
const RELEASED: &[Read] = &[Read::Bytes(4), Read::Take, Read::Release];
const PART: &[Read] = &[Read::Bytes(4), Read::Bytes(100)];
const WHOLE: &[Read] = &[Read::Bytes(4), Read::Bytes(FRAME_SIZE), Read::Bytes(4)];

#[test]
fn t_16_what_was_taken_was_read() {
    explore(3, || run(TAKEN, 1, true, None));
}

#[test]
fn t_16_a_release_comes_behind_the_head_that_counts_it() {
    explore(3, || run(RELEASED, 1, true, None));
    explore(3, || run(WHOLE, 1, true, None));
}

#[test]
fn t_16_a_part_was_read() {
    explore(3, || run(PART, 2, true, None));
}

#[test]
fn t_16_the_consumer_reads_while_it_is_sent() {
    explore(2, || run(TAKEN, 0, false, None));
    explore(2, || run(WHOLE, 0, false, None));
}

mod without_order {
    use super::*;

    #[test]
    #[should_panic(expected = "BadGrant")]
    fn t_17_a_release_overtakes_the_head() {
        let released = Some(entry(2, conn::RELEASED));
        explore(3, move || run(RELEASED, 1, true, released));
    }

    #[test]
    #[should_panic(expected = "lost or doubled")]
    fn t_16_stop_overtakes_the_head() {
        let flags = Some(entry(2, conn::RX_FLAGS));
        explore(3, move || run(PART, 0, true, flags));
    }
}
