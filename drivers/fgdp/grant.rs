// SPDX-License-Identifier: GPL-2.0

//! Sending without a copy: memory of the own slot that programs map, and the grant of its frames.
//!
//! A mapping belongs to the channel of the socket that it was made by: its frames are lent to that
//! peer, and any connection of the channel may grant them. Whole pages are granted, in runs that
//! follow each other in the slot; what is before and behind goes by the ring, and so does
//! everything else where a grant is not possible. A TCP connection that is carried does the same,
//! and TCP's own notifications tell of it.
//!
//! Lock order: `tx`, `mmap_lock`, the area's lock, then a connection's `state`, then `pool`.

use crate::channel::Channel;
use crate::conn::Connection;
use crate::device::Device;
use crate::inet::Mapping;
use crate::proto::grant::{FramePool, NoRun, Run, Unit};
use crate::proto::wire::{EXTENT_FRAMES, FRAME_SHIFT, FRAME_SIZE, GRANT_MAX_FRAMES};
use crate::storage::Storage;
use crate::sys::mm::{self, Behind, Frames, NewArea, Owner, Write};
use crate::sys::net::anysock::AnySock;
use crate::sys::net::errno::Errno;
use crate::sys::net::msg::SendMsg;
use crate::sys::net::notice::Notice;
use crate::tx;
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::Arc;

/// How long `mmap(2)` waits until the peer has accepted frames, in milliseconds.
const FRAMES_TIMEOUT_MS: u32 = 2_000;

/// Bytes that a TCP connection has granted and not got back, at most: what the peer has not read of
/// them may have to go by TCP, from a copy when the channel ends.
const CARRIED_MAX: u32 = 16 << 20;

/// Whose frames a program maps.
pub(crate) struct Lender {
    device: Arc<Device>,
    channel: Arc<Channel>,
    gone: Atomic<bool>,
    /// Of a TCP connection: it stays with us meanwhile.
    _mapping: Option<Mapping>,
}

impl Lender {
    fn pfn(&self, off: u64) -> u32 {
        // The slot's frames have numbers of 32 bits.
        (self.device.slot_base().wrapping_add(off) >> FRAME_SHIFT) as u32
    }
}

/// The offset in the own slot of frame `pfn`.
fn offset(device: &Device, pfn: u32) -> u64 {
    (u64::from(pfn) << FRAME_SHIFT).wrapping_sub(device.slot_base())
}

/// Whether there are frames for the rings of the peer in `slot` when programs get `want` more: what
/// is granted may not come back before something is read from a ring.
fn leaves_some(pool: &FramePool<Storage<Unit>>, slot: u32, want: u64) -> bool {
    pool.in_use(slot).saturating_add(want) <= pool.limit() / 4 * 3
}

impl Owner for Lender {
    fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    fn writable(&self, frames: Frames) -> usize {
        let (pfn, count) = (self.pfn(frames.off), frames.count as u32);
        self.device.pool.lock().not_granted(pfn, count) as usize
    }

    fn write(&self, off: u64) -> Write {
        let slot = self.channel.peering.slot;
        let mut pool = self.device.pool.lock();
        if !pool.is_granted(self.pfn(off)) {
            return Write::InPlace;
        }
        // Under the lock: a channel dies before its frames are reclaimed.
        if !self.channel.is_dead() && leaves_some(&pool, slot, 1) {
            match pool.alloc(slot, 1) {
                Ok(pfn) => {
                    pool.map(pfn, 1);
                    return Write::Frame(offset(&self.device, pfn));
                }
                Err(NoRun::NeedExtent(units)) => {
                    drop(pool);
                    self.channel.need_units.store(units, Release);
                    self.device.kick_ctl();
                }
                Err(_) => {}
            }
        }
        Write::Own
    }

    fn bring(&self, want: usize) -> Option<Frames> {
        let run = self.device.alloc_mapped(&self.channel, want, true).ok()?;
        Some(Frames {
            off: offset(&self.device, run.pfn),
            count: run.frames as usize,
        })
    }

    fn unmapped(&self, frames: Frames) {
        let (pfn, count) = (self.pfn(frames.off), frames.count as u32);
        self.device.pool.lock().unmap(pfn, count);
    }

    fn closed(&self) {
        self.channel.freed.store(true, Release);
        if self.channel.starved.load(Acquire) {
            self.device.kick_ctl();
        }
        let mut areas = self.device.areas.lock();
        let this = areas.iter().position(|area| area.is_of(self));
        let area = this.and_then(|at| areas.remove(at).ok());
        drop(areas);
        drop(area);
    }
}

impl Device {
    /// Nobody touches the slot any more: programs keep what they have there. Process context.
    pub(crate) fn leave_areas(&self) {
        for area in &*self.areas.lock() {
            area.owner().gone.store(true, Release);
            area.leave_frames();
        }
    }

