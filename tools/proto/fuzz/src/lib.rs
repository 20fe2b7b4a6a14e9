// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the fuzz targets do: one function per parser of shared memory or of a
//! control message, named after the clause of `Documentation/protocol.rst` that
//! it checks. Besides not panicking, what is accepted must be as the clause says.

mod connection;
mod grants;
mod lane;
mod memory;
mod tables;

pub use connection::{s_12_connection, s_13_record, t_11_carried};
pub use grants::z_5_grant;
pub use lane::l_3_lane;
pub use tables::{h_2_table, h_4_directory, m_6_headers};

use fgdp_proto::proto::stream::Endpoint;
use fgdp_proto::proto::wire::*;

/// The configuration space.
pub fn h_1_config(data: &[u8]) {
    if let Ok(config) = Config::parse(data) {
        assert!((1..MAX_SLOTS).contains(&config.slot));
        assert!(config.slot_offset >= EXTENT_SIZE && config.slot_size >= MIN_SLOT_SIZE);
        assert!(config.slot_offset + config.slot_size <= config.group_size);
        assert!((1..=4).contains(&config.max_lanes));
        assert_eq!(Config::parse(&config.encode()), Ok(config));
    }
    if let Some(bell) = BellHdr::parse(data) {
        assert_eq!(BellHdr::parse(&bell.encode()), Some(bell));
    }
}

/// A request, as the host parses it.
pub fn h_3_request(data: &[u8]) {
    match Request::parse(data) {
        Ok((cookie, request)) => {
            let mut buf = [0; MAX_REQUEST];
            let len = request.encode(cookie, &mut buf).unwrap();
            assert_eq!(Request::parse(&buf[..len]), Ok((cookie, request)));
            if let Request::Frames(frames) = request {
                check_frames(&frames);
            }
        }
        Err(bad) => assert_ne!(bad.status, Status::Ok),
    }
}

fn check_frames(frames: &Frames<'_>) {
    assert_eq!(frames.op == FramesOp::Offer, !frames.ranges.is_empty());
    assert!(frames.ranges.len() <= MAX_RANGES);
    assert!(frames.ranges.iter().all(|r| r.is_valid()));
    assert!((1..MAX_SLOTS).contains(&frames.peer));
}

/// A reply and its payloads, as the driver parses them.
pub fn h_3_reply(data: &[u8]) {
    if let Ok(reply) = Reply::parse(data) {
        let body = match (Hello::parse(reply.body), HostStats::parse(reply.body)) {
            (Ok(hello), _) => ReplyBody::Hello(hello),
            (_, Ok(stats)) => ReplyBody::Stats(stats),
            _ => ReplyBody::None,
        };
        let mut buf = [0; MAX_REPLY];
        let len = encode_reply(reply.status, reply.cookie, &body, &mut buf).unwrap();
        let again = Reply::parse(&buf[..len]).unwrap();
        assert_eq!((again.status, again.cookie), (reply.status, reply.cookie));
    }
}

/// An event, as the driver parses it.
pub fn h_5_event(data: &[u8]) {
    if let Ok(event) = Event::parse(data) {
        let mut buf = [0; EVENT_SIZE];
        let len = event.encode(&mut buf).unwrap();
        assert_eq!(Event::parse(&buf[..len]), Ok(event));
        if let Event::Frames(frames) = event {
            check_frames(&frames);
        }
    }
}

/// A doorbell.
pub fn h_8_doorbell(data: &[u8]) {
    if let Ok(bell) = Doorbell::parse(data) {
        assert!((1..MAX_SLOTS).contains(&bell.peer) && bell.lane < MAX_LANES);
        assert_eq!(bell.encode(), data);
    }
}

/// A lane message.
pub fn l_9_message(data: &[u8]) {
    let mut words = [0; MSG_WORDS];
    for (word, bytes) in words.iter_mut().zip(data.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().unwrap());
    }
    match Msg::decode(&words) {
        Ok(msg) => {
            let back = msg.encode();
            assert_eq!(back[0], words[0]);
            assert!(back.iter().zip(&words).all(|(b, w)| *b == 0 || b == w));
        }
        Err(reason) => assert_eq!(reason, Reason::BadMsg),
    }
}

/// A proposal to carry a TCP connection, from one who knows it but for some bits.
pub fn t_3_proposal(data: &[u8]) {
    let own = Endpoint {
        addr: *b"0123456789abcdef",
        peer_addr: *b"ghijklmnopqrstuv",
        port: 443,
        peer_port: 50_000,
        isn: 0x89ab_cdef,
        peer_isn: 0xffff_fff0,
    };
    let peer = Endpoint {
        addr: own.peer_addr,
        peer_addr: own.addr,
        port: own.peer_port,
        peer_port: own.port,
        isn: own.peer_isn,
        peer_isn: own.isn,
    };
    let right = peer.propose(0x1_0001);
    let mut words = Msg::Carry(right).encode();
    for (word, bytes) in words.iter_mut().zip(data.chunks_exact(4)) {
        *word ^= u32::from_le_bytes(bytes.try_into().unwrap());
    }
    if let Ok(Msg::Carry(carry)) = Msg::decode(&words) {
        let same = Carry {
            peer_conn: right.peer_conn,
            ..carry
        };
        assert_eq!(own.check(&carry, true).is_ok(), same == right);
        assert_eq!(own.check(&carry, false), Err(Refusal::NoSocket));
    }
}
