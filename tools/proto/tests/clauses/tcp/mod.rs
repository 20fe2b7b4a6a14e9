// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two ends of a TCP connection that is carried, while it is, against a model of
//! TCP: bytes in order, after any delay. Proposals, lane messages and the host's
//! events take their time too, and sides do things in any order.
//!
//! Two threads write at each end. One of them may be inside TCP's send function
//! when the direction is switched. What each wrote is read once and in order.

mod ends;
mod grants;
mod world;

use proptest::prelude::*;
use world::{Answer, World};

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A thread writes.
    Write(usize, u32),
    /// A thread grants so many frames.
    Grant(usize, u32),
    /// The reader takes the next grant, to read it later.
    Take,
    /// It gives the n-th back that it has.
    GiveBack(usize),
    /// The owner looks which frames are its own again.
    Collect,
    /// A thread enters TCP's send function with so many bytes.
    Enter(u32),
    /// It gets so many of them out.
    Inside(u32),
    Read(u32),
    /// Looks where the next byte is, but does not take it yet.
    Look,
    SleepRx,
    SleepTx,
    Switch,
    MoveRing,
    Back,
    Stop,
    Fin,
    Reset,
    Done,
    /// So many bytes come to this end by TCP.
    Tcp(u32),
    /// A lane message comes to this end.
    Lane,
    /// All of them do, and it looks at nothing meanwhile.
    Lanes,
    /// The host's event comes to this end.
    Event,
    Cut,
    /// After the channel's end: the entry is another connection's.
    Reuse,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop_oneof![1u32..16, 1u32..5000, 1u32..40_000];
    let rarely = |act, one_in| (0..one_in).prop_map(move |n| if n == 0 { act } else { Act::Done });
    prop_oneof![
        12 => (0usize..2, bytes()).prop_map(|(w, n)| Act::Write(w, n)),
        8 => (0usize..2, 1u32..4).prop_map(|(w, n)| Act::Grant(w, n)),
        5 => Just(Act::Take),
        3 => any::<usize>().prop_map(Act::GiveBack),
        2 => Just(Act::Collect),
        2 => bytes().prop_map(Act::Enter),
        2 => bytes().prop_map(Act::Inside),
        12 => bytes().prop_map(Act::Read),
        4 => Just(Act::Look),
        4 => Just(Act::SleepRx),
        4 => Just(Act::SleepTx),
        8 => Just(Act::Switch),
        3 => Just(Act::MoveRing),
        2 => rarely(Act::Back, 4),
        2 => rarely(Act::Stop, 4),
        1 => rarely(Act::Fin, 4),
        1 => rarely(Act::Reset, 20),
        1 => rarely(Act::Cut, 8),
        1 => rarely(Act::Reuse, 4),
        2 => Just(Act::Done),
        12 => bytes().prop_map(Act::Tcp),
        12 => Just(Act::Lane),
        3 => Just(Act::Lanes),
        3 => Just(Act::Event),
    ]
}

/// `early`: the proposal is answered before anything else. `eager`: frames are
/// overwritten as soon as they are back. `back`: FGDP is turned off before the end.
fn run(isn: [u32; 2], answer: Answer, acts: &[(bool, Act)], [early, eager, back]: [bool; 3]) {
    World::with(isn, answer, |mut w| {
        if early {
            w.lane(1);
            w.lane(0);
        }
        for &(second, act) in acts {
            let i = usize::from(second);
            match act {
                Act::Write(thread, n) => w.write(i, thread, n),
                Act::Grant(thread, n) => w.grant(i, thread, n),
                Act::Take => w.take(i),
                Act::GiveBack(n) => w.give_back(i, n),
                Act::Collect => w.collect(i),
                Act::Enter(n) => w.enter(i, n),
                Act::Inside(n) => w.inside(i, n),
                Act::Read(n) => w.read(i, n),
                Act::Look => w.look(i),
                Act::SleepRx => w.sleep_rx(i),
                Act::SleepTx => w.sleep_tx(i),
                Act::Switch => w.switch(i),
                Act::MoveRing => w.move_ring(i),
                Act::Back => w.back(i),
                Act::Stop => w.stop(i),
                Act::Fin => w.fin(i),
                Act::Reset => w.reset(i),
                Act::Done => w.done(i),
                Act::Tcp(n) => w.tcp(i, n),
                Act::Lane => w.lane(i),
                Act::Lanes => w.all_lanes(i),
                Act::Event => w.event(i),
                Act::Cut => w.cut(i),
                Act::Reuse => w.reuse(i),
            }
            if eager {
                w.collect(0);
                w.collect(1);
            }
        }
        if back {
            w.settle_back();
        }
        w.settle();
    });
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        8 => Just(Answer::Accept),
        1 => Just(Answer::Refuse),
        1 => Just(Answer::None),
    ]
}

fn isn() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0u32..60_000).prop_map(|n| 0u32.wrapping_sub(n))
    ]
}

proptest! {
    #![proptest_config(crate::cases(600))]

    #[test]
    fn t_1_to_t_17_each_byte_arrives_once_and_in_order(
        isn in [isn(), isn()],
        answer in answer(),
        flags in any::<[bool; 3]>(),
        acts in prop::collection::vec((any::<bool>(), act()), 1..300),
    ) {
        run(isn, answer, &acts, flags);
    }
}