    /// A run of frames for programs to map, `want` or fewer; asks for more if there is none. `now`:
    /// a short one is better than to wait.
    fn alloc_mapped(self: &Arc<Self>, channel: &Channel, want: usize, now: bool) -> Result<Run> {
        let mut frames = u32::try_from(want).unwrap_or(EXTENT_FRAMES);
        frames = frames.min(EXTENT_FRAMES);
        frames = 1 << frames.max(1).ilog2();
        let slot = channel.peering.slot;
        let mut pool = self.pool.lock();
        if channel.is_dead() {
            return Err(Errno::ConnReset.into());
        }
        if !leaves_some(&pool, slot, want as u64) {
            return Err(ENOMEM);
        }
        let mut units = None;
        let mut found = None;
        while frames != 0 && found.is_none() {
            match pool.alloc(slot, frames) {
                Ok(pfn) => {
                    pool.map(pfn, frames);
                    found = Some(Run { pfn, frames });
                }
                Err(NoRun::NeedExtent(n)) if units.is_none() => units = Some(n),
                Err(_) => {}
            }
            if units.is_some() && !now {
                // A whole extent is better than many small runs.
                break;
            }
            frames /= 2;
        }
        drop(pool);
        if let Some(units) = units {
            channel.need_units.store(units, Release);
        }
        if found.is_none() || units.is_some() {
            self.kick_ctl();
        }
        found.ok_or(EAGAIN)
    }
}

/// Whether `conn` has a frame for the records of grants, or gets one; else asks for frames.
fn has_record_frame(conn: &Connection) -> bool {
    if conn.has_grant_frame() {
        return true;
    }
    let (device, channel) = (&conn.device, &conn.channel);
    let mut pool = device.pool.lock();
    if channel.is_dead() {
        return false;
    }
    let pfn = match pool.alloc(channel.peering.slot, 1) {
        Ok(pfn) => pfn,
        Err(why) => {
            drop(pool);
            if let NoRun::NeedExtent(units) = why {
                channel.need_units.store(units, Release);
                device.kick_ctl();
            }
            return false;
        }
    };
    drop(pool);
    if conn.adopt_grant_frame(pfn) {
        return true;
    }
    let mut pool = device.pool.lock();
    if !channel.is_dead() {
        pool.free(pfn, 1);
    }
    drop(pool);
    conn.has_grant_frame()
}

/// Frames that will be mapped; they go back when it is dropped.
struct Taken<'a> {
    device: &'a Device,
    runs: KVVec<Run>,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut pool = self.device.pool.lock();
        for run in &self.runs {
            pool.unmap(run.pfn, run.frames);
        }
    }
}

/// The error of a wait for frames.
fn no_frames(err: Error) -> Error {
    if err == EAGAIN {
        ENOMEM
    } else {
        err
    }
}

/// `mmap(2)` on `sk`, which `conn` belongs to: frames that are lent to the peer, zeroed. `mapping`
/// is of a TCP connection.
pub(crate) fn map(
    sk: &AnySock,
    conn: &Connection,
    area: &NewArea<'_>,
    mapping: Option<Mapping>,
) -> Result {
    if !conn.is_stream() {
        return Err(Errno::OpNotSupp.into());
    }
    let device = &conn.device;
    let mut taken = Taken {
        device,
        runs: KVVec::new(),
        count: 0,
    };
    let mut timeo = kernel::time::msecs_to_jiffies(FRAMES_TIMEOUT_MS) as isize;
    // First, as what is mapped may take all that the peer has accepted.
    let ready = sk.wait(&mut timeo, || {
        if has_record_frame(conn) || conn.channel.is_dead() {
            return Some(());
        }
        conn.wants_frames.store(true, Release);
        conn.channel.starved.store(true, Release);
        // Those that came before that do not wake anybody.
        has_record_frame(conn).then_some(())
    });
    ready.map_err(no_frames)?;
    while taken.count < area.pages() {
        let missing = area.pages() - taken.count;
        taken.runs.reserve(1, GFP_KERNEL)?;
        let run = sk.wait(&mut timeo, || {
            let try_alloc = || match device.alloc_mapped(&conn.channel, missing, false) {
                Err(e) if e == EAGAIN => None,
                result => Some(result),
            };
            try_alloc().or_else(|| {
                conn.wants_frames.store(true, Release);
                conn.channel.starved.store(true, Release);
                try_alloc()
            })
        });
        let run = run.map_err(no_frames)??;
        taken.count += run.frames as usize;
        taken.runs.push(run, GFP_KERNEL)?;
        let off = offset(device, run.pfn);
        device.slot().clear(off, run.bytes() as usize);
    }
    let mut areas = device.areas.lock();
    areas.reserve(1, GFP_KERNEL)?;
    let lender = Lender {
        device: device.clone(),
        channel: conn.channel.clone(),
        gone: Atomic::new(device.gone.load(Acquire)),
        _mapping: mapping,
    };
    let frames = taken.runs.iter().flat_map(|run| {
        let first = offset(device, run.pfn);
        (0..u64::from(run.frames)).map(move |n| first + (n << FRAME_SHIFT))
    });
    let new = area.map(lender, device.slot().share(), frames)?;
    // The area gives them back.
    taken.runs.clear();
    areas.push(new, GFP_KERNEL)?;
    Ok(())
}

