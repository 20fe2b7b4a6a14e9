// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two channel machines and the host's record, with calls, answers and events
//! on their way in any order that queues allow, and guests that die.

use std::collections::VecDeque;

use fgdp_proto::proto::ctrl::{Action, Channel, Input, Member, Pair};
use fgdp_proto::proto::wire::{ChanHdr, ChanState, PeerState, Reason, Status};
use proptest::prelude::*;

use crate::rounds::{close, script, CLOSED};

#[derive(Clone, Copy, Debug)]
enum Step {
    Want(usize),
    Host(usize),
    Reply(usize),
    Event(usize),
    End(usize, Reason),
    Timeout(usize),
    Reboot(usize),
    Lose(usize),
    /// The oldest call that is not answered is given up: its answer is lost, or
    /// it has not come to the host yet.
    GiveUp(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0usize..2;
    let reason = prop_oneof![
        Just(Reason::BadLane),
        Just(Reason::None),
        Just(Reason::Host)
    ];
    prop_oneof![
        6 => who().prop_map(Step::Want),
        20 => who().prop_map(Step::Host),
        20 => who().prop_map(Step::Reply),
        20 => who().prop_map(Step::Event),
        3 => (who(), reason).prop_map(|(w, r)| Step::End(w, r)),
        2 => who().prop_map(Step::Timeout),
        1 => who().prop_map(Step::Reboot),
        1 => who().prop_map(Step::Lose),
        2 => who().prop_map(Step::GiveUp),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Open(u32),
    Close(u32, Reason),
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Peer,
    Opened(u32),
    Closed(u32, Reason),
    Lost,
}

struct Guest {
    channel: Channel,
    generation: u32,
    hdr: ChanHdr,
    /// Times that the own area was made new.
    epoch: u32,
    /// Called CLOSE since it last read.
    closed: bool,
    /// Looks at the peer's lanes, in those epochs of both areas.
    reading: Option<(u32, u32)>,
    /// OPEN was given up, and the round has not ended since.
    open_lost: bool,
    /// With true: given up.
    calls: VecDeque<(Call, bool)>,
    replies: VecDeque<Input>,
    events: VecDeque<Event>,
}

impl Guest {
    fn new(generation: u32) -> Self {
        Guest {
            channel: Channel::new(),
            generation,
            hdr: ChanHdr {
                state: ChanState::Closed,
                peer_generation: 0,
                reason: Reason::None,
            },
            epoch: generation * 1000,
            closed: false,
            reading: None,
            open_lost: false,
            calls: VecDeque::new(),
            replies: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
}

struct World {
    guests: [Guest; 2],
    pair: Pair,
    /// Calls were given up.
    lossy: bool,
}

const MEMBER: [Member; 2] = [Member::First, Member::Second];

impl World {
    fn new() -> Self {
        let mut w = World {
            guests: [Guest::new(1), Guest::new(1)],
            pair: Pair::new(),
            lossy: false,
        };
        w.read_directory(0);
        w.read_directory(1);
        w
    }

    fn feed(&mut self, i: usize, input: Input) {
        let actions = self.guests[i].channel.handle(input);
        assert!(actions.iter().count() < 6, "no room for another action");
        for action in actions.iter() {
            self.act(i, action);
        }
        let up = self.guests[i].channel.is_up();
        assert_eq!(up, self.guests[i].reading.is_some());
        assert!(!up || self.guests[i].channel.takes_frames());
    }

    fn act(&mut self, i: usize, action: Action) {
        let peer_reading = self.guests[1 - i].reading;
        let peer_epoch = self.guests[1 - i].epoch;
        let peer_generation = self.guests[1 - i].generation;
        let peer_closed = self.guests[1 - i].closed;
        let known = self.guests[i].channel.generation();
        let g = &mut self.guests[i];
        match action {
            Action::Prepare => {
                assert!(peer_reading.is_none(), "made new under the reader's eyes");
                assert!(g.reading.is_none());
                g.epoch += 1;
                g.hdr = ChanHdr {
                    state: ChanState::Open,
                    peer_generation: known.unwrap(),
                    reason: Reason::None,
                };
            }
            Action::CallOpen { generation } => g.calls.push_back((Call::Open(generation), false)),
            Action::CallClose { generation, reason } => {
                assert!(g.reading.is_none(), "closed while reading");
                g.closed = true;
                g.calls.push_back((Call::Close(generation, reason), false));
            }
            Action::PeerReady => {}
            Action::Up => {
                assert!(g.reading.is_none());
                g.reading = Some((g.epoch, peer_epoch));
                g.closed = false;
                // The peer reads: it reads the same two areas.
                if let (Some((p, o)), true) = (peer_reading, known == Some(peer_generation)) {
                    assert_eq!((o, p), (g.epoch, peer_epoch));
                }
            }
            Action::Down(reason) => {
                g.reading = None;
                g.hdr.state = if reason.is_violation() {
                    ChanState::Broken
                } else {
                    ChanState::Closed
                };
                g.hdr.reason = reason;
            }
            Action::Reclaim => {
                assert!(peer_reading.is_none(), "frames taken from the reader");
                g.open_lost = false;
                // Its last words are final.
                assert!(!g.channel.peer_closed() || peer_closed || known != Some(peer_generation));
            }
        }
    }

    fn read_directory(&mut self, i: usize) {
        let generation = self.guests[1 - i].generation;
        let state = PeerState::Ready;
        self.feed(i, Input::Directory { state, generation });
    }

    fn host(&mut self, i: usize) {
        let Some((call, given_up)) = self.guests[i].calls.pop_front() else {
            return;
        };
        let own = self.guests[i].generation;
        let peer = self.guests[1 - i].generation;
        let (reply, event) = match call {
            Call::Open(g) if g != peer => (Input::OpenReply(Status::NoPeer), None),
            Call::Close(g, _) if g != peer => (Input::CloseReply(Status::NoPeer), None),
            Call::Open(_) => match self.pair.open(MEMBER[i]) {
                Ok(()) => (Input::OpenReply(Status::Ok), Some(Event::Opened(own))),
                Err(status) => (Input::OpenReply(status), None),
            },
            Call::Close(_, reason) => match self.pair.close(MEMBER[i]) {
                Ok(_) => (
                    Input::CloseReply(Status::Ok),
                    Some(Event::Closed(own, reason)),
                ),
                Err(status) => (Input::CloseReply(status), None),
            },
        };
        if !given_up {
            self.guests[i].replies.push_back(reply);
        }
        self.guests[1 - i].events.extend(event);
    }

    fn give_up(&mut self, i: usize) {
        let g = &mut self.guests[i];
        let next = g.replies.front().copied().or_else(|| {
            let (call, _) = g.calls.iter().find(|(_, given_up)| !given_up)?;
            Some(match call {
                Call::Open(_) => Input::OpenLost,
                Call::Close(..) => Input::CloseLost,
            })
        });
        let open = matches!(next, Some(Input::OpenReply(_) | Input::OpenLost));
        if !open && g.open_lost {
            // It has no host then.
            return;
        }
        g.open_lost |= open;
        let lost = match g.replies.pop_front() {
            Some(Input::OpenReply(_)) => Input::OpenLost,
            Some(_) => Input::CloseLost,
            None => match g.calls.iter_mut().find(|(_, given_up)| !given_up) {
                Some((call, given_up)) => {
                    *given_up = true;
                    match call {
                        Call::Open(_) => Input::OpenLost,
                        Call::Close(..) => Input::CloseLost,
                    }
                }
                None => return,
            },
        };
        self.lossy = true;
        self.feed(i, lost);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::GiveUp(i) => self.give_up(i),
            Step::Want(i) => self.feed(i, Input::Want),
            Step::Host(i) => self.host(i),
            Step::Reply(i) => {
                if let Some(reply) = self.guests[i].replies.pop_front() {
                    self.feed(i, reply);
                }
            }
            Step::Event(i) => match self.guests[i].events.pop_front() {
                None => {}
                Some(Event::Peer) => self.read_directory(i),
                Some(Event::Lost) => {
                    self.feed(i, Input::End(Reason::Host));
                    self.read_directory(i);
                }
                Some(Event::Opened(generation)) => {
                    self.feed(i, Input::PeerOpened { generation });
                }
                Some(Event::Closed(generation, reason)) => {
                    self.feed(i, Input::PeerClosed { generation, reason });
                }
            },
            Step::Lose(i) => {
                // Never those of channels.
                let events = &mut self.guests[i].events;
                events.retain(|e| matches!(e, Event::Opened(_) | Event::Closed(..)));
                events.push_back(Event::Lost);
            }
            Step::End(i, reason) => self.feed(i, Input::End(reason)),
            Step::Timeout(i) => self.feed(i, Input::Timeout),
            Step::Reboot(i) => {
                // The slot is cleared, the generation changes, the host forgets.
                let generation = self.guests[i].generation + 1;
                self.guests[i] = Guest::new(generation);
                self.pair = Pair::new();
                self.guests[1 - i].events.push_back(Event::Peer);
                self.read_directory(i);
            }
        }
    }

    /// Everything that is on its way arrives, and who waits for the other side is
    /// told when it has waited enough.
    fn settle_in_time(&mut self) {
        for _ in 0..20 {
            self.settle();
            let waits = [0, 1].map(|i| self.guests[i].channel.is_opening());
            if waits == [false; 2] {
                return;
            }
            for i in (0..2).filter(|&i| waits[i]) {
                self.step(Step::Timeout(i));
            }
        }
        panic!("waits for ever");
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        for _ in 0..100 {
            let mut idle = true;
            for i in 0..2 {
                let g = &self.guests[i];
                idle &= g.calls.is_empty() && g.replies.is_empty() && g.events.is_empty();
                self.step(Step::Host(i));
                self.step(Step::Reply(i));
                self.step(Step::Event(i));
            }
            if idle {
                return;
            }
        }
        panic!("calls and events without end");
    }
}

fn run(steps: &[Step]) {
    let mut w = World::new();
    for &step in steps {
        // A guest that reads when the other reboots is told soon; until then its
        // reading is harmless: the new one resets nothing that it can see as open.
        if let Step::Reboot(i) = step {
            w.step(step);
            w.guests[1 - i].events.retain(|e| matches!(e, Event::Peer));
            w.step(Step::Event(1 - i));
            continue;
        }
        w.step(step);
    }
    if w.lossy {
        w.settle_in_time();
    }
    w.settle();
    let up = [0, 1].map(|i| w.guests[i].channel.is_up());
    let quiet = [0, 1].map(|i| w.guests[i].channel.is_quiet());
    assert!(
        up == [true; 2] || quiet == [true; 2],
        "stuck: {up:?} {quiet:?}"
    );
    // And it can be opened again.
    w.step(Step::Want(0));
    w.settle();
    let up = |i: &usize| w.guests[*i].channel.is_up();
    assert!([0, 1].iter().all(up), "does not open again");
}

proptest! {
    #![proptest_config(crate::cases(2000))]

    #[test]
    fn c_3_to_c_7_channel_opens_ends_and_opens_again(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(&steps);
    }
}

#[test]
fn c_8_a_side_that_goes_refuses_to_open() {
    let mut w = World::new();
    w.step(Step::End(0, Reason::Unload));
    w.step(Step::Want(1));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_quiet()));
    assert_eq!(w.guests[1].hdr.reason, Reason::PeerClosed);
    w.step(Step::Want(0));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_quiet()));
}

