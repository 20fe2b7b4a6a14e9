// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The channel to one peer, as this side sees it (C-1 to C-8).
//!
//! The caller feeds what happened, one thing at a time, and does what comes
//! back, in that order. Calls to the host are answered later, by an input.

use crate::proto::wire::{PeerState, Reason, Status};

/// What one side did in the current round, as far as this side knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Nothing.
    Out,
    /// Called OPEN, which is not answered.
    Opening,
    /// Opened.
    Open,
    /// Called CLOSE.
    Closed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The peer's directory entry was read.
    Directory {
        /// State in the entry.
        state: PeerState,
        /// Generation in the entry.
        generation: u32,
    },
    /// Somebody wants to use the channel.
    Want,
    /// The event that the peer opened.
    PeerOpened {
        /// Generation of the peer's slot.
        generation: u32,
    },
    /// The event that the peer closed.
    PeerClosed {
        /// Generation of the peer's slot.
        generation: u32,
        /// Why.
        reason: Reason,
    },
    /// The host's answer to OPEN.
    OpenReply(Status),
    /// OPEN was not answered: nobody knows whether the host has done it or will.
    OpenLost,
    /// The host's answer to CLOSE.
    CloseReply(Status),
    /// CLOSE was not answered. The round ends when the peer has closed; if the
    /// OPEN was not answered either, nobody knows whether there is a round, and
    /// only the device's reset helps.
    CloseLost,
    /// The channel has to end: the peer broke a rule, events were lost
    /// ([`Reason::Host`]), or this side goes. After
    /// [`Reason::Unload`] it does not open again.
    End(Reason),
    /// The channel did not come up in time (C-7).
    Timeout,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the own channel area new ([`reset`](crate::proto::ring::reset)) and
    /// set its header to open.
    Prepare,
    /// Call CHANNEL_OPEN for that generation of the peer.
    CallOpen {
        /// Generation of the peer's slot.
        generation: u32,
    },
    /// Call CHANNEL_CLOSE for that generation of the peer.
    CallClose {
        /// Generation of the peer's slot.
        generation: u32,
        /// Why.
        reason: Reason,
    },
    /// The peer opened: validate its slot header; from now on its offers count.
    /// If the header is invalid, feed [`Input::End`].
    PeerReady,
    /// Both sides are open: look at the lanes once, then wait for doorbells.
    Up,
    /// The channel ended, or did not come up: stop looking at the peer's slot,
    /// end all connections, fail who waits, set the own header to closed, or to
    /// broken if the reason [is a violation](Reason::is_violation).
    Down(Reason),
    /// The peer does not look at the own slot any more: lent frames and
    /// connection entries are free.
    Reclaim,
}

/// Up to six actions, in order: as many as one input can cause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actions {
    list: [Option<Action>; 6],
}

impl Actions {
    fn push(&mut self, action: Action) {
        if let Some(place) = self.list.iter_mut().find(|a| a.is_none()) {
            *place = Some(action);
        }
    }

    /// The actions.
    pub fn iter(&self) -> impl Iterator<Item = Action> + '_ {
        self.list.iter().flatten().copied()
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.list.iter().all(Option::is_none)
    }
}

/// State of the channel to one peer.
///
/// # Invariants
///
/// `next` is not `Out` only while this side waits for its answer to CLOSE in a
/// round that the peer has closed.
#[derive(Debug)]
pub struct Channel {
    generation: Option<u32>,
    own: Side,
    peer: Side,
    /// What the peer did in the round after this one. It cannot be ahead further:
    /// that round does not end without this side.
    next: Side,
    /// What a generation of the peer did that the directory did not show yet.
    early: Option<(u32, Side)>,
    /// Calls that the host has not answered.
    open_pending: u32,
    close_pending: u32,
    /// See [`Channel::peer_closed`].
    peer_closed: bool,
    want: bool,
    stopped: bool,
}

impl Default for Channel {
    fn default() -> Self {
        Self::new()
    }
}

impl Channel {
    /// No peer.
    pub const fn new() -> Self {
        Self {
            generation: None,
            own: Side::Out,
            peer: Side::Out,
            next: Side::Out,
            early: None,
            open_pending: 0,
            close_pending: 0,
            peer_closed: false,
            want: false,
            stopped: false,
        }
    }

