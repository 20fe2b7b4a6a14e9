// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Why a channel was broken or closed.

/// The numbered reasons (B-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// No reason given.
    None = 0,
    /// The peer's guest shut down, was reset or crashed.
    PeerGone = 1,
    /// The peer closed the channel in order.
    PeerClosed = 2,
    /// The own module goes.
    Unload = 3,
    /// The peer's slot header is invalid.
    BadSlot = 4,
    /// The peer's lane indices are invalid.
    BadLane = 5,
    /// A lane message of the peer is invalid.
    BadMsg = 6,
    /// A ring of the peer is outside the accepted extents.
    BadRing = 7,
    /// A tail or head is outside the window.
    BadPosition = 8,
    /// A flag is unknown or was taken back.
    BadFlags = 9,
    /// A record header is invalid.
    BadRecord = 10,
    /// An offered extent is invalid.
    BadExtent = 11,
    /// The peer's slot was cleared.
    Generation = 12,
    /// The host refused a call.
    Host = 13,
    /// Slot or quota is exhausted.
    NoFrames = 14,
    /// The channel's opening was not answered.
    Timeout = 15,
    /// The peer speaks another ABI version.
    Abi = 16,
    /// A grant of the peer, or its release of one, is invalid.
    BadGrant = 17,
}

impl Reason {
    /// All reasons in the order of their numbers.
    pub const ALL: [Reason; 18] = [
        Reason::None,
        Reason::PeerGone,
        Reason::PeerClosed,
        Reason::Unload,
        Reason::BadSlot,
        Reason::BadLane,
        Reason::BadMsg,
        Reason::BadRing,
        Reason::BadPosition,
        Reason::BadFlags,
        Reason::BadRecord,
        Reason::BadExtent,
        Reason::Generation,
        Reason::Host,
        Reason::NoFrames,
        Reason::Timeout,
        Reason::Abi,
        Reason::BadGrant,
    ];

    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// The reason of that number, if there is one.
    pub fn from_u32(value: u32) -> Option<Self> {
        usize::try_from(value)
            .ok()
            .and_then(|at| Self::ALL.get(at).copied())
    }

    /// A short name for counters and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PeerGone => "peer_gone",
            Self::PeerClosed => "peer_closed",
            Self::Unload => "unload",
            Self::BadSlot => "bad_slot",
            Self::BadLane => "bad_lane",
            Self::BadMsg => "bad_msg",
            Self::BadRing => "bad_ring",
            Self::BadPosition => "bad_position",
            Self::BadFlags => "bad_flags",
            Self::BadRecord => "bad_record",
            Self::BadExtent => "bad_extent",
            Self::Generation => "generation",
            Self::Host => "host",
            Self::NoFrames => "no_frames",
            Self::Timeout => "timeout",
            Self::Abi => "abi",
            Self::BadGrant => "bad_grant",
        }
    }

    /// True if the peer broke a rule, as opposed to an end in order.
    pub const fn is_violation(self) -> bool {
        matches!(
            self,
            Self::BadSlot
                | Self::BadLane
                | Self::BadMsg
                | Self::BadRing
                | Self::BadPosition
                | Self::BadFlags
                | Self::BadRecord
                | Self::BadExtent
                | Self::BadGrant
        )
    }
}
