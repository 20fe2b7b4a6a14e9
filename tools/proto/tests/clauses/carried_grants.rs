// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Grants on connections that carry TCP, rule by rule.

use fgdp_proto::proto::grant::Run;
use fgdp_proto::proto::stream::{Conn, Notify, Source, TxPath};
use fgdp_proto::proto::wire::*;

use crate::carried::{cut, with, Pair, ID};
use crate::memory::{accepted, attach, first_extent, slot_base, view, Group};

/// TCP's number at which A's direction is switched.
pub const S: u32 = 500;
pub const PAGE: u32 = FRAME_SIZE;
/// Frames of A behind the ring: that of the records, then those that are granted.
const RECORDS: u32 = 16;
pub const FIRST: u32 = 20;

/// `grant_head` for so many grants read, and bytes of the next one.
pub fn head(read: u32, part: u32) -> u32 {
    (read << GRANT_HEAD_SHIFT) | part
}

/// Where in A's slot frame `n` behind its tables is.
pub fn frame(n: u32) -> u64 {
    u64::from(first_extent(1) + n) * 4096 - slot_base(1)
}

/// Runs `test` on a pair that is on the ring, and whose A has a frame for records.
pub fn on_ring(test: impl FnOnce(Pair<'_>)) {
    with(|mut p| {
        p.switch(S);
        let records = first_extent(1) + RECORDS;
        assert!(p.a.set_tx_grant_frame(&p.av, records));
        test(p);
    });
}

impl Pair<'_> {
    fn try_grant(&mut self, first: u32, frames: u32) -> Option<(u8, Notify)> {
        let pfn = first_extent(1) + first;
        self.a.tx_grant(&self.av, Run { pfn, frames }).unwrap()
    }

    /// A grants frames.
    pub fn grant(&mut self, first: u32, frames: u32) -> u8 {
        let (place, notify) = self.try_grant(first, frames).expect("possible");
        assert!(notify.ready);
        place
    }

    /// B looks, and reads so many bytes.
    pub fn read(&mut self, n: u32) {
        assert!(matches!(self.source(S, S), Source::Ring(unread) if unread >= n));
        self.consume(n);
    }

    pub fn take(&mut self) -> u8 {
        assert!(matches!(self.source(S, S), Source::Ring(1..)));
        self.b.rx_take_grant(&self.bv).expect("a grant is next")
    }

    pub fn stop(&mut self) {
        assert!(self.b.rx_stop(&self.bv).ready);
    }

    /// Offset in the group of a word of B's entry.
    pub fn told(&self, off: u64) -> u64 {
        slot_base(2) + conn_entry(ID) + off
    }

    fn head(&self) -> u32 {
        self.group.peek(self.told(conn::GRANT_HEAD))
    }

    pub fn set_head(&self, word: u32) {
        self.group.poke(self.told(conn::GRANT_HEAD), word);
    }

    pub fn released(&mut self) -> Vec<u8> {
        self.a.take_released().iter().collect()
    }

    /// What A sends by TCP next, which is one run: so many bytes from there on.
    pub fn rest(&mut self) -> Option<(u64, u32)> {
        let TxPath::Rest(n) = self.path(S) else {
            return None;
        };
        let spans = self.a.tx_rest_spans(&self.av, u32::MAX);
        assert_eq!(spans.as_slice().len(), 1);
        let span = spans.as_slice()[0];
        assert_eq!(span.len, n);
        Some((span.off, span.len))
    }

    pub fn sent(&mut self, n: u32) {
        self.a.tx_rest_sent(&self.av, n);
    }
}

#[test]
fn t_16_grant_head_says_what_was_read() {
    on_ring(|mut p| {
        p.send(100);
        p.grant(FIRST, 2);
        p.send(10);
        p.grant(FIRST + 2, 1);
        p.grant(FIRST + 3, 3);
        p.read(60);
        assert_eq!(p.head(), 0);
        p.read(90);
        assert_eq!(p.head(), head(0, 50));
        p.read(2 * PAGE - 51);
        assert_eq!(p.head(), head(0, 2 * PAGE - 1));
        p.read(1);
        assert_eq!(p.head(), head(1, 0));
        p.read(10);
        assert_eq!(p.head(), head(1, 0));
        // Taken out of the stream is read.
        let place = p.take();
        assert_eq!((place, p.head()), (1, head(2, 0)));
        assert_eq!(p.path(S), TxPath::Ring);
        assert_eq!(p.released(), [0]);
        p.read(7);
        assert_eq!(p.head(), head(2, 7));
        assert!(p.b.rx_release(&p.bv, place).ready);
        assert_eq!(p.head(), head(2, 7));
        assert_eq!(p.path(S), TxPath::Ring);
        assert_eq!(p.released(), [1]);
        // It is final after STOP.
        p.stop();
        p.consume(5);
        assert_eq!(p.b.rx_take_grant(&p.bv), None);
        assert_eq!(p.head(), head(2, 7));
    });
}

