// SPDX-License-Identifier: GPL-2.0

//! Draining lanes: messages of peers to connections. Runs as bottom half.

use crate::accept::{Connect, What};
use crate::channel::Channel;
use crate::device::Device;
use crate::proto::wire::{Msg, Reason, LANE_MSGS};
use kernel::prelude::*;
use kernel::sync::atomic::ordering::*;
use kernel::sync::Arc;
use kernel::workqueue::{impl_has_work, WorkItem};

/// Messages of one peer before the next has its turn.
const BUDGET: u32 = LANE_MSGS;

impl_has_work! {
    impl HasWork<Self, 1> for Device { self.lane0 }
    impl HasWork<Self, 2> for Device { self.lane1 }
    impl HasWork<Self, 3> for Device { self.lane2 }
    impl HasWork<Self, 4> for Device { self.lane3 }
}

macro_rules! lane_work {
    ($($id:literal => $lane:literal),*) => {
        $(impl WorkItem<$id> for Device {
            type Pointer = Arc<Self>;

            fn run(this: Arc<Self>) {
                drain(&this, $lane);
            }
        })*
    };
}

lane_work!(1 => 0, 2 => 1, 3 => 2, 4 => 3);

fn drain(device: &Arc<Device>, lane: u32) {
    device.counters.lane_runs.add(1, Relaxed);
    let mut more = false;
    for channel in device.channels() {
        match drain_channel(device, &channel, lane) {
            Ok(again) => more |= again,
            Err(reason) => device.break_channel(&channel, reason),
        }
        channel.flush(device, lane);
    }
    if more {
        device.kick_lane(lane);
    }
}

/// Takes messages until there are none, or the peer had its share; then true.
fn drain_channel(device: &Arc<Device>, channel: &Arc<Channel>, lane: u32) -> Result<bool, Reason> {
    for _ in 0..BUDGET {
        match channel.pop(device, lane)? {
            Some(msg) => dispatch(device, channel, &msg)?,
            None if channel.rest(device, lane)? => {}
            None => return Ok(false),
        }
    }
    channel.publish(device, lane)?;
    Ok(true)
}

fn dispatch(device: &Arc<Device>, channel: &Arc<Channel>, msg: &Msg) -> Result<(), Reason> {
    device.counters.messages_received.add(1, Relaxed);
    let find = |id: u32| {
        let conn = device.connection(id)?;
        // An id of another peer's connection, or of an earlier round, is a message for nobody.
        Arc::ptr_eq(&conn.channel, channel).then_some(conn)
    };
    match *msg {
        Msg::Connect {
            peer_conn,
            src_port,
            dst_port,
            kind,
        } => device.queue_connect(Connect {
            channel: channel.clone(),
            peer_conn,
            what: What::Connect {
                src_port,
                dst_port,
                kind,
            },
        }),
        Msg::Carry(carry) => device.queue_carry(channel, carry),
        Msg::Accept { conn, peer_conn } => {
            if let Some(conn) = find(conn) {
                conn.on_accept(peer_conn)?;
            }
        }
        Msg::Refuse { conn, error } => {
            if let Some(conn) = find(conn) {
                conn.on_refuse(error)?;
            }
        }
        Msg::Ready { conn, data, space } => {
            if let Some(conn) = find(conn) {
                conn.on_ready(data, space);
            }
        }
        Msg::Done { conn } => {
            if let Some(conn) = find(conn) {
                conn.on_done()?;
            }
        }
    }
    Ok(())
}
