// SPDX-License-Identifier: GPL-2.0

//! Receiving: the peer's ring to user memory.

use crate::conn::{Connection, Phase};
use crate::proto::stream::{Conn, Notify, Spans};
use crate::proto::wire::{Kind, RECORD_HDR};
use crate::sys::net::anysock::AnySock;
use crate::sys::net::consts::*;
use crate::sys::net::errno::Errno;
use crate::sys::net::msg::RecvMsg;
use crate::tx::{FAULTS, SHORT};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;

/// Bytes given back at once: the sender gets space while the rest is copied.
const CHUNK: u32 = 64 << 10;

/// `recvmsg(2)` on `sk`, which `conn` belongs to.
pub(crate) fn recv(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    let mut timeo = sk.rcvtimeo(flags & MSG_DONTWAIT != 0);
    match conn.kind() {
        Kind::Stream => recv_stream(sk, conn, msg, len, flags, &mut timeo),
        Kind::SeqPacket => recv_record(sk, conn, msg, len, flags, &mut timeo),
    }
}

/// Why there is nothing to read now.
enum Empty {
    /// More may come.
    Wait,
    /// Nothing will.
    End,
}

/// Says so for a reader that has seen `seen` unread bytes.
fn empty(sk: &AnySock, conn: &Connection, seen: u32) -> Empty {
    if conn.phase() == Phase::Dead {
        return Empty::End;
    }
    let found = conn.with_rx(|proto, _, avail| Ok((avail, proto.rx_fin(), proto.rx_reset())));
    let Ok((avail, fin, reset)) = found else {
        return Empty::End;
    };
    if reset {
        conn.die(Errno::ConnReset.into());
        return Empty::End;
    }
    let down = sk.shutdown_mask() & RCV_SHUTDOWN != 0;
    // FIN is the end only behind the last byte, which may have come meanwhile.
    if (fin || down) && avail <= seen {
        Empty::End
    } else {
        Empty::Wait
    }
}

/// What a reader gets that read nothing to the end: what killed the connection once, then 0.
fn end(sk: &AnySock, conn: &Connection) -> Result<usize> {
    if conn.phase() == Phase::Dead {
        sk.take_error()?;
    }
    Ok(0)
}

/// What to do with the bytes.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Leave the bytes where they are.
    pub(crate) peek: bool,
    /// As TCP with `MSG_TRUNC`: the bytes go nowhere.
    pub(crate) discard: bool,
}

fn recv_stream(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
    timeo: &mut isize,
) -> Result<usize> {
    let how = How {
        peek: flags & MSG_PEEK != 0,
        discard: flags & MSG_TRUNC != 0,
    };
    let target = sk.rcvlowat(flags & MSG_WAITALL != 0, len).min(len);
    let mut copied = 0usize;
    while copied < len {
        let at = if how.peek { copied as u32 } else { 0 };
        let step = read(conn, msg, len - copied, at, how, |_| true).and_then(|found| match found {
            (0, _) if copied >= target && copied > 0 => Ok(None),
            (0, _) => match empty(sk, conn, at) {
                Empty::End => Ok(None),
                Empty::Wait => wait_data(sk, conn, at, timeo, |_| false).map(|()| Some((0, true))),
            },
            found => Ok(Some(found)),
        });
        match step {
            Ok(Some((n, more))) => {
                copied += n;
                if copied >= target && !more && copied > 0 {
                    break;
                }
            }
            Ok(None) => break,
            Err(_) if copied > 0 => break,
            Err(e) => return Err(e),
        }
    }
    if copied == 0 && len > 0 {
        return end(sk, conn);
    }
    Ok(copied)
}

/// Reads what is there, up to `len` bytes, if that is `wanted` of a connection as it was just seen;
/// returns how many, and whether there are more.
pub(crate) fn read(
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    at: u32,
    how: How,
    mut wanted: impl FnMut(&Conn) -> bool,
) -> Result<(usize, bool)> {
    for _ in 0..FAULTS {
        match try_read(conn, msg, len, at, how, &mut wanted) {
            // Not under the lock: user memory may take for ever to come.
            Err(e) if e == EFAULT && msg.fault_in(1) => {}
            result => return result,
        }
    }
    Err(EFAULT)
}

/// What came of the first look.
enum Tried {
    /// So many bytes, of so many that there were.
    Got(u32, u32, Notify),
    /// Where the bytes are, which are copied without the lock, and how many there are.
    Long(Spans, u32),
    /// User memory is not there.
    Fault,
    /// Nothing to read.
    Empty,
}

fn try_read(
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    at: u32,
    how: How,
    wanted: &mut impl FnMut(&Conn) -> bool,
) -> Result<(usize, bool)> {
    let _rx = conn.rx.lock();
    let want = u32::try_from(len).unwrap_or(u32::MAX).min(CHUNK);
    // An error means that the connection is dead: then there is nothing to read.
    let tried = conn.with_rx(|proto, view, avail| {
        if !wanted(proto) {
            return Ok(Tried::Empty);
        }
        let spans = proto.rx_spans(at, want);
        if spans.bytes() == 0 {
            return Ok(Tried::Empty);
        }
        if spans.bytes() > SHORT || how.peek || how.discard {
            return Ok(Tried::Long(spans, avail));
        }
        match copy(conn, msg, &spans) {
            0 => Ok(Tried::Fault),
            n => Ok(Tried::Got(n, avail, proto.rx_consume(view, n)?)),
        }
    });
    let (spans, avail) = match tried {
        Ok(Tried::Long(spans, avail)) => (spans, avail),
        Ok(Tried::Got(n, avail, notify)) => {
            consumed(conn, n, notify);
            return Ok((n as usize, n < avail));
        }
        Ok(Tried::Fault) => return Err(EFAULT),
        Ok(Tried::Empty) | Err(_) => return Ok((0, false)),
    };
    let copied = if how.discard {
        spans.bytes()
    } else {
        copy(conn, msg, &spans)
    };
    if copied == 0 {
        return Err(EFAULT);
    }
    // Bytes copied while the connection died may be somebody else's: they do not count.
    let alive = if how.peek {
        conn.with(|_, _| Ok(()))
    } else {
        consume(conn, copied)
    };
    if alive.is_err() {
        if !how.discard {
            msg.revert(copied);
        }
        return Ok((0, false));
    }
    Ok((copied as usize, at.wrapping_add(copied) < avail))
}

