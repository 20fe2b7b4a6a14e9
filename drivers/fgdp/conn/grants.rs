// SPDX-License-Identifier: GPL-2.0

//! What a connection has granted: its frames come back by release, by DONE, or when the channel is
//! settled.
//!
//! The ledger is part of the connection's state: a place that came back is not given away again
//! before its frames are.

use super::{Connection, State};
use crate::proto::grant::{Call, Entry, Ledger, Notice, Run};
use crate::proto::stream::Notify;
use crate::proto::wire::{Kind, GRANTS};
use crate::storage::Storage;
use crate::sys::net::errno::Errno;
use crate::sys::net::notice::Granted;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;

/// Sends with `MSG_ZEROCOPY` that are not complete, or not told to be: what ENOBUFS is for.
const CALLS: usize = 128;

type Lending = Ledger<Storage<Entry>, Storage<Call>>;

/// The grants of a connection, and who is told when they are back.
///
/// # Invariants
///
/// There is room in `ended` for as many as there are places.
pub(super) struct Grants {
    ledger: Lending,
    /// By place, of a connection that carries TCP: it has notifications of its own.
    granted: KVVec<Option<Granted>>,
    /// Those that are back, to be dropped without locks.
    ended: KVVec<Granted>,
}

impl Grants {
    fn new(is_carried: bool) -> Result<Self> {
        let places = if is_carried { GRANTS as usize } else { 0 };
        let mut granted = KVVec::with_capacity(places, GFP_KERNEL)?;
        for _ in 0..places {
            granted.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            ledger: Ledger::new(Storage::new(GRANTS as usize)?, Storage::new(CALLS)?),
            granted,
            ended: KVVec::with_capacity(places, GFP_KERNEL)?,
        })
    }

    /// The grant at `place` is back: its frames.
    fn take(&mut self, place: u8) -> Option<Run> {
        let granted = self.granted.get_mut(usize::from(place));
        if let Some(granted) = granted.and_then(Option::take) {
            // Where there is no room it is told at once.
            let _told = self.ended.push_within_capacity(granted);
        }
        self.ledger.take(place)
    }
}

impl Connection {
    /// Whether it is one that can grant.
    pub(crate) fn is_stream(&self) -> bool {
        self.kind() == Kind::Stream
    }

    /// Runs `f` on what was granted. `None` when the connection never has.
    fn with_grants<R>(&self, f: impl FnOnce(&mut Grants) -> R) -> Option<R> {
        self.state.lock().grants.as_mut().map(f)
    }

    /// As [`Connection::with_grants`], on the ledger.
    fn with_ledger<R>(&self, f: impl FnOnce(&mut Lending) -> R) -> Option<R> {
        self.with_grants(|grants| f(&mut grants.ledger))
    }

    /// Room for a send with `MSG_ZEROCOPY`. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` at the limit; `ENOMEM`.
    pub(crate) fn reserve_call(&self) -> Result {
        let reserved = self.with_ledger(|ledger| ledger.reserve());
        let reserved = match reserved {
            Some(reserved) => reserved,
            None => {
                let new = Grants::new(self.is_carried())?;
                let mut state = self.state.lock();
                self.grants.store(true, Relaxed);
                // Somebody else may have been faster.
                let reserved = state.grants.get_or_insert(new).ledger.reserve();
                drop(state);
                reserved
            }
        };
        if reserved {
            Ok(())
        } else {
            Err(Errno::NoBufs.into())
        }
    }

    /// The send did nothing.
    pub(crate) fn drop_call(&self) {
        let _had = self.with_ledger(|ledger| ledger.unreserve());
    }

    /// The send has begun: its number.
    pub(crate) fn begin_call(&self) -> u32 {
        self.with_ledger(|ledger| ledger.begin()).unwrap_or(0)
    }

    /// Send `call` has returned.
    pub(crate) fn end_call(&self, call: u32) {
        let _had = self.with_ledger(|ledger| ledger.end(call));
        self.tell_notices();
    }

    /// Whether a grant is possible now.
    ///
    /// # Errors
    ///
    /// `ECONNRESET` when the connection is over.
    pub(crate) fn can_grant(&self) -> Result<bool> {
        self.with(|proto, _| Ok(proto.tx_can_grant()))
    }

    /// Whether there is a frame for records.
    pub(crate) fn has_grant_frame(&self) -> bool {
        self.state.lock().proto.tx_grant_frame().is_some()
    }

