// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The header `include/uapi/linux/virtio_fgdp.h` is the contract: a C compiler
//! says what is in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use fgdp_proto::proto::wire::*;

/// Constants of the header under their names there, and their values here.
fn constants() -> Vec<(&'static str, u64)> {
    let mut all = vec![
        ("VIRTIO_ID_FGDP", u64::from(VIRTIO_ID)),
        ("FGDP_ABI", u64::from(ABI)),
        ("FGDP_SHM_SLOT", u64::from(SHM_SLOT)),
        ("FGDP_SHM_GROUP", u64::from(SHM_GROUP)),
        ("FGDP_VQ_CONTROL", u64::from(VQ_CONTROL)),
        ("FGDP_VQ_EVENT", u64::from(VQ_EVENT)),
        ("FGDP_VQ_DOORBELL", u64::from(VQ_DOORBELL)),
        ("FGDP_VQ_LANE0", u64::from(VQ_LANE0)),
        ("FGDP_FRAME_SHIFT", u64::from(FRAME_SHIFT)),
        ("FGDP_FRAME_SIZE", u64::from(FRAME_SIZE)),
        ("FGDP_EXTENT_FRAMES", u64::from(EXTENT_FRAMES)),
        ("FGDP_MAX_SLOTS", u64::from(MAX_SLOTS)),
        ("FGDP_MAX_LANES", u64::from(MAX_LANES)),
        ("FGDP_MAX_ADDRS", MAX_ADDRS as u64),
        ("FGDP_ID_LEN", ID_LEN as u64),
        ("FGDP_NO_IVSHMEM", u64::from(NO_IVSHMEM)),
        ("FGDP_HOST_MAGIC", HOST_MAGIC),
        ("FGDP_MAX_CALLS", u64::from(MAX_CALLS)),
        ("FGDP_CALL_F_REQUIRED", u64::from(CALL_F_REQUIRED)),
        ("FGDP_PEER_ABSENT", PeerState::Absent as u64),
        ("FGDP_PEER_ATTACHED", PeerState::Attached as u64),
        ("FGDP_PEER_READY", PeerState::Ready as u64),
        ("FGDP_CLASS_LOCAL", PeerClass::Local as u64),
        ("FGDP_CLASS_CLUSTER", PeerClass::Cluster as u64),
        ("FGDP_FRAMES_OFFER", FramesOp::Offer as u64),
        ("FGDP_FRAMES_ACCEPT", FramesOp::Accept as u64),
        ("FGDP_FRAMES_RELEASE", FramesOp::Release as u64),
        ("FGDP_FRAMES_REVOKE", FramesOp::Revoke as u64),
        ("FGDP_MAX_RANGES", MAX_RANGES as u64),
        ("FGDP_EVENT_SIZE", EVENT_SIZE as u64),
        ("FGDP_BELL_MAGIC", BELL_MAGIC),
        ("FGDP_SLOT_MAGIC", SLOT_MAGIC),
        ("FGDP_CHAN_OFFSET", CHAN_OFFSET),
        ("FGDP_CHAN_SIZE", CHAN_SIZE),
        ("FGDP_LANE_OFFSET", LANE_OFFSET),
        ("FGDP_LANE_SIZE", LANE_SIZE),
        ("FGDP_LANE_MSGS_OFFSET", LANE_MSGS_OFFSET),
        ("FGDP_LANE_MSGS", u64::from(LANE_MSGS)),
        ("FGDP_MSG_SIZE", MSG_SIZE),
        ("FGDP_CONN_OFFSET", CONN_OFFSET),
        ("FGDP_CONN_SIZE", CONN_SIZE),
        ("FGDP_MAX_CONNS", u64::from(MAX_CONNS)),
        ("FGDP_MIN_SLOT_SIZE", MIN_SLOT_SIZE),
        ("FGDP_CHAN_CLOSED", ChanState::Closed as u64),
        ("FGDP_CHAN_OPEN", ChanState::Open as u64),
        ("FGDP_CHAN_BROKEN", ChanState::Broken as u64),
        ("FGDP_READY_DATA", u64::from(READY_DATA)),
        ("FGDP_READY_SPACE", u64::from(READY_SPACE)),
        ("FGDP_E_REFUSED", Refusal::Refused as u64),
        ("FGDP_E_TYPE", Refusal::Type as u64),
        ("FGDP_E_NOMEM", Refusal::NoMem as u64),
        ("FGDP_E_BACKLOG", Refusal::Backlog as u64),
        ("FGDP_E_NO_SOCKET", Refusal::NoSocket as u64),
        ("FGDP_E_SEQUENCE", Refusal::Sequence as u64),
        ("FGDP_E_POLICY", Refusal::Policy as u64),
        ("FGDP_CONN_INDEX_MASK", u64::from(CONN_INDEX_MASK)),
        ("FGDP_RING_MIN_FRAMES", u64::from(RING_MIN_FRAMES)),
        ("FGDP_RING_MAX_FRAMES", u64::from(RING_MAX_FRAMES)),
        ("FGDP_TX_FIN", u64::from(TX_FIN)),
        ("FGDP_TX_RST", u64::from(TX_RST)),
        ("FGDP_TX_RING", u64::from(TX_RING)),
        ("FGDP_TX_BACK", u64::from(TX_BACK)),
        ("FGDP_RX_STOP", u64::from(RX_STOP)),
        ("FGDP_RX_SHUT", u64::from(RX_SHUT)),
        ("FGDP_GRANTS", u64::from(GRANTS)),
        ("FGDP_GRANTS_SHIFT", u64::from(GRANTS_SHIFT)),
        ("FGDP_GRANT_MAX_FRAMES", u64::from(GRANT_MAX_FRAMES)),
        ("FGDP_GRANT_HEAD_SHIFT", u64::from(GRANT_HEAD_SHIFT)),
        ("FGDP_R_MAX", Reason::ALL.len() as u64),
        ("SOCK_STREAM", Kind::Stream as u64),
        ("SOCK_SEQPACKET", Kind::SeqPacket as u64),
    ];
    // Message and event types are known by what is written.
    let ready = Msg::Ready {
        conn: 0,
        data: true,
        space: false,
    };
    let connect = Msg::Connect {
        peer_conn: 0,
        src_port: 0,
        dst_port: 0,
        kind: Kind::Stream,
    };
    let refuse = Msg::Refuse {
        conn: 0,
        error: Refusal::Type,
    };
    for (name, msg) in [
        ("FGDP_MSG_CONNECT", connect),
        (
            "FGDP_MSG_ACCEPT",
            Msg::Accept {
                conn: 0,
                peer_conn: 0,
            },
        ),
        ("FGDP_MSG_REFUSE", refuse),
        ("FGDP_MSG_READY", ready),
        ("FGDP_MSG_DONE", Msg::Done { conn: 0 }),
        ("FGDP_MSG_CARRY", Msg::Carry(Carry::default())),
    ] {
        all.push((name, u64::from(msg.encode()[0] & 0xffff)));
    }
    let extent = Frames {
        op: FramesOp::Accept,
        peer: 1,
        peer_generation: 0,
        extent: 0,
        ranges: Ranges::NONE,
    };
    let channel = Event::Channel {
        peer: 1,
        generation: 0,
        open: true,
        reason: Reason::None,
    };
    for (name, event) in [
        (
            "FGDP_EV_PEER",
            Event::Peer {
                peer: 1,
                generation: 0,
            },
        ),
        ("FGDP_EV_CHANNEL", channel),
        ("FGDP_EV_FRAMES", Event::Frames(extent)),
        ("FGDP_EV_LOST", Event::Lost),
    ] {
        let mut buf = [0; EVENT_SIZE];
        event.encode(&mut buf).unwrap();
        all.push((name, u64::from(buf[0])));
    }
    all
}

