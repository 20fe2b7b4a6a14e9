// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Connections that carry TCP, rule by rule.

use fgdp_proto::proto::mem::View;
use fgdp_proto::proto::stream::{Conn, Endpoint, Ring, Source, TxPath};
use fgdp_proto::proto::wire::*;

use crate::memory::{accepted, attach, first_extent, slot_base, view, Group, Slot};

pub const ID: u32 = (1 << 16) | 7;

/// Both members have a carried connection; `a` is member 1, `b` member 2.
pub struct Pair<'a> {
    pub group: &'a Group,
    pub a: Conn,
    pub b: Conn,
    pub av: View<'a, Slot, Group>,
    pub bv: View<'a, Slot, Group>,
}

fn pair<'a>(group: &'a Group, slots: &'a [Slot; 2]) -> Pair<'a> {
    let (av, bv) = (view(&slots[0], group, 2), view(&slots[1], group, 1));
    let [mut a, mut b] = [Conn::new_carried(ID), Conn::new_carried(ID)];
    a.init_entry(&av);
    b.init_entry(&bv);
    b.set_peer(&bv, ID).unwrap();
    a.set_peer(&av, ID).unwrap();
    Pair {
        group,
        a,
        b,
        av,
        bv,
    }
}

/// Runs `test` on a new pair.
pub fn with(test: impl FnOnce(Pair<'_>)) {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    test(pair(&group, &slots));
}

impl Pair<'_> {
    /// A's direction goes by the ring from `seq` on.
    pub fn switch(&mut self, seq: u32) {
        assert_eq!(self.a.tx_switch(&self.av, seq), Ok(true));
        let ring = Ring {
            pfn: first_extent(1),
            frames: 4,
        };
        self.a.set_tx_ring(&self.av, ring).unwrap();
    }

    /// A sends `n` bytes into the ring.
    pub fn send(&mut self, n: u32) {
        assert!(self.a.tx_space(&self.av).unwrap() >= n);
        let _ = self.a.tx_publish(&self.av, n).unwrap();
    }

    /// Where B reads from, when TCP has all bytes before `rcv_nxt` and the reader
    /// those before `copied`.
    pub fn source(&mut self, copied: u32, rcv_nxt: u32) -> Source {
        let acc = accepted(1);
        self.b
            .rx_source(&self.bv, &acc, copied, rcv_nxt)
            .expect("nobody breaks a rule")
    }

    pub fn consume(&mut self, n: u32) {
        let _ = self.b.rx_consume(&self.bv, n).unwrap();
    }

    pub fn path(&mut self, seq: u32) -> TxPath {
        self.a.tx_path(&self.av, seq).expect("nobody breaks a rule")
    }

    /// Offset in the group of a word of A's entry.
    pub fn word(&self, off: u64) -> u64 {
        slot_base(1) + conn_entry(ID) + off
    }
}

#[test]
fn t_3_a_proposal_proves_the_connection() {
    let here = Endpoint {
        addr: [1; 16],
        peer_addr: [2; 16],
        port: 80,
        peer_port: 40_000,
        isn: 5,
        peer_isn: 9,
    };
    let there = Endpoint {
        addr: here.peer_addr,
        peer_addr: here.addr,
        port: here.peer_port,
        peer_port: here.port,
        isn: here.peer_isn,
        peer_isn: here.isn,
    };
    let carry = there.propose(ID);
    assert_eq!(carry.peer_conn, ID);
    assert_eq!(here.check(&carry, true), Ok(()));
    assert_eq!(here.check(&carry, false), Err(Refusal::NoSocket));
    for wrong in [
        Carry {
            src_addr: [3; 16],
            ..carry
        },
        Carry {
            dst_addr: [3; 16],
            ..carry
        },
        Carry {
            src_port: 40_001,
            ..carry
        },
        Carry {
            dst_port: 81,
            ..carry
        },
    ] {
        assert_eq!(here.check(&wrong, true), Err(Refusal::NoSocket));
    }
    for wrong in [
        Carry {
            src_isn: 8,
            ..carry
        },
        Carry {
            dst_isn: 6,
            ..carry
        },
        Carry {
            src_isn: 5,
            dst_isn: 9,
            ..carry
        },
    ] {
        assert_eq!(here.check(&wrong, true), Err(Refusal::Sequence));
    }
}