#[test]
fn t_16_other_connections_have_none() {
    let group = Group::new(2);
    let slots = [attach(&group, 1), attach(&group, 2)];
    let (av, bv) = (view(&slots[0], &group, 2), view(&slots[1], &group, 1));
    let [mut a, mut b] = [0; 2].map(|_| Conn::new(ID, Kind::Stream));
    a.init_entry(&av);
    b.init_entry(&bv);
    a.set_peer(&av, ID).unwrap();
    b.set_peer(&bv, ID).unwrap();
    let pfn = first_extent(1);
    assert!(a.set_tx_grant_frame(&av, pfn));
    for n in 1..3 {
        let run = Run {
            pfn: pfn + n,
            frames: 1,
        };
        assert!(a.tx_grant(&av, run).unwrap().is_some());
    }
    assert_eq!(b.rx_avail(&bv, &accepted(1)), Ok(2 * PAGE));
    let _ = b.rx_consume(&bv, PAGE + 1).unwrap();
    let at = slot_base(2) + conn_entry(ID) + conn::GRANT_HEAD;
    assert_eq!(group.peek(at), 0);
    group.poke(at, 77);
    assert!(a.tx_space(&av).is_ok());
    assert_eq!(a.take_released().iter().collect::<Vec<_>>(), [0]);
}

#[test]
fn t_16_counts_wrap() {
    on_ring(|mut p| {
        // The count of the word of rings has 16 bits, that of grant_head 10.
        for n in 0u32..66_000 {
            let place = p.grant(FIRST, 1);
            assert_eq!(u32::from(place), n % GRANTS);
            if n % 3 == 0 {
                let taken = p.take();
                let _ = p.b.rx_release(&p.bv, taken);
            } else {
                p.read(n % PAGE);
                assert_eq!(p.head(), head(n % 1024, n % PAGE));
                assert_eq!(p.path(S), TxPath::Ring);
                p.read(PAGE - n % PAGE);
            }
            assert_eq!(p.head(), head((n + 1) % 1024, 0));
            assert_eq!(p.path(S), TxPath::Ring);
            assert_eq!(p.released(), [place]);
        }
        // What is left is known behind the wrap, too.
        p.grant(FIRST, 1);
        p.send(3);
        p.grant(FIRST + 1, 1);
        p.read(9);
        p.stop();
        assert_eq!(p.rest(), Some((frame(FIRST) + 9, PAGE - 9)));
        p.sent(u32::MAX);
        assert_eq!(p.rest().unwrap().1, 3);
        p.sent(3);
        assert_eq!(p.rest(), Some((frame(FIRST + 1), PAGE)));
    });
}

#[test]
fn t_16_all_places_may_be_unread_when_the_counts_wrap() {
    on_ring(|mut p| {
        for _ in 0..5 {
            for n in 0..GRANTS {
                assert!(p.a.tx_can_grant());
                p.grant(FIRST + n, 1);
            }
            assert!(!p.a.tx_can_grant());
            assert_eq!(p.try_grant(FIRST, 1).map(|g| g.0), None);
            for _ in 0..GRANTS {
                p.read(PAGE);
            }
            assert_eq!(p.path(S), TxPath::Ring);
            assert_eq!(p.released().len(), 256);
        }
        for n in 0..GRANTS {
            p.grant(FIRST + n, 1);
        }
        p.stop();
        for n in 0..GRANTS {
            assert_eq!(p.rest(), Some((frame(FIRST + n), PAGE)));
            p.sent(PAGE);
            assert_eq!(p.released(), [n as u8]);
        }
        assert_eq!(p.path(S), TxPath::Back);
        assert!(!p.a.tx_is_granting());
    });
}

