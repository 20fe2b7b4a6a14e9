// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One QEMU on one device: what it told, and the request that waits for an answer.
//!
//! Requests that change nothing are answered here. The others go to the worker one at a time, and take effect here
//! only with its answer; if it dies instead, the next one gets the same request again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tracing::{debug, error, warn};

use super::conn::{Conn, Message};
use super::wire::{self, u32_at, u64_at, Header, RegionInfo};
use crate::abi;
use crate::link::{Dma, Request};
use crate::sys::{self, SharedFd};

/// A request is given up when so many workers died of it.
const MAX_DEATHS: u32 = 3;

/// The device's regions, as the client is told.
#[derive(Debug)]
pub struct Regions {
    /// By region number.
    pub info: [RegionInfo; wire::NUM_REGIONS as usize],
    /// The memory that BAR2 maps.
    pub slot: SharedFd,
    /// The memory that BAR4 maps, without write access.
    pub group: SharedFd,
}

/// A request on its way.
#[derive(Debug)]
pub struct Outstanding {
    /// Number of the request, over all connections.
    pub id: u64,
    /// What is asked.
    pub request: Request,
    /// Descriptors that came with it.
    pub fds: Vec<SharedFd>,
    header: Header,
    echo: Vec<u8>,
    deaths: u32,
}

/// What a message leads to.
#[derive(Debug)]
pub enum Step {
    /// It is answered.
    Done,
    /// The guest rang a queue; answered.
    Kick(u32),
    /// It is in [`Session::outstanding`]: hand it to the worker.
    Forward,
}

