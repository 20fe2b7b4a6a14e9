// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol between the lab on the host and its agent in a guest.
//!
//! One byte stream (a virtio-serial port, or a client's socket to the lab) carries the frames of many sessions; a session
//! is one command. Each of a session's three streams has a window: its sender may have at most [`WINDOW`] bytes that the
//! receiver has not yet consumed, so a session that is not read delays nobody else.
//!
//! A serial port does not tell where an earlier user of it stopped in the middle of a frame. Both ends therefore start with
//! [`SYNC`] and a nonce: everything before it is thrown away.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port that the agent opens.
pub const PORT_NAME: &str = "fgdp.lab";

/// Starts a synchronization; the first four bytes are no valid frame length.
pub const SYNC: [u8; 16] = *b"\xff\xff\xff\xfffgdp-lab-1\r\n";

/// Bytes of the random number that follows [`SYNC`].
pub const NONCE_LEN: usize = 16;

/// Longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// Bytes of one stream that may be under way and not yet consumed.
pub const WINDOW: usize = 256 * 1024;

const HEADER_LEN: usize = 12;

/// What a frame means; the sender is named after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent: the synchronization is done; payload is a JSON [`Hello`].
    Hello = 1,
    /// Host: start a command; payload is a JSON [`Exec`].
    Exec = 2,
    /// Host: bytes for the command's standard input.
    Stdin = 3,
    /// Host: standard input ends.
    StdinEof = 4,
    /// Agent: bytes of the command's standard output.
    Stdout = 5,
    /// Agent: bytes of the command's standard error.
    Stderr = 6,
    /// Either: bytes of a stream were consumed; payload is [`credit`].
    Credit = 7,
    /// Host: send a signal to the command's process group; payload is its number, 32 bits.
    Signal = 8,
    /// Agent: the command ended and its output is complete; payload is a JSON [`Exit`].
    Exit = 9,
    /// Host: nobody waits for this session any more; the command is killed.
    Abandon = 10,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Hello,
            2 => Self::Exec,
            3 => Self::Stdin,
            4 => Self::StdinEof,
            5 => Self::Stdout,
            6 => Self::Stderr,
            7 => Self::Credit,
            8 => Self::Signal,
            9 => Self::Exit,
            10 => Self::Abandon,
            _ => return None,
        })
    }
}

/// One unit of the stream.
#[derive(Debug)]
pub struct Frame {
    /// What the frame means.
    pub kind: Kind,
    /// The session it belongs to; chosen by the host, 0 for [`Kind::Hello`].
    pub session: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// What a read of the stream found.
#[derive(Debug)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// The other end starts anew: all sessions are void. Carries its nonce.
    Sync([u8; NONCE_LEN]),
}

/// The agent's greeting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The kernel's `boot_id`: another one means the guest was rebooted.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
}

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Environment in addition to the guest's default.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; `/` when the guest does not have it.
    #[serde(default)]
    pub cwd: String,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started; the text says why.
    NotStarted(String),
    /// The guest went away while it ran; the text says how.
    Lost(String),
}

/// Payload of a [`Kind::Credit`] frame: the stream by the kind of its data frames, and a number of bytes.
pub fn credit(stream: Kind, bytes: usize) -> [u8; 5] {
    let mut payload = [0; 5];
    payload[0] = stream as u8;
    payload[1..].copy_from_slice(&(bytes as u32).to_le_bytes());
    payload
}

/// The reverse of [`credit`].
pub fn parse_credit(payload: &[u8]) -> Option<(Kind, usize)> {
    let (&stream, bytes) = payload.split_first()?;
    Some((
        Kind::from_u8(stream)?,
        u32::from_le_bytes(bytes.try_into().ok()?) as usize,
    ))
}

/// Writes one frame with a single call, so that writers which share the stream under a lock do not tear it.
pub fn write_frame(
    out: &mut impl Write,
    kind: Kind,
    session: u32,
    payload: &[u8],
) -> io::Result<()> {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let mut buffer = Vec::with_capacity(HEADER_LEN + payload.len());
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&[kind as u8, 0, 0, 0]);
    buffer.extend_from_slice(&session.to_le_bytes());
    buffer.extend_from_slice(payload);
    out.write_all(&buffer)
}

