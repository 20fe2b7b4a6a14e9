// SPDX-License-Identifier: GPL-2.0

//! `recvmsg(2)` of a connection that may be carried.

use super::path::Inside;
use super::Path;
use crate::proto::stream::Source;
use crate::rx::{self, How};
use crate::sys::net::consts::*;
use crate::sys::net::msg::RecvMsg;
use crate::sys::net::tcp::TcpSock;
use kernel::prelude::*;
use kernel::sync::Arc;

pub(super) fn recv(
    path: &Arc<Path>,
    sk: &TcpSock,
    msg: &mut RecvMsg<'_>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    let _inside = Inside::new(path);
    if path.is_plain() || flags & (MSG_OOB | MSG_ERRQUEUE) != 0 {
        return sk.tcp_recv(msg, len, flags);
    }
    if sk.is_tcp_needed() {
        path.step_aside(sk);
        return sk.tcp_recv(msg, len, flags);
    }
    let mut call = Call {
        path,
        sk,
        flags,
        target: sk.rcvlowat(flags & MSG_WAITALL != 0, len).min(len),
        copied: 0,
        timeo: sk.rcvtimeo(flags & MSG_DONTWAIT != 0),
    };
    if call.expects_sleep(len) {
        call.wait_data()?;
    }
    // As TCP, a call for no bytes waits for some all the same.
    loop {
        match call.step(msg, len - call.copied) {
            Ok(Step::Got(n)) => call.copied += n,
            Ok(Step::Over(n)) => {
                call.copied += n;
                break;
            }
            Ok(Step::Tcp(n)) => return Ok(n),
            Err(_) if call.copied > 0 => break,
            Err(e) => return Err(e),
        }
        if call.copied >= len && len > 0 {
            break;
        }
    }
    sk.tell_unread(msg, || path.unread_or_arm(sk));
    Ok(call.copied)
}

enum Step {
    /// So many bytes came, or none because the way has changed.
    Got(usize),
    /// So many, and no more.
    Over(usize),
    /// TCP has answered the whole call.
    Tcp(usize),
}

/// What a look at the ring found.
enum Look {
    Got(Step),
    /// No bytes; the next one comes from there.
    Empty(Source),
}

struct Call<'a> {
    path: &'a Arc<Path>,
    sk: &'a TcpSock,
    flags: u32,
    target: usize,
    copied: usize,
    timeo: isize,
}

