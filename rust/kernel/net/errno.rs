// SPDX-License-Identifier: GPL-2.0

//! Error numbers of the socket interface, which the kernel crate does not name.

use super::super::ffi;
use kernel::error::Error;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:ident,)*) => {
        /// An error number of the socket interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Errno {
            $($(#[$doc])* $name = ffi::$value as isize,)*
        }
    };
}

errnos! {
    /// Address family not supported.
    AfNoSupport = EAFNOSUPPORT,
    /// Protocol not supported.
    ProtoNoSupport = EPROTONOSUPPORT,
    /// Socket type not supported.
    SockTNoSupport = ESOCKTNOSUPPORT,
    /// The listener has another socket type.
    Prototype = EPROTOTYPE,
    /// Address already in use.
    AddrInUse = EADDRINUSE,
    /// Address is not this guest's.
    AddrNotAvail = EADDRNOTAVAIL,
    /// No such guest.
    HostUnreach = EHOSTUNREACH,
    /// Nobody listens.
    ConnRefused = ECONNREFUSED,
    /// Connection reset by peer.
    ConnReset = ECONNRESET,
    /// Connection aborted.
    ConnAborted = ECONNABORTED,
    /// Already connected.
    IsConn = EISCONN,
    /// Not connected.
    NotConn = ENOTCONN,
    /// Connecting goes on in the background.
    InProgress = EINPROGRESS,
    /// Connecting already.
    Already = EALREADY,
    /// No such option.
    NoProtoOpt = ENOPROTOOPT,
    /// Operation not supported.
    OpNotSupp = EOPNOTSUPP,
    /// No frames left.
    NoBufs = ENOBUFS,
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::from_errno((errno as i32).wrapping_neg())
    }
}
