// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two drivers, TCP, lanes and a host for the model of carried connections.

use std::collections::VecDeque;

use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::mem::View;
use fgdp_proto::proto::stream::{Conn, Notify, Ring, Source, Spans, TxPath};
use fgdp_proto::proto::wire::*;

use crate::memory::{accepted, attach, first_extent, slot_base, view, Group, Slot};

/// What becomes of the proposal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Accept,
    Refuse,
    None,
}

const IDS: [u32; 2] = [(1 << 16) | 4, (2 << 16) | 9];
const POISON: u8 = 0xee;

/// The byte that a thread of end `i` writes at a position of its own; the high
/// bit says which thread.
fn pattern(i: usize, thread: usize, pos: u64) -> u8 {
    let x = pos.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((i as u64) << 13);
    ((x >> 40) as u8 ^ x as u8) & 0x7f | ((thread as u8) << 7)
}

/// One direction of TCP.
struct Wire {
    isn: u32,
    bytes: Vec<u8>,
    arrived: usize,
    copied: usize,
    fin: bool,
    fin_arrived: bool,
}

impl Wire {
    fn write_seq(&self) -> u32 {
        let len = self.bytes.len() as u32 + u32::from(self.fin);
        self.isn.wrapping_add(len)
    }
    fn rcv_nxt(&self) -> u32 {
        let len = self.arrived as u32 + u32::from(self.fin_arrived);
        self.isn.wrapping_add(len)
    }
    fn copied_seq(&self) -> u32 {
        self.isn.wrapping_add(self.copied as u32)
    }
    fn unread(&self) -> usize {
        self.arrived - self.copied
    }
}

struct End<'a> {
    v: View<'a, Slot, Group>,
    accepted: Accepted,
    conn: Option<Conn>,
    /// What each thread wrote, and read of the other end's threads.
    wrote: [u64; 2],
    got: [u64; 2],
    /// Bytes with which thread 1 is inside TCP's send function.
    inside: u32,
    looked: Option<Source>,
    rx_asleep: bool,
    tx_asleep: bool,
    /// Something happened since DONE was last tried.
    stirred: bool,
    fin: bool,
    eof: bool,
    cut: bool,
    told: bool,
    reused: bool,
}

pub struct World<'a> {
    ends: [End<'a>; 2],
    /// From each end to the other.
    wires: [Wire; 2],
    lanes: [VecDeque<Msg>; 2],
    /// To each end: the other one closed.
    events: [bool; 2],
    answer: Answer,
    /// A side aborted, or may have to.
    void: bool,
    bytes: Vec<u8>,
}