    /// Generation of the peer that is ready, if one is.
    pub fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// True if both sides are open: the peer's lanes may be read.
    pub fn is_up(&self) -> bool {
        self.own == Side::Open && self.peer == Side::Open
    }

    /// True if the peer's offers of frames count: it has opened, and this side
    /// has not closed (the answer to OPEN may still be on its way).
    pub fn takes_frames(&self) -> bool {
        self.peer == Side::Open && matches!(self.own, Side::Opening | Side::Open)
    }

    /// True if this side opened and waits for the peer or the host: the caller
    /// runs a timer meanwhile.
    pub fn is_opening(&self) -> bool {
        matches!(self.own, Side::Opening | Side::Open) && !self.is_up()
    }

    /// True if the host said that the peer closed, in the round that is up or was
    /// up last, and the peer's generation is the same: its heads of carried
    /// connections are final (T-14). To be asked when [`Action::Down`] and
    /// [`Action::Reclaim`] are done.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// True if the channel will open when the last round has ended.
    pub fn is_wanted(&self) -> bool {
        self.want
    }

    /// True if nothing is open and no answer is outstanding: the own slot may go.
    pub fn is_quiet(&self) -> bool {
        self.own == Side::Out && !self.is_pending()
    }

    fn is_pending(&self) -> bool {
        self.open_pending != 0 || self.close_pending != 0
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input) -> Actions {
        let mut out = Actions::default();
        match input {
            Input::Directory { state, generation } => {
                let ready = state == PeerState::Ready;
                self.directory(ready.then_some(generation), &mut out);
            }
            Input::Want => {
                let can = self.generation.is_some() && !self.stopped;
                if can && !self.is_up() && !self.is_opening() {
                    self.want = true;
                    self.start(&mut out);
                }
            }
            Input::PeerOpened { generation } => {
                if self.generation == Some(generation) {
                    self.on_peer_opened(&mut out);
                } else {
                    self.early = Some((generation, Side::Open));
                }
            }
            Input::PeerClosed { generation, reason } => {
                if self.generation == Some(generation) {
                    self.on_peer_closed(reason, &mut out);
                } else if self.early == Some((generation, Side::Open)) {
                    self.early = Some((generation, Side::Closed));
                }
            }
            Input::OpenReply(status) => self.open_reply(Some(status), &mut out),
            Input::OpenLost => self.open_reply(None, &mut out),
            Input::CloseReply(status) => self.close_reply(Some(status), &mut out),
            Input::CloseLost => self.close_reply(None, &mut out),
            Input::End(reason) => self.end(reason, &mut out),
            Input::Timeout => {
                if !self.is_up() {
                    self.end(Reason::Timeout, &mut out);
                }
            }
        }
        out
    }

    /// Opens, if somebody wants that and it is possible now.
    fn start(&mut self, out: &mut Actions) {
        let Some(generation) = self.generation else {
            return;
        };
        let free = self.own == Side::Out && self.peer != Side::Closed;
        if self.want && free && !self.is_pending() {
            self.want = false;
            self.own = Side::Opening;
            self.open_pending = self.open_pending.saturating_add(1);
            out.push(Action::Prepare);
            out.push(Action::CallOpen { generation });
            if self.peer == Side::Open {
                out.push(Action::PeerReady);
            }
        }
    }

    fn directory(&mut self, ready: Option<u32>, out: &mut Actions) {
        if ready == self.generation {
            return;
        }
        // The host has forgotten the round of the old generation: nothing to
        // close. Answers of calls that are on their way are awaited all the same,
        // so that they are not taken for those of the next round.
        let was_open = matches!(self.own, Side::Opening | Side::Open);
        if was_open || self.want {
            out.push(Action::Down(match ready {
                Some(_) => Reason::Generation,
                None => Reason::PeerGone,
            }));
        }
        if self.own != Side::Out || self.peer != Side::Out {
            out.push(Action::Reclaim);
        }
        self.own = Side::Out;
        self.peer = Side::Out;
        self.next = Side::Out;
        self.peer_closed = false;
        self.want = false;
        self.generation = ready;
        match (self.early, ready) {
            (Some((generation, side)), Some(now)) if generation == now => {
                self.early = None;
                if side == Side::Open {
                    self.on_peer_opened(out);
                } else {
                    self.peer = Side::Closed;
                    self.call_close(Reason::PeerClosed, out);
                }
            }
            _ => {}
        }
    }

