// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's root can say to a peer in its module's place: lane messages about connections that it may not own.
//!
//! Every member reads the whole group, and writes its own slot. So it can take over the words of another member's proposal
//! to carry a TCP connection, and say them itself.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use clap::{Args, Subcommand};
use fgdp_proto::proto::mem::{Mem, View};
use fgdp_proto::proto::ring::{LaneRx, LaneTx};
use fgdp_proto::proto::wire::{
    lane, lane_area, Carry, DirEntry, Msg, Refusal, LANE_MSGS, LANE_MSGS_OFFSET, MSG_SIZE,
    MSG_WORDS, NO_IVSHMEM,
};
use nix::errno::Errno;

use crate::bar::{directory, ring, Memory};
use crate::net::{parse_guest, GuestId, Net};
use crate::sock::Sock;

/// How long a peer may take for what it does at once, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lane that is used: guests with one CPU have no other.
const LANE: u32 = 0;

#[derive(Subcommand)]
pub enum Forge {
    /// Print the last proposal that a guest has made to another one for a TCP connection
    Capture {
        #[command(flatten)]
        about: About,
        /// The guest that proposed
        #[arg(long, value_parser = parse_guest)]
        from: GuestId,
        /// The guest to which it did
        #[arg(long, value_parser = parse_guest)]
        to: GuestId,
    },
    /// Send a proposal to a guest and print the answer
    Send {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        change: Change,
        /// The module will end the channel for the answer: do not bring it back in step
        #[arg(long)]
        last: bool,
        /// As printed by `capture`
        proposal: String,
    },
    /// Wait until a guest proposes a TCP connection to another one, and accept it in that one's place
    Accept {
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        ends: Ends,
        /// The guest to which it is proposed
        #[arg(long, value_parser = parse_guest)]
        of: GuestId,
        /// Connection id to accept it with
        #[arg(long)]
        id: u32,
    },
}

/// A TCP connection, as its active opener sees it.
#[derive(Args)]
pub struct About {
    /// The port that was connected to
    #[arg(long)]
    port: u16,
}

/// Who speaks to whom.
#[derive(Args)]
pub struct Ends {
    /// This guest
    #[arg(long, value_parser = parse_guest)]
    own: GuestId,
    /// The guest that is spoken to
    #[arg(long, value_parser = parse_guest)]
    to: GuestId,
    /// Number of AF_FGDP
    #[arg(long, default_value_t = 18)]
    number: u8,
}

/// What is not as in the captured proposal.
#[derive(Args)]
pub struct Change {
    /// Another connection id
    #[arg(long)]
    id: Option<u32>,
    /// Another address of the sender
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// Another port of the sender
    #[arg(long)]
    source_port: Option<u16>,
    /// Another port of the receiver
    #[arg(long)]
    port: Option<u16>,
    /// Added to the sender's sequence number
    #[arg(long, default_value_t = 0)]
    source_seq: u32,
    /// Added to the receiver's sequence number
    #[arg(long, default_value_t = 0)]
    seq: u32,
}

impl Change {
    fn apply(&self, carry: &mut Carry) {
        carry.peer_conn = self.id.unwrap_or(carry.peer_conn);
        if let Some(address) = self.address {
            carry.src_addr = address.to_ipv6_mapped().octets();
        }
        carry.src_port = self.source_port.unwrap_or(carry.src_port);
        carry.dst_port = self.port.unwrap_or(carry.dst_port);
        carry.src_isn = carry.src_isn.wrapping_add(self.source_seq);
        carry.dst_isn = carry.dst_isn.wrapping_add(self.seq);
    }
}

/// The group's memory, and who is in it.
struct Group {
    slot: Memory,
    group: Memory,
    members: Vec<(u32, DirEntry)>,
}

/// A member's slot number, and what the host says about it.
type Member<'a> = &'a (u32, DirEntry);

impl Group {
    fn new() -> Result<Self> {
        let group = Memory::group()?;
        let members = directory(&group)?;
        let slot = Memory::slot()?;
        Ok(Self {
            slot,
            group,
            members,
        })
    }