    /// Brings the frame for records; false if it is not taken.
    pub(crate) fn adopt_grant_frame(&self, pfn: u32) -> bool {
        self.with(|proto, view| Ok(proto.set_tx_grant_frame(view, pfn)))
            .unwrap_or(false)
    }

    /// Publishes a grant of send `call`; `told` is for TCP's notification. False if it is not
    /// possible any more. The caller holds `tx`.
    ///
    /// # Errors
    ///
    /// `ECONNRESET` when the connection is over.
    pub(crate) fn publish_grant(&self, run: Run, call: u32, told: Option<Granted>) -> Result<bool> {
        let view = self.view();
        let mut state = self.state.lock();
        if self.is_over(&state) {
            drop(state);
            return Err(self.over());
        }
        let State { proto, grants, .. } = &mut *state;
        let Some(grants) = grants else {
            return Ok(false);
        };
        let granted = proto.tx_grant(&view, run);
        if let Ok(Some((place, _))) = granted {
            grants.ledger.put(place, run, call);
            if let Some(slot) = grants.granted.get_mut(usize::from(place)) {
                *slot = told;
            }
        }
        drop(state);
        match granted {
            Ok(Some((_, notify))) => {
                let bytes = i64::try_from(run.bytes()).unwrap_or(i64::MAX);
                self.counters.tx_bytes.add(bytes, Relaxed);
                self.notify_data(Ok::<Notify, Error>(notify));
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(reason) => Err(self.broken(reason)),
        }
    }

    /// Takes back what the peer has released. Any context.
    pub(crate) fn collect_grants(&self) {
        // Before the first grant there is nothing to release.
        if !self.grants.load(Relaxed) {
            return;
        }
        let view = self.view();
        let mut state = self.state.lock();
        if self.is_over(&state) {
            return;
        }
        let seen = state.proto.tx_unacked(&view);
        self.settle_grants(&mut state);
        drop(state);
        if let Err(reason) = seen {
            let _over = self.broken(reason);
        }
        self.tell_notices();
    }

    /// Frees the frames of grants that came back.
    pub(super) fn settle_grants(&self, state: &mut State) {
        let State { proto, grants, .. } = state;
        let back = proto.take_released();
        let Some(grants) = grants.as_mut().filter(|_| !back.is_empty()) else {
            return;
        };
        let mut pool = self.device.pool.lock();
        for place in back.iter() {
            if let Some(run) = grants.take(place) {
                // As for rings: a channel dies before its frames are reclaimed.
                if !self.channel.is_dead() {
                    pool.release(run.pfn, run.frames);
                }
            }
        }
        drop(pool);
        self.channel.freed.store(true, Release);
        if self.channel.starved.load(Acquire) {
            self.device.kick_ctl();
        }
    }

    /// Both sides are done with the connection, and the channel lives: no frame is granted any
    /// more.
    pub(super) fn end_grants(&self, state: &mut State) {
        self.settle_grants(state);
        if let Some(pfn) = state.proto.take_tx_grant_frame() {
            let mut pool = self.device.pool.lock();
            if !self.channel.is_dead() {
                pool.free(pfn, 1);
            }
        }
    }

    /// The peer looks at nothing any more, and the channel is dead: all sends are complete.
    pub(crate) fn void_grants(&self) {
        let _had = self.with_grants(|grants| {
            for place in grants.ledger.places().iter() {
                grants.take(place);
            }
        });
        self.tell_notices();
    }

    /// Tells the user which sends are complete. Any context, without locks.
    pub(super) fn tell_notices(&self) {
        if self.is_carried() {
            // TCP tells them; not more than there were when this began.
            for _ in 0..GRANTS {
                let ended = self.with_grants(|grants| {
                    while grants.ledger.notice().is_some() {}
                    grants.ended.pop()
                });
                if ended.flatten().is_none() {
                    break;
                }
            }
            return;
        }
        // Under the lock, as in `notice`.
        let new = self.with_ledger(|ledger| ledger.has_notice() && !self.notices.xchg(true, Full));
        if new == Some(true) {
            if let Some(user) = self.user() {
                user.error_report();
            }
        }
    }

    /// Which sends are complete, told once.
    pub(crate) fn notice(&self) -> Option<Notice> {
        let mut state = self.state.lock();
        let ledger = &mut state.grants.as_mut()?.ledger;
        let notice = ledger.notice();
        self.notices.store(ledger.has_notice(), Release);
        notice
    }

    /// Bytes granted that the peer has not given back.
    pub(crate) fn granted(&self) -> u32 {
        let bytes = self.with_ledger(|ledger| ledger.bytes()).unwrap_or(0);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}