#[test]
fn t_16_grants_go_only_where_the_ring_does() {
    // Before the switch.
    with(|mut p| {
        let records = first_extent(1) + RECORDS;
        assert!(p.a.set_tx_grant_frame(&p.av, records));
        assert!(!p.a.tx_can_grant());
        assert!(p.try_grant(FIRST, 1).is_none());
        p.switch(S);
        assert!(p.try_grant(FIRST, 1).is_some());
    });
    let ends: [fn(&mut Pair<'_>); 7] = [
        |p| _ = p.a.tx_back(&p.av),
        |p| _ = p.a.tx_fin(&p.av),
        |p| _ = p.a.tx_reset(&p.av),
        |p| p.stop(),
        |p| _ = p.b.tx_reset(&p.bv),
        |p| p.a.peer_done().unwrap(),
        |p| p.a.cut(&p.av),
    ];
    for end in ends {
        on_ring(|mut p| {
            p.grant(FIRST, 1);
            end(&mut p);
            // The other one's word counts when it was seen.
            let _ = p.path(S);
            let _ = p.a.rx_avail(&p.av, &accepted(2)).unwrap();
            let word = p.group.peek(p.word(conn::RING_SERIAL));
            assert!(!p.a.tx_can_grant());
            assert!(p.try_grant(FIRST, 1).is_none());
            assert_eq!(p.group.peek(p.word(conn::RING_SERIAL)), word);
        });
    }
}

#[test]
fn t_16_what_was_taken_can_be_given_back_after_stop() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        p.grant(FIRST + 1, 1);
        let taken = [p.take(), p.take()];
        p.grant(FIRST + 2, 1);
        p.stop();
        assert!(p.b.rx_has_taken());
        // STOP is the last look at releases.
        assert!(p.b.rx_release(&p.bv, taken[1]).ready);
        assert!(!p.b.rx_release(&p.bv, 2).ready, "not taken");
        assert_eq!(p.rest(), Some((frame(FIRST + 2), PAGE)));
        assert_eq!(p.released(), [1]);
        assert!(p.b.rx_release(&p.bv, taken[0]).ready);
        assert_eq!(p.rest(), Some((frame(FIRST + 2), PAGE)));
        assert!(p.released().is_empty());
        // The rest has not gone yet; DONE returns what was read.
        p.a.peer_done().unwrap();
        assert_eq!(p.released(), [0]);
        assert!(p.a.tx_is_granting());
        p.sent(PAGE);
        assert_eq!(p.released(), [2]);
        assert!(!p.a.tx_is_granting());
    });
}

#[test]
fn s_15_done_waits_for_grants_that_were_taken() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        let place = p.take();
        let _ = p.a.rx_stop(&p.av);
        p.stop();
        assert_eq!(p.b.poll_done(&p.bv), Ok(None));
        assert!(p.a.poll_done(&p.av).unwrap().is_some());
        let _ = p.b.rx_release(&p.bv, place);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
    });
}

#[test]
fn t_8_nothing_is_taken_after_an_end() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        assert_eq!(p.source(S, S), Source::Ring(PAGE));
        // B aborts: it reads nothing any more, and says so.
        let _ = p.b.tx_reset(&p.bv);
        assert_eq!(p.b.rx_next_grant(), None);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
        assert_eq!(p.b.rx_take_grant(&p.bv), None);
        assert_eq!(p.head(), 0);
    });
}

#[test]
fn t_10_the_rest_follows_as_it_was_sent() {
    on_ring(|mut p| {
        p.send(100);
        let places = [p.grant(FIRST, 1), p.grant(FIRST + 1, 2)];
        p.send(10_000);
        let last = p.grant(FIRST + 3, 1);
        p.read(40);
        assert_eq!(p.path(S), TxPath::Ring);
        p.stop();
        assert_eq!(p.rest(), Some((frame(0) + 40, 60)));
        // In pieces, and not more than were next.
        p.sent(0);
        p.sent(59);
        assert_eq!(p.rest(), Some((frame(0) + 99, 1)));
        p.sent(u32::MAX);
        assert_eq!(p.rest(), Some((frame(FIRST), PAGE)));
        p.sent(PAGE - 1);
        assert!(p.released().is_empty());
        assert_eq!(p.rest(), Some((frame(FIRST) + u64::from(PAGE) - 1, 1)));
        p.sent(1);
        assert_eq!(p.released(), [places[0]]);
        assert_eq!(p.rest(), Some((frame(FIRST + 1), 2 * PAGE)));
        assert!(p.a.tx_keeps_bytes());
        assert_eq!(p.a.take_tx_rings(), [None, None]);
        assert_eq!(p.a.take_tx_grant_frame(), None);
        p.sent(2 * PAGE);
        assert_eq!(p.released(), [places[1]]);
        assert_eq!(p.rest(), Some((frame(0) + 100, 10_000)));
        p.sent(10_000);
        assert_eq!(p.rest(), Some((frame(FIRST + 3), PAGE)));
        p.sent(PAGE);
        assert_eq!(p.path(S), TxPath::Back);
        assert_eq!(p.released(), [last]);
        assert!(!p.a.tx_keeps_bytes());
        assert!(p.a.take_tx_grant_frame().is_some());
    });
}