/// Reasons, calls and statuses: the header's names are made of ours.
fn named() -> Vec<(String, u64)> {
    let reasons = Reason::ALL.iter().map(|r| {
        let name = format!("FGDP_R_{}", r.name().to_uppercase());
        (name, u64::from(r.as_u32()))
    });
    let calls = Call::ALL
        .iter()
        .map(|c| (format!("FGDP_CALL_{}", c.name()), u64::from(c.nr())));
    let statuses = (0u64..).zip([
        "OK",
        "UNKNOWN_CALL",
        "BAD_LENGTH",
        "BAD_VALUE",
        "NOT_ALLOWED",
        "NO_PEER",
        "QUOTA",
        "OVERLAP",
        "STATE",
        "BAD_ABI",
    ]);
    let statuses = statuses.map(|(n, name)| {
        let status = Status::from_u32(n as u32).expect(name);
        let camel: String = format!("{status:?}").to_uppercase();
        assert_eq!(camel, name.replace('_', ""));
        (format!("FGDP_S_{name}"), n)
    });
    reasons.chain(calls).chain(statuses).collect()
}

/// Structure sizes and member offsets: C expression, value here.
fn layouts() -> Vec<(&'static str, u64)> {
    vec![
        ("sizeof(struct virtio_fgdp_config)", Config::SIZE as u64),
        ("sizeof(struct fgdp_host_hdr)", HostHdr::SIZE),
        ("offsetof(struct fgdp_host_hdr, table_offset)", 12),
        ("offsetof(struct fgdp_host_hdr, dir_entries)", 24),
        ("sizeof(struct fgdp_call_entry)", CALL_ENTRY),
        ("sizeof(struct fgdp_dir_entry)", DirEntry::SIZE),
        ("offsetof(struct fgdp_dir_entry, class)", 12),
        ("offsetof(struct fgdp_dir_entry, guest_id)", 16),
        ("offsetof(struct fgdp_dir_entry, slot_offset)", 32),
        ("offsetof(struct fgdp_dir_entry, ivshmem_id)", 48),
        ("offsetof(struct fgdp_dir_entry, addrs)", 56),
        ("offsetof(struct fgdp_dir_entry, name)", 184),
        ("offsetof(struct fgdp_dir_entry, reserved)", 216),
        ("sizeof(struct fgdp_call)", CALL_HDR as u64),
        ("sizeof(struct fgdp_reply)", CALL_HDR as u64),
        ("sizeof(struct fgdp_hello)", Hello::SIZE as u64),
        ("sizeof(struct fgdp_addr)", 16),
        ("sizeof(struct fgdp_channel)", Channel::SIZE as u64),
        ("sizeof(struct fgdp_frames)", Frames::SIZE as u64),
        ("sizeof(struct fgdp_range)", 8),
        ("sizeof(struct fgdp_host_stats)", HostStats::SIZE as u64),
        ("sizeof(struct fgdp_event)", EVENT_HDR as u64),
        ("sizeof(struct fgdp_doorbell)", Doorbell::SIZE as u64),
        ("sizeof(struct fgdp_bell_hdr)", BellHdr::SIZE as u64),
        ("sizeof(struct fgdp_slot_hdr)", slot_hdr::SIZE),
        ("offsetof(struct fgdp_slot_hdr, abi)", slot_hdr::ABI),
        (
            "offsetof(struct fgdp_slot_hdr, generation)",
            slot_hdr::GENERATION,
        ),
        ("offsetof(struct fgdp_slot_hdr, lanes)", slot_hdr::LANES),
        ("offsetof(struct fgdp_slot_hdr, conns)", slot_hdr::CONNS),
        (
            "offsetof(struct fgdp_slot_hdr, conn_offset)",
            slot_hdr::CONN_OFFSET,
        ),
        ("sizeof(struct fgdp_chan_hdr)", chan_hdr::SIZE),
        ("offsetof(struct fgdp_chan_hdr, state)", chan_hdr::STATE),
        (
            "offsetof(struct fgdp_chan_hdr, peer_generation)",
            chan_hdr::PEER_GENERATION,
        ),
        ("offsetof(struct fgdp_chan_hdr, reason)", chan_hdr::REASON),
        ("sizeof(struct fgdp_lane)", lane::SIZE),
        ("offsetof(struct fgdp_lane, tail)", lane::TAIL),
        ("offsetof(struct fgdp_lane, space_event)", lane::SPACE_EVENT),
        ("offsetof(struct fgdp_lane, head)", lane::HEAD),
        ("offsetof(struct fgdp_lane, msg_event)", lane::MSG_EVENT),
        ("sizeof(struct fgdp_msg)", MSG_SIZE),
        ("offsetof(struct fgdp_msg, conn)", 4),
        ("offsetof(struct fgdp_msg, peer_conn)", 8),
        ("offsetof(struct fgdp_msg, src_port)", 12),
        ("offsetof(struct fgdp_msg, dst_port)", 16),
        ("offsetof(struct fgdp_msg, sock_type)", 20),
        ("offsetof(struct fgdp_msg, error)", 24),
        ("sizeof(struct fgdp_msg_carry)", MSG_SIZE),
        ("offsetof(struct fgdp_msg_carry, conn)", 4),
        ("offsetof(struct fgdp_msg_carry, peer_conn)", 8),
        ("offsetof(struct fgdp_msg_carry, src_port)", 12),
        ("offsetof(struct fgdp_msg_carry, dst_port)", 16),
        ("offsetof(struct fgdp_msg_carry, src_isn)", 20),
        ("offsetof(struct fgdp_msg_carry, dst_isn)", 24),
        ("offsetof(struct fgdp_msg_carry, src_addr)", 28),
        ("offsetof(struct fgdp_msg_carry, dst_addr)", 44),
        ("sizeof(struct fgdp_conn)", conn::SIZE),
        ("offsetof(struct fgdp_conn, tail)", conn::TAIL),
        ("offsetof(struct fgdp_conn, tx_flags)", conn::TX_FLAGS),
        ("offsetof(struct fgdp_conn, space_event)", conn::SPACE_EVENT),
        ("offsetof(struct fgdp_conn, ring_serial)", conn::RING_SERIAL),
        ("offsetof(struct fgdp_conn, ring_pfn)", conn::RING_PFN),
        ("offsetof(struct fgdp_conn, ring_frames)", conn::RING_FRAMES),
        ("offsetof(struct fgdp_conn, ring_base)", conn::RING_BASE),
        ("offsetof(struct fgdp_conn, id)", conn::ID),
        ("offsetof(struct fgdp_conn, tcp_seq)", conn::TCP_SEQ),
        ("offsetof(struct fgdp_conn, grant_pfn)", conn::GRANT_PFN),
        ("offsetof(struct fgdp_conn, head)", conn::HEAD),
        ("offsetof(struct fgdp_conn, data_event)", conn::DATA_EVENT),
        ("offsetof(struct fgdp_conn, rx_flags)", conn::RX_FLAGS),
        ("offsetof(struct fgdp_conn, released)", conn::RELEASED),
        ("offsetof(struct fgdp_conn, grant_head)", conn::GRANT_HEAD),
        ("sizeof(struct fgdp_grant)", GRANT_SIZE),
        ("offsetof(struct fgdp_grant, position)", grant::POSITION),
        ("offsetof(struct fgdp_grant, pfn)", grant::PFN),
        ("offsetof(struct fgdp_grant, frames)", grant::FRAMES),
        ("offsetof(struct fgdp_grant, flags)", grant::FLAGS),
        ("sizeof(struct fgdp_record)", u64::from(RECORD_HDR)),
    ]
}

