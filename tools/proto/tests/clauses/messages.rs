// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Messages: what is written is read, and other bytes are refused.

use fgdp_proto::proto::wire::*;
use proptest::prelude::*;

fn msg() -> impl Strategy<Value = Msg> {
    let kind = prop_oneof![Just(Kind::Stream), Just(Kind::SeqPacket)];
    let error = (1u32..8).prop_map(|e| Refusal::from_u32(e).unwrap());
    let conn = || any::<u32>();
    prop_oneof![
        (conn(), conn(), conn(), kind).prop_map(|(peer_conn, src_port, dst_port, kind)| {
            Msg::Connect {
                peer_conn,
                src_port,
                dst_port,
                kind,
            }
        }),
        (conn(), conn()).prop_map(|(conn, peer_conn)| Msg::Accept { conn, peer_conn }),
        (conn(), error).prop_map(|(conn, error)| Msg::Refuse { conn, error }),
        (conn(), 1u32..4).prop_map(|(conn, bits)| Msg::Ready {
            conn,
            data: bits & 1 != 0,
            space: bits & 2 != 0,
        }),
        conn().prop_map(|conn| Msg::Done { conn }),
        carry().prop_map(Msg::Carry),
    ]
}

fn carry() -> impl Strategy<Value = Carry> {
    any::<(u32, [u8; 16], [u8; 16], u16, u16, u32, u32)>().prop_map(|c| Carry {
        peer_conn: c.0,
        src_addr: c.1,
        dst_addr: c.2,
        src_port: c.3,
        dst_port: c.4,
        src_isn: c.5,
        dst_isn: c.6,
    })
}

fn reason() -> impl Strategy<Value = Reason> {
    (0u32..17).prop_map(|r| Reason::from_u32(r).unwrap())
}

fn ranges() -> impl Strategy<Value = Vec<Range>> {
    let range = (0u32..8000, 1u32..100_000).prop_map(|(n, frames)| Range {
        pfn: n * EXTENT_FRAMES,
        frames,
    });
    prop::collection::vec(range, 0..=MAX_RANGES)
}

/// Fixed fields and ranges of a frames message that is right.
fn frames() -> impl Strategy<Value = (FramesOp, u32, u32, u32, Vec<Range>)> {
    (1u16..5, 1u32..32, any::<u32>(), any::<u32>(), ranges()).prop_filter_map(
        "an offer has ranges, nothing else has",
        |(op, peer, generation, extent, mut ranges)| {
            let op = FramesOp::from_u16(op)?;
            match op {
                FramesOp::Offer if ranges.is_empty() => return None,
                FramesOp::Offer => {}
                _ => ranges.clear(),
            }
            Some((op, peer, generation, extent, ranges))
        },
    )
}