impl World<'_> {
    pub fn with(isn: [u32; 2], answer: Answer, test: impl FnOnce(World<'_>)) {
        let group = Group::new(2);
        let slots = [attach(&group, 1), attach(&group, 2)];
        let ends = [0usize, 1].map(|i| {
            let peer = 2 - i as u32;
            let mut end = End {
                v: view(&slots[i], &group, peer),
                accepted: accepted(peer),
                conn: None,
                wrote: [0; 2],
                got: [0; 2],
                inside: 0,
                looked: None,
                rx_asleep: false,
                tx_asleep: false,
                stirred: false,
                fin: false,
                eof: false,
                cut: false,
                told: false,
                reused: false,
            };
            if i == 0 {
                let conn = Conn::new_carried(IDS[0]);
                conn.init_entry(&end.v);
                end.conn = Some(conn);
            }
            end
        });
        let wires = isn.map(|isn| Wire {
            isn,
            bytes: Vec::new(),
            arrived: 0,
            copied: 0,
            fin: false,
            fin_arrived: false,
        });
        let mut lanes = [VecDeque::new(), VecDeque::new()];
        lanes[0].push_back(Msg::Carry(Carry {
            peer_conn: IDS[0],
            ..Carry::default()
        }));
        test(World {
            ends,
            wires,
            lanes,
            events: [false; 2],
            answer,
            void: false,
            bytes: vec![0; slot_base(3) as usize],
        });
    }

    // ---------------------------------------------------------------- sending

    fn data(&mut self, i: usize, notify: Notify) {
        self.ready(i, notify, true, false);
    }

    fn space(&mut self, i: usize, notify: Notify) {
        self.ready(i, notify, false, true);
    }

    fn ready(&mut self, i: usize, notify: Notify, data: bool, space: bool) {
        if notify.ready {
            assert!(!self.ends[i].cut, "a message into a lane that is gone");
            let conn = IDS[1 - i];
            self.lanes[i].push_back(Msg::Ready { conn, data, space });
        }
        self.ends[i].stirred = true;
    }

    fn path(&mut self, i: usize) -> TxPath {
        let seq = self.wires[i].write_seq();
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return TxPath::Tcp;
        };
        let path = conn.tx_path(&end.v, seq).unwrap();
        if path == TxPath::Reset {
            assert!(self.void, "reset without a reason");
        }
        if path == TxPath::Back {
            // Nobody looks at the rings any more.
            for ring in conn.take_tx_rings().into_iter().flatten() {
                let start = ring.start() as usize;
                self.bytes[start..start + ring.bytes() as usize].fill(POISON);
            }
        }
        path
    }

    fn send_tcp(&mut self, i: usize, thread: usize, n: u32) {
        assert!(n == 0 || !self.wires[i].fin, "bytes behind TCP's FIN");
        for _ in 0..n {
            let b = pattern(i, thread, self.ends[i].wrote[thread]);
            self.ends[i].wrote[thread] += 1;
            self.wires[i].bytes.push(b);
        }
    }

    pub fn write(&mut self, i: usize, thread: usize, n: u32) {
        let blocked = thread == 1 && self.ends[i].inside != 0;
        if !blocked && !self.ends[i].fin && !self.ends[i].tx_asleep {
            self.step_tx(i, Some((thread, n)));
        }
    }

    /// One step of whoever sends; true if something moved.
    fn step_tx(&mut self, i: usize, bytes: Option<(usize, u32)>) -> bool {
        let path = self.path(i);
        let end = &mut self.ends[i];
        match (path, bytes) {
            (TxPath::Tcp | TxPath::Back, Some((thread, n))) => {
                self.send_tcp(i, thread, n);
                true
            }
            (TxPath::Ring, Some((thread, n))) => {
                let conn = end.conn.as_mut().unwrap();
                let n = n.min(conn.tx_space(&end.v).unwrap());
                for span in &conn.tx_spans(&end.v, 0, n) {
                    let at = (span.off + end.v.slot_base) as usize;
                    for b in &mut self.bytes[at..at + span.len as usize] {
                        *b = pattern(i, thread, end.wrote[thread]);
                        end.wrote[thread] += 1;
                    }
                }
                let notify = conn.tx_publish(&end.v, n).unwrap();
                self.data(i, notify);
                n != 0
            }
            (TxPath::Stray, _) => {
                let notify = end.conn.as_mut().unwrap().tx_back(&end.v);
                self.data(i, notify);
                true
            }
            (TxPath::Rest(rest), _) => {
                let n = bytes.map_or(rest, |(_, n)| n);
                let conn = end.conn.as_mut().unwrap();
                let spans = conn.tx_rest_spans(&end.v, n);
                assert_eq!(spans.bytes(), n.min(rest));
                for span in &spans {
                    let at = (span.off + end.v.slot_base) as usize;
                    let from = &self.bytes[at..at + span.len as usize];
                    self.wires[i].bytes.extend_from_slice(from);
                }
                conn.tx_rest_sent(spans.bytes());
                true
            }
            _ => self.push_fin(i, path),
        }
    }

    pub fn enter(&mut self, i: usize, n: u32) {
        let free = self.ends[i].inside == 0 && !self.ends[i].fin;
        if free && self.path(i) == TxPath::Tcp {
            self.ends[i].inside = n;
        }
    }

    /// The thread goes on by TCP, whatever was switched meanwhile.
    pub fn inside(&mut self, i: usize, n: u32) {
        let n = n.min(self.ends[i].inside);
        self.ends[i].inside -= n;
        self.send_tcp(i, 1, n);
    }

    pub fn switch(&mut self, i: usize) {
        let seq = self.wires[i].write_seq();
        if self.ends[i].fin || self.path(i) != TxPath::Tcp {
            return;
        }
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return;
        };
        if conn.tx_switch(&end.v, seq).unwrap() {
            conn.set_tx_ring(&end.v, ring(i, false)).unwrap();
        }
    }

    pub fn move_ring(&mut self, i: usize) {
        if self.path(i) != TxPath::Ring {
            return;
        }
        let end = &mut self.ends[i];
        let conn = end.conn.as_mut().unwrap();
        conn.reap_tx_ring(&end.v).unwrap();
        if !conn.tx_move_pending() {
            let large = conn.tx_ring() == Some(ring(i, false));
            conn.set_tx_ring(&end.v, ring(i, large)).unwrap();
        }
    }

    pub fn back(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if let Some(conn) = &mut end.conn {
            let notify = conn.tx_back(&end.v);
            self.data(i, notify);
        }
    }

    pub fn fin(&mut self, i: usize) {
        if self.ends[i].fin {
            return;
        }
        // Who is inside TCP's send function gets EPIPE.
        self.ends[i].inside = 0;
        self.ends[i].fin = true;
        self.ends[i].tx_asleep = false;
        let path = self.path(i);
        let end = &mut self.ends[i];
        if let Some(conn) = &mut end.conn {
            let notify = match path {
                TxPath::Stray => conn.tx_back(&end.v),
                _ => conn.tx_fin(&end.v),
            };
            self.data(i, notify);
        }
        let path = self.path(i);
        self.push_fin(i, path);
    }

    fn push_fin(&mut self, i: usize, path: TxPath) -> bool {
        let may = path == TxPath::Back || self.ends[i].conn.is_none();
        let now = self.ends[i].fin && may && !self.wires[i].fin;
        self.wires[i].fin |= now;
        now
    }

    pub fn sleep_tx(&mut self, i: usize) {
        let path = self.path(i);
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return;
        };
        let again = match path {
            TxPath::Ring => {
                let full = conn.tx_space(&end.v).unwrap() == 0;
                !full || conn.arm_space(&end.v, 1).unwrap()
            }
            TxPath::Wait => end.fin && !end.cut && conn.arm_drained(&end.v).unwrap(),
            _ => true,
        };
        end.tx_asleep = !again;
    }

    // -------------------------------------------------------------- receiving

    fn source(&mut self, i: usize) -> Source {
        let wire = &self.wires[1 - i];
        let end = &mut self.ends[i];
        let Some(conn) = &mut end.conn else {
            return Source::Tcp;
        };
        conn.rx_source(&end.v, &end.accepted, wire.copied_seq(), wire.rcv_nxt())
            .unwrap()
    }

    pub fn look(&mut self, i: usize) {
        self.ends[i].looked = Some(self.source(i));
    }

    pub fn read(&mut self, i: usize, n: u32) {
        if !self.ends[i].rx_asleep {
            self.step_rx(i, n);
        }
    }

    fn step_rx(&mut self, i: usize, n: u32) -> bool {
        if self.ends[i].eof {
            return false;
        }
        // The look may be old; what it promised must be true all the same.
        let source = match self.ends[i].looked.take() {
            Some(source) => source,
            None => self.source(i),
        };
        match source {
            Source::Tcp | Source::Back => self.take_tcp(i, n as usize, true),
            Source::TcpUntil(left) => self.take_tcp(i, n.min(left) as usize, false),
            Source::Ring(unread) => self.take_ring(i, n.min(unread)),
            Source::End => {
                self.ends[i].eof = true;
                self.ends[i].stirred = true;
                true
            }
            Source::Stop => {
                self.stop(i);
                true
            }
            Source::Reset => {
                assert!(self.void);
                false
            }
        }
    }

    fn take_tcp(&mut self, i: usize, n: usize, all: bool) -> bool {
        let wire = &mut self.wires[1 - i];
        let n = n.min(wire.unread());
        for k in wire.copied..wire.copied + n {
            check(&mut self.ends[i].got, 1 - i, wire.bytes[k]);
        }
        wire.copied += n;
        let end = wire.fin_arrived && wire.unread() == 0;
        if n == 0 && end {
            assert!(all, "TCP ended before the switch");
            self.ends[i].eof = true;
            // No ring can follow.
            self.stop(i);
            return true;
        }
        n != 0
    }

    fn take_ring(&mut self, i: usize, n: u32) -> bool {
        let end = &mut self.ends[i];
        let conn = end.conn.as_mut().unwrap();
        let spans: Spans = conn.rx_spans(0, n);
        assert!(spans.bytes() == n || self.void);
        for span in &spans {
            let at = span.off as usize;
            for &b in &self.bytes[at..at + span.len as usize] {
                check(&mut end.got, 1 - i, b);
            }
        }
        let notify = conn.rx_consume(&end.v, spans.bytes()).unwrap();
        self.space(i, notify);
        n != 0
    }

    pub fn stop(&mut self, i: usize) {
        let end = &mut self.ends[i];
        end.looked = None;
        if let Some(conn) = &mut end.conn {
            let notify = conn.rx_stop(&end.v);
            self.space(i, notify);
        }
    }

    pub fn sleep_rx(&mut self, i: usize) {
        self.ends[i].looked = None;
        let source = self.source(i);
        let wire = &self.wires[1 - i];
        let idle = wire.unread() == 0 && !wire.fin_arrived;
        let nothing = match source {
            Source::Tcp | Source::Back | Source::TcpUntil(_) => idle,
            Source::Ring(0) => true,
            _ => false,
        };
        let end = &mut self.ends[i];
        if !nothing || end.eof {
            return;
        }
        end.rx_asleep = match &mut end.conn {
            Some(conn) => !conn.arm_data(&end.v).unwrap(),
            None => true,
        };
    }

    // -------------------------------------------------------------------- end

    pub fn reset(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if let Some(conn) = &mut end.conn {
            self.void = true;
            end.looked = None;
            let notify = conn.tx_reset(&end.v);
            self.ready(i, notify, true, true);
        }
    }

    pub fn done(&mut self, i: usize) {
        let end = &mut self.ends[i];
        end.stirred = false;
        let Some(conn) = &mut end.conn else {
            return;
        };
        conn.rx_avail(&end.v, &end.accepted).unwrap();
        if let Some(msg) = conn.poll_done(&end.v).unwrap() {
            assert_eq!(msg, Msg::Done { conn: IDS[1 - i] });
            end.looked = None;
            self.lanes[i].push_back(msg);
        }
    }

    pub fn cut(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if end.cut {
            return;
        }
        end.cut = true;
        end.looked = None;
        end.rx_asleep = false;
        end.tx_asleep = false;
        if let Some(conn) = &mut end.conn {
            conn.cut(&end.v);
        }
        self.events[1 - i] = true;
    }

    /// The host's word that the other end closed.
    pub fn event(&mut self, i: usize) {
        if !std::mem::take(&mut self.events[i]) {
            return;
        }
        self.cut(i);
        let end = &mut self.ends[i];
        end.told = true;
        end.stirred = true;
        end.tx_asleep = false;
        if let Some(conn) = &mut end.conn {
            conn.tx_final(&end.v);
        }
    }

    /// An end that does not keep its entry as long as it should.
    pub fn reuse(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if end.cut && end.told && !end.reused {
            end.reused = true;
            self.void = true;
            let mut other = Conn::new_carried(IDS[i] + (1 << 16));
            other.init_entry(&end.v);
            other.cut(&end.v);
        }
    }

    // ------------------------------------------------------------- on the way

    pub fn tcp(&mut self, i: usize, n: u32) {
        let wire = &mut self.wires[1 - i];
        let before = wire.rcv_nxt();
        wire.arrived = wire.bytes.len().min(wire.arrived + n as usize);
        wire.fin_arrived = wire.fin && wire.arrived == wire.bytes.len();
        if wire.rcv_nxt() != before {
            self.ends[i].rx_asleep = false;
        }
    }

    pub fn lane(&mut self, i: usize) {
        let Some(msg) = self.lanes[1 - i].pop_front() else {
            return;
        };
        let end = &mut self.ends[i];
        if end.cut {
            return;
        }
        end.stirred = true;
        match msg {
            Msg::Carry(carry) => self.proposal(i, carry.peer_conn),
            Msg::Accept { peer_conn, .. } => {
                let conn = end.conn.as_mut().unwrap();
                conn.set_peer(&end.v, peer_conn).unwrap();
                let notify = conn.late_flags();
                self.ready(i, notify, true, true);
            }
            Msg::Refuse { .. } => end.conn = None,
            Msg::Ready { data, space, .. } => {
                end.rx_asleep &= !data;
                end.tx_asleep &= !space;
            }
            Msg::Done { .. } => {
                end.conn.as_mut().unwrap().peer_done().unwrap();
            }
            Msg::Connect { .. } => unreachable!(),
        }
    }

    fn proposal(&mut self, i: usize, peer_conn: u32) {
        let shut = self.ends[i].fin || self.ends[i].eof;
        let end = &mut self.ends[i];
        match self.answer {
            Answer::None => {}
            Answer::Accept if !shut => {
                let mut conn = Conn::new_carried(IDS[i]);
                conn.init_entry(&end.v);
                conn.set_peer(&end.v, peer_conn).unwrap();
                end.conn = Some(conn);
                end.looked = None;
                self.lanes[i].push_back(Msg::Accept {
                    conn: peer_conn,
                    peer_conn: IDS[i],
                });
            }
            _ => self.lanes[i].push_back(Msg::Refuse {
                conn: peer_conn,
                error: Refusal::NoSocket,
            }),
        }
    }

    /// Everything that is on its way arrives, and everybody who is awake goes on,
    /// until nothing moves.
    fn quiesce(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for i in 0..2 {
                moved |= self.events[i] || !self.lanes[1 - i].is_empty();
                self.event(i);
                self.lane(i);
                self.tcp(i, u32::MAX);
                if !self.ends[i].tx_asleep {
                    let inside = self.ends[i].inside;
                    self.inside(i, inside);
                    moved |= inside != 0 || self.step_tx(i, None);
                    self.sleep_tx(i);
                }
                if !self.ends[i].rx_asleep {
                    moved |= self.step_rx(i, u32::MAX);
                    self.sleep_rx(i);
                }
                if self.ends[i].stirred {
                    moved = true;
                    self.done(i);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("never quiet");
    }

    fn is_free(&self, i: usize) -> bool {
        let conn = self.ends[i].conn.as_ref();
        conn.is_none_or(|c| c.is_free() || c.is_cut())
    }

    /// FGDP is turned off: everything is free, and TCP lives on.
    pub fn settle_back(&mut self) {
        for i in 0..2 {
            self.back(i);
            self.stop(i);
        }
        self.quiesce();
        for i in 0..2 {
            assert!(self.is_free(i) || self.answer == Answer::None);
            if !self.void {
                let path = self.path(i);
                assert!(matches!(path, TxPath::Back | TxPath::Tcp), "{path:?}");
            }
            self.write(i, 0, 100);
        }
    }

    /// Both close; all that was written was read.
    pub fn settle(&mut self) {
        for i in 0..2 {
            let inside = self.ends[i].inside;
            self.inside(i, inside);
            self.fin(i);
        }
        self.quiesce();
        if self.void {
            // As a reset connection ends: what was read is a part of what was
            // written, which `check` saw, and nobody keeps anything.
            for i in 0..2 {
                self.reset(i);
            }
            self.quiesce();
        }
        for i in 0..2 {
            let sent = self.ends[1 - i].wrote;
            let end = &self.ends[i];
            assert!(self.is_free(i) || self.answer == Answer::None);
            let keeps = end.conn.as_ref().is_some_and(Conn::tx_keeps_bytes);
            assert!(!keeps, "frames for ever");
            if !self.void {
                assert!(end.eof, "end {i} waits for ever");
                assert_eq!(end.got, sent, "bytes lost");
            }
        }
    }
}

fn check(got: &mut [u64; 2], from: usize, b: u8) {
    let thread = usize::from(b >> 7);
    let pos = got[thread];
    assert_eq!(b, pattern(from, thread, pos), "thread {thread} at {pos}");
    got[thread] += 1;
}

fn ring(i: usize, large: bool) -> Ring {
    let pfn = first_extent(i as u32 + 1);
    if large {
        Ring {
            pfn: pfn + 8,
            frames: 8,
        }
    } else {
        Ring { pfn, frames: 4 }
    }
}
