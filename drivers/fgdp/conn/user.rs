// SPDX-License-Identifier: GPL-2.0

//! Whom a connection serves: who is woken, and who is told how it ends.

use crate::family::FgdpRef;
use crate::inet::Path;
use crate::sys::net::consts::*;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The socket that a connection belongs to.
#[derive(Clone)]
pub(crate) enum User {
    /// A socket of `AF_FGDP`.
    Fgdp(FgdpRef),
    /// A TCP connection.
    Tcp(Arc<Path>),
}

impl User {
    /// The peer accepted. Bottom half.
    pub(super) fn opened(&self) {
        match self {
            Self::Fgdp(sk) => {
                sk.set_state(TCP_ESTABLISHED);
                sk.state_change();
                sk.write_space();
            }
            Self::Tcp(path) => path.agree(),
        }
    }

    /// The connection is about to end with `error`. Any context; wakes nobody.
    pub(super) fn fail(&self, error: Error) {
        if let Self::Fgdp(sk) = self {
            sk.set_err(error);
        }
    }

    /// The connection ended. Any context.
    pub(super) fn died(&self) {
        match self {
            Self::Fgdp(sk) => {
                sk.set_state(TCP_CLOSE);
                sk.error_report();
                sk.state_change();
                sk.write_space();
            }
            Self::Tcp(path) => {
                if !path.is_agreed() {
                    path.on_refusal();
                }
                path.kick();
            }
        }
    }

    /// The peer's entry changed; not its flags, if what carries TCP `goes_on`. Bottom half, or as
    /// one.
    pub(super) fn ready(&self, data: bool, space: bool, fin: bool, goes_on: bool) {
        match self {
            Self::Fgdp(sk) => {
                if data {
                    sk.data_ready();
                }
                if fin {
                    // As TCP: who polls for EPOLLRDHUP alone is not woken by data.
                    sk.state_change();
                }
                if space {
                    sk.write_space();
                }
            }
            Self::Tcp(path) => path.on_ready(data, space, goes_on),
        }
    }

    /// The peer does not look any more. Bottom half.
    pub(super) fn done(&self) {
        match self {
            Self::Fgdp(sk) => {
                sk.state_change();
                sk.write_space();
            }
            Self::Tcp(path) => path.kick(),
        }
    }

    /// The error queue is not empty. Any context.
    pub(super) fn error_report(&self) {
        if let Self::Fgdp(sk) = self {
            sk.error_report();
        }
    }

    /// Something changed, for whatever it sleeps.
    pub(super) fn wake(&self) {
        match self {
            Self::Fgdp(sk) => {
                sk.data_ready();
                sk.write_space();
            }
            Self::Tcp(path) => path.wake(),
        }
    }
}