    fn up(&mut self, out: &mut Actions) {
        self.peer_closed = false;
        out.push(Action::Up);
    }

    fn on_peer_opened(&mut self, out: &mut Actions) {
        match self.peer {
            Side::Out => self.peer = Side::Open,
            Side::Closed => {
                if self.own == Side::Closed {
                    self.next = Side::Open;
                }
                return;
            }
            _ => return,
        }
        match self.own {
            Side::Out if self.stopped => self.call_close(Reason::Unload, out),
            Side::Out => {
                self.want = true;
                self.start(out);
            }
            Side::Opening => out.push(Action::PeerReady),
            Side::Open => {
                out.push(Action::PeerReady);
                self.up(out);
            }
            Side::Closed => {}
        }
    }

    fn on_peer_closed(&mut self, reason: Reason, out: &mut Actions) {
        if self.peer == Side::Closed {
            if self.next == Side::Open {
                self.next = Side::Closed;
            }
            return;
        }
        self.peer = Side::Closed;
        self.peer_closed = true;
        let reason = match reason {
            Reason::None | Reason::Unload => Reason::PeerClosed,
            reason => reason,
        };
        match self.own {
            Side::Opening | Side::Open => self.end(reason, out),
            Side::Out => {
                self.end(reason, out);
                // The round ends when this side has closed as well.
                self.call_close(Reason::PeerClosed, out);
            }
            Side::Closed => self.finish(out),
        }
    }

    fn open_reply(&mut self, status: Option<Status>, out: &mut Actions) {
        self.open_pending = self.open_pending.saturating_sub(1);
        if self.own != Side::Opening || self.open_pending != 0 {
            // Closed meanwhile, or the reply belongs to a round that is gone.
            self.finish(out);
            self.start(out);
            return;
        }
        if status == Some(Status::Ok) {
            self.own = Side::Open;
            if self.peer == Side::Open {
                self.up(out);
            }
            return;
        }
        let reason = match status {
            Some(Status::NoPeer) => Reason::PeerGone,
            // The peer's close is on its way here, or this side opened by a call
            // that was lost.
            Some(Status::State) => Reason::PeerClosed,
            _ => Reason::Host,
        };
        self.own = Side::Out;
        out.push(Action::Down(reason));
        // Whatever the host thinks, it has then heard of an end.
        let unsure = matches!(status, None | Some(Status::State));
        if unsure || (reason == Reason::Host && self.peer == Side::Open) {
            self.call_close(reason, out);
        }
    }

    fn end(&mut self, reason: Reason, out: &mut Actions) {
        if reason == Reason::Unload {
            self.stopped = true;
        }
        let open = matches!(self.own, Side::Opening | Side::Open);
        if open || self.want {
            out.push(Action::Down(reason));
        }
        self.want = false;
        // A peer that waits for this side is told.
        if open || (self.own == Side::Out && self.peer == Side::Open) {
            self.call_close(reason, out);
        }
    }

    fn call_close(&mut self, reason: Reason, out: &mut Actions) {
        let Some(generation) = self.generation else {
            return;
        };
        self.own = Side::Closed;
        self.close_pending = self.close_pending.saturating_add(1);
        out.push(Action::CallClose { generation, reason });
    }

    fn close_reply(&mut self, status: Option<Status>, out: &mut Actions) {
        self.close_pending = self.close_pending.saturating_sub(1);
        let no_round = matches!(status, Some(Status::State | Status::NoPeer));
        if self.own == Side::Closed && no_round && self.close_pending == 0 {
            // The host knows of no round: OPEN was not done, or the peer is gone.
            self.peer = Side::Closed;
        }
        self.finish(out);
        self.start(out);
    }

    /// Ends the round when both sides closed and all answers are there.
    fn finish(&mut self, out: &mut Actions) {
        let over = self.own == Side::Closed && self.peer == Side::Closed;
        if !over || self.is_pending() {
            return;
        }
        self.own = Side::Out;
        self.peer = Side::Out;
        out.push(Action::Reclaim);
        match core::mem::replace(&mut self.next, Side::Out) {
            Side::Open => self.on_peer_opened(out),
            Side::Closed => {
                self.peer = Side::Closed;
                self.call_close(Reason::PeerClosed, out);
            }
            _ => self.start(out),
        }
    }
}