#[test]
fn t_11_no_grant_comes_after_an_end() {
    let ends: [fn(&mut Pair<'_>) -> Notify; 3] = [
        |p| p.a.tx_back(&p.av),
        |p| p.a.tx_fin(&p.av),
        |p| p.a.tx_reset(&p.av),
    ];
    for end in ends {
        on_ring(|mut p| {
            p.grant(FIRST, 1);
            let _ = end(&mut p);
            let acc = accepted(1);
            assert_eq!(p.b.rx_avail(&p.bv, &acc), Ok(PAGE));
            // One that would be good before.
            let record = u64::from(first_extent(1) + RECORDS) * 4096 + GRANT_SIZE;
            p.group.poke(record + grant::PFN, first_extent(1) + FIRST);
            p.group.poke(record + grant::FRAMES, 1);
            let word = p.word(conn::RING_SERIAL);
            let next = p.group.peek(word) + (1 << GRANTS_SHIFT);
            p.group.poke(word, next);
            assert_eq!(p.b.rx_avail(&p.bv, &acc), Err(Reason::BadGrant));
        });
    }
}

#[test]
fn t_12_frames_stay_until_their_bytes_went() {
    on_ring(|mut p| {
        let places = [
            p.grant(FIRST, 1),
            p.grant(FIRST + 1, 1),
            p.grant(FIRST + 2, 1),
        ];
        p.read(PAGE + 30);
        let _ = p.a.rx_stop(&p.av);
        let _ = p.b.tx_back(&p.bv);
        p.stop();
        // B says DONE before A has looked.
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
        p.a.peer_done().unwrap();
        assert!(p.released().is_empty());
        assert_eq!(p.rest(), Some((frame(FIRST + 1) + 30, PAGE - 30)));
        assert_eq!(p.released(), [places[0]]);
        assert!(p.a.poll_done(&p.av).unwrap().is_some());
        assert!(p.a.is_free());
        // The entries are somebody else's now.
        p.set_head(u32::MAX);
        p.group.poke(p.told(conn::RELEASED), u32::MAX);
        p.sent(PAGE - 30);
        assert_eq!(p.released(), [places[1]]);
        assert_eq!(p.rest(), Some((frame(FIRST + 2), PAGE)));
        assert_eq!(p.a.take_tx_grant_frame(), None);
        p.sent(PAGE);
        assert_eq!(p.released(), [places[2]]);
        assert_eq!(p.path(S), TxPath::Back);
        assert!(p.a.take_tx_grant_frame().is_some());
    });
}

#[test]
fn t_12_a_release_before_done_is_no_news_after_it() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        p.grant(FIRST + 1, 1);
        let place = p.take();
        assert_eq!(p.path(S), TxPath::Ring);
        let _ = p.b.rx_release(&p.bv, place);
        p.stop();
        p.a.peer_done().unwrap();
        assert_eq!(p.released(), [place]);
        assert_eq!(p.rest(), Some((frame(FIRST + 1), PAGE)));
    });
}

#[test]
fn t_15_what_a_reset_makes_void_comes_back_with_done() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        p.grant(FIRST + 1, 1);
        p.read(30);
        let _ = p.b.tx_reset(&p.bv);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
        // DONE is seen before RST.
        p.a.peer_done().unwrap();
        assert!(p.released().is_empty());
        let acc = accepted(2);
        assert_eq!(p.a.rx_avail(&p.av, &acc), Ok(0));
        assert!(!p.a.tx_keeps_bytes());
        // In any order.
        assert!(p.a.take_tx_grant_frame().is_some());
        assert_eq!(p.path(S), TxPath::Back);
        assert!(p.a.poll_done(&p.av).unwrap().is_some());
        assert_eq!(p.released(), [0, 1]);
    });
    // Bytes of grants before RST can be read.
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        p.grant(FIRST + 1, 1);
        let _ = p.a.tx_reset(&p.av);
        p.read(30);
        assert!(p.a.poll_done(&p.av).unwrap().is_some());
        p.read(PAGE - 30);
        let place = p.take();
        assert_eq!(p.b.poll_done(&p.bv), Ok(None));
        let _ = p.b.rx_release(&p.bv, place);
        assert!(p.b.poll_done(&p.bv).unwrap().is_some());
        assert!(p.a.tx_is_granting());
        p.a.peer_done().unwrap();
        assert_eq!(p.released(), [0, 1]);
    });
}

#[test]
fn t_13_a_release_after_the_channels_end_is_not_said() {
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        let place = p.take();
        cut(&mut p);
        // The entry is another connection's.
        let other = Conn::new_carried(ID + (1 << 16));
        other.init_entry(&p.bv);
        assert!(!p.b.rx_release(&p.bv, place).ready);
        assert!(!p.b.rx_has_taken());
        assert_eq!(p.group.peek(p.told(conn::RELEASED)), 0);
    });
}
