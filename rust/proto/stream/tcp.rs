// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Connections that carry a TCP connection (T-1 to T-17).
//!
//! Each direction goes by TCP, then by the ring, then by TCP again for good. The
//! two switches are independent in the two directions, and either side can cause
//! the second one at any time.
//!
//! ```text
//! producer  Tcp --tx_switch--> Ring --tx_back--> Wait --STOP seen--> Rest --> Back
//! consumer  Tcp, TcpUntil, Ring --rx_stop--> Back
//! ```

use super::{Conn, Notify};
use crate::proto::grant::Lent;
use crate::proto::mem::{Mem, MemMut, View};
use crate::proto::wire::{
    conn, Carry, Kind, Reason, Refusal, RX_STOP, TX_BACK, TX_FIN, TX_RING, TX_RST,
};

/// What a connection that carries TCP has besides.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// TCP sequence number from which on the ring carries what this side sends,
    /// with `TX_RING` in the own flags.
    tx_seq: u32,
    /// The same for what the peer sends, with `TX_RING` in its flags.
    rx_seq: u32,
    /// Bytes of the ring behind the final head that went by TCP.
    pub(super) rest_sent: u32,
    /// The channel ended: the peer's entry is looked at once more at most.
    cut: bool,
    /// Nobody knows what the peer has.
    pub(super) lost: bool,
    /// A flag was set before the peer was known.
    unsaid: bool,
}

/// Which way the next byte that this side sends goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxPath {
    /// By TCP; [`Conn::tx_switch`] may change that.
    Tcp,
    /// Into the ring.
    Ring,
    /// TCP bytes were sent behind the switch (T-6): call [`Conn::tx_back`].
    Stray,
    /// No byte goes anywhere, nor TCP's FIN. Ends with READY (space) for STOP; after
    /// [`Conn::tx_fin`] also when the ring is drained, for which
    /// [`Conn::arm_drained`] arms; after [`Conn::cut`] with
    /// [`Conn::tx_final`] or [`Conn::tx_give_up`].
    Wait,
    /// So many bytes at [`Conn::tx_rest_spans`] go by TCP before any other, each
    /// step told to [`Conn::tx_rest_sent`]; there may be more behind them.
    Rest(u32),
    /// By TCP, for good; TCP's FIN may go.
    Back,
    /// The TCP connection is to be reset: a side aborted, or nobody knows which
    /// bytes the peer has (T-14).
    Reset,
}

/// Where the next byte comes from that this side reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// TCP: all that it has.
    Tcp,
    /// TCP: so many bytes, no more.
    TcpUntil(u32),
    /// The ring: so many bytes are there.
    Ring(u32),
    /// The stream ended (FIN).
    End,
    /// The peer wants back, or TCP bytes came behind the switch: call
    /// [`Conn::rx_stop`], then it is `Back`.
    Stop,
    /// TCP, for good.
    Back,
    /// A side aborted.
    Reset,
}

/// One end of a TCP connection, as its own side knows it. Addresses as in
/// [`Carry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Own address.
    pub addr: [u8; 16],
    /// The other end's address.
    pub peer_addr: [u8; 16],
    /// Own port.
    pub port: u16,
    /// The other end's port.
    pub peer_port: u16,
    /// Sequence number of the first byte sent.
    pub isn: u32,
    /// Sequence number of the first byte received.
    pub peer_isn: u32,
}

impl Endpoint {
    /// The proposal to carry this connection, whose sender has the entry `own_id`.
    pub const fn propose(&self, own_id: u32) -> Carry {
        Carry {
            peer_conn: own_id,
            src_addr: self.addr,
            dst_addr: self.peer_addr,
            src_port: self.port,
            dst_port: self.peer_port,
            src_isn: self.isn,
            dst_isn: self.peer_isn,
        }
    }

    /// Checks a proposal against this end (T-3). `from_peer`: the host says that
    /// the proposal's source address is the sender's.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSocket`] if it is for another connection or from another
    /// guest, [`Refusal::Sequence`] if the sender does not know the connection.
    pub fn check(&self, carry: &Carry, from_peer: bool) -> Result<(), Refusal> {
        let here = carry.dst_addr == self.addr && carry.dst_port == self.port;
        let there = carry.src_addr == self.peer_addr && carry.src_port == self.peer_port;
        if !here || !there || !from_peer {
            return Err(Refusal::NoSocket);
        }
        if carry.src_isn != self.peer_isn || carry.dst_isn != self.isn {
            return Err(Refusal::Sequence);
        }
        Ok(())
    }
}

/// True if the sequence number `a` is behind `b`.
const fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) > 1 << 31
}

