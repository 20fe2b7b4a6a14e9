// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What a producer believes of what the peer says that it read of grants.

use fgdp_proto::proto::stream::TxPath;
use fgdp_proto::proto::wire::*;

use crate::carried::{cut, Pair, ID};
use crate::carried_grants::{frame, head, on_ring, FIRST, PAGE, S};

/// A looks when B has read one grant of three, and 10 bytes of the next one, which
/// has two frames; then the test shows it something else. Bytes that were not read,
/// or what A sees in it.
fn shown(change: impl FnOnce(&Pair<'_>)) -> Result<Vec<u8>, Reason> {
    let mut result = Ok(Vec::new());
    on_ring(|mut p| {
        p.send(100);
        p.grant(FIRST, 1);
        p.grant(FIRST + 1, 2);
        p.grant(FIRST + 3, GRANT_MAX_FRAMES);
        p.read(100 + PAGE + 10);
        assert_eq!(p.path(S), TxPath::Ring);
        assert_eq!(p.released(), [0]);
        change(&p);
        result = match p.a.tx_space(&p.av) {
            Ok(_) => Ok(p.released()),
            Err(reason) => {
                assert_eq!(p.a.broken(), Some(reason));
                assert_eq!(p.a.tx_path(&p.av, S), Err(reason));
                assert!(p.released().is_empty());
                Err(reason)
            }
        };
    });
    result
}

#[test]
fn t_17_a_head_that_cannot_be_breaks_the_channel() {
    let bad = Err(Reason::BadGrant);
    let none = Ok(Vec::new());
    assert_eq!(shown(|_| {}), none);
    let head_is = |word| shown(|p| p.set_head(word));
    assert_eq!(head_is(head(1, 10)), none);
    assert_eq!(head_is(head(1, 11)), none);
    assert_eq!(head_is(head(1, 9)), bad, "back in the grant");
    assert_eq!(head_is(head(1, 0)), bad);
    assert_eq!(head_is(head(0, 10)), bad, "back");
    assert_eq!(head_is(head(0, 0)), bad);
    assert_eq!(head_is(head(1023, 0)), bad);
    assert_eq!(head_is(head(513, 0)), bad);
    assert_eq!(head_is(head(1, 2 * PAGE - 1)), none);
    assert_eq!(
        head_is(head(1, 2 * PAGE)),
        bad,
        "all of it is the next count"
    );
    assert_eq!(head_is(head(1, (1 << 22) - 1)), bad);
    assert_eq!(head_is(head(2, 0)), none);
    assert_eq!(head_is(head(2, (1 << 22) - 1)), none);
    assert_eq!(head_is(head(3, 0)), none);
    assert_eq!(head_is(head(3, 1)), bad, "bytes of no grant");
    assert_eq!(head_is(head(4, 0)), bad, "not granted");
    assert_eq!(head_is(u32::MAX), bad);
}

#[test]
fn t_17_what_is_released_was_read() {
    let bad = Err(Reason::BadGrant);
    let both = |word, bits| {
        shown(|p| {
            p.set_head(word);
            p.group.poke(p.told(conn::RELEASED), bits);
        })
    };
    // Bit 0 was flipped before.
    assert_eq!(both(head(1, 10), 1), Ok(vec![]));
    assert_eq!(both(head(1, 10), 3), bad);
    assert_eq!(both(head(2, 0), 3), Ok(vec![1]));
    assert_eq!(both(head(2, 9), 5), bad, "another one");
    assert_eq!(both(head(2, 0), 7), bad);
    assert_eq!(both(head(3, 0), 5), Ok(vec![2]));
    assert_eq!(both(head(3, 0), 7), Ok(vec![1, 2]));
    assert_eq!(both(head(3, 0), 15), bad, "none there");
    assert_eq!(both(head(3, 0), 0), bad, "not once more");
}

#[test]
fn t_17_nothing_is_fetched_when_nothing_is_granted_or_after_stop() {
    on_ring(|mut p| {
        p.set_head(u32::MAX);
        p.group.poke(p.told(conn::RELEASED), u32::MAX);
        assert_eq!(p.path(S), TxPath::Ring);
    });
    on_ring(|mut p| {
        p.grant(FIRST, 2);
        p.read(PAGE + 4);
        p.stop();
        assert_eq!(p.rest(), Some((frame(FIRST + 1) + 4, PAGE - 4)));
        p.set_head(u32::MAX);
        p.group.poke(p.told(conn::RELEASED), u32::MAX);
        assert_eq!(p.rest(), Some((frame(FIRST + 1) + 4, PAGE - 4)));
        assert_eq!(p.a.poll_done(&p.av), Ok(None));
        p.sent(PAGE - 4);
        assert_eq!(p.path(S), TxPath::Back);
        assert_eq!(p.released(), [0]);
    });
}

#[test]
fn t_14_both_heads_are_final_after_the_peers_close() {
    on_ring(|mut p| {
        p.send(100);
        let places = [p.grant(FIRST, 1), p.grant(FIRST + 1, 1)];
        p.send(9);
        let last = p.grant(FIRST + 2, 1);
        p.a.cut(&p.av);
        // B reads on until it is told.
        p.read(60);
        p.read(40 + PAGE);
        p.read(6);
        p.b.cut(&p.bv);
        assert_eq!(p.path(S), TxPath::Wait);
        assert!(p.a.tx_keeps_bytes());
        assert!(p.released().is_empty());
        p.a.tx_final(&p.av);
        assert_eq!(p.rest(), Some((frame(FIRST + 1) + 6, PAGE - 6)));
        p.sent(PAGE - 6);
        assert_eq!(p.released(), [places[1]]);
        assert_eq!(p.rest(), Some((frame(0) + 100, 9)));
        p.sent(9);
        assert_eq!(p.rest(), Some((frame(FIRST + 2), PAGE)));
        p.sent(PAGE);
        assert_eq!(p.released(), [last]);
        assert_eq!(p.path(S), TxPath::Back);
        // What was read comes back by the peer's close (G-6).
        assert!(p.a.tx_is_granting() && !p.a.tx_keeps_bytes());
        assert!(p.a.take_tx_grant_frame().is_some());
    });
}

#[test]
fn t_14_a_head_of_grants_that_nobody_knows_resets() {
    let spoil: [fn(&mut Pair<'_>); 9] = [
        |p| p.set_head(head(0, 9)),
        |p| p.set_head(head(0, PAGE)),
        |p| p.set_head(head(2, 1)),
        |p| p.set_head(head(3, 0)),
        |p| p.set_head(u32::MAX),
        // One of them is good, and says that all was read.
        |p| {
            p.set_head(head(2, 0));
            p.group.poke(p.told(conn::RX_FLAGS), 0);
        },
        |p| {
            p.set_head(head(2, 0));
            p.group.poke(p.told(conn::RX_FLAGS), RX_STOP | RX_SHUT);
        },
        |p| {
            p.set_head(head(2, 0));
            p.group.poke(p.told(conn::HEAD), 101);
        },
        |p| {
            p.set_head(head(2, 0));
            p.group.poke(p.told(conn::ID), ID + (1 << 16));
        },
    ];
    for spoil in spoil {
        on_ring(|mut p| {
            p.send(100);
            p.grant(FIRST, 1);
            p.grant(FIRST + 1, 1);
            p.read(100 + 10);
            assert_eq!(p.path(S), TxPath::Ring);
            cut(&mut p);
            spoil(&mut p);
            p.a.tx_final(&p.av);
            assert_eq!(p.path(S), TxPath::Reset);
            assert!(!p.a.tx_keeps_bytes());
            assert!(p.a.tx_rest_spans(&p.av, 5).as_slice().is_empty());
        });
        // But if nothing was unread there is nothing to know.
        on_ring(|mut p| {
            p.send(100);
            p.grant(FIRST, 1);
            p.grant(FIRST + 1, 1);
            p.read(100 + PAGE);
            p.take();
            assert_eq!(p.path(S), TxPath::Ring);
            cut(&mut p);
            spoil(&mut p);
            p.a.tx_final(&p.av);
            assert_eq!(p.path(S), TxPath::Back);
        });
    }
    on_ring(|mut p| {
        p.grant(FIRST, 1);
        cut(&mut p);
        p.a.tx_give_up();
        assert_eq!(p.path(S), TxPath::Reset);
    });
}

#[test]
fn t_14_a_stop_with_a_bad_head_is_none() {
    for bad in [head(0, PAGE), head(2, 0)] {
        on_ring(|mut p| {
            p.send(100);
            p.grant(FIRST, 1);
            p.read(100 + 10);
            p.stop();
            p.set_head(bad);
            assert_eq!(p.a.tx_path(&p.av, S), Err(Reason::BadGrant));
            p.a.cut(&p.av);
            p.b.cut(&p.bv);
            assert_eq!(p.path(S), TxPath::Wait);
            p.a.tx_final(&p.av);
            assert_eq!(p.path(S), TxPath::Reset);
        });
    }
}
