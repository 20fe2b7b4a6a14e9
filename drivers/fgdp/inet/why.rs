// SPDX-License-Identifier: GPL-2.0

//! Why a connection to a peer is not carried, or not any more.

use kernel::sync::atomic::{ordering::*, Atomic};

/// The reasons, numbered as `enum fgdp_tcp_reason`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Why {
    /// `net.fgdp.inet` was turned off.
    Off = 1,
    /// Another upper layer protocol has the socket, or another set of functions.
    Taken = 2,
    /// Bytes were on their way before TCP said that it is established.
    Early = 3,
    /// There was no channel to the peer.
    Channel = 4,
    /// Too many connections, or no memory.
    Memory = 5,
    /// The peer refused.
    Refused = 6,
    /// The program did what only TCP can do.
    Program = 7,
    /// The peer went back.
    Peer = 8,
    /// The channel ended.
    Ended = 9,
    /// The administrator's lists say so.
    Policy = 10,
}

impl Why {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Off,
        Self::Taken,
        Self::Early,
        Self::Channel,
        Self::Memory,
        Self::Refused,
        Self::Program,
        Self::Peer,
        Self::Ended,
        Self::Policy,
    ];

    fn place(self) -> usize {
        (self as usize).saturating_sub(1)
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Taken => "taken",
            Self::Early => "early",
            Self::Channel => "no_channel",
            Self::Memory => "no_memory",
            Self::Refused => "refused",
            Self::Program => "program",
            Self::Peer => "peer",
            Self::Ended => "channel_end",
            Self::Policy => "policy",
        }
    }
}

/// How often each reason was the first of a connection.
pub(crate) struct Whys([Atomic<i64>; Why::ALL.len()]);

impl Whys {
    /// None yet.
    pub(super) fn new() -> Self {
        Self([const { Atomic::new(0) }; Why::ALL.len()])
    }

    /// Counts `why`. Any context.
    pub(super) fn count(&self, why: Why) {
        if let Some(counter) = self.0.get(why.place()) {
            counter.add(1, Relaxed);
        }
    }

    /// How often `why` was counted.
    pub(crate) fn get(&self, why: Why) -> i64 {
        self.0.get(why.place()).map_or(0, |c| c.load(Relaxed))
    }
}

/// The first reason of one connection; later ones follow from it.
pub(super) struct First(Atomic<u32>);

impl First {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Keeps `why` unless there is one; true if there was none. Any context.
    pub(super) fn set(&self, why: Why) -> bool {
        self.0.cmpxchg(0, why as u32, Relaxed).is_ok()
    }

    /// The reason, if there is one.
    pub(super) fn get(&self) -> Option<Why> {
        let number = self.0.load(Relaxed).checked_sub(1)?;
        Why::ALL.get(number as usize).copied()
    }
}