/// The connection and its state.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub conn: Conn,
    /// Number of the connection, over all devices.
    pub serial: u64,
    /// QEMU's process.
    pub pid: i32,
    /// Guest memory by guest address.
    pub maps: BTreeMap<u64, (Dma, SharedFd)>,
    /// Descriptors of the vectors.
    pub vectors: [Option<SharedFd>; abi::VECTORS as usize],
    /// The request that waits for the worker.
    pub outstanding: Option<Outstanding>,
    /// Queues rung that the worker was not told of.
    pub kicks: u32,
    name: String,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(conn: Conn, serial: u64, name: String) -> Self {
        let pid = sys::peer_pid(conn.as_fd());
        let vectors = [const { None }; abi::VECTORS as usize];
        Self {
            conn,
            serial,
            pid,
            maps: BTreeMap::new(),
            vectors,
            outstanding: None,
            kicks: 0,
            name,
        }
    }

    /// Takes a message; `next_id` numbers requests.
    pub fn handle(
        &mut self,
        msg: Message,
        regions: &Regions,
        next_id: &mut u64,
    ) -> io::Result<Step> {
        let Message { header, body, fds } = msg;
        let at = |n| u32_at(&body, n);
        let (reply, fd) = match header.command {
            wire::VERSION => (header.reply(&wire::version_body()), None),
            wire::DEVICE_GET_INFO => (header.reply(&wire::device_info_body()), None),
            wire::DEVICE_GET_REGION_INFO => {
                let (argsz, index) = (at(0), at(8));
                match regions.info.get(index as usize) {
                    None => (header.error(libc_einval()), None),
                    Some(info) => {
                        let fd = match index {
                            _ if info.mappable == 0 || argsz < 64 => None,
                            2 => Some(regions.slot.clone()),
                            4 => Some(regions.group.clone()),
                            _ => None,
                        };
                        (
                            header.reply(&wire::region_info_body(index, info, argsz)),
                            fd,
                        )
                    }
                }
            }
            wire::DEVICE_GET_IRQ_INFO => {
                let count = match at(8) {
                    wire::IRQ_MSIX => u32::from(abi::VECTORS),
                    wire::IRQ_ERROR => 1,
                    _ => 0,
                };
                (header.reply(&wire::irq_info_body(at(8), count)), None)
            }
            wire::REGION_WRITE => return self.write(header, body, regions, next_id),
            wire::REGION_READ => return self.read(header, body, regions, next_id),
            wire::DMA_MAP => return self.map(header, &body, fds, next_id),
            wire::DMA_UNMAP => {
                let all = at(4) & wire::DMA_UNMAP_ALL != 0;
                let request = Request::Unmap {
                    addr: u64_at(&body, 8),
                    size: u64_at(&body, 16),
                    all,
                };
                return Ok(self.forward(header, request, Vec::new(), body, next_id));
            }
            wire::DEVICE_SET_IRQS => return self.set_irqs(header, &body, fds, next_id),
            wire::DEVICE_RESET => {
                return Ok(self.forward(header, Request::Reset, Vec::new(), Vec::new(), next_id))
            }
            other => {
                debug!(guest = %self.name, command = other, "unsupported vfio-user command");
                (header.error(nix::libc::ENOTSUP), None)
            }
        };
        self.answer(header, reply, fd)?;
        Ok(Step::Done)
    }

    fn answer(&mut self, header: Header, reply: Vec<u8>, fd: Option<SharedFd>) -> io::Result<()> {
        if header.wants_reply() {
            self.conn.send(reply, fd)?;
        }
        Ok(())
    }

    fn forward(
        &mut self,
        header: Header,
        request: Request,
        fds: Vec<OwnedFd>,
        echo: Vec<u8>,
        next_id: &mut u64,
    ) -> Step {
        *next_id += 1;
        self.outstanding = Some(Outstanding {
            id: *next_id,
            request,
            fds: fds.into_iter().map(SharedFd::new).collect(),
            header,
            echo,
            deaths: 0,
        });
        Step::Forward
    }

    fn refuse(&mut self, header: Header) -> io::Result<Step> {
        self.answer(header, header.error(libc_einval()), None)?;
        Ok(Step::Done)
    }

    fn write(
        &mut self,
        header: Header,
        mut body: Vec<u8>,
        regions: &Regions,
        next_id: &mut u64,
    ) -> io::Result<Step> {
        let (offset, region, count) = (u64_at(&body, 0), u32_at(&body, 8), u32_at(&body, 12));
        if body.len() < 16
            || body.len() - 16 != count as usize
            || !in_region(regions, region, offset, count)
        {
            return self.refuse(header);
        }
        let data = body.split_off(16);
        let notify = abi::NOTIFY_OFFSET..abi::NOTIFY_OFFSET + abi::STRUCT_SIZE;
        if region == 0 && notify.contains(&offset) {
            // The ring itself needs no answer from the worker: the guest goes on at once.
            self.answer(header, header.reply(&body), None)?;
            return Ok(Step::Kick(
                u32::try_from((offset - abi::NOTIFY_OFFSET) / abi::NOTIFY_MULTIPLIER)
                    .unwrap_or(u32::MAX),
            ));
        }
        Ok(self.forward(
            header,
            Request::Write {
                region,
                offset,
                data,
            },
            Vec::new(),
            body,
            next_id,
        ))
    }

    fn read(
        &mut self,
        header: Header,
        body: Vec<u8>,
        regions: &Regions,
        next_id: &mut u64,
    ) -> io::Result<Step> {
        let (offset, region, count) = (u64_at(&body, 0), u32_at(&body, 8), u32_at(&body, 12));
        if body.len() != 16
            || count > wire::MAX_TRANSFER
            || !in_region(regions, region, offset, count)
        {
            return self.refuse(header);
        }
        Ok(self.forward(
            header,
            Request::Read {
                region,
                offset,
                count,
            },
            Vec::new(),
            body,
            next_id,
        ))
    }

    fn map(
        &mut self,
        header: Header,
        body: &[u8],
        mut fds: Vec<OwnedFd>,
        next_id: &mut u64,
    ) -> io::Result<Step> {
        let flags = u32_at(body, 4);
        let (offset, addr, size) = (u64_at(body, 8), u64_at(body, 16), u64_at(body, 24));
        let both = wire::DMA_READ | wire::DMA_WRITE;
        let Some(fd) = fds.pop() else {
            if addr == 0 && flags & both == both {
                error!(guest = %self.name, "guest memory is not shared with the daemon: start QEMU with \
                    -object memory-backend-memfd,id=mem,size=...,share=on -machine ...,memory-backend=mem");
                return self.refuse(header);
            }
            // Other devices' BARs and our own: no queue lies there.
            self.answer(header, header.reply(&[]), None)?;
            return Ok(Step::Done);
        };
        let end = offset
            .checked_add(size)
            .filter(|_| size > 0 && addr.checked_add(size).is_some());
        if end.is_none_or(|end| sys::file_size(fd.as_fd()).unwrap_or(0) < end) {
            warn!(guest = %self.name, addr, size, offset, "guest memory map outside its file refused");
            return self.refuse(header);
        }
        if flags & both != both {
            // Firmware images: queues need memory that can be written.
            self.answer(header, header.reply(&[]), None)?;
            return Ok(Step::Done);
        }
        let dma = Dma {
            addr,
            size,
            offset,
            writable: true,
        };
        Ok(self.forward(header, Request::Map(dma), vec![fd], Vec::new(), next_id))
    }

    fn set_irqs(
        &mut self,
        header: Header,
        body: &[u8],
        fds: Vec<OwnedFd>,
        next_id: &mut u64,
    ) -> io::Result<Step> {
        let (flags, index, start, count) = (
            u32_at(body, 4),
            u32_at(body, 8),
            u32_at(body, 12),
            u32_at(body, 16),
        );
        let vectors = u32::from(abi::VECTORS);
        let range_ok = start.checked_add(count).is_some_and(|end| end <= vectors);
        if index == wire::IRQ_ERROR {
            // QEMU wants to hear of PCI errors; there are none.
            self.answer(header, header.reply(&[]), None)?;
            return Ok(Step::Done);
        }
        let known = flags & wire::IRQ_SET_ACTION_TRIGGER != 0;
        if index != wire::IRQ_MSIX || !known || !range_ok {
            return self.refuse(header);
        }
        let (start, count, present) =
            match flags & (wire::IRQ_SET_DATA_NONE | wire::IRQ_SET_DATA_EVENTFD) {
                wire::IRQ_SET_DATA_NONE if count == 0 => (0, vectors, 0),
                wire::IRQ_SET_DATA_EVENTFD if fds.is_empty() => (start, count, 0),
                wire::IRQ_SET_DATA_EVENTFD if fds.len() == count as usize => {
                    (start, count, u32::MAX >> (32 - count.clamp(1, 32)))
                }
                _ => return self.refuse(header),
            };
        Ok(self.forward(
            header,
            Request::Irqs {
                start,
                count,
                present,
            },
            fds,
            Vec::new(),
            next_id,
        ))
    }

    /// The worker answered request `id`: it takes effect, and QEMU is answered.
    pub fn complete(&mut self, id: u64, result: Result<Vec<u8>, i32>) -> io::Result<()> {
        if self.outstanding.as_ref().is_none_or(|o| o.id != id) {
            return Ok(());
        }
        let Some(out) = self.outstanding.take() else {
            return Ok(());
        };
        let header = out.header;
        let data = match result {
            Ok(data) => data,
            Err(errno) => return self.answer(header, header.error(errno), None),
        };
        match out.request {
            Request::Map(dma) => {
                if let Some(fd) = out.fds.into_iter().next() {
                    self.maps.insert(dma.addr, (dma, fd));
                }
            }
            Request::Unmap { all: true, .. } => self.maps.clear(),
            Request::Unmap { addr, size, .. } => {
                let end = addr.saturating_add(size);
                self.maps.retain(|_, (dma, _)| {
                    dma.addr >= end || dma.addr.saturating_add(dma.size) <= addr
                });
            }
            Request::Irqs {
                start,
                count,
                present,
            } => {
                let mut fds = out.fds.into_iter();
                let range = self
                    .vectors
                    .iter_mut()
                    .skip(start as usize)
                    .take(count as usize);
                for (n, vector) in range.enumerate() {
                    *vector = if (present >> n) & 1 != 0 {
                        fds.next()
                    } else {
                        None
                    };
                }
            }
            Request::Read { .. } | Request::Write { .. } | Request::Reset => (),
        }
        let mut body = out.echo;
        body.extend_from_slice(&data);
        self.answer(header, header.reply(&body), None)
    }

    /// The worker died while it had the request: true if it is to be tried again.
    pub fn worker_died(&mut self) -> io::Result<bool> {
        let Some(out) = &mut self.outstanding else {
            return Ok(true);
        };
        out.deaths += 1;
        if out.deaths < MAX_DEATHS {
            return Ok(true);
        }
        error!(guest = %self.name, request = ?out.request, "request given up: every worker died of it");
        let id = out.id;
        self.complete(id, Err(nix::libc::EIO))?;
        Ok(false)
    }
}

fn libc_einval() -> i32 {
    nix::libc::EINVAL
}

fn in_region(regions: &Regions, region: u32, offset: u64, count: u32) -> bool {
    let size = regions
        .info
        .get(region as usize)
        .map_or(0, |info| info.size);
    count > 0
        && offset
            .checked_add(u64::from(count))
            .is_some_and(|end| end <= size)
}
