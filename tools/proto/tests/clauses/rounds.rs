// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Rounds of a channel, one side's script each.

use fgdp_proto::proto::ctrl::{Action, Channel, Input};
use fgdp_proto::proto::wire::{PeerState, Reason, Status};

fn ready(generation: u32) -> Input {
    let state = PeerState::Ready;
    Input::Directory { state, generation }
}

/// Feeds a channel to a peer of generation 1, which wants to open, and compares
/// what comes back.
pub fn script(steps: &[(Input, &[Action])]) -> Channel {
    let mut c = Channel::new();
    assert!(c.handle(ready(1)).is_empty());
    let open = [Action::Prepare, Action::CallOpen { generation: 1 }];
    let want = (Input::Want, &open[..]);
    for (n, &(input, actions)) in [want].iter().chain(steps).enumerate() {
        let got: Vec<_> = c.handle(input).iter().collect();
        assert_eq!(got, actions, "step {n}: {input:?}");
    }
    c
}

pub const CLOSED: Input = Input::PeerClosed {
    generation: 1,
    reason: Reason::None,
};

#[test]
fn t_14_the_peer_is_known_to_have_closed_when_both_have() {
    let up: [(Input, &[Action]); 2] = [
        (Input::OpenReply(Status::Ok), &[]),
        (
            Input::PeerOpened { generation: 1 },
            &[Action::PeerReady, Action::Up],
        ),
    ];
    let end: (Input, &[Action]) = (
        Input::End(Reason::BadLane),
        &[Action::Down(Reason::BadLane), close(Reason::BadLane)],
    );
    let closed: (Input, &[Action]) = (
        CLOSED,
        &[Action::Down(Reason::PeerClosed), close(Reason::PeerClosed)],
    );
    let done: (Input, &[Action]) = (Input::CloseReply(Status::Ok), &[]);
    let over: (Input, &[Action]) = (Input::CloseReply(Status::Ok), &[Action::Reclaim]);
    // This side first.
    let c = script(&[&up[..], &[end, done]].concat());
    assert!(!c.peer_closed());
    let told: (Input, &[Action]) = (CLOSED, &[Action::Reclaim]);
    let mut c = script(&[&up[..], &[end, done, told]].concat());
    assert!(c.peer_closed() && c.is_quiet());
    // Not of the next round.
    c.handle(Input::Want);
    c.handle(Input::OpenReply(Status::Ok));
    c.handle(Input::PeerOpened { generation: 1 });
    assert!(c.is_up() && !c.peer_closed());
    // The peer first.
    let c = script(&[&up[..], &[closed]].concat());
    assert!(c.peer_closed());
    let c = script(&[&up[..], &[closed, over]].concat());
    assert!(c.peer_closed());
    // Nobody knows what is in a slot that was cleared.
    for generation in [2, 3] {
        let mut c = script(&[&up[..], &[end]].concat());
        c.handle(ready(generation));
        assert!(!c.peer_closed());
    }
    let gone: (Input, &[Action]) = (Input::CloseReply(Status::NoPeer), &[Action::Reclaim]);
    let c = script(&[&up[..], &[end, gone]].concat());
    assert!(!c.peer_closed());
}

pub fn close(reason: Reason) -> Action {
    Action::CallClose {
        generation: 1,
        reason,
    }
}

#[test]
fn c_9_an_open_that_the_host_finds_done_is_followed_by_close() {
    let c = script(&[
        (
            Input::OpenReply(Status::State),
            &[Action::Down(Reason::PeerClosed), close(Reason::PeerClosed)],
        ),
        (Input::CloseReply(Status::Ok), &[]),
        (CLOSED, &[Action::Reclaim]),
    ]);
    assert!(c.is_quiet());
}

#[test]
fn c_9_after_a_close_without_an_answer_the_peers_is_awaited() {
    let lost: [(Input, &[Action]); 3] = [
        (Input::OpenReply(Status::Ok), &[]),
        (
            Input::End(Reason::BadLane),
            &[Action::Down(Reason::BadLane), close(Reason::BadLane)],
        ),
        (Input::CloseLost, &[]),
    ];
    // The peer may read until it has closed.
    let c = script(&lost);
    assert!(!c.is_quiet());
    let closed: [(Input, &[Action]); 1] = [(CLOSED, &[Action::Reclaim])];
    assert!(script(&[&lost[..], &closed].concat()).is_quiet());
}
