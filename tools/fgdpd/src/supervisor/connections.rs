// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who connects: QEMUs to devices and to the doorbell servers.

use std::io;

use tracing::{error, info, warn};

use super::{Supervisor, BELL, BELL_LISTENER, DEVICE, DEVICE_LISTENER, ROOM};
use crate::link::ToWorker;
use crate::sys::SharedFd;
use crate::vfio::session::Step;
use crate::worker::worth_a_line;

/// Whether there are descriptors for another connection.
fn has_room(fd: &SharedFd) -> io::Result<()> {
    (0..ROOM)
        .map(|_| fd.try_clone())
        .collect::<io::Result<Vec<_>>>()
        .map(drop)
}

impl Supervisor {
    pub(super) fn accept_device(&mut self, dev: u32) {
        // A QEMU that ended may still have its end in the queue.
        self.hear_qemu(dev);
        self.next_serial += 1;
        let serial = self.next_serial;
        let Some(device) = self.devices.get_mut(&dev) else {
            return;
        };
        let accepted = has_room(&self.state).and_then(|()| device.accept(serial));
        match accepted {
            Ok(false) => return,
            Ok(true) => (),
            Err(e) => return self.refrain(&e),
        }
        let Some(session) = &device.session else {
            return;
        };
        let pid = session.pid;
        if let Err(e) = self
            .poller
            .add(&session.conn, DEVICE | u64::from(dev), false)
        {
            error!(guest = %device.label, "connection not watched: {e}");
            device.session = None;
            return;
        }
        self.tell_worker(&ToWorker::Attached { dev, serial, pid }, &[]);
    }

    /// Connections cannot be taken. They wait, and so does the daemon: a listening socket that is watched would wake
    /// it without end.
    fn refrain(&mut self, e: &io::Error) {
        self.refrained = self.refrained.saturating_add(1);
        if worth_a_line(self.refrained) {
            let times = self.refrained;
            error!(times, "connections wait: {e}; raise LimitNOFILE (ulimit -n) if descriptors are short, else free memory");
        }
        self.watch_listeners(false);
    }

    /// Watches the listening sockets, or not.
    pub(super) fn watch_listeners(&mut self, on: bool) {
        self.refraining = !on;
        let devices = self
            .devices
            .iter()
            .map(|(dev, d)| (&d.listener.socket, DEVICE_LISTENER | u64::from(*dev)));
        let bells = self.groups.iter().zip(0u64..).filter_map(|(g, index)| {
            let bell = g.bell.as_ref()?;
            Some((&bell.listener, BELL_LISTENER | index))
        });
        for (socket, token) in devices.chain(bells) {
            if let Err(e) = self.poller.modify(socket, token, on, false) {
                warn!("listening socket not watched: {e}");
            }
        }
    }

    pub(super) fn hear_qemu(&mut self, dev: u32) {
        loop {
            let Some(device) = self.devices.get_mut(&dev) else {
                return;
            };
            let Some(session) = &mut device.session else {
                return;
            };
            if session.outstanding.is_some() {
                return;
            }
            let step = session.conn.receive().and_then(|msg| match msg {
                None => Ok(None),
                Some(msg) => session
                    .handle(msg, &device.regions, &mut self.next_id)
                    .map(Some),
            });
            match step {
                Ok(None) => return,
                Ok(Some(Step::Done)) => (),
                Ok(Some(Step::Forward)) => self.hand_over(dev),
                Ok(Some(Step::Kick(queue))) => {
                    session.kicks |= 1u32.checked_shl(queue).unwrap_or(0);
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.detach(dev, "detached")
                }
                Err(e) => {
                    warn!(guest = %device.label, "vfio-user connection broken: {e}");
                    return self.detach(dev, "detached");
                }
            }
        }
    }

    pub(super) fn detach(&mut self, dev: u32, why: &str) {
        let Some(device) = self.devices.get_mut(&dev) else {
            return;
        };
        if device.session.take().is_some() {
            info!(guest = %device.label, "{why}");
            self.tell_worker(&ToWorker::Detached { dev }, &[]);
        }
    }

    pub(super) fn accept_bell(&mut self, group: u32) {
        let Some(bell) = self
            .groups
            .get_mut(group as usize)
            .and_then(|g| g.bell.as_mut())
        else {
            return;
        };
        match has_room(&self.state).and_then(|()| bell.accept()) {
            Ok(None) => return,
            Err(e) => return self.refrain(&e),
            Ok(Some(id)) => {
                let token = BELL | (u64::from(group) << 32) | u64::from(id);
                if let Some(Err(e)) = bell.client(id).map(|fd| self.poller.add(fd, token, false)) {
                    error!(group, id, "doorbell device not watched: {e}");
                }
            }
        }
        let ids = bell.ids();
        self.tell_worker(&ToWorker::Doorbells { group, ids }, &[]);
    }

    pub(super) fn poll_bell(&mut self, group: u32, id: u32) {
        let Some(bell) = self
            .groups
            .get_mut(group as usize)
            .and_then(|g| g.bell.as_mut())
        else {
            return;
        };
        if bell.poll(id) {
            let ids = bell.ids();
            self.tell_worker(&ToWorker::Doorbells { group, ids }, &[]);
        }
    }
}
