// SPDX-License-Identifier: GPL-2.0

//! Sending: user memory to the own ring.

use crate::conn::{Connection, Phase};
use crate::policy::ring_max;
use crate::proto::stream::{Conn, Notify, Ring, Spans};
use crate::proto::wire::{Kind, FRAME_SHIFT, RECORD_HDR, RING_MAX_FRAMES, RING_MIN_FRAMES};
use crate::sys::net::anysock::AnySock;
use crate::sys::net::consts::*;
use crate::sys::net::errno::Errno;
use crate::sys::net::msg::SendMsg;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;

/// Bytes published at once: small enough that the receiver starts early, large enough that a
/// publication's fence does not count.
const CHUNK: u32 = 64 << 10;

/// `sendmsg(2)` on `sk`, which `conn` belongs to.
pub(crate) fn send(sk: &AnySock, conn: &Connection, msg: &mut SendMsg<'_>) -> Result<usize> {
    let sent = match conn.kind() {
        Kind::Stream => return send_in_steps(sk, conn, msg, |msg| write(sk, conn, msg)),
        Kind::SeqPacket => {
            let mut timeo = sk.sndtimeo(msg.flags() & MSG_DONTWAIT != 0);
            send_record(sk, conn, msg, &mut timeo)
        }
    };
    sent.map_err(|e| of_dead(conn, e))
}

/// The error of a send. The caller turns EPIPE into the socket's error, once.
fn of_dead(conn: &Connection, err: Error) -> Error {
    if conn.phase() == Phase::Dead {
        EPIPE
    } else {
        err
    }
}

/// Waits until `conn` is not opening any more, as long as sending `msg` may wait.
pub(crate) fn await_open(sk: &AnySock, conn: &Connection, msg: &SendMsg<'_>) -> Result {
    let mut timeo = sk.sndtimeo(msg.flags() & MSG_DONTWAIT != 0);
    if conn.is_opening() {
        sk.wait(&mut timeo, || (!conn.is_opening()).then_some(()))?;
    }
    Ok(())
}

/// Why nothing can be sent any more, if that is so. `peer_shut`: the peer reads no more.
fn check(sk: &AnySock, phase: Phase, peer_shut: bool) -> Result {
    if sk.shutdown_mask() & SEND_SHUTDOWN != 0 {
        return Err(EPIPE);
    }
    if phase == Phase::Dead || peer_shut {
        return Err(EPIPE);
    }
    Ok(())
}

/// Whether bytes can be sent at all.
///
/// # Errors
///
/// As a send that cannot.
pub(crate) fn check_open(sk: &AnySock, conn: &Connection) -> Result {
    let (phase, shut) =
        conn.with_phase(|proto, view, phase| Ok((phase, proto.peer_rx_shut(view)?)))?;
    check(sk, phase, shut)
}

