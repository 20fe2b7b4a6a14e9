# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Guests and what the host can see of them."""

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / "build"
PERF = BUILD / "cargo/release/fgdp-perf"
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A command did not do what it should; the text is for the user."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Lab:
    """A lab of its own name, so that it does not meet the user's."""

    def __init__(self, name, guests="ab"):
        self.name = name
        self.guests = guests
        self.env = dict(os.environ, FGDP_LAB=name)
        self.program = [os.environ.get("FGDP_LAB_PROGRAM") or str(CHECKOUT / "tools/lab/lab")]
        self.background = []
        self.is_up = False
        self.inet = None

    def up(self, *args, timeout=240):
        self.is_up = True
        self.run("up", "--guests", str(len(self.guests)), *args, timeout=timeout)
        self.inet = None
        self.set_inet(0)
        status = json.loads(self.run("status", "--json"))
        self.qemu = {guest["name"]: guest["pid"] for guest in status["guests"]}
        words = status.get("fgdpd", "").rstrip(")").split()
        self.fgdpd = int(words[-1]) if words and words[-1].isdigit() else None

    def down(self):
        if not self.is_up:
            return
        for process in self.background:
            process.kill()
            process.wait()
        self.background.clear()
        subprocess.run([*self.program, "down"], env=self.env, timeout=60, check=False,
                       stdout=subprocess.DEVNULL)
        self.is_up = False

    def run(self, *args, timeout=60):
        try:
            done = subprocess.run([*self.program, *args], env=self.env, timeout=timeout, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"lab {' '.join(args[:4])}: no end after {timeout} s") from None
        if done.returncode != 0:
            raise Failed(f"lab {' '.join(args[:4])}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def exec(self, guest, *command, timeout=60):
        return self.run("exec", guest, "--", *map(str, command), timeout=timeout)

    def start(self, guest, *command):
        """Runs `command` in the guest; its output is the process's stdout."""
        argv = [*self.program, "exec", guest, "--", *map(str, command)]
        process = subprocess.Popen(argv, env=self.env, text=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.background.append(process)
        return process

    def serve(self, guest, family, addr):
        """A server that serves until the lab is down."""
        server = self.start(guest, PERF, "server", "--family", family, "--addr", addr)
        line = server.stdout.readline()
        if "ready" not in line:
            raise Failed(f"server {family} in guest {guest}: {server.stderr.read().strip() or line}")
        return server

    @contextlib.contextmanager
    def alone(self):
        """Lets nothing else of the host's take the virtual machines' CPUs.

        Who carries the client's messages to here comes before them, or they would be seen too late. What is started
        meanwhile inherits that.
        """
        carriers = [os.getpid(), int((BUILD / f"lab-{self.name}" / "lab.pid").read_text())]
        priority(self.qemu.values(), os.SCHED_RR, 1)
        priority(carriers, os.SCHED_RR, 2)
        try:
            yield
        finally:
            priority(carriers, os.SCHED_OTHER, 0)
            priority(self.qemu.values(), os.SCHED_OTHER, 0)

    def set_inet(self, level):
        """Which new TCP connections the module carries in the guests, where there is one."""
        if level != self.inet:
            setting = "/proc/sys/net/fgdp/inet"
            for guest in self.guests:
                self.exec(guest, "sh", "-c", f"[ {level} = 0 -a ! -e {setting} ] || echo {level} >{setting}")
            self.inet = level

    def guest_id(self, guest):
        config = tomllib.loads((BUILD / f"lab-{self.name}" / "fgdpd.toml").read_text())
        return next(entry["id"] for entry in config["guest"] if entry["name"] == guest)

    def counters(self, guest):
        """The module's counters; none without module."""
        try:
            text = self.exec(guest, "cat", "/proc/net/fgdp/stats")
        except Failed:
            return {}
        found = {}
        for line in text.splitlines():
            words = line.replace("=", " ").replace(":", " ").split()
            if len(words) >= 2 and words[-1].isdigit():
                name = " ".join(words[:-1])
                found[name] = found.get(name, 0) + int(words[-1])
        return found

    def cpu_seconds(self, guests=("a", "b")):
        """CPU time of the guests' virtual machines and of the host daemon."""
        pids = [self.qemu[guest] for guest in guests]
        if self.fgdpd and len(guests) > 1:
            pids.append(self.fgdpd)
            pids.extend(children(self.fgdpd))
        return sum(map(cpu_of, pids))


def may_be_alone():
    """Whether this process may give real-time priorities."""
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, *before)
    except OSError:
        return False
    return True


def priority(pids, policy, value):
    for pid in pids:
        # A thread or a process that ends meanwhile needs no priority.
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(int(thread), policy, os.sched_param(value))


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def cpu_of(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise Failed(f"process {pid} is gone: a virtual machine or the host daemon ended") from None
    return (int(fields[11]) + int(fields[12])) / TICKS
