// SPDX-License-Identifier: GPL-2.0

//! The end of a connection that is carried: TCP's FIN goes when the peer has read what came before
//! it.

use super::path::todo;
use super::Path;
use crate::proto::stream::{Source, TxPath};
use crate::sys::net::consts::*;
use crate::sys::net::tcp::TcpSock;
use kernel::sync::Arc;

/// `shutdown(2)`, with the socket's lock; true if TCP's follows now.
pub(super) fn shutdown(path: &Arc<Path>, sk: &TcpSock, how: u8) -> bool {
    if how & SEND_SHUTDOWN == 0 || finish(path, sk) {
        return true;
    }
    path.ask(todo::FIN);
    false
}

/// Ends what the ring carries; true if TCP's FIN may go now.
fn finish(path: &Path, sk: &TcpSock) -> bool {
    if let (TxPath::Ring, Some(conn)) = (path.tx_path(sk), path.conn()) {
        // Behind what a sender is copying: those bytes count as sent.
        let _tx = conn.tx.lock();
        conn.finish();
    }
    path.tx_is_tcp(sk)
}

/// The user is gone; true if TCP's close follows now.
pub(super) fn close(path: &Arc<Path>, sk: &TcpSock, timeout: isize) -> bool {
    let Some(conn) = path.conn().filter(|_| !path.is_plain()) else {
        path.set_plain();
        return true;
    };
    if !path.is_agreed() {
        // The peer may be agreeing just now: it finds that neither direction is to switch.
        conn.close(false);
        path.set_plain();
        return true;
    }
    let unread = matches!(path.source(sk), Source::Ring(n) if n > 0);
    if unread || sk.linger() == Some(0) {
        let guard = sk.lock();
        sk.reset_at_close();
        drop(guard);
        conn.close(true);
        path.set_plain();
        return true;
    }
    let mut gone = finish(path, sk);
    if !gone && timeout > 0 {
        let mut timeo = timeout;
        // What the wait ends with does not matter: the close goes on.
        let _ = sk.wait(&mut timeo, || {
            let drained = conn.arm_drained();
            (drained || matches!(path.tx_path(sk), TxPath::Back | TxPath::Reset)).then_some(())
        });
        gone = path.tx_is_tcp(sk);
    }
    if gone {
        path.set_plain();
        conn.close(false);
        return true;
    }
    // Nobody reads any more: what comes goes to TCP, which knows what to say to it.
    conn.stop_reading();
    let guard = sk.lock();
    sk.detach();
    drop(guard);
    path.ask(todo::FIN | todo::CLOSE);
    false
}

/// TCP resets the connection now: for the peer that is no end of what the ring carries.
pub(super) fn disconnect(path: &Path) {
    if let Some(conn) = path.conn().filter(|_| path.is_agreed()) {
        conn.close(true);
    }
}