/// Compiles and runs a C program that prints the expressions.
fn ask_c(header: &Path, expressions: &[String]) -> Vec<u64> {
    let dir = std::env::temp_dir().join(format!("fgdp-header-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, program) = (dir.join("ask.c"), dir.join("ask"));
    let mut text =
        String::from("#include <stddef.h>\n#include <stdio.h>\n#include <sys/socket.h>\n");
    text += &format!("#include \"{}\"\nint main(void) {{\n", header.display());
    for e in expressions {
        text += &format!("printf(\"%llu\\n\", (unsigned long long)({e}));\n");
    }
    text += "return 0;\n}\n";
    std::fs::write(&source, text).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&cc)
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status();
    let status =
        status.unwrap_or_else(|e| panic!("no C compiler `{cc}` ({e}): apt install gcc, or set CC"));
    assert!(
        status.success(),
        "{cc} does not compile {}",
        header.display()
    );
    let out = Command::new(&program).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|l| l.parse().unwrap()).collect()
}

#[test]
fn m_5_constants_and_layouts_are_the_headers() {
    let header =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include/uapi/linux/virtio_fgdp.h");
    let mut want: BTreeMap<String, u64> = BTreeMap::new();
    want.extend(named());
    for (name, value) in constants().into_iter().chain(layouts()) {
        want.insert(name.into(), value);
    }
    let names: Vec<String> = want.keys().cloned().collect();
    for (name, c) in names.iter().zip(ask_c(&header, &names)) {
        assert_eq!(want[name], c, "{name}");
    }
    // Nothing in the header is forgotten here.
    let text = std::fs::read_to_string(&header).unwrap();
    let forgotten: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("#define "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|name| !name.starts_with('_') && !want.contains_key(*name))
        .collect();
    assert!(forgotten.is_empty(), "not checked: {forgotten:?}");
    for line in text.lines().filter_map(|l| l.strip_prefix("struct ")) {
        let name = line.split_whitespace().next().unwrap();
        let size = format!("sizeof(struct {name})");
        assert!(want.contains_key(&size), "not checked: {size}");
    }
}