#[test]
fn c_6_nothing_is_called_for_a_generation_that_is_gone() {
    let mut c = Channel::new();
    assert!(c.handle(Input::Want).is_empty());
    let ready = |generation| Input::Directory {
        state: PeerState::Ready,
        generation,
    };
    assert!(c.handle(ready(1)).is_empty());
    let got: Vec<_> = c.handle(Input::Want).iter().collect();
    assert_eq!(got, [Action::Prepare, Action::CallOpen { generation: 1 }]);
    let got: Vec<_> = c.handle(ready(2)).iter().collect();
    assert_eq!(got, [Action::Down(Reason::Generation), Action::Reclaim]);
    // The answer to the old call is awaited before the next one.
    assert!(c.handle(Input::Want).is_empty());
    let got: Vec<_> = c.handle(Input::OpenReply(Status::NoPeer)).iter().collect();
    assert_eq!(got, [Action::Prepare, Action::CallOpen { generation: 2 }]);
    let stale = Input::PeerOpened { generation: 1 };
    assert!(c.handle(stale).is_empty());
    assert!(c.is_opening() && !c.takes_frames());
}

#[test]
fn c_7_a_side_that_alone_opened_gives_up_in_time() {
    let c = script(&[
        (Input::OpenReply(Status::Ok), &[]),
        (
            Input::Timeout,
            &[Action::Down(Reason::Timeout), close(Reason::Timeout)],
        ),
        // The round ends when the other side has closed too.
        (Input::Timeout, &[]),
        (Input::CloseReply(Status::Ok), &[]),
        (CLOSED, &[Action::Reclaim]),
    ]);
    assert!(c.is_quiet());
    // A channel that is up has nothing to wait for.
    let opened = Input::PeerOpened { generation: 1 };
    script(&[
        (Input::OpenReply(Status::Ok), &[]),
        (opened, &[Action::PeerReady, Action::Up]),
        (Input::Timeout, &[]),
    ]);
    // Between guests, one of which is deaf for a while.
    let mut w = World::new();
    w.step(Step::Want(0));
    w.step(Step::Host(0));
    w.step(Step::Reply(0));
    assert!(w.guests[0].channel.is_opening());
    w.step(Step::Timeout(0));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_quiet()));
    assert_eq!(w.guests[0].hdr.reason, Reason::Timeout);
    w.step(Step::Want(1));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_up()));
}

#[test]
fn c_9_an_open_without_an_answer_is_followed_by_close() {
    let c = script(&[
        (
            Input::OpenLost,
            &[Action::Down(Reason::Host), close(Reason::Host)],
        ),
        // The host had not done it.
        (Input::CloseReply(Status::State), &[Action::Reclaim]),
    ]);
    assert!(c.is_quiet());
    // The call comes to the host when this side has given it up.
    let mut w = World::new();
    w.step(Step::Want(0));
    w.step(Step::GiveUp(0));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_quiet()));
    w.step(Step::Want(0));
    w.settle();
    assert!(w.guests.iter().all(|g| g.channel.is_up()));
}
