// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Control queue: requests and replies, both directions.
//!
//! Buffers are private copies: bytes that the other side can still change are
//! never parsed.

use super::bytes::{Reader, Writer};
use super::frames::{Frames, ParseError};
use super::layout::{ABI, MAX_LANES, MAX_SLOTS};
use super::reason::Reason;

/// Bytes of `struct fgdp_call` and of `struct fgdp_reply`.
pub const CALL_HDR: usize = 16;
/// The version of all calls.
pub const CALL_VERSION: u16 = 1;
/// Bytes of the longest request.
pub const MAX_REQUEST: usize = CALL_HDR + Frames::SIZE + super::layout::MAX_RANGES * 8;
/// Bytes of the longest reply.
pub const MAX_REPLY: usize = CALL_HDR + HostStats::SIZE;

/// The calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Call {
    /// The driver presents itself.
    Hello = 1,
    /// The guest claims an address.
    AddrAdd = 2,
    /// The guest gives an address up.
    AddrDel = 3,
    /// Opens the own side of a channel.
    ChannelOpen = 4,
    /// Closes the own side of a channel.
    ChannelClose = 5,
    /// PFN lists.
    Frames = 6,
    /// What the host counted.
    Stats = 7,
    /// The driver goes.
    Bye = 8,
}

impl Call {
    /// All calls in the order of their numbers, from 1.
    pub const ALL: [Call; 8] = [
        Call::Hello,
        Call::AddrAdd,
        Call::AddrDel,
        Call::ChannelOpen,
        Call::ChannelClose,
        Call::Frames,
        Call::Stats,
        Call::Bye,
    ];

    /// The call of that number, if this version knows it.
    pub fn from_u16(nr: u16) -> Option<Self> {
        let at = usize::from(nr).checked_sub(1)?;
        Self::ALL.get(at).copied()
    }

    /// The number on the wire.
    pub const fn nr(self) -> u16 {
        self as u16
    }

    /// A short name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::AddrAdd => "ADDR_ADD",
            Self::AddrDel => "ADDR_DEL",
            Self::ChannelOpen => "CHANNEL_OPEN",
            Self::ChannelClose => "CHANNEL_CLOSE",
            Self::Frames => "FRAMES",
            Self::Stats => "STATS",
            Self::Bye => "BYE",
        }
    }
}

/// How the host answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The call or its version is not in the table.
    UnknownCall = 1,
    /// The request's length does not fit the call.
    BadLength = 2,
    /// A field has a value that it must not have.
    BadValue = 3,
    /// The address is not this guest's.
    NotAllowed = 4,
    /// The peer is absent or of another generation.
    NoPeer = 5,
    /// The call's quota is used up.
    Quota = 6,
    /// The frames overlap an extent that is offered already.
    Overlap = 7,
    /// Not in this order.
    State = 8,
    /// Another ABI version.
    BadAbi = 9,
}

impl Status {
    /// The status of that number, if there is one.
    pub const fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Ok,
            1 => Self::UnknownCall,
            2 => Self::BadLength,
            3 => Self::BadValue,
            4 => Self::NotAllowed,
            5 => Self::NoPeer,
            6 => Self::Quota,
            7 => Self::Overlap,
            8 => Self::State,
            9 => Self::BadAbi,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }
}

impl From<ParseError> for Status {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Length => Self::BadLength,
            ParseError::Value => Self::BadValue,
            ParseError::Unknown => Self::UnknownCall,
        }
    }
}

/// `struct fgdp_hello`, request and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// ABI version.
    pub abi: u32,
    /// Reply: generation of the own slot.
    pub generation: u32,
    /// Lanes that the guest drains; reply: granted.
    pub lanes: u16,
    /// Own doorbell id, or [`NO_IVSHMEM`](super::layout::NO_IVSHMEM).
    pub ivshmem_id: u32,
}

impl Hello {
    /// Size of the structure.
    pub const SIZE: usize = 16;

    /// Parses a payload and nothing but that. The ABI version is not judged, so
    /// that the host can answer [`Status::BadAbi`].
    ///
    /// # Errors
    ///
    /// `Length`; `Value` if the number of lanes is not 1 to [`MAX_LANES`].
    pub fn parse(buf: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let hello = (|| {
            let abi = r.u32()?;
            let generation = r.u32()?;
            let lanes = r.u16()?;
            r.u16()?;
            let ivshmem_id = r.u32()?;
            r.done()?;
            Some(Self {
                abi,
                generation,
                lanes,
                ivshmem_id,
            })
        })()
        .ok_or(ParseError::Length)?;
        if hello.abi == ABI && (hello.lanes == 0 || u32::from(hello.lanes) > MAX_LANES) {
            return Err(ParseError::Value);
        }
        Ok(hello)
    }

    fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        w.u32(self.abi)?;
        w.u32(self.generation)?;
        w.u16(self.lanes)?;
        w.u16(0)?;
        w.u32(self.ivshmem_id)
    }
}

/// `struct fgdp_channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Slot of the peer.
    pub peer: u32,
    /// Generation of the peer's slot.
    pub peer_generation: u32,
    /// Why, for CLOSE.
    pub reason: Reason,
}

impl Channel {
    /// Size of the structure.
    pub const SIZE: usize = 16;

    fn parse(buf: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let fields = (|| {
            let fields = (r.u32()?, r.u32()?, r.u32()?);
            r.u32()?;
            r.done()?;
            Some(fields)
        })();
        let (peer, peer_generation, reason) = fields.ok_or(ParseError::Length)?;
        Ok(Self {
            peer: slot_number(peer)?,
            peer_generation,
            reason: Reason::from_u32(reason).ok_or(ParseError::Value)?,
        })
    }

    fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        w.u32(self.peer)?;
        w.u32(self.peer_generation)?;
        w.u32(self.reason.as_u32())?;
        w.u32(0)
    }
}

/// A member's slot number.
pub(super) fn slot_number(slot: u32) -> Result<u32, ParseError> {
    if slot == 0 || slot >= MAX_SLOTS {
        return Err(ParseError::Value);
    }
    Ok(slot)
}

/// `struct fgdp_host_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Calls of this guest.
    pub calls: u64,
    /// Calls not answered with [`Status::Ok`].
    pub refused: u64,
    /// Addresses refused.
    pub addr_refused: u64,
    /// Doorbells that this guest rang by trap.
    pub doorbells: u64,
    /// Frames that this guest has on offer.
    pub frames_offered: u64,
    /// Frames of others that this guest accepted.
    pub frames_accepted: u64,
}

impl HostStats {
    /// Size of the structure.
    pub const SIZE: usize = 48;

    /// Parses a payload and nothing but that.
    ///
    /// # Errors
    ///
    /// `Length`.
    pub fn parse(buf: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        (|| {
            let stats = Self {
                calls: r.u64()?,
                refused: r.u64()?,
                addr_refused: r.u64()?,
                doorbells: r.u64()?,
                frames_offered: r.u64()?,
                frames_accepted: r.u64()?,
            };
            r.done()?;
            Some(stats)
        })()
        .ok_or(ParseError::Length)
    }

    fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        w.u64(self.calls)?;
        w.u64(self.refused)?;
        w.u64(self.addr_refused)?;
        w.u64(self.doorbells)?;
        w.u64(self.frames_offered)?;
        w.u64(self.frames_accepted)
    }
}

/// A request, validated as far as the bytes say (H-3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// The driver presents itself.
    Hello(Hello),
    /// The guest claims an address: IPv6, or IPv4 as `::ffff:a.b.c.d`.
    AddrAdd([u8; 16]),
    /// The guest gives an address up.
    AddrDel([u8; 16]),
    /// Opens the own side of a channel.
    ChannelOpen(Channel),
    /// Closes the own side of a channel.
    ChannelClose(Channel),
    /// PFN list.
    Frames(Frames<'a>),
    /// What the host counted.
    Stats,
    /// The driver goes.
    Bye,
}

/// A request that is answered with an error at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    /// Its cookie, 0 if it has none.
    pub cookie: u64,
    /// The answer.
    pub status: Status,
}

impl<'a> Request<'a> {
    /// Parses a request, header and payload and nothing but that; returns its
    /// cookie too.
    ///
    /// # Errors
    ///
    /// What to answer.
    pub fn parse(buf: &'a [u8]) -> Result<(u64, Self), BadRequest> {
        let mut r = Reader(buf);
        let hdr = (|| Some((r.u16()?, r.u16()?, r.u32()?, r.u64()?)))();
        let (nr, version, len, cookie) = hdr.ok_or(BadRequest {
            cookie: 0,
            status: Status::BadLength,
        })?;
        let body = r.0;
        if usize::try_from(len).ok() != Some(body.len()) {
            let status = Status::BadLength;
            return Err(BadRequest { cookie, status });
        }
        match Self::parse_body(nr, version, body) {
            Ok(request) => Ok((cookie, request)),
            Err(error) => Err(BadRequest {
                cookie,
                status: error.into(),
            }),
        }
    }

