// SPDX-License-Identifier: GPL-2.0

//! Fast Guest Data Path: sockets over pages that co-resident guests share.
//!
//! The data's way through the files: `family` (system calls) to `tx` and `rx` (copies) to `conn`
//! (one connection) to `channel` (one peer) to `transport`; messages come back through `lane`,
//! the host's events through `ctl`, peers that connect through `accept`. TCP's connections enter
//! by `inet` in place of `family`.

use kernel::prelude::*;
use kernel::sync::Arc;

// The host daemon and the tests use the rest of the core.
#[allow(unused_imports)]
#[path = "../../rust/proto/mod.rs"]
pub(crate) mod proto;
#[path = "../../rust/kernel/mod.rs"]
mod sys;

mod accept;
mod addr;
mod announce;
mod bits;
mod channel;
mod conn;
mod connections;
mod ctl;
mod device;
mod dial;
mod extents;
mod family;
mod grant;
mod inet;
#[cfg(CONFIG_KUNIT = "y")]
mod kunit;
mod lane;
mod listen;
mod listing;
mod netlink;
mod peer;
mod policy;
mod poll;
mod port;
mod rx;
mod snapshot;
mod spin;
mod stack;
mod storage;
mod transport;
mod tx;
mod window;

use device::{Device, Port};
use family::AfFgdp;
use inet::Inet;
use listing::Listings;
use netlink::Netlink;
use policy::Policy;
use stack::Stack;
use sys::compat::parameter;
use sys::net::addr::{Watch, Watcher};
use sys::net::family::Registration;
use sys::net::inet::Registration as HookRegistration;
use sys::net::namespace::Registration as PolicyRegistration;
use sys::work::Queues;
use transport::loopback::Loopback;
use transport::virtio::{Attach, DoorbellMode, VirtioTransport};
use transport::Upcalls;

module! {
    type: Fgdp,
    name: "fgdp",
    authors: ["The FGDP authors"],
    description: "Fast Guest Data Path: sockets over pages shared by co-resident guests",
    license: "GPL",
    params: {
        family: u8 {
            default: 18,
            description: "Number of the socket family AF_FGDP, one that the kernel does not use",
        },
        loopback_mib: u32 {
            default: 32,
            description:
                "Memory for connections inside this guest, in MiB (16 or more, even); 0: none",
        },
        spin_usec: u32 {
            default: 500,
            description:
                "How long a call looks for the peer's answer before it sleeps, if the last wait was that short, in microseconds",
        },
        inet: u8 {
            default: 1,
            description:
                "TCP connections that shared pages carry: 0 none, 1 to other guests, 2 inside this guest, too; later net.fgdp.inet",
        },
        doorbell: u8 {
            default: 0,
            description:
                "How peers are rung: 0 what is present, 1 the ivshmem-doorbell device, 2 the host",
        },
    },
}

/// What the module holds. Dropped in this order: no readers, no new sockets, no new devices, no
/// work.
struct Fgdp {
    _watch: Watch<Stack>,
    _netlink: sys::genl::Registration<Netlink>,
    _listings: Listings,
    _inet: InetGuard,
    _family: Registration<AfFgdp>,
    _virtio: transport::virtio::Registration<Attacher>,
    _loopback: LoopbackGuard,
    _queues: Queues,
}

struct Attacher {
    stack: Arc<Stack>,
}

impl Attach for Attacher {
    fn attach(&self, transport: Arc<VirtioTransport>) -> Result<Arc<dyn Upcalls>> {
        let device = Device::new(self.stack.clone(), transport)?;
        device.hello()?;
        let port: Arc<dyn Upcalls> = Arc::new(Port(device.clone()), GFP_KERNEL)?;
        self.stack.add(device)?;
        Ok(port)
    }
}

fn loopback(stack: &Arc<Stack>, mib: u32) -> Result<Option<(Arc<Loopback>, Arc<Device>)>> {
    if mib == 0 {
        return Ok(None);
    }
    let transport = Loopback::new(u64::from(mib) << 20, 1).inspect_err(|_| {
        pr_err!(
            "loopback_mib={}: give an even number of 16 or more, or 0\n",
            mib
        );
    })?;
    let device = Device::new(stack.clone(), transport.clone())?;
    transport.set_upcalls(Some(Arc::new(Port(device.clone()), GFP_KERNEL)?));
    if let Err(e) = device.hello().and_then(|()| stack.add(device.clone())) {
        device.stop();
        transport.set_upcalls(None);
        return Err(e);
    }
    Ok(Some((transport, device)))
}

impl kernel::Module for Fgdp {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let number = parameter(&module_parameters::family);
        let doorbell = parameter(&module_parameters::doorbell);
        let mode = DoorbellMode::from_u8(doorbell)
            .ok_or(EINVAL)
            .inspect_err(|_| {
                pr_err!("doorbell={}: give 0, 1 or 2\n", doorbell);
            })?;
        let queues = Queues::new()?;
        let stack = Stack::new(number, parameter(&module_parameters::spin_usec))?;
        let loopback = loopback(&stack, parameter(&module_parameters::loopback_mib))?;
        let guard = LoopbackGuard(loopback);
        let attacher = Attacher {
            stack: stack.clone(),
        };
        let virtio = transport::virtio::register(module, mode, attacher)?;
        let watch = Watch::new(stack.clone())?;
        let listings = Listings::new(&stack)?;
        let netlink = sys::genl::Registration::new(module, Netlink::new(&stack))?;
        let level = i32::from(parameter(&module_parameters::inet));
        if level > policy::INET_MAX {
            pr_err!("inet={}: give 0, 1 or 2\n", level);
            return Err(EINVAL);
        }
        let inet = InetGuard::new(module, &stack, level)?;
        let family = Registration::new(module, number, stack).inspect_err(|_| {
            pr_err!(
                "family {} is in use: give another number by the parameter family\n",
                number
            );
        })?;
        Ok(Fgdp {
            _watch: watch,
            _netlink: netlink,
            _listings: listings,
            _inet: inet,
            _family: family,
            _virtio: virtio,
            _loopback: guard,
            _queues: queues,
        })
    }
}

/// Takes the hook out of TCP when dropped.
struct InetGuard {
    stack: Arc<Stack>,
    // It asks the policies.
    _hook: HookRegistration<Inet>,
    _policies: PolicyRegistration<Policy>,
}

impl InetGuard {
    fn new(module: &'static ThisModule, stack: &Arc<Stack>, level: i32) -> Result<Self> {
        let inet = Inet::new(stack, level)?;
        let policies = PolicyRegistration::new(inet.clone())?;
        // Devices that are there have asked for the addresses to tell before.
        stack.changed();
        let hook = HookRegistration::new(module, inet.clone()).inspect_err(|_| {
            pr_err!(
                "no tracepoint inet_sock_set_state: FGDP needs a kernel with CONFIG_TRACEPOINTS\n"
            );
        })?;
        stack.set_inet(Some(inet));
        Ok(Self {
            stack: stack.clone(),
            _hook: hook,
            _policies: policies,
        })
    }
}

impl Drop for InetGuard {
    fn drop(&mut self) {
        self.stack.set_inet(None);
    }
}

/// Ends the loopback device when dropped.
struct LoopbackGuard(Option<(Arc<Loopback>, Arc<Device>)>);

impl Drop for LoopbackGuard {
    fn drop(&mut self) {
        if let Some((transport, device)) = self.0.take() {
            device.stop();
            transport.set_upcalls(None);
        }
    }
}
