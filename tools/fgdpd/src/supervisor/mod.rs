// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parent process: it owns every socket, connection, memory file and interrupt descriptor, and does nothing with
//! them but carry messages. The worker, its child, does the rest, and may die at any instruction.

pub mod bell;
mod child;
mod connections;
mod resources;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{debug, error, info, warn};

use crate::config;
use crate::link::{ToSupervisor, ToWorker};
use crate::plan::Plan;
use crate::sys::{self, Poller};
use crate::vfio::session::Session;
use child::Child;
use resources::{DeviceRes, GroupRes, Listener};

/// Bytes of the file that keeps the worker's state.
const STATE_SIZE: u64 = 64 << 20;
/// A worker that lives shorter than this dies at once.
const SHORT_LIFE: Duration = Duration::from_millis(200);
/// After so many that died at once there is a pause before the next.
const PATIENCE: u32 = 5;

const SIGNALS: u64 = 1 << 56;
const LINK: u64 = 2 << 56;
const DEVICE_LISTENER: u64 = 3 << 56;
const DEVICE: u64 = 4 << 56;
const BELL_LISTENER: u64 = 5 << 56;
const BELL: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

/// How the daemon was started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Passed on to the worker.
    pub log_level: Option<String>,
}

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    options: Options,
    poller: Poller,
    signals: SignalFd,
    plan: Plan,
    socket_mode: u32,
    control: Listener,
    state: OwnedFd,
    groups: Vec<GroupRes>,
    devices: BTreeMap<u32, DeviceRes>,
    child: Option<Child>,
    next_start: Option<Instant>,
    starts: u32,
    short_lives: u32,
    next_id: u64,
    next_serial: u64,
    stopping: bool,
}

/// Starts the daemon and runs it until SIGTERM.
pub fn run(options: Options) -> Result<()> {
    let config = config::load(&options.config)?;
    let mut sup = Supervisor::new(options, &config)?;
    sup.serve()
}

impl Supervisor {
    fn new(options: Options, config: &config::Config) -> Result<Self> {
        raise_descriptor_limit();
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let poller = Poller::new()?;
        poller.add(&signals, SIGNALS, false)?;
        let plan = Plan::new(config).map_err(anyhow::Error::msg)?;
        crate::memory::check(&plan)?;
        let socket_mode = u32::from_str_radix(config.socket_mode.get_ref(), 8)?;
        let control = Listener::bind(&config.run_dir.join("control.sock"), socket_mode)?;
        let state = sys::sealed_memfd("fgdpd-state", STATE_SIZE, false)?;
        let mut sup = Self {
            options,
            poller,
            signals,
            plan: Plan::default(),
            socket_mode,
            control,
            state,
            groups: Vec::new(),
            devices: BTreeMap::new(),
            child: None,
            next_start: None,
            starts: 0,
            short_lives: 0,
            next_id: 0,
            next_serial: 0,
            stopping: false,
        };
        sup.adopt(plan)?;
        Ok(sup)
    }

