// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The worker's life: it is started and told everything, heard, asked whether it is still there, replaced.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, error, info, warn};

use super::child::Child;
use super::{sd_notify_quietly, Supervisor, LINK, SPARE_DESCRIPTORS, TICK};
use crate::link::{ToSupervisor, ToWorker};
use crate::sys::SharedFd;
use crate::vfio::session::Session;
use crate::worker::worth_a_line;

/// Ticks in which the worker may say nothing although it was asked. It does nothing that takes long, but there may be
/// a hundred others that want its processor.
const MAX_SILENCE: u32 = 4;
/// A worker that lives shorter than this dies at once.
const SHORT_LIFE: Duration = Duration::from_millis(200);
/// After so many that died at once there is a pause before the next.
const PATIENCE: u32 = 5;
/// If no worker can be started, the next try.
const RETRY: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Starts a worker; the first one must start.
    pub(super) fn start_worker(&mut self) -> Result<()> {
        self.next_start = None;
        self.spare.clear();
        let mut child = Child::start(&self.options)?;
        let result = self.introduce(&mut child);
        self.put_descriptors_by();
        if let Err(e) = result {
            child.end();
            return Err(e);
        }
        self.child = Some(child);
        let devs: Vec<u32> = self.devices.keys().copied().collect();
        for dev in devs {
            self.hand_over(dev);
        }
        Ok(())
    }

    /// Starts another worker, if not now, then soon.
    pub(super) fn replace_worker(&mut self) {
        if let Err(e) = self.start_worker() {
            self.start_failures = self.start_failures.saturating_add(1);
            if worth_a_line(self.start_failures) {
                let times = self.start_failures;
                error!(times, "no worker; guests wait: {e:#}");
            }
            self.next_start = Some(Instant::now() + RETRY);
        }
    }

    /// Tells a worker all that there is.
    fn introduce(&mut self, child: &mut Child) -> Result<()> {
        self.poller.add(&child.link, LINK, false)?;
        child.link.send(
            &ToWorker::Hello {
                restarts: self.starts,
            },
            &[self.state.clone(), self.control.clone()],
        )?;
        self.starts = self.starts.saturating_add(1);
        for (plan, res) in self.plan.groups.iter().zip(&self.groups) {
            child
                .link
                .send(&ToWorker::Group(plan.clone()), &[res.memory.clone()])?;
            if let Some(bell) = &res.bell {
                child.link.send(
                    &ToWorker::Doorbells {
                        group: plan.index,
                        ids: bell.ids(),
                    },
                    &[],
                )?;
            }
        }
        for (dev, device) in &mut self.devices {
            if let Some(session) = &mut device.session {
                tell_session(child, *dev, session)?;
            }
        }
        Ok(child.link.send(&ToWorker::Start, &[])?)
    }

    /// As many as there are, if there are not enough; the next tick tries again.
    fn put_descriptors_by(&mut self) {
        while self.spare.len() < SPARE_DESCRIPTORS {
            match self.state.try_clone() {
                Ok(fd) => self.spare.push(fd),
                Err(_) => break,
            }
        }
    }

    /// Asks the worker for a sign of life. One that gives none for too long is stopped, or waits for what never
    /// comes; killed, it is replaced like one that died.
    pub(super) fn look_after_worker(&mut self) {
        self.put_descriptors_by();
        // What it said while this process was not running.
        self.hear_worker();
        let Some(child) = &mut self.child else { return };
        match &mut child.silence {
            silence @ None => {
                *silence = Some(0);
                self.tell_worker(&ToWorker::Ping, &[]);
            }
            Some(ticks) => {
                *ticks = ticks.saturating_add(1);
                if *ticks == MAX_SILENCE {
                    let seconds = (TICK * MAX_SILENCE).as_secs();
                    error!(
                        pid = child.pid(),
                        "worker does not answer for {seconds} s: killing it"
                    );
                    child.kill();
                }
            }
        }
    }

    /// Sends the device's outstanding request to the worker.
    pub(super) fn hand_over(&mut self, dev: u32) {
        let Some(child) = &mut self.child else { return };
        let session = self.devices.get(&dev).and_then(|d| d.session.as_ref());
        let Some(out) = session.and_then(|s| s.outstanding.as_ref()) else {
            return;
        };
        let message = ToWorker::Request {
            dev,
            id: out.id,
            request: out.request.clone(),
        };
        if let Err(e) = child.link.send(&message, &out.fds) {
            debug!("worker not reached: {e}");
        }
    }

    pub(super) fn tell_worker(&mut self, message: &ToWorker, fds: &[SharedFd]) {
        if let Some(child) = &mut self.child {
            // A dead worker is found by its link; the next one is told everything.
            if let Err(e) = child.link.send(message, fds) {
                debug!("worker not reached: {e}");
            }
        }
    }

    pub(super) fn hear_worker(&mut self) {
        loop {
            let Some(child) = &mut self.child else { return };
            let received = child.link.receive::<ToSupervisor>();
            if matches!(received, Ok(Some(_))) {
                child.silence = child.silence.map(|_| 0);
            }
            match received {
                Ok(None) => return,
                Ok(Some((ToSupervisor::Pong, _))) => child.silence = None,
                Ok(Some((ToSupervisor::Started, _))) => {
                    info!(pid = child.pid(), start = self.starts, "worker runs");
                    sd_notify_quietly(&[sd_notify::NotifyState::Ready]);
                }
                Ok(Some((ToSupervisor::Reply { dev, id, result }, _))) => {
                    if let Some(session) =
                        self.devices.get_mut(&dev).and_then(|d| d.session.as_mut())
                    {
                        if let Err(e) = session.complete(id, result) {
                            debug!(dev, "answer not sent: {e}");
                        }
                        // What came in while the request was outstanding.
                        self.hear_qemu(dev);
                    }
                }
                Ok(Some((ToSupervisor::Kick { dev }, _))) => self.detach(dev, "cut off on request"),
                Err(e) => {
                    debug!("worker link: {e}");
                    self.worker_gone();
                    return;
                }
            }
        }
    }

    pub(super) fn reap(&mut self) -> Result<()> {
        if self
            .child
            .as_mut()
            .map(Child::has_ended)
            .transpose()?
            .unwrap_or(false)
        {
            // Its last answers are still in the socket.
            self.hear_worker();
            self.worker_gone();
        }
        Ok(())
    }

    fn worker_gone(&mut self) {
        let Some(child) = self.child.take() else {
            return;
        };
        let lived = child.started.elapsed();
        let status = child.end();
        if self.stopping {
            return;
        }
        warn!(status, "worker died; starting another");
        for (dev, device) in &mut self.devices {
            if let Some(session) = &mut device.session {
                if let Err(e) = session.worker_died() {
                    debug!(dev, "answer not sent: {e}");
                }
            }
        }
        self.short_lives = if lived < SHORT_LIFE {
            self.short_lives.saturating_add(1)
        } else {
            0
        };
        let pause = if self.short_lives > PATIENCE {
            SHORT_LIFE
        } else {
            Duration::ZERO
        };
        self.next_start = Some(Instant::now() + pause);
    }
}

fn tell_session(child: &mut Child, dev: u32, session: &mut Session) -> io::Result<()> {
    let link = &mut child.link;
    link.send(
        &ToWorker::Attached {
            dev,
            serial: session.serial,
            pid: session.pid,
        },
        &[],
    )?;
    for (dma, fd) in session.maps.values() {
        link.send(&ToWorker::Mapped { dev, dma: *dma }, &[fd.clone()])?;
    }
    let mut present = 0;
    let mut fds = Vec::new();
    for (n, fd) in session.vectors.iter().enumerate() {
        if let Some(fd) = fd {
            present |= 1 << n;
            fds.push(fd.clone());
        }
    }
    link.send(&ToWorker::Vectors { dev, present }, &fds)?;
    // The new worker looks at every queue anyway.
    session.kicks = 0;
    Ok(())
}