/// Sends the bytes of a stream by `step`, which says how many it took, and is called again when it
/// took none and there is space.
pub(crate) fn send_in_steps(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut SendMsg<'_>,
    mut step: impl FnMut(&mut SendMsg<'_>) -> Result<usize>,
) -> Result<usize> {
    let mut timeo = sk.sndtimeo(msg.flags() & MSG_DONTWAIT != 0);
    let mut sent = 0usize;
    while msg.remaining() > 0 {
        let step = step(msg).and_then(|n| match n {
            0 => {
                let want = u32::try_from(msg.remaining()).unwrap_or(u32::MAX);
                wait_space(sk, conn, want, &mut timeo).map(|()| 0)
            }
            n => Ok(n),
        });
        match step {
            Ok(n) => sent = sent.saturating_add(n),
            Err(_) if sent > 0 => break,
            Err(e) => return Err(of_dead(conn, e)),
        }
    }
    Ok(sent)
}

/// A message of at most this part of a ring waits for space as a whole.
const WHOLE: u32 = 16;

/// How often pages may vanish between being brought in and being copied.
pub(crate) const FAULTS: u32 = 64;

/// Writes what fits now; 0 when the ring is full.
pub(crate) fn write(sk: &AnySock, conn: &Connection, msg: &mut SendMsg<'_>) -> Result<usize> {
    // A reader that is awake sees each part, and takes it for the message.
    let mut parts = false;
    for _ in 0..FAULTS {
        match try_write(sk, conn, msg, parts) {
            Err(e) if e == EFAULT => {}
            result => return result,
        }
        // Not under the lock: user memory may take for ever to come.
        let want = u32::try_from(msg.remaining()).map_or(CHUNK, |n| n.min(CHUNK));
        let there = msg.fault_in(want);
        if there == 0 {
            break;
        }
        // What has come may have gone again.
        parts = true;
    }
    Err(EFAULT)
}

/// Bytes that are copied under the connection's lock: taking it twice costs more.
pub(crate) const SHORT: u32 = 1024;

/// What came of a short message.
enum Short {
    /// So many bytes are on their way.
    Sent(u32, Notify),
    /// User memory is not there.
    Fault,
    /// It is not that simple.
    No,
}

/// Writes a short message if nothing is in its way, under the connection's lock.
fn try_short(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut SendMsg<'_>,
    len: u32,
    parts: bool,
    wanted: impl FnOnce(&Conn) -> bool,
) -> Result<Short> {
    conn.with_phase(|proto, view, phase| {
        let shut = proto.peer_rx_shut(view)?;
        let Some(at) = proto
            .tx_span(view, len)
            .filter(|_| wanted(proto) && check(sk, phase, shut).is_ok())
        else {
            return Ok(Short::No);
        };
        match view
            .slot
            .copy_from_iter(at.off, at.len as usize, msg.iter()) as u32
        {
            0 => Ok(Short::Fault),
            n if n < len && !parts => {
                msg.revert(n);
                Ok(Short::Fault)
            }
            n => Ok(Short::Sent(n, proto.tx_publish(view, n)?)),
        }
    })
}

/// Writes a short message if nothing is in its way and it is `wanted` of the connection as it was
/// just seen; 0 if it is not that simple.
pub(crate) fn write_short(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut SendMsg<'_>,
    wanted: impl FnOnce(&Conn) -> bool,
) -> u32 {
    let len = u32::try_from(msg.remaining()).unwrap_or(u32::MAX);
    if len > SHORT {
        return 0;
    }
    let _tx = conn.tx.lock();
    match try_short(sk, conn, msg, len, false, wanted) {
        Ok(Short::Sent(n, notify)) => {
            sent(conn, n, notify);
            n
        }
        // Whatever it is: who does it step by step finds it.
        Ok(Short::Fault | Short::No) | Err(_) => 0,
    }
}

/// As [`write`]; without `parts`, only if all of the user's memory is there.
fn try_write(sk: &AnySock, conn: &Connection, msg: &mut SendMsg<'_>, parts: bool) -> Result<usize> {
    let _tx = conn.tx.lock();
    let want = u32::try_from(msg.remaining()).unwrap_or(u32::MAX);
    if want <= SHORT {
        match try_short(sk, conn, msg, want, parts, |_| true)? {
            Short::Sent(n, notify) => {
                sent(conn, n, notify);
                return Ok(n as usize);
            }
            Short::Fault => return Err(EFAULT),
            Short::No => {}
        }
    }
    let step = want.min(CHUNK);
    let mut spans = conn.with_phase(|proto, view, phase| {
        let shut = proto.peer_rx_shut(view)?;
        Ok(check(sk, phase, shut).map(|()| proto.tx_spans(view, 0, step)))
    })??;
    if spans.bytes() < step || conn.tx_short.load(Relaxed) {
        let free = space(sk, conn, want)?;
        if free < want && want <= conn.tx_ring_bytes() / WHOLE {
            return Ok(0);
        }
        spans = conn.with(|proto, view| Ok(proto.tx_spans(view, 0, free.min(step))))?;
        if spans.bytes() == 0 {
            return Ok(0);
        }
    }
    let copied = copy(conn, msg, &spans);
    if copied == 0 || (copied < spans.bytes() && !parts) {
        msg.revert(copied);
        return Err(EFAULT);
    }
    if let Err(e) = publish(conn, copied) {
        msg.revert(copied);
        return Err(e);
    }
    Ok(copied as usize)
}

fn copy(conn: &Connection, msg: &mut SendMsg<'_>, spans: &Spans) -> u32 {
    let mut copied = 0u32;
    for span in spans {
        let slot = conn.device.slot();
        let n = slot.copy_from_iter(span.off, span.len as usize, msg.iter()) as u32;
        copied = copied.wrapping_add(n);
        if n < span.len {
            break;
        }
    }
    copied
}

fn publish(conn: &Connection, n: u32) -> Result {
    let notify = conn.with(|proto, view| {
        // The peer may have stopped reading while the bytes were copied: then they are not on their
        // way.
        if proto.tx_on_ring() {
            proto.tx_publish(view, n).map(Some)
        } else {
            Ok(None)
        }
    })?;
    sent(conn, n, notify.ok_or(Errno::ConnReset)?);
    Ok(())
}

fn sent(conn: &Connection, n: u32, notify: Notify) {
    conn.counters.tx_bytes.add(n.into(), Relaxed);
    conn.notify_data(Ok(notify));
}

fn send_record(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut SendMsg<'_>,
    timeo: &mut isize,
) -> Result<usize> {
    let len = u32::try_from(msg.remaining()).map_err(|_| EMSGSIZE)?;
    let size = Conn::record_size(len).ok_or(EMSGSIZE)?;
    if size > max_ring(sk) {
        return Err(EMSGSIZE);
    }
    let mut faults = 0;
    loop {
        check_open(sk, conn)?;
        {
            let tx = conn.tx.lock();
            if space(sk, conn, size)? >= size {
                let at = conn.with(|proto, view| Ok(proto.tx_spans(view, RECORD_HDR, len)))?;
                let copied = copy(conn, msg, &at);
                if copied < len {
                    drop(tx);
                    msg.revert(copied);
                    faults += 1;
                    if faults > FAULTS || msg.fault_in(len) == 0 {
                        return Err(EFAULT);
                    }
                    continue;
                }
                if !conn.with(|proto, view| Ok(proto.tx_record(view, len)))? {
                    return Err(EMSGSIZE);
                }
                publish(conn, size)?;
                conn.record_size.store(0, Relaxed);
                return Ok(len as usize);
            }
            conn.record_size.store(size, Relaxed);
        }
        wait_space(sk, conn, size, timeo)?;
    }
}

/// The largest ring of the socket, in bytes: as for TCP, a buffer that nobody has set the size of
/// grows by itself.
fn max_ring(sk: &AnySock) -> u32 {
    let bytes = sk
        .fixed_sndbuf()
        .unwrap_or_else(|| ring_max(sk))
        .min(RING_MAX_FRAMES << FRAME_SHIFT);
    bytes.next_power_of_two().clamp(
        RING_MIN_FRAMES << FRAME_SHIFT,
        RING_MAX_FRAMES << FRAME_SHIFT,
    )
}

/// Free bytes in the ring. Brings a ring, and a larger one while it is short of `want`.
fn space(sk: &AnySock, conn: &Connection, want: u32) -> Result<u32> {
    let (old, free, size, pending) = conn.with(|proto, view| {
        let old = proto.reap_tx_ring(view)?;
        let free = proto.tx_space(view)?;
        let size = proto.tx_ring().map_or(0, |r| r.bytes());
        Ok((old, free, size, proto.tx_move_pending()))
    })?;
    if let Some(ring) = old {
        conn.device.free_ring(&conn.channel, ring);
    }
    let max = max_ring(sk);
    if size >= max || pending {
        return Ok(free);
    }
    let enough = free >= want.min(max);
    // Who polls sends when there is space, and so never finds it short.
    let polls = conn.tx_short.load(Relaxed);
    if enough && !polls {
        return Ok(free);
    }
    conn.tx_short.store(false, Relaxed);
    let is_fast = !polls && conn.tx_spin.sleeps() < SLEEPS;
    let max = if is_fast && conn.kind() == Kind::Stream && sk.fixed_sndbuf().is_none() {
        max.min(FAST_RING)
    } else {
        max
    };
    if size >= max {
        return Ok(free);
    }
    conn.tx_spin.forget();
    let first = INITIAL_RING.max(want.min(max).next_power_of_two());
    let next = if size == 0 {
        first
    } else {
        size.saturating_mul(2).max(first)
    };
    let frames = next.min(max) >> FRAME_SHIFT;
    let Some(ring) = conn
        .device
        .alloc_ring(&conn.channel, frames, size >> FRAME_SHIFT)
    else {
        return Ok(free);
    };
    adopt(conn, ring)?;
    conn.with(|proto, view| proto.tx_space(view))
}

/// Whether there is a ring, or one can be had. The caller holds `tx`.
pub(crate) fn has_ring(sk: &AnySock, conn: &Connection, want: usize) -> bool {
    if conn.tx_ring_bytes() == 0 {
        // Before the switch there is no space in it yet: what counts is that it is there.
        let _free = space(sk, conn, u32::try_from(want).unwrap_or(u32::MAX));
    }
    conn.tx_ring_bytes() != 0
}

/// The first ring of a connection, in bytes, unless more is to be sent at once. It cannot grow
/// before the peer reads, but a thousand connections have to find frames for theirs.
const INITIAL_RING: u32 = 16 << 10;

/// A stream's ring becomes larger than so many bytes, unless `SO_SNDBUF` says so, only if the sender
/// polls or sleeps for space all the same: what both sides' caches hold is faster to copy through.
const FAST_RING: u32 = 512 << 10;

/// So many waits in a row that were sleeps: the reader takes longer than the sender looks.
const SLEEPS: u32 = 4;

fn adopt(conn: &Connection, ring: Ring) -> Result {
    let taken = conn.with(|proto, view| Ok(proto.set_tx_ring(view, ring)));
    if !matches!(taken, Ok(Ok(()))) {
        conn.device.free_ring(&conn.channel, ring);
    }
    taken.map(|_| ())
}

/// Sleeps, unless there is space worth waking for, or a reason to stop; who sends looks again. Who
/// may not sleep is told by an edge of EPOLLOUT.
pub(crate) fn wait_space(sk: &AnySock, conn: &Connection, want: u32, timeo: &mut isize) -> Result {
    let ready = || {
        if conn.phase() == Phase::Dead || sk.shutdown_mask() & SEND_SHUTDOWN != 0 || sk.err() != 0 {
            return true;
        }
        let size = conn.tx_ring_bytes();
        let least = if conn.kind() == Kind::SeqPacket {
            want
        } else {
            1
        };
        if size < least {
            // No ring, or a record that does not fit it. Woken when frames come, or when the peer
            // has read everything: then the ring may be replaced. A try is cheap.
            conn.wants_frames.store(true, Release);
            let shut = conn.with(|proto, view| {
                let _drained = proto.arm_drained(view)?;
                proto.peer_rx_shut(view)
            });
            if shut.unwrap_or(true) {
                return true;
            }
            let _tx = conn.tx.lock();
            return !matches!(space(sk, conn, want), Ok(free) if free < least);
        }
        let want = worth(conn, want, size);
        let armed =
            conn.with(|proto, view| Ok(proto.arm_space(view, want)? || proto.peer_rx_shut(view)?));
        armed.unwrap_or(true)
    };
    if *timeo == 0 {
        return if ready() { Ok(()) } else { Err(EAGAIN) };
    }
    conn.tx_spin.wait(
        conn.patience(sk),
        || look(conn, want),
        || {
            conn.counters.tx_waits.add(1, Relaxed);
            sk.sleep(timeo, ready)
        },
    )
}

/// Free bytes of a ring of `size` that are worth waking for: a record goes as a whole.
fn worth(conn: &Connection, want: u32, size: u32) -> u32 {
    if conn.kind() == Kind::SeqPacket {
        want
    } else {
        want.min(size / 2)
    }
}

fn look(conn: &Connection, want: u32) -> bool {
    let free = conn.with(|proto, view| {
        let size = proto.tx_ring().map_or(0, |r| r.bytes());
        Ok((proto.tx_space(view)?, size))
    });
    match free {
        Ok((free, size)) => size != 0 && free >= worth(conn, want, size).max(1),
        Err(_) => true,
    }
}
