// SPDX-License-Identifier: GPL-2.0

//! `setsockopt(2)` and `getsockopt(2)` of a taken socket.

use super::super::super::ffi;
use super::super::errno::Errno;
use super::super::family::{put_option, release_option};
use super::super::msg::ret;
use super::super::tcp::TcpSock;
use super::{path, step_aside, Hook, RingBytes};
use kernel::ffi::{c_char, c_int, c_uint};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Options that need a socket that is TCP's alone.
fn needs_tcp(level: c_int, name: c_int) -> bool {
    let name = name as c_uint;
    match level as c_uint {
        ffi::SOL_TCP => {
            name == ffi::fgdp_const_FGDP_CONST_TCP_ULP
                || name == ffi::fgdp_const_FGDP_CONST_TCP_REPAIR
        }
        ffi::SOL_IPV6 => name == ffi::IPV6_ADDRFORM,
        _ => false,
    }
}

/// `FGDP_CARRY`, which only a taken socket has.
fn is_carry_option(level: c_int, name: c_int) -> bool {
    (level as c_uint, name as c_uint) == (ffi::SOL_FGDP, ffi::FGDP_CARRY)
}

fn set_carry<H: Hook>(sk: *mut ffi::sock, val: ffi::sockptr_t, len: c_uint) -> c_int {
    let mut value = 0;
    // SAFETY: A place for the answer; the kernel checks `val`, which has `len` bytes.
    let ret = unsafe { ffi::fgdp_helper_int_from_sockptr(&mut value, val, len) };
    if ret != 0 {
        return ret;
    }
    match (value, path::<H>(sk)) {
        (0, _) => {
            let _held = step_aside::<H>(sk);
            0
        }
        (1, Some(path)) if H::may_carry(&path) => 0,
        (1, _) => -(ffi::EOPNOTSUPP as c_int),
        _ => EINVAL.to_errno(),
    }
}

/// # Safety
///
/// As `struct proto` says.
pub(super) unsafe extern "C" fn setsockopt<H: Hook>(
    sk: *mut ffi::sock,
    level: c_int,
    name: c_int,
    val: ffi::sockptr_t,
    len: c_uint,
) -> c_int {
    if is_carry_option(level, name) {
        return set_carry::<H>(sk, val, len);
    }
    if (level as c_uint, name as c_uint) == (ffi::SOL_FGDP, ffi::FGDP_ZEROCOPY_RELEASE) {
        return match (release_option(val, len), path::<H>(sk)) {
            (Ok(what), Some(path)) => ret(H::release_mapped(&path, &what).map(|()| 0)),
            (Err(e), Some(_)) => e.to_errno(),
            (_, None) => -(ffi::EOPNOTSUPP as c_int),
        };
    }
    let _held = if needs_tcp(level, name) {
        step_aside::<H>(sk)
    } else {
        None
    };
    // SAFETY: By this function's contract.
    match unsafe { TcpSock::from_raw(sk) }.base().setsockopt {
        // SAFETY: TCP's own, with what it expects.
        Some(base) => unsafe { base(sk, level, name, val, len) },
        None => -(ffi::EOPNOTSUPP as c_int),
    }
}

/// # Safety
///
/// As `struct proto` says.
pub(super) unsafe extern "C" fn getsockopt<H: Hook>(
    sk: *mut ffi::sock,
    level: c_int,
    name: c_int,
    val: *mut c_char,
    len: *mut c_int,
) -> c_int {
    if is_carry_option(level, name) {
        let carried = path::<H>(sk).is_some_and(|path| H::is_carried(&path));
        // SAFETY: By this function's contract both are the user's pointers.
        return unsafe { ffi::fgdp_helper_put_option_int(carried.into(), val, len) };
    }
    // SAFETY: By this function's contract.
    let sock = unsafe { TcpSock::from_raw(sk) };
    if level as c_uint == ffi::SOL_FGDP {
        let Some(path) = path::<H>(sk) else {
            return -(ffi::EOPNOTSUPP as c_int);
        };
        return match name as c_uint {
            ffi::FGDP_WINDOW => put_option(|| H::window_size(&path, sock), val, len),
            ffi::FGDP_ZEROCOPY_RECEIVE => put_option(|| H::receive_mapped(&path, sock), val, len),
            _ => Error::from(Errno::NoProtoOpt).to_errno(),
        };
    }
    let is = |tcp: c_uint| level as c_uint == ffi::SOL_TCP && name as c_uint == tcp;
    // It is ours: to a program this is plain TCP, which has none.
    if is(ffi::fgdp_const_FGDP_CONST_TCP_ULP) && path::<H>(sk).is_some() {
        let none: c_int = 0;
        let mut user = UserSlice::new(UserPtr::from_ptr(len.cast()), size_of_val(&none)).writer();
        return user.write(&none).map_or_else(|e| e.to_errno(), |()| 0);
    }
    if is(ffi::fgdp_const_FGDP_CONST_TCP_ZEROCOPY_RECEIVE) {
        if let Some((bytes, end)) = path::<H>(sk).and_then(|path| H::unmappable(&path, sock)) {
            // SAFETY: By this function's contract both are the user's pointers.
            return unsafe { ffi::fgdp_helper_tcp_zerocopy_none(bytes, end, val, len) };
        }
    }
    let result = match sock.base().getsockopt {
        // SAFETY: TCP's own, with what it expects.
        Some(base) => unsafe { base(sk, level, name, val, len) },
        None => -(ffi::EOPNOTSUPP as c_int),
    };
    let info =
        level as c_uint == ffi::SOL_TCP && name as c_uint == ffi::fgdp_const_FGDP_CONST_TCP_INFO;
    match path::<H>(sk).filter(|_| info && result == 0) {
        Some(path) => {
            let RingBytes {
                received,
                sent,
                acked,
            } = H::bytes(&path);
            // SAFETY: By this function's contract both are the user's pointers.
            unsafe { ffi::fgdp_helper_add_tcp_info(val, len, received, acked, sent) }
        }
        None => result,
    }
}
