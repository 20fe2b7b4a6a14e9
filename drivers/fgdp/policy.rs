// SPDX-License-Identifier: GPL-2.0

//! What the administrator wants: `net.fgdp.*` of each network namespace.

use crate::inet::Inet;

use crate::sys::lock::{new_bhlock, BhLock};
use crate::sys::net::anysock::AnySock;
use crate::sys::net::cgroup::CgroupId;
use crate::sys::net::namespace::{Net, NetKey, PerNet, Place};
use crate::sys::sysctl::{Line, Number, Ports, Setting, Text};
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::*, Atomic};
use kernel::sync::{Arc, ArcBorrow};

/// Where the settings of each namespace are found.
pub(crate) static POLICIES: Place<Policy> = Place::new();

const DIR: &CStr = c"net/fgdp";

/// The largest value of `inet`.
pub(crate) const INET_MAX: i32 = 2;

/// Limits of `ring_max`, in bytes.
const RING_LIMITS: (i32, i32) = (16 << 10, 4 << 20);

/// The largest ring of a socket that has not set `SO_SNDBUF`, in bytes: an extent. A larger one
/// does not make a stream faster, a smaller one makes a sender that sleeps wait more often.
const DEFAULT_RING: i32 = 2 << 20;

/// The longest that `busy_poll` may be, in microseconds.
const BUSY_POLL_MAX: i32 = 1_000_000;

/// The settings of one namespace; none where its administrator is not the machine's.
pub(crate) struct Policy(Option<Settings>);

struct Settings {
    level: Number<Level>,
    ring_max: Number<()>,
    busy_poll: Number<()>,
    ports_allow: Ports,
    ports_deny: Ports,
    cgroups_allow: Text<Pin<KBox<Cgroups>>>,
    cgroups_deny: Text<Pin<KBox<Cgroups>>>,
}

/// Which connections are carried: 0 none, 1 those to other guests, 2 those inside this guest, too.
struct Level {
    inet: Arc<Inet>,
    net: NetKey,
}

impl Setting for Level {
    fn set(&self, level: i32) {
        self.inet.level_changed(self.net, level);
    }
}

/// Control groups that one list may have.
const MAX_CGROUPS: usize = 16;

/// A list of control groups.
#[pin_data]
struct Cgroups {
    count: Atomic<usize>,
    #[pin]
    ids: BhLock<[Option<CgroupId>; MAX_CGROUPS]>,
}

impl Cgroups {
    fn new() -> Result<Pin<KBox<Self>>> {
        let init = pin_init!(Self {
            count: Atomic::new(0),
            ids <- new_bhlock!([None; MAX_CGROUPS], "fgdp_cgroups"),
        });
        KBox::pin_init(init, GFP_KERNEL)
    }

    fn is_empty(&self) -> bool {
        self.count.load(Acquire) == 0
    }

    fn has(&self, sk: &AnySock) -> bool {
        !self.is_empty() && self.ids.lock().iter().flatten().any(|id| sk.is_in(*id))
    }
}

impl Line for Pin<KBox<Cgroups>> {
    fn set(&self, line: &CStr) -> Result {
        let mut ids = [None; MAX_CGROUPS];
        let mut count = 0;
        let words = line.to_bytes().split(|b| b.is_ascii_whitespace());
        for word in words.filter(|word| !word.is_empty()) {
            let mut path = KVec::with_capacity(word.len() + 1, GFP_KERNEL)?;
            path.extend_from_slice(word, GFP_KERNEL)?;
            path.push(0, GFP_KERNEL)?;
            let path = CStr::from_bytes_with_nul(&path).map_err(|_| EINVAL)?;
            *ids.get_mut(count).ok_or(E2BIG)? = Some(CgroupId::of(path)?);
            count += 1;
        }
        *self.ids.lock() = ids;
        self.count.store(count, Release);
        Ok(())
    }
}

impl PerNet for Policy {
    type Context = Inet;

    fn place() -> &'static Place<Self> {
        &POLICIES
    }

    fn new(inet: ArcBorrow<'_, Inet>, net: &Net) -> Result<Arc<Self>> {
        // Who may not load the module does not decide what it tells the host.
        if !net.is_trusted() {
            return Ok(Arc::new(Self(None), GFP_KERNEL)?);
        }
        let level = Level {
            inet: inet.into(),
            net: net.key(),
        };
        let first = if net.is_initial() {
            inet.first_level
        } else {
            0
        };
        let settings = Settings {
            level: Number::new(net, DIR, c"inet", first, (0, INET_MAX), level)?,
            ring_max: Number::new(net, DIR, c"ring_max", DEFAULT_RING, RING_LIMITS, ())?,
            busy_poll: Number::new(net, DIR, c"busy_poll", 0, (0, BUSY_POLL_MAX), ())?,
            ports_allow: Ports::new(net, DIR, c"inet_ports_allow")?,
            ports_deny: Ports::new(net, DIR, c"inet_ports_deny")?,
            cgroups_allow: Text::new(net, DIR, c"inet_cgroups_allow", Cgroups::new()?)?,
            cgroups_deny: Text::new(net, DIR, c"inet_cgroups_deny", Cgroups::new()?)?,
        };
        Ok(Arc::new(Self(Some(settings)), GFP_KERNEL)?)
    }
}

impl Policy {
    /// The setting `inet`.
    pub(crate) fn level(&self) -> i32 {
        self.0.as_ref().map_or(0, |s| s.level.get())
    }

    /// Whether the lists let a connection be carried: its socket, and the port that was connected
    /// to. Any context.
    pub(crate) fn allows(&self, sk: &AnySock, port: u16) -> bool {
        let Some(s) = &self.0 else {
            return false;
        };
        let (allow, deny) = (s.cgroups_allow.taker(), s.cgroups_deny.taker());
        (s.ports_allow.is_empty() || s.ports_allow.has(port))
            && !s.ports_deny.has(port)
            && (allow.is_empty() || allow.has(sk))
            && !deny.has(sk)
    }
}

/// The largest ring of a socket that has not set `SO_SNDBUF`, in bytes. Any context.
pub(crate) fn ring_max(sk: &AnySock) -> u32 {
    let max = POLICIES.with(sk, |policy| {
        let settings = policy.0.as_ref();
        settings.map_or(DEFAULT_RING, |s| s.ring_max.get())
    });
    max.unwrap_or(DEFAULT_RING).unsigned_abs()
}

/// How long a call of the socket looks before it sleeps, in microseconds; 0: as the module thinks.
/// Any context.
pub(crate) fn busy_poll_usec(sk: &AnySock) -> u32 {
    let default = POLICIES.with(sk, |policy| {
        policy.0.as_ref().map_or(0, |s| s.busy_poll.get())
    });
    sk.busy_poll_usec().max(default.unwrap_or(0).unsigned_abs())
}