#[test]
fn t_4_bytes_before_the_switch_come_by_tcp_and_then_the_ring() {
    // Also where TCP's numbers wrap.
    for s in [1000, 0, 5, u32::MAX, 1 << 31] {
        with(|mut p| {
            let at = |n: i32| s.wrapping_add_signed(n);
            assert_eq!(p.source(at(-10), at(-10)), Source::Tcp);
            assert_eq!(p.path(s), TxPath::Tcp);
            p.switch(s);
            assert_eq!(p.path(s), TxPath::Ring);
            p.send(100);
            assert_eq!(p.source(at(-10), at(-4)), Source::TcpUntil(10));
            assert_eq!(p.source(at(-1), s), Source::TcpUntil(1));
            assert_eq!(p.source(s, s), Source::Ring(100));
            p.consume(60);
            assert_eq!(p.source(s, s), Source::Ring(40));
            // Once in a connection's life.
            assert_eq!(p.a.tx_switch(&p.av, at(5)), Ok(false));
            assert_eq!(p.group.peek(p.word(conn::TCP_SEQ)), s);
        });
    }
}

#[test]
fn t_4_nothing_is_switched_before_the_peer_is_known() {
    let group = Group::new(2);
    let slot = attach(&group, 1);
    attach(&group, 2);
    let v = view(&slot, &group, 2);
    let mut a = Conn::new_carried(ID);
    a.init_entry(&v);
    assert_eq!(a.tx_switch(&v, 7), Ok(false));
    assert_eq!(a.tx_path(&v, 7), Ok(TxPath::Tcp));
    let acc = accepted(2);
    assert_eq!(a.rx_source(&v, &acc, 7, 7), Ok(Source::Tcp));
}

#[test]
fn t_6_stray_bytes_end_the_ring_on_both_sides() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        p.consume(4);
        // A thread that was inside TCP's send function adds three bytes.
        assert_eq!(p.path(503), TxPath::Stray);
        assert!(p.a.tx_back(&p.av).ready);
        assert_eq!(p.path(503), TxPath::Wait);
        assert_eq!(p.a.tx_space(&p.av), Ok(0));
        assert!(p.b.rx_tcp_seen(503));
        assert_eq!(p.source(500, 503), Source::Stop);
        assert!(p.b.rx_stop(&p.bv).ready);
        assert_eq!(p.source(500, 503), Source::Back);
        assert_eq!(p.path(503), TxPath::Rest(6));
    });
    // The reader was faster than the look at the flags.
    with(|mut p| {
        p.switch(500);
        assert_eq!(p.source(502, 502), Source::Stop);
    });
}

#[test]
fn t_8_stop_makes_the_head_final_and_the_rest_goes_by_tcp() {
    with(|mut p| {
        p.switch(500);
        p.send(16 << 10);
        assert_eq!(p.source(500, 500), Source::Ring(16 << 10));
        p.consume(10_000);
        p.send(10_000);
        assert!(p.b.rx_stop(&p.bv).ready);
        assert!(!p.b.rx_stop(&p.bv).ready);
        // The head does not move any more.
        p.consume(100);
        assert_eq!(p.b.rx_avail(&p.bv, &accepted(1)), Ok(0));
        let rest = (16 << 10) + 10_000 - 10_000;
        assert_eq!(p.path(500), TxPath::Rest(rest));
        assert!(!p.a.tx_on_ring());
        assert_eq!(p.a.tx_space(&p.av), Ok(0));
        assert!(p.a.tx_keeps_bytes());
        assert_eq!(p.a.take_tx_rings(), [None, None]);
        // In the order of the stream, from the place of the final head on.
        let first = u64::from(first_extent(1)) * 4096 - slot_base(1);
        let spans = p.a.tx_rest_spans(&p.av, u32::MAX);
        assert_eq!(spans.bytes(), rest);
        assert_eq!(spans.as_slice()[0].off, first + 10_000);
        p.a.tx_rest_sent(&p.av, 7000);
        assert_eq!(p.path(7500), TxPath::Rest(rest - 7000));
        assert_eq!(p.a.tx_unacked(&p.av), Ok(rest - 7000));
        let spans = p.a.tx_rest_spans(&p.av, 5);
        assert_eq!(spans.as_slice()[0].off, first + (17_000 - (16 << 10)));
        p.a.tx_rest_sent(&p.av, u32::MAX);
        assert_eq!(p.path(1), TxPath::Back);
        assert!(p.a.tx_rest_spans(&p.av, 5).as_slice().is_empty());
        assert!(p.a.take_tx_rings()[0].is_some());
    });
}

