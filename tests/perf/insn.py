# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Guest instructions per round trip, counted by a plugin of the emulator."""

import json
import mmap
import shutil
import struct
import subprocess
from pathlib import Path

from lab import BUILD, PERF, Failed, say

PORT = 7001
SECONDS = 1.5


def build():
    source = Path(__file__).with_name("plugin.c")
    target = BUILD / "bench" / "insn.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise Failed("no C compiler for the plugin (apt-get install gcc)")
    done = subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source],
                          check=False, text=True, capture_output=True)
    if done.returncode != 0:
        raise Failed(f"plugin.c: {done.stderr.strip()}")
    return target


class Counter:
    """The plugin's count: a file for each process, which the plugin keeps up to date."""

    def __init__(self, folder, pids):
        self.maps = []
        for pid in pids:
            with open(folder / f"insn.{pid}", "rb") as file:
                self.maps.append(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ))

    def read(self):
        return sum(struct.unpack_from("<Q", counter, 0)[0] for counter in self.maps)


def count(results, args, lab):
    """Boots `lab` with the plugin, which slows it down: nothing else is measured there."""
    try:
        plugin = build()
        for old in plugin.parent.glob("insn.*[0-9]"):
            old.unlink()
        say("booting the guests once more, with the instruction counter")
        options = ["--net", "stream", "--no-build", "--qemu-args", f"-plugin {plugin},dir={plugin.parent}"]
        if args.module:
            options += ["--module", args.module]
        lab.up(*options)
        if json.loads(lab.run("status", "--json"))["accel"] != "tcg":
            raise Failed("only the emulator counts guest instructions")
        counter = Counter(plugin.parent, lab.qemu.values())
        lab.serve("b", "tcp", f"10.77.0.2:{PORT}")
        lab.serve("b", "fgdp", f"any:{PORT}")
        lab.serve("a", "unix", "@fgdp-perf")
        peer = f"{lab.guest_id('b')}:{PORT}"
        for _ in range(args.rounds):
            for name, family, addr, poll in [("tcp-stream", "tcp", f"10.77.0.2:{PORT}", 0),
                                             ("unix", "unix", "@fgdp-perf", 0),
                                             ("fgdp", "fgdp", peer, 0)]:
                one(results, lab, counter, name, family, addr, "rr", 64, poll)
            lab.set_inet(1)
            one(results, lab, counter, "carried", "tcp", f"10.77.0.2:{PORT}", "rr", 64)
            lab.set_inet(0)
        others(results, args, lab, counter)
    except Failed as error:
        results.notes.append(f"insn_per_rr: {error}")
        say(results.notes[-1])
    finally:
        lab.down()


def others(results, args, lab, counter):
    """What connections to somebody who is no peer cost with the module, and without it."""
    for guest, number in zip("ab", "12"):
        # The host has not given the guests these addresses.
        lab.exec(guest, "sh", "-c", f"ip addr add 10.78.0.{number}/24 dev eth0")
    addr = f"10.78.0.2:{PORT}"
    lab.set_inet(1)
    for name in ("other", "other-bare"):
        for guest in "ab":
            lab.exec(guest, "sh", "-c", "pkill -x fgdp-perf; while pgrep -x fgdp-perf; do sleep 0.05; done", timeout=20)
            if name == "other-bare":
                lab.exec(guest, "rmmod", "fgdp")
        lab.serve("b", "tcp", addr)
        for _ in range(args.rounds):
            one(results, lab, counter, name, "tcp", addr, "connect", 64)
            one(results, lab, counter, name, "tcp", addr, "stream", 65536)


METRICS = {"rr": "insn_per_rr", "connect": "insn_per_connect", "stream": "insn_per_kb"}


def one(results, lab, counter, name, family, addr, mode, size, poll=0):
    client = lab.start("a", PERF, "client", "--family", family, "--addr", addr, "--mode", mode, "--size", size,
                       "--seconds", SECONDS, "--busy-poll", poll)
    start = end = ops = None
    for line in client.stdout:
        event = json.loads(line)
        match event["event"]:
            case "start":
                start = counter.read()
            case "end":
                end = counter.read()
            case "result":
                ops = event["bytes"] / 1000 if mode == "stream" else event["ops"]
    client.wait()
    lab.background.remove(client)
    if not ops:
        raise Failed(client.stderr.read().strip() or f"{name}: no result")
    results.add(name, METRICS[mode], size, "instructions", (end - start) / ops)