impl Call<'_> {
    fn step(&mut self, msg: &mut RecvMsg<'_>, left: usize) -> Result<Step> {
        let source = match self.look(msg, left)? {
            Look::Got(step) => return Ok(step),
            Look::Empty(source) => source,
        };
        match source {
            // What TCP says, it says to the caller.
            Source::Back if self.copied == 0 => {
                self.sk.tcp_recv(msg, left, self.flags).map(Step::Tcp)
            }
            Source::Back | Source::Tcp => self.tcp(msg, left),
            Source::TcpUntil(n) => self.tcp(msg, left.min(n as usize)),
            Source::Ring(_) => self.ring(left),
            Source::End => Ok(Step::Over(0)),
            Source::Stop => {
                self.path.kick();
                self.wait(|path, sk| path.source(sk) != Source::Stop)
            }
            Source::Reset => {
                self.path.kick();
                // TCP may have been reset before, and an earlier call have had its error.
                self.wait(|path, sk| sk.err() != 0 || path.source(sk) != Source::Reset)?;
                self.sk.take_error()?;
                Ok(Step::Got(0))
            }
        }
    }

    fn is_peek(&self) -> bool {
        self.flags & MSG_PEEK != 0
    }

    /// Takes what TCP has, without waiting in its code: the next byte may come by the ring.
    fn tcp(&mut self, msg: &mut RecvMsg<'_>, left: usize) -> Result<Step> {
        let flags = (self.flags | MSG_DONTWAIT) & !MSG_WAITALL;
        match self.sk.tcp_recv_bytes(msg, left, flags) {
            Ok(0) => Ok(Step::Over(0)),
            Ok(n) if self.is_peek() => self.peek_on(msg, left, n),
            Ok(n) if self.copied + n >= self.target && n < left => Ok(Step::Over(n)),
            Ok(n) => Ok(Step::Got(n)),
            Err(e) if e != EAGAIN => Err(e),
            Err(_) if self.copied > 0 && self.copied >= self.target => Ok(Step::Over(0)),
            Err(e) => {
                if self.timeo == 0 {
                    return Err(e);
                }
                self.wait(|path, sk| {
                    sk.copied_seq() != sk.rcv_nxt()
                        || sk.err() != 0
                        || sk.shutdown_mask() & RCV_SHUTDOWN != 0
                        || !matches!(path.source(sk), Source::Tcp | Source::TcpUntil(_))
                })
            }
        }
    }

    /// A look at `n` bytes of TCP goes on into the ring if they were the last ones before it.
    fn peek_on(&mut self, msg: &mut RecvMsg<'_>, left: usize, n: usize) -> Result<Step> {
        let last = self.path.source(self.sk) == Source::TcpUntil(u32::try_from(n).unwrap_or(0));
        let want = left.saturating_sub(n);
        if let Some(conn) = self.path.conn().filter(|_| last && want > 0) {
            let more = rx::read(conn, msg, want, 0, self.how(), |_| true)?.0;
            return Ok(Step::Over(n + more));
        }
        Ok(Step::Over(n))
    }

    fn how(&self) -> How {
        How {
            peek: self.is_peek(),
            discard: self.flags & MSG_TRUNC != 0,
        }
    }

    /// Behind the head: where the next byte of the ring is for this call.
    fn at(&self) -> u32 {
        if self.is_peek() {
            u32::try_from(self.copied).unwrap_or(u32::MAX)
        } else {
            0
        }
    }

    /// Takes what the ring has, if the next byte comes from there: which way it comes is seen with
    /// the bytes.
    fn look(&self, msg: &mut RecvMsg<'_>, left: usize) -> Result<Look> {
        let conn = self.path.conn();
        let conn = conn.filter(|conn| self.path.is_carried() && !conn.channel.is_dead());
        let Some(conn) = conn else {
            return Ok(Look::Empty(self.path.source(self.sk)));
        };
        let seqs = self.sk.seqs();
        let mut source = None;
        let (n, more) = rx::read(conn, msg, left, self.at(), self.how(), |proto| {
            let seen = proto.rx_source_seen(seqs.copied, seqs.rcv_nxt);
            source = Some(seen);
            matches!(seen, Source::Ring(_))
        })?;
        if n == 0 {
            return Ok(Look::Empty(
                source.unwrap_or_else(|| self.path.source(self.sk)),
            ));
        }
        let enough = self.copied + n >= self.target && !more;
        Ok(Look::Got(if enough { Step::Over(n) } else { Step::Got(n) }))
    }

    /// The ring has nothing more now.
    fn ring(&mut self, left: usize) -> Result<Step> {
        let Some(conn) = self.path.conn() else {
            return Ok(Step::Over(0));
        };
        let at = self.at();
        if self.copied > 0 && self.copied >= self.target {
            return Ok(Step::Over(0));
        }
        let ended = self.sk.shutdown_mask() & RCV_SHUTDOWN != 0 || self.sk.err() != 0;
        if ended || self.is_peek() || left == 0 {
            let (unread, fin) = conn
                .with_rx(|proto, _, avail| Ok((avail, proto.rx_fin())))
                .unwrap_or((0, false));
            if (fin && unread <= at) || (left == 0 && unread > 0) {
                return Ok(Step::Over(0));
            }
        }
        if ended {
            // TCP's own end, or error: the ring had its say.
            if self.copied == 0 {
                self.sk.take_error()?;
            }
            return Ok(Step::Over(0));
        }
        self.wait_data()
    }

    /// Waits for more from the ring, or until the next byte comes from elsewhere. The next look sees
    /// what it is.
    fn wait_data(&mut self) -> Result<Step> {
        if let Some(conn) = self.path.conn() {
            let sk = self.sk;
            rx::wait_data(sk, conn, self.at(), &mut self.timeo, |proto| {
                let seqs = sk.seqs();
                !matches!(
                    proto.rx_source_seen(seqs.copied, seqs.rcv_nxt),
                    Source::Ring(_)
                )
            })?;
        }
        Ok(Step::Got(0))
    }

    /// Whether there is probably nothing yet: the call before slept, and this one may.
    fn expects_sleep(&self, len: usize) -> bool {
        len > 0
            && self.timeo != 0
            && !self.is_peek()
            && self.path.is_carried()
            && self
                .path
                .conn()
                .is_some_and(|conn| conn.rx_spin.sleeps() > 0)
    }

    fn wait(&mut self, ready: impl Fn(&Arc<Path>, &TcpSock) -> bool) -> Result<Step> {
        let (path, sk) = (self.path, self.sk);
        sk.wait(&mut self.timeo, || ready(path, sk).then_some(()))?;
        Ok(Step::Got(0))
    }
}