/// Writes a JSON value as one frame.
pub fn write_json(
    out: &mut impl Write,
    kind: Kind,
    session: u32,
    value: &impl Serialize,
) -> io::Result<()> {
    let payload = serde_json::to_vec(value)?;
    if payload.len() > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command line is too long",
        ));
    }
    write_frame(out, kind, session, &payload)
}

/// Reads the next frame or synchronization.
pub fn read_item(input: &mut impl Read) -> io::Result<Item> {
    let mut header = [0; HEADER_LEN];
    input.read_exact(&mut header)?;
    if header[..] == SYNC[..HEADER_LEN] {
        let mut rest = [0; SYNC.len() - HEADER_LEN + NONCE_LEN];
        input.read_exact(&mut rest)?;
        let (magic, nonce) = rest.split_at(SYNC.len() - HEADER_LEN);
        if magic != &SYNC[HEADER_LEN..] {
            return Err(bad("bad synchronization"));
        }
        let mut value = [0; NONCE_LEN];
        value.copy_from_slice(nonce);
        return Ok(Item::Sync(value));
    }
    let [l0, l1, l2, l3, kind, _, _, _, s0, s1, s2, s3] = header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len > MAX_PAYLOAD {
        return Err(bad("frame too long"));
    }
    let kind = Kind::from_u8(kind).ok_or_else(|| bad("unknown kind of frame"))?;
    let mut payload = vec![0; len];
    input.read_exact(&mut payload)?;
    Ok(Item::Frame(Frame {
        kind,
        session: u32::from_le_bytes([s0, s1, s2, s3]),
        payload,
    }))
}

/// Reads and drops bytes up to the next [`SYNC`] and returns the nonce after it.
pub fn find_sync(input: &mut impl Read) -> io::Result<[u8; NONCE_LEN]> {
    let mut window = [0; SYNC.len()];
    input.read_exact(&mut window)?;
    while window != SYNC {
        window.rotate_left(1);
        input.read_exact(&mut window[SYNC.len() - 1..])?;
    }
    let mut nonce = [0; NONCE_LEN];
    input.read_exact(&mut nonce)?;
    Ok(nonce)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_syncs_are_told_apart() {
        let mut stream = Vec::new();
        write_frame(&mut stream, Kind::Stdout, 7, b"abc").unwrap();
        stream.extend_from_slice(&SYNC);
        stream.extend_from_slice(&[9; NONCE_LEN]);
        write_json(&mut stream, Kind::Exit, 8, &Exit::Code(3)).unwrap();
        let mut input = &stream[..];
        match read_item(&mut input).unwrap() {
            Item::Frame(frame) => assert_eq!(
                (frame.kind, frame.session, &frame.payload[..]),
                (Kind::Stdout, 7, &b"abc"[..])
            ),
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(read_item(&mut input).unwrap(), Item::Sync(nonce) if nonce == [9; NONCE_LEN])
        );
        match read_item(&mut input).unwrap() {
            Item::Frame(frame) => assert_eq!(
                serde_json::from_slice::<Exit>(&frame.payload).unwrap(),
                Exit::Code(3)
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            read_item(&mut input).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn sync_is_found_behind_the_rest_of_a_torn_frame() {
        let mut stream = Vec::new();
        write_frame(&mut stream, Kind::Stdout, 1, &[0xff; 100]).unwrap();
        stream.truncate(60);
        // A start of the magic that does not go on.
        stream.extend_from_slice(&SYNC[..9]);
        stream.extend_from_slice(&SYNC);
        stream.extend_from_slice(&[5; NONCE_LEN]);
        assert_eq!(find_sync(&mut &stream[..]).unwrap(), [5; NONCE_LEN]);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        let mut stream = (MAX_PAYLOAD as u32 + 1).to_le_bytes().to_vec();
        stream.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            read_item(&mut &stream[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn credit_survives_its_encoding() {
        assert_eq!(
            parse_credit(&credit(Kind::Stderr, 70_000)),
            Some((Kind::Stderr, 70_000))
        );
        assert_eq!(parse_credit(&[5, 0]), None);
    }
}