fn copy(conn: &Connection, msg: &mut RecvMsg<'_>, spans: &Spans) -> u32 {
    let mut copied = 0u32;
    for span in spans {
        let group = conn.device.group();
        let n = group.copy_to_iter(span.off, span.len as usize, msg.iter()) as u32;
        copied = copied.wrapping_add(n);
        if n < span.len {
            break;
        }
    }
    copied
}

fn consume(conn: &Connection, n: u32) -> Result {
    let notify = conn.with(|proto, view| proto.rx_consume(view, n))?;
    consumed(conn, n, notify);
    Ok(())
}

fn consumed(conn: &Connection, n: u32, notify: Notify) {
    conn.counters.rx_bytes.add(n.into(), Relaxed);
    conn.notify_space(Ok(notify));
}

fn recv_record(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
    timeo: &mut isize,
) -> Result<usize> {
    loop {
        if let Some(n) = read_record(conn, msg, len, flags)? {
            return Ok(n);
        }
        match empty(sk, conn, 0) {
            Empty::End => return end(sk, conn),
            Empty::Wait => wait_data(sk, conn, 0, timeo, |_| false)?,
        }
    }
}

fn read_record(
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
) -> Result<Option<usize>> {
    for _ in 0..FAULTS {
        match try_read_record(conn, msg, len, flags) {
            Err(e) if e == EFAULT && msg.fault_in(u32::try_from(len).unwrap_or(u32::MAX)) => {}
            result => return result,
        }
    }
    Err(EFAULT)
}

fn try_read_record(
    conn: &Connection,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
) -> Result<Option<usize>> {
    let _rx = conn.rx.lock();
    let found = conn.with_rx(|proto, view, _| {
        let Some(record) = proto.rx_record(view)? else {
            return Ok(None);
        };
        let want = u32::try_from(len).unwrap_or(u32::MAX).min(record);
        Ok(Some((record, want, proto.rx_spans(RECORD_HDR, want))))
    });
    // As in `read`, an error means that there is nothing to read.
    let Ok(Some((record, want, spans))) = found else {
        return Ok(None);
    };
    let copied = copy(conn, msg, &spans);
    if copied < want {
        msg.revert(copied);
        return Err(EFAULT);
    }
    let peek = flags & MSG_PEEK != 0;
    let taken = conn.with(|proto, view| {
        if peek {
            Ok(None)
        } else {
            proto.rx_consume_record(view).map(Some)
        }
    });
    let Ok(taken) = taken else {
        return Ok(None);
    };
    msg.add_flags(if want < record {
        MSG_EOR | MSG_TRUNC
    } else {
        MSG_EOR
    });
    if let Some(notify) = taken {
        conn.counters.rx_bytes.add(record.into(), Relaxed);
        conn.notify_space(Ok(notify));
    }
    // With MSG_TRUNC the caller asks for the record's real length.
    let n = if flags & MSG_TRUNC != 0 { record } else { want };
    Ok(Some(n as usize))
}

/// Sleeps, unless more than `seen` bytes can be read, or there is a reason to stop: `stop` may know
/// one more. Whatever it was, who reads looks again.
pub(crate) fn wait_data(
    sk: &AnySock,
    conn: &Connection,
    seen: u32,
    timeo: &mut isize,
    stop: impl Fn(&Conn) -> bool,
) -> Result {
    // Once reading has stopped, no byte comes by the ring.
    let is_ready = |proto: &Conn, avail| {
        avail > seen || proto.rx_fin() || proto.rx_reset() || proto.rx_stopped() || stop(proto)
    };
    let looks_ready = || {
        conn.with_rx(|proto, _, avail| Ok(is_ready(proto, avail)))
            .unwrap_or(true)
    };
    if *timeo == 0 {
        // Not everybody polls again who was woken and now reads until there is nothing (io_uring).
        return if sk.has_sleeper() && conn.arm_data() && looks_ready() {
            Ok(())
        } else {
            Err(EAGAIN)
        };
    }
    conn.rx_spin.wait(conn.patience(sk), looks_ready, || {
        conn.counters.rx_waits.add(1, Relaxed);
        let ready = || {
            if sk.shutdown_mask() & RCV_SHUTDOWN != 0 || sk.err() != 0 {
                return true;
            }
            let armed = conn.with_rx_phase(|proto, view, avail, phase| {
                Ok(phase == Phase::Dead || is_ready(proto, avail) || proto.arm_data(view)?)
            });
            armed.unwrap_or(true)
        };
        if conn.device.is_loopback() {
            sk.sleep_here(timeo, ready)
        } else {
            sk.sleep(timeo, ready)
        }
    })
}