impl Conn {
    /// A connection with id `own_id` that is to carry a TCP connection; not
    /// connected yet.
    pub fn new_carried(own_id: u32) -> Self {
        let mut conn = Self::new(own_id, Kind::Stream);
        conn.carried = Some(Carried::default());
        conn
    }

    /// True if it carries a TCP connection.
    pub fn is_carried(&self) -> bool {
        self.carried.is_some()
    }

    /// True after [`Conn::cut`].
    pub fn is_cut(&self) -> bool {
        self.carried.as_ref().is_some_and(|c| c.cut)
    }

    /// True while flags may be stored: neither the channel's end nor the two DONE
    /// gave the entry to somebody else.
    pub(super) fn entry_lives(&self) -> bool {
        self.carried.is_none() || !(self.is_cut() || self.is_free())
    }

    /// READY for a flag. A peer that is not known yet is told later.
    pub(super) fn announce(&mut self) -> Notify {
        let known = self.peer.is_some();
        if let Some(c) = self.carried.as_mut().filter(|_| !known) {
            c.unsaid = true;
        }
        self.notify_always()
    }

    /// To be called after [`Conn::set_peer`] succeeded for ACCEPT. The peer does
    /// not know of flags that were set meanwhile: send READY with both flags then.
    pub fn late_flags(&mut self) -> Notify {
        let unsaid = self
            .carried
            .as_mut()
            .is_some_and(|c| core::mem::take(&mut c.unsaid));
        Notify {
            ready: unsaid && self.notify_always().ready,
        }
    }

    /// True if the next byte goes into the ring, as far as was seen. True for a
    /// connection that carries no TCP.
    pub fn tx_on_ring(&self) -> bool {
        let Some(c) = &self.carried else {
            return true;
        };
        let flags = self.tx.flags & (TX_RING | TX_BACK | TX_FIN | TX_RST);
        flags == TX_RING && !self.tx_unwanted() && !c.cut
    }

    /// True if the ring goes on where TCP's `write_seq` is: no TCP bytes were sent
    /// behind the switch. What else [`Conn::tx_path`] asks, [`Conn::tx_on_ring`] says.
    pub fn tx_goes_on(&self, write_seq: u32) -> bool {
        self.carried.as_ref().is_none_or(|c| c.tx_seq == write_seq)
    }

    /// True if the peer's flags are those that were seen last, and these let both
    /// directions go on as they are: neither [`Conn::tx_path`] nor
    /// [`Conn::rx_source`] would have anything to say that its user does not know.
    pub fn goes_on<S: MemMut + ?Sized, W: Mem + ?Sized>(&self, v: &View<'_, S, W>) -> bool {
        let Some(peer) = self.peer_entry() else {
            return false;
        };
        let flags = [conn::TX_FLAGS, conn::RX_FLAGS];
        let [tx_flags, rx_flags] = v.peer_load_each(peer, conn::SIZE, flags);
        tx_flags == self.rx.peer_tx
            && rx_flags == self.tx.peer_rx
            && self.tx.flags & !TX_RING == 0
            && !self.tx_unwanted()
            && self.rx.peer_tx & TX_BACK == 0
            && !self.rx_stopped()
            && self.broken.is_none()
    }

    /// True if the peer takes nothing from the ring any more.
    fn tx_unwanted(&self) -> bool {
        self.tx.peer_rx & RX_STOP != 0 || self.rx_reset() || self.done_seen
    }

