// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parent process: it owns every socket, connection, memory file and interrupt descriptor, and does nothing with
//! them but carry messages. The worker, its child, does the rest, and may die at any instruction.

pub mod bell;
mod child;
mod connections;
mod resources;
mod workers;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{debug, error, info, warn};

use crate::config;
use crate::link::ToWorker;
use crate::plan::Plan;
use crate::sys::{self, Poller, SharedFd};
use child::Child;
use resources::{DeviceRes, GroupRes, Listener};

/// Bytes of the file that keeps the worker's state.
const STATE_SIZE: u64 = 64 << 20;
/// How often the worker is asked whether it is there, and connections that wait are looked at again.
const TICK: Duration = Duration::from_secs(2);
/// Descriptors kept for starting a worker when there are no others.
const SPARE_DESCRIPTORS: usize = 16;
/// Descriptors that must be free when a connection is taken: those of guest memory and of interrupts come over it.
const ROOM: usize = 48;

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
    control: SharedFd,
    _control_path: Listener,
    state: SharedFd,
    groups: Vec<GroupRes>,
    devices: BTreeMap<u32, DeviceRes>,
    child: Option<Child>,
    next_start: Option<Instant>,
    starts: u32,
    short_lives: u32,
    next_id: u64,
    next_serial: u64,
    stopping: bool,
    tick: Instant,
    /// Descriptors that are there to be given up.
    spare: Vec<OwnedFd>,
    /// Listening sockets are not watched until the next tick.
    refraining: bool,
    /// How often that was so.
    refrained: u64,
    /// How often no worker could be started.
    start_failures: u64,
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
        let state = sys::sealed_memfd("fgdpd-state", STATE_SIZE, false)?.into();
        let mut sup = Self {
            options,
            poller,
            signals,
            plan: Plan::default(),
            socket_mode,
            control: OwnedFd::from(control.socket.try_clone()?).into(),
            _control_path: control,
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
            tick: Instant::now() + TICK,
            spare: Vec::new(),
            refraining: false,
            refrained: 0,
            start_failures: 0,
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
            let next = self.next_start.map_or(self.tick, |at| at.min(self.tick));
            let left = next.saturating_duration_since(Instant::now()).as_millis();
            let timeout = u16::try_from(left).unwrap_or(u16::MAX).saturating_add(1);
            self.poller.wait(&mut ready, Some(timeout))?;
            for (token, _) in &ready {
                self.event(*token)?;
            }
            let now = Instant::now();
            if self.next_start.is_some_and(|at| at <= now) && !self.stopping {
                self.replace_worker();
            }
            if self.tick <= now {
                self.tick = now + TICK;
                self.look_after_worker();
                if self.refraining {
                    self.watch_listeners(true);
                }
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
            if let Some(memory) = self.groups.get(res).map(|g: &GroupRes| g.memory.clone()) {
                self.tell_worker(&ToWorker::Group(group), &[memory]);
            }
        }
        Ok(())
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
