// SPDX-License-Identifier: GPL-2.0

//! `sendmsg(2)` of a connection that may be carried.

use super::path::Inside;
use super::{Path, Why};
use crate::grant::Send;
use crate::proto::stream::{Conn, TxPath};
use crate::sys::net::consts::*;
use crate::sys::net::msg::SendMsg;
use crate::sys::net::notice::Notice;
use crate::sys::net::tcp::TcpSock;
use crate::tx;
use kernel::prelude::*;
use kernel::sync::Arc;

pub(super) fn send(
    path: &Arc<Path>,
    sk: &TcpSock,
    msg: &mut SendMsg<'_>,
    len: usize,
) -> Result<usize> {
    let _inside = Inside::new(path);
    if path.is_plain() && !path.is_mapped() {
        return sk.tcp_send(msg, len);
    }
    if msg.flags() & MSG_OOB != 0 || sk.is_tcp_needed() {
        // Urgent data has its place among TCP's numbers.
        path.step_aside(sk);
        return sk.tcp_send(msg, len);
    }
    sk.check_control(msg)?;
    let notice = sk.notice(msg, len)?;
    let sent = send_all(path, sk, msg, len, notice.as_ref())?;
    if let Some(notice) = notice.filter(|_| sent > 0) {
        notice.sent();
    }
    Ok(sent)
}

fn send_all(
    path: &Arc<Path>,
    sk: &TcpSock,
    msg: &mut SendMsg<'_>,
    len: usize,
    notice: Option<&Notice>,
) -> Result<usize> {
    let mut granting = match (notice, path.conn()) {
        // Memory that is lent is mapped by sockets that are carried.
        (Some(notice), Some(conn)) if path.is_carried() => {
            let gives = msg.asks_transfer()?;
            Some(Send::new(sk, conn, gives, Some(notice))?)
        }
        _ => None,
    };
    let mut timeo = sk.sndtimeo(msg.flags() & MSG_DONTWAIT != 0);
    let mut sent = 0usize;
    // A call with nothing to send has TCP's errors, too.
    while sent < len || len == 0 {
        if sent > 0 && !sk.may_send() {
            // The error is for the next call.
            break;
        }
        match step(path, sk, msg, len - sent, &mut timeo, granting.as_mut()) {
            Ok(Step::Sent(n)) => sent += n,
            Ok(Step::Over(n)) => return Ok(sent + n),
            Err(_) if sent > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

enum Step {
    /// So many bytes went, or none because the way has changed.
    Sent(usize),
    /// TCP has had the last word.
    Over(usize),
}

fn step(
    path: &Arc<Path>,
    sk: &TcpSock,
    msg: &mut SendMsg<'_>,
    left: usize,
    timeo: &mut isize,
    granting: Option<&mut Send<'_>>,
) -> Result<Step> {
    // Errors and ends are TCP's.
    if !sk.may_send() || left == 0 {
        return sk.tcp_send(msg, left).map(Step::Over);
    }
    if let Some(n) = short(path, sk, msg) {
        return Ok(Step::Sent(n));
    }
    match path.tx_path(sk) {
        TxPath::Back => sk.tcp_send(msg, left).map(Step::Over),
        TxPath::Tcp => {
            let _guard = sk.lock();
            if sk.may_send() && switch(path, sk, left) {
                return Ok(Step::Sent(0));
            }
            sk.tcp_send_locked(msg, left).map(Step::Over)
        }
        TxPath::Ring => {
            let conn = path.conn().ok_or(EPIPE)?;
            let written = match granting {
                Some(send) => send.step(msg),
                None => tx::write(sk, conn, msg),
            };
            match written {
                Ok(0) if conn.tx_ring_bytes() == 0 => {
                    // Others have all frames, for as long as their readers like: TCP has room of
                    // its own.
                    path.because(Why::Memory);
                    conn.stop_sending();
                    Ok(Step::Sent(0))
                }
                Ok(0) => {
                    let want = u32::try_from(left).unwrap_or(u32::MAX);
                    tx::wait_space(sk, conn, want, timeo).or_else(|e| changed(path, sk, e))?;
                    Ok(Step::Sent(0))
                }
                Ok(n) => Ok(Step::Sent(n)),
                // Not the user's memory, but the connection: it goes another way.
                Err(e) if e != EFAULT => changed(path, sk, e).map(|()| Step::Sent(0)),
                Err(e) => Err(e),
            }
        }
        TxPath::Wait | TxPath::Rest(_) | TxPath::Stray | TxPath::Reset => {
            path.kick();
            sk.wait(timeo, || {
                (!sk.may_send() || settled(path, sk)).then_some(())
            })?;
            Ok(Step::Sent(0))
        }
    }
}

/// Sends a short message by the ring, if that is the way and all is well: which way it goes is seen
/// with the space.
fn short(path: &Path, sk: &TcpSock, msg: &mut SendMsg<'_>) -> Option<usize> {
    let conn = path
        .conn()
        .filter(|conn| path.is_agreed() && !conn.channel.is_dead())?;
    let on_ring = |proto: &Conn| proto.tx_goes_on(sk.write_seq());
    let n = tx::write_short(sk, conn, msg, on_ring);
    (n > 0).then_some(n as usize)
}

fn settled(path: &Arc<Path>, sk: &TcpSock) -> bool {
    matches!(path.tx_path(sk), TxPath::Back | TxPath::Tcp | TxPath::Ring)
}

/// `e` stands unless there is another way than the ring now.
fn changed(path: &Arc<Path>, sk: &TcpSock, e: Error) -> Result {
    if matches!(path.tx_path(sk), TxPath::Ring) {
        return Err(e);
    }
    Ok(())
}

/// From here on the ring carries what is sent, if both sides agreed and there is a ring. The
/// socket's lock is held.
fn switch(path: &Path, sk: &TcpSock, want: usize) -> bool {
    let Some(conn) = path.conn().filter(|_| path.is_agreed()) else {
        return false;
    };
    let _tx = conn.tx.lock();
    if !tx::has_ring(sk, conn, want) {
        return false;
    }
    conn.carried(|proto, view, _| proto.tx_switch(view, sk.write_seq()))
        .unwrap_or(false)
}