    fn member(&self, guest: &GuestId) -> Result<Member> {
        self.members
            .iter()
            .find(|(_, entry)| entry.guest_id == *guest)
            .context("no such guest in the group")
    }

    /// What `own` sees of a channel to `peer`; of another member's channel it can only read the peer's side.
    fn view(&self, own: Member, peer: Member) -> View<Memory, Memory> {
        View {
            slot: &self.slot,
            window: &self.group,
            slot_base: own.1.slot_offset,
            peer_base: peer.1.slot_offset,
            peer_size: peer.1.slot_size,
        }
    }

    /// The messages from `from` to `to` from here on.
    fn watch(&self, from: Member, to: Member) -> (View<Memory, Memory>, LaneRx) {
        let view = self.view(to, from);
        let tail = view.peer_load_acquire(lane_area(to.0, LANE) + lane::TAIL);
        (view, LaneRx::starting_at(from.0, to.0, LANE, tail))
    }

    /// The last proposal from `from` to `to` for the connection, if its message is still in the lane.
    fn captured(&self, from: Member, to: Member, about: &About) -> Result<Option<Carry>> {
        let view = self.view(to, from);
        let tail = view.peer_load_acquire(lane_area(to.0, LANE) + lane::TAIL);
        // Half of the lane: nobody writes there while it is read.
        let first = tail.wrapping_sub(tail.min(LANE_MSGS / 2));
        let mut lane = LaneRx::starting_at(from.0, to.0, LANE, first);
        let mut last = None;
        let broken = |reason| anyhow!("the lane is broken: {reason:?}");
        while let Some(msg) = lane.pop(&view).map_err(broken)? {
            if let Msg::Carry(carry) = msg {
                if carry.dst_port == about.port {
                    last = Some(carry);
                }
            }
        }
        Ok(last)
    }
}

/// Repeats `look` until it has seen something.
fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        ensure!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A lane to a peer, used behind the module's back.
struct Lane<'a> {
    view: View<'a, Memory, Memory>,
    own: Member<'a>,
    peer: Member<'a>,
    /// Messages that the module, as far as it knows, has published.
    tail: u32,
}

impl<'a> Lane<'a> {
    /// The lane from `own` to `peer`, when both have had all messages: the module is not about to write to it.
    fn new(group: &'a Group, ends: &Ends) -> Result<Self> {
        let (own, peer) = (group.member(&ends.own)?, group.member(&ends.to)?);
        ensure!(
            own.1.lanes == 1 || peer.1.lanes == 1,
            "this wants guests with one lane"
        );
        ensure!(
            peer.1.ivshmem_id != NO_IVSHMEM,
            "the peer has no doorbell device"
        );
        let mut lane = Self {
            view: group.view(own, peer),
            own,
            peer,
            tail: 0,
        };
        let quiet = || Ok((lane.published() == lane.taken()).then(|| lane.published()));
        lane.tail = wait("the peer takes what was sent before", quiet)?;
        Ok(lane)
    }

    fn published(&self) -> u32 {
        let at = lane_area(self.peer.0, LANE) + lane::TAIL;
        self.view.slot.load_acquire(at)
    }

    fn taken(&self) -> u32 {
        let at = lane_area(self.own.0, LANE) + lane::HEAD;
        self.view.peer_load_acquire(at)
    }

    /// Publishes `msg` and waits until the peer has taken it.
    fn send(&self, msg: &Msg) -> Result<()> {
        let mut tx = LaneTx::starting_at(self.peer.0, self.own.0, LANE, self.tail);
        let rings = tx
            .push(&self.view, msg)
            .map_err(|e| anyhow!("the lane is broken: {e:?}"))?;
        if rings {
            ring(self.peer.1.ivshmem_id, LANE)?;
        }
        let behind = self.tail.wrapping_add(1);
        wait("the peer takes the message", || {
            Ok((self.taken() == behind).then_some(()))
        })
    }