/// Runs `check` on a request of any kind.
fn each_request(
    seed: (u8, [u8; 16], u32, u32, u16),
    f: &(FramesOp, u32, u32, u32, Vec<Range>),
    reason: Reason,
    check: impl Fn(Request<'_>),
) {
    let (kind, addr, peer, word, lanes) = seed;
    let channel = Channel {
        peer: peer % 31 + 1,
        peer_generation: word,
        reason,
    };
    check(match kind % 8 {
        0 => Request::Hello(Hello {
            abi: ABI,
            generation: word,
            lanes: lanes % 4 + 1,
            ivshmem_id: peer,
        }),
        1 => Request::AddrAdd(addr),
        2 => Request::AddrDel(addr),
        3 => Request::ChannelOpen(channel),
        4 => Request::ChannelClose(channel),
        5 => Request::Frames(Frames {
            op: f.0,
            peer: f.1,
            peer_generation: f.2,
            extent: f.3,
            ranges: Ranges::new(&f.4).unwrap(),
        }),
        6 => Request::Stats,
        _ => Request::Bye,
    });
}

proptest! {
    #![proptest_config(crate::cases(512))]

    #[test]
    fn l_9_messages_round_trip(m in msg()) {
        prop_assert_eq!(Msg::decode(&m.encode()), Ok(m));
    }

    #[test]
    fn l_9_a_message_is_decoded_only_if_it_is_one(words in any::<[u32; 16]>(), kind in 0u32..8, flags in 0u32..6) {
        let mut words = words;
        words[0] = kind | (flags << 16);
        // Ports that a CARRY can have, or nearly so.
        words[3] %= 0x1_0010;
        words[4] %= 0x1_0010;
        words[5] %= 8;
        words[6] %= 10;
        if let Ok(m) = Msg::decode(&words) {
            let back = m.encode();
            // All words that have a meaning for this message are those of the input.
            prop_assert_eq!(back[0], words[0]);
            prop_assert!(back.iter().zip(&words).all(|(b, w)| *b == 0 || b == w));
        } else {
            let known = match kind {
                1 => flags == 0 && [1, 5].contains(&words[5]),
                2 | 5 => flags == 0,
                3 => flags == 0 && (1..=7).contains(&words[6]),
                4 => (1..=3).contains(&flags),
                6 => flags == 0 && words[3].max(words[4]) < 1 << 16,
                _ => false,
            };
            prop_assert!(!known);
        }
    }

    #[test]
    fn h_3_requests_round_trip(seed in any::<(u8, [u8; 16], u32, u32, u16)>(), f in frames(), reason in reason(), cookie in any::<u64>()) {
        each_request(seed, &f, reason, |request| {
            let mut buf = [0xaa; MAX_REQUEST];
            let len = request.encode(cookie, &mut buf).unwrap();
            assert_eq!(Request::parse(&buf[..len]), Ok((cookie, request)));
            for cut in 0..len {
                let bad = Request::parse(&buf[..cut]).unwrap_err();
                assert_eq!(bad.status, Status::BadLength);
                assert!(cut < CALL_HDR || bad.cookie == cookie);
                assert_eq!(request.encode(cookie, &mut vec![0; cut]), None);
            }
            let mut long = buf[..len].to_vec();
            long.push(0);
            assert_eq!(Request::parse(&long).unwrap_err().status, Status::BadLength);
            // A later version of the call, and a later call.
            for (at, value) in [(2, 2u8), (0, 9), (0, 0)] {
                let mut other = buf[..len].to_vec();
                other[at] = value;
                assert_eq!(Request::parse(&other).unwrap_err().status, Status::UnknownCall);
            }
        });
    }

    #[test]
    fn h_3_any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..600), nr in 0u8..10) {
        let mut bytes = bytes;
        if let Some(len) = bytes.len().checked_sub(CALL_HDR) {
            bytes[..8].copy_from_slice(&[nr, 0, 1, 0, len as u8, (len >> 8) as u8, 0, 0]);
        }
        if let Ok((cookie, request)) = Request::parse(&bytes) {
            let mut back = vec![0; MAX_REQUEST];
            let len = request.encode(cookie, &mut back).unwrap();
            prop_assert_eq!(Request::parse(&back[..len]), Ok((cookie, request)));
        }
    }

    #[test]
    fn h_3_replies_round_trip(status in 0u32..10, cookie in any::<u64>(), which in 0usize..3, words in any::<[u64; 6]>()) {
        let status = Status::from_u32(status).unwrap();
        let stats = HostStats {
            calls: words[0],
            refused: words[1],
            addr_refused: words[2],
            doorbells: words[3],
            frames_offered: words[4],
            frames_accepted: words[5],
        };
        let hello = Hello { abi: ABI, generation: words[0] as u32, lanes: 2, ivshmem_id: NO_IVSHMEM };
        let body = [ReplyBody::None, ReplyBody::Hello(hello), ReplyBody::Stats(stats)][which];
        let mut buf = [0; MAX_REPLY];
        let len = encode_reply(status, cookie, &body, &mut buf).unwrap();
        let reply = Reply::parse(&buf[..len]).unwrap();
        prop_assert_eq!((reply.status, reply.cookie), (status, cookie));
        match body {
            ReplyBody::None => prop_assert!(reply.body.is_empty()),
            ReplyBody::Hello(h) => prop_assert_eq!(Hello::parse(reply.body), Ok(h)),
            ReplyBody::Stats(s) => prop_assert_eq!(HostStats::parse(reply.body), Ok(s)),
        }
        prop_assert_eq!(Reply::parse(&buf[..len - 1]), Err(ParseError::Length));
        buf[0] = 10;
        prop_assert_eq!(Reply::parse(&buf[..len]), Err(ParseError::Value));
    }

    #[test]
    fn h_5_events_round_trip(kind in 0..5, peer in 1u32..32, generation in any::<u32>(), reason in reason(), f in frames()) {
        let event = match kind {
            0 => Event::Peer { peer, generation },
            1 => Event::Channel { peer, generation, open: true, reason: Reason::None },
            2 => Event::Channel { peer, generation, open: false, reason },
            3 => Event::Frames(Frames {
                op: f.0,
                peer: f.1,
                peer_generation: f.2,
                extent: f.3,
                ranges: Ranges::new(&f.4).unwrap(),
            }),
            _ => Event::Lost,
        };
        let mut buf = [0; EVENT_SIZE];
        let len = event.encode(&mut buf).unwrap();
        prop_assert_eq!(Event::parse(&buf[..len]), Ok(event));
        prop_assert_eq!(Event::parse(&buf[..len - 1]), Err(ParseError::Length));
        prop_assert_eq!(Event::parse(&buf[..len + 1]), Err(ParseError::Length));
        buf[0] = 5;
        prop_assert!(Event::parse(&buf[..EVENT_HDR]).is_err());
        if kind == 3 {
            // The event and the message in it name different peers.
            buf[0] = 3;
            buf[4] = peer as u8 % 31 + 1;
            let other = u32::from(buf[4]) != f.1;
            prop_assert_eq!(Event::parse(&buf[..len]).is_err(), other);
        }
    }

    #[test]
    fn g_2_ranges_are_aligned_and_not_empty(pfn in any::<u32>(), frames in any::<u32>(), align in any::<bool>()) {
        let pfn = if align { pfn & !(EXTENT_FRAMES - 1) } else { pfn };
        let range = Range { pfn, frames };
        let good = frames != 0 && pfn % EXTENT_FRAMES == 0 && pfn.checked_add(frames).is_some();
        prop_assert_eq!(Ranges::new(&[range]).is_some(), good);
        // The same from bytes.
        let mut bytes = vec![1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
        bytes.extend(pfn.to_le_bytes());
        bytes.extend(frames.to_le_bytes());
        prop_assert_eq!(Frames::parse(&bytes).is_ok(), good);
    }

    #[test]
    fn h_8_doorbells_round_trip(peer in 0u32..40, lane in 0u32..6, extra in 0usize..2) {
        let bell = Doorbell { peer, lane };
        let mut bytes = bell.encode().to_vec();
        bytes.resize(8 + extra, 0);
        let good = extra == 0 && (1..32).contains(&peer) && lane < 4;
        prop_assert_eq!(Doorbell::parse(&bytes).ok(), good.then_some(bell));
    }
}