    /// The ring carries what this side sends from TCP sequence number `write_seq`
    /// on, the number of the next byte that TCP would get (T-4). It needs no READY:
    /// the first byte is announced. `Ok(false)`: nothing changed, because the peer
    /// is not known yet or does not want it, or because the direction was switched
    /// before.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn tx_switch<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        write_seq: u32,
    ) -> Result<bool, Reason> {
        self.refresh_head(v)?;
        if self.tx_unwanted() || self.tx.flags != 0 || self.peer_entry().is_none() {
            return Ok(false);
        }
        let Some(c) = &mut self.carried else {
            return Ok(false);
        };
        c.tx_seq = write_seq;
        self.tx.flags = TX_RING;
        self.own_store(v, conn::TCP_SEQ, write_seq);
        // Pairs with the acquire in `rx_source`: the number is complete.
        self.own_release(v, conn::TX_FLAGS, TX_RING);
        Ok(true)
    }

    /// Which way the next byte goes, as the peer's flags are now. `write_seq` is
    /// the sequence number of the next byte that TCP would get.
    ///
    /// # Errors
    ///
    /// As [`Conn::tx_space`].
    pub fn tx_path<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        write_seq: u32,
    ) -> Result<TxPath, Reason> {
        if !self.is_cut() {
            self.refresh_head(v)?;
        }
        let Some(c) = &self.carried else {
            return Ok(TxPath::Ring);
        };
        let stopped = self.tx.peer_rx & RX_STOP != 0;
        if c.lost || self.tx_has(TX_RST) {
            return Ok(TxPath::Reset);
        }
        // What the peer has not read is void; the end comes by TCP (T-15).
        if self.rx_reset() {
            return Ok(TxPath::Back);
        }
        if !self.tx_has(TX_RING) {
            let never = self.tx_has(TX_BACK) || stopped || c.cut || self.done_seen;
            return Ok(if never { TxPath::Back } else { TxPath::Tcp });
        }
        if stopped {
            return Ok(match self.rest_bytes(v) {
                0 => TxPath::Back,
                rest => TxPath::Rest(rest),
            });
        }
        // A final head cannot be anywhere else than at the tail.
        if !self.tx_has_unread() && (self.tx_has(TX_FIN) || c.cut) {
            return Ok(TxPath::Back);
        }
        if c.cut {
            return Ok(TxPath::Wait);
        }
        // DONE without STOP, and bytes are left.
        if self.done_seen {
            return Ok(TxPath::Reset);
        }
        if self.tx_has(TX_FIN) || self.tx_has(TX_BACK) {
            return Ok(TxPath::Wait);
        }
        Ok(if write_seq == c.tx_seq {
            TxPath::Ring
        } else {
            TxPath::Stray
        })
    }

    /// Wants this direction back to TCP, or never to leave it (T-9). A second call
    /// changes nothing.
    pub fn tx_back<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> Notify {
        let over = self.tx.peer_rx & RX_STOP != 0 || self.tx_has(TX_RST);
        if self.carried.is_none() || over {
            return Notify::NO;
        }
        self.tx_flag(v, TX_BACK)
    }

    /// Flags that a producer may have set (S-12, T-11).
    pub(super) fn tx_flags_ok(&self, flags: u32) -> bool {
        if self.carried.is_none() {
            return flags & !(TX_FIN | TX_RST) == 0;
        }
        let known = flags & !(TX_FIN | TX_RST | TX_RING | TX_BACK) == 0;
        let fin_alone = flags & (TX_FIN | TX_RING) == TX_FIN;
        // Nothing but RST follows BACK.
        let fresh = flags & !self.rx.peer_tx & (TX_FIN | TX_RING);
        known && !fin_alone && (self.rx.peer_tx & TX_BACK == 0 || fresh == 0)
    }

    /// Takes the switch's number over when it is seen first. False if nothing else
    /// in the entry counts: the switch was not seen, or this side stopped.
    pub(super) fn observe_switch<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        peer: u64,
        flags: u32,
    ) -> bool {
        if self.rx_stopped() || flags & TX_RING == 0 {
            return false;
        }
        if self.rx.peer_tx & TX_RING == 0 {
            let seq = v.peer_load_acquire(peer.wrapping_add(conn::TCP_SEQ));
            if let Some(c) = &mut self.carried {
                c.rx_seq = seq;
            }
        }
        true
    }

    /// Where the next byte comes from. `copied_seq` is the TCP sequence number of
    /// the next byte that the reader gets from TCP, `rcv_nxt` that of the next one
    /// that TCP gets from the network. Looks as [`Conn::rx_avail`] does.
    ///
    /// # Errors
    ///
    /// As [`Conn::rx_avail`]; not after [`Conn::rx_stop`].
    pub fn rx_source<S: MemMut + ?Sized, W: Mem + ?Sized>(
        &mut self,
        v: &View<'_, S, W>,
        accepted: &impl Lent,
        copied_seq: u32,
        rcv_nxt: u32,
    ) -> Result<Source, Reason> {
        if self.rx_stopped() {
            return Ok(Source::Back);
        }
        self.rx_avail(v, accepted)?;
        Ok(self.rx_source_seen(copied_seq, rcv_nxt))
    }

    /// As [`Conn::rx_source`], of what [`Conn::rx_avail`] saw last.
    pub fn rx_source_seen(&self, copied_seq: u32, rcv_nxt: u32) -> Source {
        if self.rx_stopped() {
            return Source::Back;
        }
        let unread = self.rx_unread();
        let Some(c) = &self.carried else {
            return Source::Ring(unread);
        };
        if self.tx_has(TX_RST) {
            return Source::Reset;
        }
        let switched = self.rx.peer_tx & TX_RING != 0;
        let before = c.rx_seq.wrapping_sub(copied_seq);
        if switched && before == 0 && self.rx_fin() && unread == 0 {
            return Source::End;
        }
        if self.rx_reset() {
            // Bytes that were there before (T-15), and what TCP says then.
            return match (switched, before, unread) {
                (true, 0, 1..) => Source::Ring(unread),
                (true, 1.., _) if before < 1 << 31 => Source::TcpUntil(before),
                _ => Source::Back,
            };
        }
        if self.rx_leaves_ring(copied_seq, rcv_nxt) {
            return Source::Stop;
        }
        match (switched, before) {
            (false, _) => Source::Tcp,
            (true, 0) => Source::Ring(unread),
            (true, n) => Source::TcpUntil(n),
        }
    }

    /// True if the next byte comes by the ring, as far as is known, and neither side
    /// has begun to end anything. Looks at no shared memory.
    pub fn rx_is_steady(&self, copied_seq: u32, rcv_nxt: u32) -> bool {
        let ended = self.rx.flags | (self.tx.flags & TX_RST) | (self.rx.peer_tx ^ TX_RING);
        let carried = self.carried.as_ref();
        carried.is_some_and(|c| ended == 0 && copied_seq == c.rx_seq && rcv_nxt == c.rx_seq)
    }

    /// True if [`Conn::rx_source`] says [`Source::Stop`], as far as is known: the
    /// peer wants back to TCP, or did not wait for that. Looks at no shared memory.
    pub fn rx_leaves_ring(&self, copied_seq: u32, rcv_nxt: u32) -> bool {
        self.rx.peer_tx & TX_BACK != 0 || self.rx_tcp_seen(rcv_nxt) || self.rx_tcp_seen(copied_seq)
    }

    /// True if TCP bytes came behind the switch, when the next one that TCP
    /// expects is `rcv_nxt`: [`Conn::rx_source`] will say what to do. Looks at no
    /// shared memory.
    pub fn rx_tcp_seen(&self, rcv_nxt: u32) -> bool {
        let Some(c) = self.carried.as_ref().filter(|_| !self.rx_stopped()) else {
            return false;
        };
        self.rx.peer_tx & TX_RING != 0 && after(rcv_nxt, c.rx_seq)
    }

    /// Reads no more from the ring: what was not consumed comes by TCP (T-8). A
    /// second call changes nothing.
    pub fn rx_stop<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) -> Notify {
        if self.carried.is_none() || self.rx_stopped() {
            return Notify::NO;
        }
        self.rx.flags |= RX_STOP;
        self.rx.got.drop_unread();
        if !self.entry_lives() {
            return Notify::NO;
        }
        // Pairs with the acquire in `refresh_head`: the heads stored before are final.
        self.own_release(v, conn::RX_FLAGS, self.rx.flags);
        self.announce()
    }

    /// True after [`Conn::rx_stop`].
    pub fn rx_stopped(&self) -> bool {
        self.rx.flags & RX_STOP != 0
    }

    /// The channel ends: stops reading, and looks at the peer's entry no more but
    /// by [`Conn::tx_final`]. To be called before CHANNEL_CLOSE, also when the peer
    /// is not known yet (T-13).
    pub fn cut<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) {
        // The host tells the peer.
        let _ = self.rx_stop(v);
        if let Some(c) = &mut self.carried {
            c.cut = true;
        }
    }

    /// After [`Conn::cut`], when the peer closed its side as well and its slot has
    /// the same generation: fetches its final head (T-14). [`Conn::tx_path`] then
    /// says what is to be sent by TCP, or that the connection is to be reset.
    pub fn tx_final<S: MemMut + ?Sized, W: Mem + ?Sized>(&mut self, v: &View<'_, S, W>) {
        let open = self.tx_has(TX_RING) && self.tx.peer_rx & RX_STOP == 0 && !self.done_sent;
        if let Some(peer) = self.peer.filter(|_| open && self.is_cut()) {
            let flags = v.peer_load_acquire(peer.wrapping_add(conn::RX_FLAGS));
            let head = v.peer_load_acquire(peer.wrapping_add(conn::HEAD));
            let granted = v.peer_load_acquire(peer.wrapping_add(conn::GRANT_HEAD));
            // Last: an entry that was made new lost its id before anything else.
            let id = v.peer_load_acquire(peer.wrapping_add(conn::ID));
            let told = id == self.peer_id && flags & RX_STOP != 0;
            // Both heads are right, or neither counts.
            let right = told && self.check_head(flags, head).is_ok();
            if right && self.take_grant_head(v, granted) && self.take_head(flags, head).is_ok() {
                return;
            }
        }
        self.tx_give_up();
    }

    /// After [`Conn::cut`], when the peer's generation is gone or this side waited
    /// long enough: nobody will know what the peer has. The connection is to be
    /// reset, unless nothing was unread, or the peer had stopped before.
    pub fn tx_give_up(&mut self) {
        let known = self.tx.peer_rx & RX_STOP != 0 || !self.tx_has(TX_RING);
        let left = self.tx_has_unread();
        if let Some(c) = self.carried.as_mut().filter(|c| c.cut) {
            c.lost |= left && !known;
        }
    }
}