    fn parse_body(nr: u16, version: u16, body: &'a [u8]) -> Result<Self, ParseError> {
        let call = Call::from_u16(nr).ok_or(ParseError::Unknown)?;
        if version != CALL_VERSION {
            return Err(ParseError::Unknown);
        }
        let addr = || <[u8; 16]>::try_from(body).map_err(|_| ParseError::Length);
        let empty = || body.is_empty().then_some(()).ok_or(ParseError::Length);
        Ok(match call {
            Call::Hello => Self::Hello(Hello::parse(body)?),
            Call::AddrAdd => Self::AddrAdd(addr()?),
            Call::AddrDel => Self::AddrDel(addr()?),
            Call::ChannelOpen => Self::ChannelOpen(Channel::parse(body)?),
            Call::ChannelClose => Self::ChannelClose(Channel::parse(body)?),
            Call::Frames => {
                let frames = Frames::parse(body)?;
                slot_number(frames.peer)?;
                Self::Frames(frames)
            }
            Call::Stats => {
                empty()?;
                Self::Stats
            }
            Call::Bye => {
                empty()?;
                Self::Bye
            }
        })
    }

    /// Which call it is.
    pub const fn call(&self) -> Call {
        match self {
            Self::Hello(_) => Call::Hello,
            Self::AddrAdd(_) => Call::AddrAdd,
            Self::AddrDel(_) => Call::AddrDel,
            Self::ChannelOpen(_) => Call::ChannelOpen,
            Self::ChannelClose(_) => Call::ChannelClose,
            Self::Frames(_) => Call::Frames,
            Self::Stats => Call::Stats,
            Self::Bye => Call::Bye,
        }
    }

    /// Writes the request; returns the number of bytes, or `None` if `buf` is
    /// too short ([`MAX_REQUEST`] is always enough).
    pub fn encode(&self, cookie: u64, buf: &mut [u8]) -> Option<usize> {
        let len = match self {
            Self::Hello(_) => Hello::SIZE,
            Self::AddrAdd(_) | Self::AddrDel(_) => 16,
            Self::ChannelOpen(_) | Self::ChannelClose(_) => Channel::SIZE,
            Self::Frames(frames) => frames.size(),
            Self::Stats | Self::Bye => 0,
        };
        let mut w = Writer::new(buf);
        w.u16(self.call().nr())?;
        w.u16(CALL_VERSION)?;
        w.u32(u32::try_from(len).ok()?)?;
        w.u64(cookie)?;
        match self {
            Self::Hello(hello) => hello.put(&mut w)?,
            Self::AddrAdd(addr) | Self::AddrDel(addr) => w.bytes(addr)?,
            Self::ChannelOpen(channel) | Self::ChannelClose(channel) => channel.put(&mut w)?,
            Self::Frames(frames) => frames.put(&mut w)?,
            Self::Stats | Self::Bye => {}
        }
        Some(w.at)
    }
}

/// What a reply carries besides its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// Nothing.
    None,
    /// To HELLO.
    Hello(Hello),
    /// To STATS.
    Stats(HostStats),
}

/// Writes a reply; returns the number of bytes, or `None` if `buf` is too short
/// ([`MAX_REPLY`] is always enough).
pub fn encode_reply(
    status: Status,
    cookie: u64,
    body: &ReplyBody,
    buf: &mut [u8],
) -> Option<usize> {
    let len = match body {
        ReplyBody::None => 0,
        ReplyBody::Hello(_) => Hello::SIZE,
        ReplyBody::Stats(_) => HostStats::SIZE,
    };
    let mut w = Writer::new(buf);
    w.u32(status.as_u32())?;
    w.u32(u32::try_from(len).ok()?)?;
    w.u64(cookie)?;
    match body {
        ReplyBody::None => {}
        ReplyBody::Hello(hello) => hello.put(&mut w)?,
        ReplyBody::Stats(stats) => stats.put(&mut w)?,
    }
    Some(w.at)
}

/// A reply's header and its payload's bytes, to be parsed by the call's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// How the host answered.
    pub status: Status,
    /// The request's cookie.
    pub cookie: u64,
    /// Payload.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Parses the bytes that the device wrote, and nothing but those.
    ///
    /// # Errors
    ///
    /// `Length`, or `Value` if the status is unknown.
    pub fn parse(buf: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader(buf);
        let hdr = (|| Some((r.u32()?, r.u32()?, r.u64()?)))();
        let (status, len, cookie) = hdr.ok_or(ParseError::Length)?;
        if usize::try_from(len).ok() != Some(r.0.len()) {
            return Err(ParseError::Length);
        }
        Ok(Self {
            status: Status::from_u32(status).ok_or(ParseError::Value)?,
            cookie,
            body: r.0,
        })
    }
}