#[test]
fn t_2_a_carry_lies_in_memory_as_the_header_says() {
    let carry = Carry {
        peer_conn: 0x1_0002,
        src_addr: *b"0123456789abcdef",
        dst_addr: *b"ghijklmnopqrstuv",
        src_port: 443,
        dst_port: 65535,
        src_isn: 0x0102_0304,
        dst_isn: 0xfffe_fdfc,
    };
    let bytes: Vec<u8> = Msg::Carry(carry)
        .encode()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(bytes[..12], [6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0]);
    assert_eq!(bytes[12..20], [187, 1, 0, 0, 255, 255, 0, 0]);
    assert_eq!(bytes[20..28], [4, 3, 2, 1, 0xfc, 0xfd, 0xfe, 0xff]);
    assert_eq!(bytes[28..60], *b"0123456789abcdefghijklmnopqrstuv");
    assert_eq!(bytes[60..], [0; 4]);
}

#[test]
fn b_1_reasons_have_their_numbers() {
    for (n, reason) in (0u32..).zip(Reason::ALL) {
        assert_eq!(reason.as_u32(), n);
        assert_eq!(Reason::from_u32(n), Some(reason));
    }
    assert_eq!(Reason::from_u32(18), None);
    let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

#[test]
fn g_2_an_offer_of_too_many_ranges_is_refused() {
    let range = Range { pfn: 0, frames: 1 };
    assert!(Ranges::new(&[range; MAX_RANGES]).is_some());
    assert!(Ranges::new(&[range; MAX_RANGES + 1]).is_none());
    let mut bytes = vec![1, 0, 65, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
    bytes.extend([[0, 0, 0, 0, 1, 0, 0, 0]; 65].concat());
    assert_eq!(Frames::parse(&bytes), Err(ParseError::Value));
}

#[test]
fn h_3_a_hello_of_another_abi_can_be_answered() {
    let hello = Hello {
        abi: 2,
        generation: 0,
        lanes: 99,
        ivshmem_id: 0,
    };
    let mut buf = [0; MAX_REQUEST];
    let len = Request::Hello(hello).encode(7, &mut buf).unwrap();
    assert_eq!(Request::parse(&buf[..len]), Ok((7, Request::Hello(hello))));
    let same = Hello { abi: ABI, ..hello };
    let len = Request::Hello(same).encode(7, &mut buf).unwrap();
    let bad = Request::parse(&buf[..len]).unwrap_err();
    assert_eq!((bad.cookie, bad.status), (7, Status::BadValue));
}