    /// Makes and drops resources until they are what `plan` says.
    fn adopt(&mut self, plan: Plan) -> Result<()> {
        let mut made = BTreeMap::new();
        for group in plan.groups.iter().skip(self.groups.len()) {
            let res = GroupRes::new(group, self.socket_mode)?;
            if let Some(bell) = &res.bell {
                self.poller.add(
                    &bell.listener,
                    BELL_LISTENER | u64::from(group.index),
                    false,
                )?;
            }
            self.groups.push(res);
        }
        for (group, res) in plan.groups.iter().zip(&self.groups) {
            for member in group
                .members
                .iter()
                .filter(|m| !self.devices.contains_key(&m.dev))
            {
                let device = DeviceRes::new(group, member, res, self.socket_mode)?;
                made.insert(member.dev, device);
            }
        }
        for (dev, device) in &made {
            self.poller.add(
                &device.listener.socket,
                DEVICE_LISTENER | u64::from(*dev),
                false,
            )?;
        }
        self.devices.append(&mut made);
        let wanted: Vec<u32> = plan
            .groups
            .iter()
            .flat_map(|g| g.members.iter().map(|m| m.dev))
            .collect();
        self.devices.retain(|dev, device| {
            let keep = wanted.contains(dev);
            if !keep {
                info!(guest = %device.label, "removed");
            }
            keep
        });
        self.plan = plan;
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        self.start_worker()?;
        let mut ready = Vec::new();
        while !(self.stopping && self.child.is_none()) {
            let timeout = self.next_start.map(|at| {
                let left = at.saturating_duration_since(Instant::now()).as_millis();
                u16::try_from(left).unwrap_or(u16::MAX).saturating_add(1)
            });
            self.poller.wait(&mut ready, timeout)?;
            for (token, _) in &ready {
                self.event(*token)?;
            }
            if self.next_start.is_some_and(|at| at <= Instant::now()) && !self.stopping {
                self.start_worker()?;
            }
            self.flush();
        }
        Ok(())
    }

    fn event(&mut self, token: u64) -> Result<()> {
        let index = u32::try_from(token & !KIND & 0xffff_ffff).unwrap_or(u32::MAX);
        match token & KIND {
            SIGNALS => self.signal()?,
            LINK => self.hear_worker(),
            DEVICE_LISTENER => self.accept_device(index),
            DEVICE => self.hear_qemu(index),
            BELL_LISTENER => self.accept_bell(index),
            BELL => self.poll_bell(
                u32::try_from((token & !KIND) >> 32).unwrap_or(u32::MAX),
                index,
            ),
            _ => (),
        }
        Ok(())
    }