    /// The module's next message is lost, because the peer has taken another one from its place: lets it be a CONNECT for which
    /// nobody waits.
    fn step(&self, ends: &Ends) -> Result<()> {
        let net = Net::Fgdp {
            family: ends.number,
            peer: ends.to,
        };
        let sock = Sock::new(net.domain(), libc::SOCK_STREAM).context("socket")?;
        sock.set_nonblocking(true)?;
        match sock.connect(&net.remote(1)) {
            Err(Errno::EINPROGRESS) => {}
            other => bail!("connect ended with {other:?}"),
        }
        let place = u64::from(self.tail % LANE_MSGS) * MSG_SIZE;
        let at = lane_area(self.peer.0, LANE) + LANE_MSGS_OFFSET + place;
        wait("the module sends its next message", || {
            let mut words = [0; MSG_WORDS];
            for (word, at) in words.iter_mut().zip((at..).step_by(4)) {
                *word = self.view.slot.load(at);
            }
            Ok(matches!(Msg::decode(&words), Ok(Msg::Connect { .. })).then_some(()))
        })
    }
}

/// What the next messages say to the proposal whose sender has the connection `id`: a refusal, or none.
fn said(
    view: &View<Memory, Memory>,
    lane: &mut LaneRx,
    id: u32,
) -> Result<Option<Option<Refusal>>> {
    while let Some(msg) = lane
        .pop(view)
        .map_err(|reason| anyhow!("the lane is broken: {reason:?}"))?
    {
        match msg {
            Msg::Refuse { conn, error } if conn == id => return Ok(Some(Some(error))),
            Msg::Accept { conn, .. } if conn == id => return Ok(Some(None)),
            _ => {}
        }
    }
    Ok(None)
}

fn to_text(carry: &Carry) -> String {
    let words = Msg::Carry(*carry).encode();
    words.map(|word| format!("{word:08x}")).join(",")
}

fn from_text(text: &str) -> Result<Carry> {
    let words: Vec<u32> = text
        .split(',')
        .map(|word| u32::from_str_radix(word, 16))
        .collect::<Result<_, _>>()
        .context("give what `capture` has printed")?;
    let words: [u32; MSG_WORDS] = words
        .try_into()
        .map_err(|_| anyhow!("a message has {MSG_WORDS} words"))?;
    match Msg::decode(&words) {
        Ok(Msg::Carry(carry)) => Ok(carry),
        other => bail!("no proposal: {other:?}"),
    }
}

/// Does what was asked; prints what came of it.
pub fn forge(what: &Forge) -> Result<()> {
    let group = Group::new()?;
    match what {
        Forge::Capture { about, from, to } => {
            let (from, to) = (group.member(from)?, group.member(to)?);
            let carry = group.captured(from, to, about)?;
            println!("{}", to_text(&carry.context("there is no such proposal")?));
        }
        Forge::Send {
            ends,
            change,
            last,
            proposal,
        } => {
            let mut carry = from_text(proposal)?;
            change.apply(&mut carry);
            let lane = Lane::new(&group, ends)?;
            let (view, mut answers) = group.watch(lane.peer, lane.own);
            lane.send(&Msg::Carry(carry))?;
            if !last {
                lane.step(ends)?;
            }
            println!("sent");
            let answer = || said(&view, &mut answers, carry.peer_conn);
            match wait("the peer answers", answer)? {
                Some(refusal) => println!("{refusal:?}"),
                None => println!("accepted"),
            }
        }
        Forge::Accept {
            about,
            ends,
            of,
            id,
        } => {
            let lane = Lane::new(&group, ends)?;
            let of = group.member(of)?;
            let (view, mut true_answers) = group.watch(of, lane.peer);
            let old = group.captured(lane.peer, of, about)?;
            println!("waits");
            let carry = wait("a proposal", || {
                let now = group.captured(lane.peer, of, about)?;
                Ok(now.filter(|_| now != old))
            })?;
            lane.send(&Msg::Accept {
                conn: carry.peer_conn,
                peer_conn: *id,
            })?;
            ensure!(
                said(&view, &mut true_answers, carry.peer_conn)?.is_none(),
                "the true answer was faster"
            );
            println!("accepted for {:#x}", carry.peer_conn);
            lane.step(ends)?;
        }
    }
    Ok(())
}