/// One call of send with `MSG_ZEROCOPY`.
pub(crate) struct Send<'a> {
    sk: &'a AnySock,
    conn: &'a Connection,
    /// What is granted is not the program's any more.
    gives: bool,
    /// TCP's notification of the call.
    notice: Option<&'a Notice>,
    call: Option<u32>,
}

impl<'a> Send<'a> {
    /// # Errors
    ///
    /// `ENOBUFS` when too many such calls are not complete, or not told to be; `ENOMEM`.
    pub(crate) fn new(
        sk: &'a AnySock,
        conn: &'a Connection,
        gives: bool,
        notice: Option<&'a Notice>,
    ) -> Result<Self> {
        conn.collect_grants();
        conn.reserve_call()?;
        Ok(Self {
            sk,
            conn,
            gives,
            notice,
            call: None,
        })
    }

    /// The number of the call, which has sent something.
    fn begun(&mut self) -> u32 {
        *self.call.get_or_insert_with(|| self.conn.begin_call())
    }

    /// Sends some of what is next in `msg`: so many bytes, 0 if there is no space.
    pub(crate) fn step(&mut self, msg: &mut SendMsg<'_>) -> Result<usize> {
        let Some((addr, len)) = msg.segment() else {
            return self.copy(msg, usize::MAX);
        };
        match self.grant(addr, len)? {
            Behind::Lent(frames) => {
                let n = frames.count << FRAME_SHIFT;
                msg.skip(n);
                Ok(n)
            }
            Behind::Copy(n) => self.copy(msg, n),
        }
    }

    /// Frames that may be granted now.
    fn most(&self) -> usize {
        let frames = if self.conn.is_carried() {
            CARRIED_MAX.saturating_sub(self.conn.granted()) >> FRAME_SHIFT
        } else {
            GRANT_MAX_FRAMES
        };
        frames.min(GRANT_MAX_FRAMES) as usize
    }

    fn copy(&mut self, msg: &mut SendMsg<'_>, n: usize) -> Result<usize> {
        let sent = msg.first(n, |msg| tx::write(self.sk, self.conn, msg))?;
        if sent != 0 {
            self.begun();
        }
        Ok(sent)
    }

    /// Grants the frames behind the memory at `addr`, if there are any and it is possible.
    fn grant(&mut self, addr: usize, len: usize) -> Result<Behind> {
        if len < FRAME_SIZE as usize {
            return Ok(Behind::Copy(len));
        }
        let conn = self.conn;
        let _tx = conn.tx.lock();
        tx::check_open(self.sk, conn)?;
        let most = self.most();
        if most == 0 || !has_record_frame(conn) || !conn.can_grant()? {
            return Ok(Behind::Copy(len));
        }
        let run_of = |frames: Frames| Run {
            pfn: (conn.device.slot_base().wrapping_add(frames.off) >> FRAME_SHIFT) as u32,
            frames: frames.count as u32,
        };
        let lend = |owner: &Lender, frames: Frames| {
            let run = run_of(frames);
            let mut pool = conn.device.pool.lock();
            Arc::ptr_eq(&owner.channel, &conn.channel)
                && !conn.channel.is_dead()
                && pool.grant(conn.channel.peering.slot, run.pfn, run.frames)
        };
        let behind = mm::lend(addr, len, most, lend);
        let Behind::Lent(frames) = behind else {
            return Ok(behind);
        };
        let run = run_of(frames);
        let call = self.begun();
        let published = conn.publish_grant(run, call, self.notice.map(Notice::granted));
        if !matches!(published, Ok(true)) {
            let mut pool = conn.device.pool.lock();
            if !conn.channel.is_dead() {
                pool.release(run.pfn, run.frames);
            }
            drop(pool);
            published?;
            return Ok(Behind::Copy(len));
        }
        if self.gives {
            // Not before: bytes that are not granted are copied from there.
            mm::take_away::<Lender>(addr, frames);
        }
        Ok(behind)
    }
}

impl Drop for Send<'_> {
    fn drop(&mut self) {
        match self.call {
            Some(call) => self.conn.end_call(call),
            None => self.conn.drop_call(),
        }
    }
}

/// `sendmsg(2)` with `MSG_ZEROCOPY` on `sk`, which `conn` belongs to. `gives`: the program has what
/// was granted no more.
///
/// # Errors
///
/// `ENOBUFS` when too many such calls are not complete, or not told to be; otherwise as without the
/// flag.
pub(crate) fn send(
    sk: &AnySock,
    conn: &Connection,
    msg: &mut SendMsg<'_>,
    gives: bool,
) -> Result<usize> {
    let mut send = Send::new(sk, conn, gives, None)?;
    tx::send_in_steps(sk, conn, msg, |msg| send.step(msg))
}
