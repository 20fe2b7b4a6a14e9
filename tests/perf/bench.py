# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Measures all paths between two guests, interleaved in rounds so that the machine's noise hits all of them."""

import argparse
import contextlib
import datetime
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import insn
import report
import zerocopy
from client import ask, observe
from lab import BUILD, PERF, Failed, Lab, may_be_alone, say

PORT = 7000
POLL_USEC = 1000


@dataclass
class Path:
    """One way between two programs."""
    name: str
    lab: Lab
    family: str
    addr: str
    server: str = "b"
    poll: int = 0
    guests: tuple = ("a", "b")
    # Which TCP connections FGDP carries meanwhile (net.fgdp.inet).
    inet: int = 0


@dataclass
class Results:
    """Per path, metric and size: one entry a round, as (middle, low, high)."""
    entries: dict = field(default_factory=dict)
    bells: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def add(self, path, metric, size, unit, middle, low=None, high=None):
        low = middle if low is None else low
        high = middle if high is None else high
        self.entries.setdefault((path, metric, size, unit), []).append((middle, low, high))

    def rows(self):
        out = []
        for (path, metric, size, unit), seen in self.entries.items():
            middles, lows, highs = zip(*seen)
            out.append({"path": path, "metric": metric, "size": size, "median": statistics.median(middles),
                        "min": min(lows), "max": max(highs), "unit": unit})
        return out

    def get(self, path, metric, size, what="median"):
        for row in self.rows():
            if (row["path"], row["metric"], row["size"]) == (path, metric, size):
                return row[what]
        return None


def arguments():
    parser = argparse.ArgumentParser(prog="tests/perf/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, short runs")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is repeated [3]")
    parser.add_argument("--seconds", type=float, help="length of one measurement [1.5, quick 0.7]")
    parser.add_argument("--no-tap", action="store_true", help="leave TCP over tap and a bridge out")
    parser.add_argument("--no-insn", action="store_true", help="do not count guest instructions")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--zerocopy", action="store_true", help="measure zero copy alone")
    part.add_argument("--no-zerocopy", action="store_true", help="leave zero copy out")
    parser.add_argument("--slot", type=int, default=256, help="MiB that a guest has to lend [256]")
    parser.add_argument("--no-build", action="store_true", help="measure what was built last")
    parser.add_argument("--share", action="store_true",
                        help="let other programs of the host take the guests' CPUs while something is measured")
    parser.add_argument("--module", help="measure this module (inside the checkout)")
    parser.add_argument("--module-params", default="", help="parameters for the module")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    args.alone = not args.share and may_be_alone()
    args.seconds = args.seconds or (0.7 if args.quick else 1.5)
    args.streams = [64, 65536] if args.quick else [64, 1024, 16384, 65536, 1048576]
    args.rrs = [64, 1024] if args.quick else [64, 1024, 16384]
    return args


def note_stream(results, path, size, result, cpu):
    results.add(path, "stream", size, "MB/s", result["bytes"] / result["seconds"] / 1e6)
    # Process times count in hundredths of a second: too coarse for little data.
    if cpu and size >= 1024:
        results.add(path, "cpu_per_gb", size, "s", cpu / (result["bytes"] / 1e9))


def note_latency(results, path, metric, size, result):
    seen = result["latency_ns"]
    if metric == "connect":
        results.add(path, metric, 0, "1/s", result["ops"] / result["seconds"])
        return
    results.add(path, metric, size, "us", seen["p50"] / 1e3, seen["min"] / 1e3, seen["p99"] / 1e3)


def measure(results, path, args, mode, size):
    counted = (path.family == "fgdp" or path.inet) and (mode, size) in (("stream", 64), ("stream", 65536), ("rr", 64))
    before = {guest: path.lab.counters(guest) for guest in path.guests} if counted else {}
    try:
        result, cpu = ask(path, args, mode, size)
    except Failed as error:
        note = f"{path.name} {mode} {size}: {error}"
        say(note)
        results.notes.append(note)
        return
    if mode == "stream":
        note_stream(results, path.name, size, result, cpu)
    else:
        note_latency(results, path.name, mode, size, result)
    for guest, old in before.items():
        for name, value in path.lab.counters(guest).items():
            if value != old.get(name, 0):
                bells = results.bells.setdefault((path.name, mode, size), {})
                bells.setdefault(name, []).append((value - old.get(name, 0)) / max(result["ops"], 1))


def rounds(results, paths, args):
    cases = [("stream", size) for size in args.streams] + [("rr", size) for size in args.rrs]
    for number in range(args.rounds):
        for mode, size in [*cases, ("connect", 64)]:
            for path in paths:
                # A connection is made without polling.
                if not (mode == "connect" and path.poll):
                    measure(results, path, args, mode, size)
        say(f"round {number + 1} of {args.rounds} done, {clock()}")