#[test]
fn t_8_nothing_that_comes_after_stop_matters() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        let _ = p.b.rx_stop(&p.bv);
        p.group.poke(p.word(conn::TAIL), 0xffff_0000);
        p.group.poke(p.word(conn::RING_SERIAL), 77);
        assert_eq!(p.b.rx_avail(&p.bv, &accepted(1)), Ok(0));
        assert_eq!(p.b.arm_data(&p.bv), Ok(false));
        assert!(p.b.rx_spans(0, 10).as_slice().is_empty());
        // But an end does.
        assert!(p.a.tx_reset(&p.av).ready);
        assert_eq!(p.b.arm_data(&p.bv), Ok(true));
        assert_eq!(p.b.rx_avail(&p.bv, &accepted(1)), Ok(0));
        assert!(p.b.rx_reset());
    });
}

#[test]
fn s_9_to_s_11_a_flag_that_was_seen_before_arming_is_not_slept_on() {
    with(|mut p| {
        p.switch(500);
        p.send(16 << 10);
        let _ = p.a.tx_back(&p.av);
        assert_eq!(p.b.rx_avail(&p.bv, &accepted(1)), Ok(16 << 10));
        assert_eq!(p.b.arm_data(&p.bv), Ok(true));
    });
    with(|mut p| {
        p.switch(500);
        p.send(16 << 10);
        let _ = p.b.rx_stop(&p.bv);
        assert_eq!(p.a.tx_unacked(&p.av), Ok(16 << 10));
        assert_eq!(p.a.arm_space(&p.av, 1), Ok(true));
        let _ = p.a.tx_fin(&p.av);
        assert_eq!(p.a.arm_drained(&p.av), Ok(true));
    });
}

#[test]
fn t_8_a_direction_that_was_stopped_is_not_switched() {
    with(|mut p| {
        let _ = p.b.rx_stop(&p.bv);
        assert_eq!(p.a.tx_switch(&p.av, 1), Ok(false));
        assert_eq!(p.path(1), TxPath::Back);
        assert_eq!(p.group.peek(p.word(conn::TX_FLAGS)), 0);
    });
}

#[test]
fn t_9_the_producer_goes_back_when_the_consumer_stopped() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        assert!(p.a.tx_back(&p.av).ready);
        assert!(!p.a.tx_back(&p.av).ready);
        assert_eq!(p.path(500), TxPath::Wait);
        assert_eq!(p.a.tx_publish(&p.av, 1).map(|n| n.ready), Ok(false));
        assert_eq!(p.source(490, 500), Source::Stop);
        let _ = p.b.rx_stop(&p.bv);
        assert_eq!(p.path(500), TxPath::Rest(10));
    });
    // Never to leave TCP is a word too.
    with(|mut p| {
        assert!(p.a.tx_back(&p.av).ready);
        assert_eq!(p.path(500), TxPath::Back);
        assert_eq!(p.a.tx_switch(&p.av, 500), Ok(false));
        assert_eq!(p.source(490, 500), Source::Stop);
    });
}

