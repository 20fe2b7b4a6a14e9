// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What each end of the model does with its bytes, as a driver would.

use fgdp_proto::proto::stream::{Notify, Ring, Source, Spans, TxPath};
use fgdp_proto::proto::wire::Msg;

use super::world::{World, IDS};
use crate::memory::first_extent;

pub const POISON: u8 = 0xee;

/// The byte that a thread of end `i` writes at a position of its own; the high
/// bit says which thread.
pub fn pattern(i: usize, thread: usize, pos: u64) -> u8 {
    let x = pos.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((i as u64) << 13);
    ((x >> 40) as u8 ^ x as u8) & 0x7f | ((thread as u8) << 7)
}

pub fn check(got: &mut [u64; 2], from: usize, b: u8) {
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

impl World<'_> {
    pub fn data(&mut self, i: usize, notify: Notify) {
        self.ready(i, notify, true, false);
    }

    pub fn space(&mut self, i: usize, notify: Notify) {
        self.ready(i, notify, false, true);
    }

    pub fn ready(&mut self, i: usize, notify: Notify, data: bool, space: bool) {
        if notify.ready {
            assert!(!self.ends[i].cut, "a message into a lane that is gone");
            let conn = IDS[1 - i];
            self.lanes[i].push_back(Msg::Ready { conn, data, space });
        }
        self.ends[i].stirred = true;
    }

    pub fn path(&mut self, i: usize) -> TxPath {
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
            let rings = conn.take_tx_rings();
            self.poison_rings(rings);
        }
        path
    }

    pub fn send_tcp(&mut self, i: usize, thread: usize, n: u32) {
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
    pub fn step_tx(&mut self, i: usize, bytes: Option<(usize, u32)>) -> bool {
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
                conn.tx_rest_sent(&end.v, spans.bytes());
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

    pub fn push_fin(&mut self, i: usize, path: TxPath) -> bool {
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

    pub fn source(&mut self, i: usize) -> Source {
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

    pub fn step_rx(&mut self, i: usize, n: u32) -> bool {
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

    pub fn take_tcp(&mut self, i: usize, n: usize, all: bool) -> bool {
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

    pub fn take_ring(&mut self, i: usize, n: u32) -> bool {
        let end = &mut self.ends[i];
        let conn = end.conn.as_mut().unwrap();
        let spans: Spans = conn.rx_spans(0, n);
        let many = spans.as_slice().len() == 4;
        assert!(spans.bytes() == n || many || self.void);
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
}