def floor(results, lab, args):
    """Bare shared memory between the same guests, without the module, which would be disturbed."""
    for guest in "ab":
        # The servers' sockets hold the module until the processes are gone.
        lab.exec(guest, "sh", "-c", "pkill -x fgdp-perf; while pgrep -x fgdp-perf; do sleep 0.05; done; rmmod fgdp",
                 timeout=20)
    devices = lab.exec("a", "sh", "-c", "grep -l 0x107d /sys/bus/pci/devices/*/device").split()
    device = os.path.dirname(devices[0])
    for _ in range(args.rounds):
        for mode, size in [("stream", size) for size in args.streams] + [("rr", size) for size in args.rrs]:
            command = [PERF, "shm", "--device", device, "--mode", mode, "--size", size, "--seconds", args.seconds]
            server = lab.start("b", "timeout", "60", *command, "--side", "server")
            try:
                with lab.alone() if args.alone else contextlib.nullcontext():
                    client = lab.start("a", "timeout", "60", *command, "--side", "client")
                    result, cpu = observe(lab, client, ("a", "b"), args.seconds)
                server.wait(timeout=60)
            finally:
                server.kill()
                lab.background.remove(server)
            if mode == "stream":
                note_stream(results, "shm-floor", size, result, cpu)
            else:
                note_latency(results, "shm-floor", "rr", size, result)


def inside(lab, suffix=""):
    """The ways from guest a to itself."""
    lab.serve("a", "unix", "@fgdp-perf")
    lab.serve("a", "tcp", f"127.0.0.1:{PORT}")
    to = {"server": "a", "guests": ("a",)}
    return [Path(f"unix{suffix}", lab, "unix", "@fgdp-perf", **to),
            Path(f"lo{suffix}", lab, "tcp", f"127.0.0.1:{PORT}", **to),
            Path(f"lo{suffix}-carried", lab, "tcp", f"127.0.0.1:{PORT}", **to, inet=2)]


def options(args):
    """Of all guests with the module."""
    out = ["--no-build"]
    if args.module:
        out += ["--module", args.module]
    if args.module_params:
        out += ["--module-params", args.module_params]
    return out


def boot_pair(args, pair):
    """The paths between two guests that pages carry."""
    say(f"booting two guests, TCP over a QEMU socket, {clock()}")
    pair.up("--net", "stream", "--slot", str(args.slot), *options(args))
    pair.serve("b", "fgdp", f"any:{PORT}")
    pair.serve("b", "tcp", f"10.77.0.2:{PORT}")
    return (Path("fgdp", pair, "fgdp", f"{pair.guest_id('b')}:{PORT}"),
            Path("carried", pair, "tcp", f"10.77.0.2:{PORT}", inet=1))


def boot(args, labs, results):
    pair, two, tap = labs
    say(f"booting a guest with two CPUs, {clock()}")
    two.up("--smp", "2", *options(args))
    fgdp, carried = boot_pair(args, pair)
    paths = [Path("tcp-stream", pair, "tcp", f"10.77.0.2:{PORT}"),
             fgdp,
             Path("fgdp-poll", pair, "fgdp", fgdp.addr, poll=POLL_USEC),
             carried,
             Path("carried-poll", pair, "tcp", f"10.77.0.2:{PORT}", poll=POLL_USEC, inet=1),
             *inside(pair), *inside(two, "-2")]
    if args.no_tap:
        return paths
    say(f"booting two more, TCP over tap and a bridge, {clock()}")
    try:
        tap.up("--net", "tap", "--no-fgdp")
        tap.serve("b", "tcp", f"10.77.0.2:{PORT}")
        paths.insert(1, Path("tcp-tap", tap, "tcp", f"10.77.0.2:{PORT}"))
    except Failed as error:
        results.notes.append(f"tcp-tap is left out: {error}")
        say(results.notes[-1])
        tap.down()
    return paths


START = time.monotonic()


def clock():
    return f"{time.monotonic() - START:.0f} s"


def environment(args, pair):
    cpu = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if found := re.match(r"model name\s*:\s*(.*)", line):
                cpu = found[1]
                break
    accel = json.loads(pair.run("status", "--json"))["accel"]
    kernel = pair.exec("a", "uname", "-r").strip()
    load = os.getloadavg()[0]
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    return (f"{now}: {os.cpu_count()} x {cpu}, load {load:.1f}; accelerator {accel}, guests' kernel {kernel}, "
            f"slots of {args.slot} MiB, {args.rounds} rounds of {args.seconds} s, "
            f"the guests' CPUs {'before' if args.alone else 'shared with'} others")


def main():
    args = arguments()

    def late(*_):
        raise TimeoutError

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, late)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    results = Results()
    labs = Lab("bench"), Lab("bench-2", guests="a"), Lab("bench-tap")
    try:
        where = measure_zerocopy(results, labs[0], args) if args.zerocopy else measure_all(results, labs, args)
    finally:
        for lab in labs:
            lab.down()
    say(f"done after {clock()}")
    folder = BUILD / "bench"
    report.write(results, where, folder, zerocopy.tables(results), zerocopy.targets(results))
    if not args.no_zerocopy:
        zerocopy.plot(results, folder)


def measure_zerocopy(results, pair, args):
    ways = boot_pair(args, pair)
    where = environment(args, pair)
    zerocopy.measure(results, ways, args)
    return where


def measure_all(results, labs, args):
    paths = boot(args, labs, results)
    where = environment(args, labs[0])
    rounds(results, paths, args)
    for lab in labs[1:]:
        lab.down()
    if not args.no_zerocopy:
        zerocopy.measure(results, [path for path in paths if path.name in ("fgdp", "carried")], args)
    try:
        floor(results, labs[0], args)
    except (Failed, subprocess.TimeoutExpired) as error:
        results.notes.append(f"shm-floor is left out: {error}")
        say(results.notes[-1])
    labs[0].down()
    if not args.no_insn:
        insn.count(results, args, labs[0])
    return where


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