#[test]
fn t_10_tcp_ends_when_the_ring_is_drained() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        assert!(p.a.tx_fin(&p.av).ready);
        assert_eq!(p.path(500), TxPath::Wait);
        assert_eq!(p.a.arm_drained(&p.av), Ok(false));
        assert_eq!(p.source(500, 500), Source::Ring(10));
        let ready = p.b.rx_consume(&p.bv, 10).unwrap().ready;
        assert!(ready, "the producer waits for it");
        assert_eq!(p.source(500, 500), Source::End);
        assert_eq!(p.path(500), TxPath::Back);
        // TCP's FIN has a number of its own.
        assert_eq!(p.source(500, 501), Source::End);
        assert_eq!(p.source(501, 501), Source::Stop);
    });
    // Stopped before it was drained: all the rest, then the end, by TCP.
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.a.tx_fin(&p.av);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        p.consume(9);
        let _ = p.b.rx_stop(&p.bv);
        assert_eq!(p.path(500), TxPath::Rest(1));
        p.a.tx_rest_sent(&p.av, 1);
        assert_eq!(p.path(501), TxPath::Back);
    });
    // Without a ring, the end is TCP's.
    with(|mut p| {
        assert!(p.a.tx_fin(&p.av).ready);
        assert_eq!(p.group.peek(p.word(conn::TX_FLAGS)), TX_BACK);
        assert_eq!(p.path(500), TxPath::Back);
    });
}

#[test]
fn t_12_both_say_done_when_both_directions_are_back() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.a.rx_stop(&p.av);
        let _ = p.b.tx_back(&p.bv);
        assert_eq!(p.a.poll_done(&p.av), Ok(None));
        assert_eq!(p.b.poll_done(&p.bv), Ok(None));
        let _ = p.b.rx_stop(&p.bv);
        let done = Ok(Some(Msg::Done { conn: ID }));
        assert_eq!(p.a.poll_done(&p.av), done);
        assert_eq!(p.b.poll_done(&p.bv), done);
        p.a.peer_done().unwrap();
        p.b.peer_done().unwrap();
        assert!(p.a.is_free() && p.b.is_free());
        // The entries are somebody else's now; the rest is not.
        p.group.poke(p.word(conn::TX_FLAGS), 0);
        assert_eq!(p.path(500), TxPath::Rest(10));
        let _ = p.a.tx_back(&p.av);
        assert_eq!(p.group.peek(p.word(conn::TX_FLAGS)), 0);
        p.a.tx_rest_sent(&p.av, 10);
        assert_eq!(p.path(510), TxPath::Back);
    });
}

#[test]
fn t_12_done_without_stop_resets() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        p.a.peer_done().unwrap();
        assert_eq!(p.path(500), TxPath::Reset);
    });
}

#[test]
fn t_15_bytes_before_a_reset_can_be_read() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.a.tx_reset(&p.av);
        assert_eq!(p.path(500), TxPath::Reset);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        p.consume(4);
        assert_eq!(p.source(500, 500), Source::Ring(6));
        // The one that reset has nothing to wait for; the other one has something to read.
        assert!(p.a.poll_done(&p.av).unwrap().is_some());
        assert_eq!(p.b.poll_done(&p.bv), Ok(None));
        p.consume(6);
        assert_eq!(p.source(500, 500), Source::Back);
        assert_eq!(p.b.tx_path(&p.bv, 900), Ok(TxPath::Back));
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
    });
    // Bytes that come by TCP before the switch come first.
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.a.tx_reset(&p.av);
        assert_eq!(p.source(490, 500), Source::TcpUntil(10));
        assert_eq!(p.source(500, 500), Source::Ring(10));
    });
    with(|mut p| {
        let _ = p.a.tx_reset(&p.av);
        assert_eq!(p.source(490, 500), Source::Back);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
    });
}

#[test]
fn t_15_the_tail_is_final_after_a_reset() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.a.tx_reset(&p.av);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        p.group.poke(p.word(conn::TAIL), 12);
        let acc = accepted(1);
        let got = p.b.rx_source(&p.bv, &acc, 500, 500);
        assert_eq!(got, Err(Reason::BadPosition));
    });
}