    fn signal(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                Ok(Signal::SIGHUP) => self.reload(),
                Ok(Signal::SIGTERM | Signal::SIGINT) => {
                    let attached = self
                        .devices
                        .values()
                        .filter(|d| d.session.is_some())
                        .count();
                    if attached > 0 {
                        warn!(attached, "stopping with guests attached: QEMU ends when such a guest is reset; shut them down");
                    }
                    self.stopping = true;
                    self.tell_worker(&ToWorker::Stop, &[]);
                }
                Ok(Signal::SIGCHLD) => self.reap()?,
                _ => (),
            }
        }
        Ok(())
    }

    fn reload(&mut self) {
        sd_notify_quietly(&[sd_notify::NotifyState::Reloading]);
        match self.try_reload() {
            Ok(()) => info!(config = %self.options.config.display(), "configuration reloaded"),
            Err(e) => error!("configuration not reloaded, the old one stays: {e:#}"),
        }
        sd_notify_quietly(&[sd_notify::NotifyState::Ready]);
    }

    fn try_reload(&mut self) -> Result<()> {
        let config = config::load(&self.options.config)?;
        let mut plan = self.plan.clone();
        let in_use = |dev| {
            self.devices
                .get(&dev)
                .is_some_and(|d: &DeviceRes| d.session.is_some())
        };
        plan.update(&config, &in_use).map_err(anyhow::Error::msg)?;
        self.adopt(plan)?;
        for (group, res) in self.plan.groups.clone().into_iter().zip(0..) {
            if let Some(memory) = self
                .groups
                .get(res)
                .map(|g: &GroupRes| g.memory.try_clone())
                .transpose()?
            {
                self.tell_worker(&ToWorker::Group(group), &[memory.as_fd()]);
            }
        }
        Ok(())
    }

    fn start_worker(&mut self) -> Result<()> {
        self.next_start = None;
        let mut child = Child::start(&self.options)?;
        self.poller.add(&child.link, LINK, false)?;
        let control = self.control.socket.as_fd();
        child.link.send(
            &ToWorker::Hello {
                restarts: self.starts,
            },
            &[self.state.as_fd(), control],
        )?;
        self.starts = self.starts.saturating_add(1);
        for (plan, res) in self.plan.groups.iter().zip(&self.groups) {
            child
                .link
                .send(&ToWorker::Group(plan.clone()), &[res.memory.as_fd()])?;
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
                tell_session(&mut child, *dev, session)?;
            }
        }
        child.link.send(&ToWorker::Start, &[])?;
        self.child = Some(child);
        let devs: Vec<u32> = self.devices.keys().copied().collect();
        for dev in devs {
            self.hand_over(dev);
        }
        Ok(())
    }

    /// Sends the device's outstanding request to the worker.
    fn hand_over(&mut self, dev: u32) {
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
        let fds: Vec<BorrowedFd<'_>> = out.fds.iter().map(AsFd::as_fd).collect();
        if let Err(e) = child.link.send(&message, &fds) {
            debug!("worker not reached: {e}");
        }
    }

    fn tell_worker(&mut self, message: &ToWorker, fds: &[BorrowedFd<'_>]) {
        if let Some(child) = &mut self.child {
            // A dead worker is found by its link; the next one is told everything.
            if let Err(e) = child.link.send(message, fds) {
                debug!("worker not reached: {e}");
            }
        }
    }

    fn hear_worker(&mut self) {
        loop {
            let Some(child) = &mut self.child else { return };
            match child.link.receive::<ToSupervisor>() {
                Ok(None) => return,
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

    fn reap(&mut self) -> Result<()> {
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

    /// Sends what waits, and watches for room where some still does.
    fn flush(&mut self) {
        if let Some(child) = &mut self.child {
            for (dev, device) in &mut self.devices {
                // While the worker is behind, rings add up in the mask instead of in a queue.
                if let Some(session) = device
                    .session
                    .as_mut()
                    .filter(|s| s.kicks != 0 && !child.link.wants_out())
                {
                    let queues = std::mem::take(&mut session.kicks);
                    if let Err(e) = child.link.send(&ToWorker::Kick { dev: *dev, queues }, &[]) {
                        debug!("worker not reached: {e}");
                    }
                }
            }
            let sent = child.link.flush();
            let out = child.link.wants_out();
            if let Err(e) = sent.and_then(|()| self.poller.modify(&child.link, LINK, true, out)) {
                debug!("worker link: {e}");
            }
        }
        for (dev, device) in &mut self.devices {
            let Some(session) = &mut device.session else {
                continue;
            };
            // Nothing is read from a client whose request waits; level-triggered readiness would spin.
            let input = session.outstanding.is_none();
            let sent = session.conn.flush();
            let out = session.conn.wants_out();
            let token = DEVICE | u64::from(*dev);
            if let Err(e) = sent.and_then(|()| self.poller.modify(&session.conn, token, input, out))
            {
                debug!(dev, "vfio-user connection: {e}");
            }
        }
        for (group, res) in self.groups.iter().enumerate() {
            let Some(bell) = &res.bell else { continue };
            for id in bell.all_ids() {
                let token = BELL | ((group as u64) << 32) | u64::from(id);
                if let Some(Err(e)) = bell
                    .client(id)
                    .map(|fd| self.poller.modify(fd, token, true, bell.wants_out(id)))
                {
                    debug!(group, id, "doorbell client: {e}");
                }
            }
        }
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
        link.send(&ToWorker::Mapped { dev, dma: *dma }, &[fd.as_fd()])?;
    }
    let mut present = 0;
    let mut fds = Vec::new();
    for (n, fd) in session.vectors.iter().enumerate() {
        if let Some(fd) = fd {
            present |= 1 << n;
            fds.push(fd.as_fd());
        }
    }
    link.send(&ToWorker::Vectors { dev, present }, &fds)?;
    // The new worker looks at every queue anyway.
    session.kicks = 0;
    Ok(())
}

fn raise_descriptor_limit() {
    use nix::sys::resource::{getrlimit, setrlimit, Resource};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised.context("RLIMIT_NOFILE") {
        debug!("{e:#}");
    }
}

fn sd_notify_quietly(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        debug!("service manager not told: {e}");
    }
}
