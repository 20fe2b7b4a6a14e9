# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Guest instructions of a program's run, by function of the kernel and its modules. Emulation only."""

import argparse
import bisect
import collections
import json
import mmap
import shlex
import struct
import subprocess
import sys

import insn
from lab import Failed, Lab, say

BLOCKS = 1 << 20
HEADER = struct.Struct("<QQ")
ENTRY = struct.Struct("<QQQ")
HALF = 1 << 63


class Blocks:
    """What the plugin has counted for each block of one process."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self):
        """A copy, to be looked at later: the guests go on meanwhile."""
        used = min(HEADER.unpack_from(self.map)[1], BLOCKS)
        return self.map[HEADER.size:HEADER.size + used * ENTRY.size]


def between(before, after):
    """Instructions by address."""
    seen = collections.Counter()
    for addr, _, count in ENTRY.iter_unpack(after):
        seen[addr] += count
    for addr, _, count in ENTRY.iter_unpack(before):
        seen[addr] -= count
    return seen


class Symbols:
    """The functions of a guest's kernel; user space is one."""

    def __init__(self, lab, guest):
        found = []
        for line in lab.exec(guest, "cat", "/proc/kallsyms").splitlines():
            addr, kind, name, *module = line.split()
            if kind in "tTwW":
                found.append((int(addr, 16), name, module[0].strip("[]") if module else "kernel"))
        found.sort()
        self.addrs = [addr for addr, _, _ in found]
        self.names = [(module, name) for _, name, module in found]

    def find(self, addr):
        if addr < HALF:
            return "user", "(all)"
        at = bisect.bisect_right(self.addrs, addr) - 1
        return self.names[at] if at >= 0 else ("kernel", "?")


def readable(names):
    """Rust's names as in the source."""
    done = subprocess.run(["c++filt"], input="\n".join(names), text=True, capture_output=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else names


def table(guest, counts, symbols, ops, limit):
    by_name, by_module = collections.Counter(), collections.Counter()
    for addr, count in counts.items():
        module, name = symbols.find(addr)
        by_name[module, name] += count
        by_module[module] += count
    print(f"guest {guest}: {sum(counts.values()) / ops:.0f}; " +
          ", ".join(f"{module} {count / ops:.0f}" for module, count in by_module.most_common() if count >= ops))
    top = [(module, name, count) for (module, name), count in by_name.most_common(limit) if count]
    for (module, _, count), name in zip(top, readable([name for _, name, _ in top])):
        print(f"  {count / ops:10.1f}  {module:8} {name}")


def arguments():
    parser = argparse.ArgumentParser(prog="tests/perf/profile", description=__doc__)
    parser.add_argument("client", nargs="+", help="what runs in guest a, one after the other")
    parser.add_argument("--server", action="append", default=[], metavar="COMMAND",
                        help="what runs meanwhile in the last guest")
    parser.add_argument("--inet", default=1, help="which TCP connections are carried (net.fgdp.inet) [1]")
    parser.add_argument("--ops", type=float, help="divide by so many [what fgdp-perf reports, else 1]")
    parser.add_argument("--guests", choices=["a", "ab"], default="ab", help="[ab]")
    parser.add_argument("--limit", type=int, default=40, help="functions to show of each guest [40]")
    parser.add_argument("--up", default="", metavar="OPTIONS", help="more options for lab up")
    return parser.parse_args()


def run(lab, command, blocks):
    """The counts of one run: from `start` to `end` if it is fgdp-perf, else of all of it; and its operations."""
    client = lab.start("a", "sh", "-c", command)
    before, after, ops = [each.read() for each in blocks], None, None
    for line in client.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            event = line.strip()
        match event:
            case {"event": "start"}:
                before = [each.read() for each in blocks]
            case {"event": "end"}:
                after = [each.read() for each in blocks]
            case {"event": "result"}:
                ops = event["ops"]
            case _:
                print(event)
    after = after or [each.read() for each in blocks]
    client.wait()
    lab.background.remove(client)
    if client.returncode != 0:
        raise Failed(f"{command}: {client.stderr.read().strip()}")
    return [between(*pair) for pair in zip(before, after)], ops


def main():
    args = arguments()
    plugin = insn.build()
    for old in plugin.parent.glob("insn.*[0-9]"):
        old.unlink()
    lab = Lab("profile", guests=args.guests)
    try:
        say("booting guests with the instruction counter")
        lab.up("--net", "stream" if len(args.guests) > 1 else "none", "--no-build", *shlex.split(args.up),
               "--qemu-args", f"-plugin {plugin},dir={plugin.parent},blocks={BLOCKS}")
        lab.set_inet(args.inet)
        blocks = [Blocks(plugin.parent / f"insn.{lab.qemu[guest]}") for guest in args.guests]
        symbols = [Symbols(lab, guest) for guest in args.guests]
        for command in args.server:
            lab.start(args.guests[-1], "sh", "-c", command)
        for command in args.client:
            print(f"\n{command}")
            counts, ops = run(lab, command, blocks)
            for guest, each, names in zip(args.guests, counts, symbols):
                table(guest, each, names, args.ops or ops or 1, args.limit)
    finally:
        lab.down()


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"profile: {error}")