#[test]
fn t_12_a_done_that_came_before_the_channels_end_is_no_reason_to_reset() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        let _ = p.b.tx_back(&p.bv);
        let _ = p.a.rx_stop(&p.av);
        let _ = p.b.rx_stop(&p.bv);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
        p.a.peer_done().unwrap();
        cut(&mut p);
        assert_eq!(p.path(500), TxPath::Wait);
        p.a.tx_final(&p.av);
        assert_eq!(p.path(500), TxPath::Rest(10));
    });
}

#[test]
fn t_13_flags_set_before_the_answer_are_told_after_it() {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    let (av, bv) = (view(&slots[0], &group, 2), view(&slots[1], &group, 1));
    let [mut a, mut b] = [Conn::new_carried(ID), Conn::new_carried(ID)];
    a.init_entry(&av);
    b.init_entry(&bv);
    b.set_peer(&bv, ID).unwrap();
    assert!(!a.tx_back(&av).ready);
    assert!(!a.rx_stop(&av).ready);
    a.set_peer(&av, ID).unwrap();
    assert!(a.late_flags().ready);
    assert!(!a.late_flags().ready);
    assert!(!b.late_flags().ready);
}

/// A's channel ends, then B's.
pub fn cut(p: &mut Pair<'_>) {
    p.a.cut(&p.av);
    assert_eq!(p.a.tx_space(&p.av), Ok(0));
    p.b.cut(&p.bv);
}

#[test]
fn t_14_the_final_head_is_fetched_after_the_peers_close() {
    with(|mut p| {
        p.switch(500);
        p.send(10);
        assert_eq!(p.source(500, 500), Source::Ring(10));
        p.a.cut(&p.av);
        assert_eq!(p.path(500), TxPath::Wait);
        // B reads on until it is told.
        p.consume(3);
        p.b.cut(&p.bv);
        assert_eq!(p.path(500), TxPath::Wait);
        p.a.tx_final(&p.av);
        assert_eq!(p.path(500), TxPath::Rest(7));
        p.b.tx_final(&p.bv);
        assert_eq!(p.b.tx_path(&p.bv, 1), Ok(TxPath::Back));
        assert_eq!(p.source(500, 500), Source::Back);
        assert_eq!(p.a.poll_done(&p.av), Ok(None));
    });
}

#[test]
fn t_14_a_head_that_nobody_knows_resets() {
    let spoil: [fn(&mut Pair<'_>); 4] = [
        // The entry is another connection's.
        |p| {
            p.group
                .poke(slot_base(2) + conn_entry(ID) + conn::ID, ID + (1 << 16))
        },
        // The peer did not stop.
        |p| {
            p.group
                .poke(slot_base(2) + conn_entry(ID) + conn::RX_FLAGS, 0)
        },
        |p| p.group.poke(slot_base(2) + conn_entry(ID) + conn::HEAD, 11),
        |p| {
            p.group.poke(
                slot_base(2) + conn_entry(ID) + conn::RX_FLAGS,
                RX_SHUT | RX_STOP,
            )
        },
    ];
    for spoil in spoil {
        with(|mut p| {
            p.switch(500);
            p.send(10);
            cut(&mut p);
            spoil(&mut p);
            p.a.tx_final(&p.av);
            assert_eq!(p.path(500), TxPath::Reset);
            assert!(!p.a.tx_keeps_bytes());
        });
        // But if nothing was unread there is nothing to know.
        with(|mut p| {
            p.switch(500);
            p.send(10);
            assert_eq!(p.source(500, 500), Source::Ring(10));
            p.consume(10);
            assert_eq!(p.path(500), TxPath::Ring);
            cut(&mut p);
            spoil(&mut p);
            p.a.tx_final(&p.av);
            assert_eq!(p.path(500), TxPath::Back);
        });
    }
    with(|mut p| {
        p.switch(500);
        p.send(10);
        cut(&mut p);
        p.a.tx_give_up();
        assert_eq!(p.path(500), TxPath::Reset);
    });
}
