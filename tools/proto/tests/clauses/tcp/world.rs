// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two drivers, TCP, lanes and a host for the model of carried connections.

use std::collections::VecDeque;

use fgdp_proto::proto::grant::Accepted;
use fgdp_proto::proto::mem::{Mem, View};
use fgdp_proto::proto::stream::{Conn, Source, TxPath};
use fgdp_proto::proto::wire::*;

use super::grants::Grants;
use crate::memory::{accepted, attach, slot_base, view, Group, Slot};

/// What becomes of the proposal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Accept,
    Refuse,
    None,
}

pub const IDS: [u32; 2] = [(1 << 16) | 4, (2 << 16) | 9];

/// One direction of TCP.
pub struct Wire {
    pub isn: u32,
    pub bytes: Vec<u8>,
    pub arrived: usize,
    pub copied: usize,
    pub fin: bool,
    pub fin_arrived: bool,
}

impl Wire {
    pub fn write_seq(&self) -> u32 {
        let len = self.bytes.len() as u32 + u32::from(self.fin);
        self.isn.wrapping_add(len)
    }
    pub fn rcv_nxt(&self) -> u32 {
        let len = self.arrived as u32 + u32::from(self.fin_arrived);
        self.isn.wrapping_add(len)
    }
    pub fn copied_seq(&self) -> u32 {
        self.isn.wrapping_add(self.copied as u32)
    }
    pub fn unread(&self) -> usize {
        self.arrived - self.copied
    }
}

pub struct End<'a> {
    pub v: View<'a, Slot, Group>,
    pub accepted: Accepted,
    pub conn: Option<Conn>,
    /// What each thread wrote, and read of the other end's threads.
    pub wrote: [u64; 2],
    pub got: [u64; 2],
    /// Bytes with which thread 1 is inside TCP's send function.
    pub inside: u32,
    pub looked: Option<Source>,
    pub rx_asleep: bool,
    pub tx_asleep: bool,
    /// Something happened since DONE was last tried.
    pub stirred: bool,
    pub fin: bool,
    pub eof: bool,
    pub cut: bool,
    pub told: bool,
    pub reused: bool,
    pub grants: Grants,
}

pub struct World<'a> {
    pub ends: [End<'a>; 2],
    /// From each end to the other.
    pub wires: [Wire; 2],
    pub lanes: [VecDeque<Msg>; 2],
    /// To each end: the other one closed.
    pub events: [bool; 2],
    pub answer: Answer,
    /// A side aborted, or may have to.
    pub void: bool,
    pub bytes: Vec<u8>,
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
                grants: Grants::default(),
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

    pub fn reset(&mut self, i: usize) {
        let end = &mut self.ends[i];
        if let Some(conn) = &mut end.conn {
            self.void = true;
            // It reads nothing any more.
            end.eof = true;
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
            assert!(!end.grants.holds_any(), "DONE before the last look");
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
        end.grants.cut();
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

    pub fn all_lanes(&mut self, i: usize) {
        while !self.lanes[1 - i].is_empty() {
            self.lane(i);
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
                self.collect(i);
            }
            if !moved {
                return;
            }
        }
        panic!("never quiet");
    }

    /// True if nothing was said about grants in the entry.
    fn is_new(&self, i: usize) -> bool {
        let entry = conn_entry(IDS[i]);
        let mut words = (conn::RELEASED..=conn::GRANT_HEAD).step_by(4);
        words.all(|off| self.ends[i].v.slot.load(entry + off) == 0)
    }

    fn is_free(&self, i: usize) -> bool {
        let conn = self.ends[i].conn.as_ref();
        conn.is_none_or(|c| c.is_free() || c.is_cut())
    }

    /// All goes on while grants are held; the ends of the connection do not.
    fn quiesce_held(&mut self) {
        self.quiesce();
        for i in 0..2 {
            self.give_all_back(i);
        }
        self.quiesce();
    }

    /// FGDP is turned off: everything is free, and TCP lives on.
    pub fn settle_back(&mut self) {
        for i in 0..2 {
            self.back(i);
            self.stop(i);
        }
        self.quiesce_held();
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
        self.quiesce_held();
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
            assert!(!end.grants.lends_any(), "frames for ever");
            assert!(!end.reused || self.is_new(i), "said in another one's entry");
            if !self.void {
                assert!(end.eof, "end {i} waits for ever");
                assert_eq!(end.got, sent, "bytes lost");
            }
        }
    }
}
