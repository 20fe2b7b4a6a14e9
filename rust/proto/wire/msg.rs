// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Lane messages.

use super::carry::Carry;
use super::layout::{READY_DATA, READY_SPACE};
use super::reason::Reason;

/// Words in a message.
pub const MSG_WORDS: usize = 16;

const CONNECT: u16 = 1;
const ACCEPT: u16 = 2;
const REFUSE: u16 = 3;
const READY: u16 = 4;
const DONE: u16 = 5;
const CARRY: u16 = 6;

/// How a connection carries bytes; the numbers are `SOCK_STREAM` and
/// `SOCK_SEQPACKET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A stream of bytes.
    Stream = 1,
    /// Records, whose ends are kept.
    SeqPacket = 5,
}

impl Kind {
    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// The kind of that number, if there is one.
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Stream),
            5 => Some(Self::SeqPacket),
            _ => None,
        }
    }
}

/// Why a CONNECT or a CARRY was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// Nobody listens on the port.
    Refused = 1,
    /// The listener is of the other kind.
    Type = 2,
    /// No frames, ids or memory.
    NoMem = 3,
    /// The listener's queue is full.
    Backlog = 4,
    /// No such TCP connection, or not this peer's address (T-3).
    NoSocket = 5,
    /// Other sequence numbers: the sender does not own the connection (T-3).
    Sequence = 6,
    /// Not wanted there (T-3).
    Policy = 7,
}

impl Refusal {
    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// The refusal of that number, if there is one.
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Refused),
            2 => Some(Self::Type),
            3 => Some(Self::NoMem),
            4 => Some(Self::Backlog),
            5 => Some(Self::NoSocket),
            6 => Some(Self::Sequence),
            7 => Some(Self::Policy),
            _ => None,
        }
    }
}

/// A lane message, validated (L-9). `conn` is always the receiver's connection
/// id, `peer_conn` the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Msg {
    /// Opens a connection.
    Connect {
        /// The sender's connection id.
        peer_conn: u32,
        /// The sender's port.
        src_port: u32,
        /// The port that the sender wants.
        dst_port: u32,
        /// Stream or records.
        kind: Kind,
    },
    /// Proposes to carry a TCP connection.
    Carry(Carry),
    /// Answers CONNECT: the connection is open; or CARRY: it is carried.
    Accept {
        /// The receiver's connection id, from its CONNECT or CARRY.
        conn: u32,
        /// The sender's connection id.
        peer_conn: u32,
    },
    /// Answers CONNECT: there is no connection; or CARRY: it stays TCP.
    Refuse {
        /// The receiver's connection id, from its CONNECT or CARRY.
        conn: u32,
        /// Why.
        error: Refusal,
    },
    /// Look at the connection's entry.
    Ready {
        /// The receiver's connection id.
        conn: u32,
        /// tail or tx_flags moved.
        data: bool,
        /// head or rx_flags moved.
        space: bool,
    },
    /// The sender will not look at the receiver's entry again.
    Done {
        /// The receiver's connection id.
        conn: u32,
    },
}

impl Msg {
    /// The words of the message as they lie in the lane.
    pub fn encode(&self) -> [u32; MSG_WORDS] {
        let (kind, flags, conn, peer_conn, src, dst, sock, error) = match *self {
            Self::Connect {
                peer_conn,
                src_port,
                dst_port,
                kind,
            } => (
                CONNECT,
                0,
                0,
                peer_conn,
                src_port,
                dst_port,
                kind.as_u32(),
                0,
            ),
            Self::Accept { conn, peer_conn } => (ACCEPT, 0, conn, peer_conn, 0, 0, 0, 0),
            Self::Refuse { conn, error } => (REFUSE, 0, conn, 0, 0, 0, 0, error.as_u32()),
            Self::Ready { conn, data, space } => {
                let data = if data { READY_DATA } else { 0 };
                let space = if space { READY_SPACE } else { 0 };
                (READY, data | space, conn, 0, 0, 0, 0, 0)
            }
            Self::Done { conn } => (DONE, 0, conn, 0, 0, 0, 0, 0),
            Self::Carry(ref carry) => return carry.encode(u32::from(CARRY)),
        };
        let first = u32::from(kind) | (flags << 16);
        [
            first, conn, peer_conn, src, dst, sock, error, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]
    }

    /// Validates the private copy of a message's words (L-9).
    ///
    /// # Errors
    ///
    /// [`Reason::BadMsg`] if type, flags, socket type or error are unknown, or a
    /// TCP port is none. Reserved words are ignored.
    pub fn decode(words: &[u32; MSG_WORDS]) -> Result<Self, Reason> {
        let [first, conn, peer_conn, src_port, dst_port, sock_type, error, ..] = *words;
        let flags = first >> 16;
        let msg = match (first & 0xffff) as u16 {
            CONNECT => Self::Connect {
                peer_conn,
                src_port,
                dst_port,
                kind: Kind::from_u32(sock_type).ok_or(Reason::BadMsg)?,
            },
            ACCEPT => Self::Accept { conn, peer_conn },
            REFUSE => Self::Refuse {
                conn,
                error: Refusal::from_u32(error).ok_or(Reason::BadMsg)?,
            },
            READY => {
                if flags == 0 || flags & !(READY_DATA | READY_SPACE) != 0 {
                    return Err(Reason::BadMsg);
                }
                return Ok(Self::Ready {
                    conn,
                    data: flags & READY_DATA != 0,
                    space: flags & READY_SPACE != 0,
                });
            }
            DONE => Self::Done { conn },
            CARRY => Self::Carry(Carry::decode(words)?),
            _ => return Err(Reason::BadMsg),
        };
        if flags != 0 {
            return Err(Reason::BadMsg);
        }
        Ok(msg)
    }
}
