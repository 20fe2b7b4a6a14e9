# SPDX-License-Identifier: Apache-2.0 OR MIT
"""The results as a table, as JSON and as a plot."""

import json
import shutil
import subprocess
from pathlib import Path

from lab import say

PATHS = ["tcp-stream", "tcp-tap", "unix", "fgdp", "fgdp-poll", "carried", "carried-poll", "lo", "lo-carried",
         "shm-floor", "unix-2", "lo-2", "lo-2-carried", "other-bare", "other"]
# The first ones, in the order of plot.gp's lines.
PLOTTED = 10
TITLES = {
    "stream": "bytes in one direction, MB/s (more is better)",
    "rr": "round trip, us: median of the rounds' medians, smallest (less is better)",
    "connect": "connect, request, answer, close: per second (more is better)",
    "cpu_per_gb": "CPU seconds of both guests and the host daemon per GB (less is better)",
    "insn_per_rr": "guest instructions per round trip, both guests (less is better)",
    "insn_per_connect": "guest instructions per connection: connect, request, answer, close (less is better)",
    "insn_per_kb": "guest instructions per 1000 bytes in one direction (less is better)",
}


def human(size):
    if size >= 1 << 20:
        return f"{size >> 20} MiB"
    return f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


def number(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(metric, row):
    if row is None:
        return "-"
    if metric == "rr":
        return f"{number(row['median'])} ({number(row['min'])})"
    if metric.startswith("insn_"):
        return number(row["median"])
    return f"{number(row['median'])} [{number(row['min'])}, {number(row['max'])}]"


def table(rows):
    lines = []
    paths = [path for path in PATHS if any(row["path"] == path for row in rows)]
    for metric, title in TITLES.items():
        some = {(row["size"], row["path"]): row for row in rows if row["metric"] == metric}
        if not some:
            continue
        lines += ["", title]
        text = [[""] + paths]
        for size in sorted({size for size, _ in some}):
            text.append([human(size) if size else ""] + [cell(metric, some.get((size, path))) for path in paths])
        lines += columns(text)
    return lines


def columns(text):
    widths = [max(map(len, column)) for column in zip(*text)]
    return ["  " + "  ".join(word.rjust(width) for word, width in zip(line, widths)) for line in text]


def bells(results):
    """How often a side rang the other, and how often that was saved."""
    lines = []
    for (path, mode, size), counters in results.bells.items():
        sums = {}
        for name, values in counters.items():
            # One value for each guest and round, counted per operation. Devices do not matter here.
            name = name.rpartition(".")[2]
            sums[name] = sums.get(name, 0) + 2 * sum(values) / len(values)
        # A round trip has two writes. Each write may ring, if the other side sleeps; making space may ring, too.
        writes = 2 if mode == "rr" else 1
        rung = sum(value for name, value in sums.items() if name.startswith("doorbells_rung"))
        seen = [f"doorbells rung {rung:.4f}", f"writes that needed none {max(writes - rung, 0):.4f} of {writes}"]
        seen += [f"{title} {sums[name]:.4f}" for name, title in COUNTERS.items() if name in sums]
        lines.append(f"  {path} {mode} {human(size)}: {', '.join(seen)}")
    return ["", "per operation (a write, or a round trip), both guests together", *lines] if lines else []


COUNTERS = {
    "doorbells_rung_trap": "of these by trap",
    "doorbells_coalesced": "coalesced",
    "messages_sent": "messages",
    "suppressed": "messages that needed no doorbell",
}


def targets(results):
    """What is to be reached, as ratios of medians of this run: name, ours, the other, which side of what limit."""
    get = results.get
    if not measured(results.rows()):
        return []

    def best_tcp(metric, size, choose, what="median"):
        seen = [get(path, metric, size, what) for path in ("tcp-stream", "tcp-tap")]
        return choose([value for value in seen if value is not None], default=None)

    def times(path, metric, size):
        """How many in a second."""
        seen = get(path, metric, size)
        return 1e6 / seen if seen else None

    def best_rate(metric, size):
        seen = best_tcp(metric, size, min)
        return 1e6 / seen if seen else None

    return [
        ("64 KiB stream, of the best TCP", get("fgdp", "stream", 65536), best_tcp("stream", 65536, max), ">=", 4),
        ("64 B stream, of the best TCP", get("fgdp", "stream", 64), best_tcp("stream", 64, max), ">=", 3),
        ("64 B round trip, blocking: median of TCP's minimum", get("fgdp", "rr", 64),
         best_tcp("rr", 64, min, "min"), "<=", 0.5),
        ("64 B round trip, blocking: minimum of TCP's minimum", get("fgdp", "rr", 64, "min"),
         best_tcp("rr", 64, min, "min"), "<=", 0.5),
        ("64 B round trip, busy polling: median of TCP's minimum", get("fgdp-poll", "rr", 64),
         best_tcp("rr", 64, min, "min"), "<=", 0.05),
        ("CPU per GB, 64 KiB stream, of the best TCP", get("fgdp", "cpu_per_gb", 65536),
         best_tcp("cpu_per_gb", 65536, min), "<=", 1 / 3),
        ("carried TCP: 64 KiB stream, of the best TCP", get("carried", "stream", 65536),
         best_tcp("stream", 65536, max), ">=", 5),
        ("carried TCP: 1 KiB round trips, of the best TCP", times("carried", "rr", 1024),
         best_rate("rr", 1024), ">=", 2.5),
        ("carried TCP: 1 KiB round trips, busy polling, of the best TCP", times("carried-poll", "rr", 1024),
         best_rate("rr", 1024), ">=", 5),
        ("carried TCP: CPU per GB, 64 KiB stream, of the best TCP", get("carried", "cpu_per_gb", 65536),
         best_tcp("cpu_per_gb", 65536, min), "<=", 0.25),
        *(row for where, lo in (("one guest", "lo"), ("one guest with two CPUs", "lo-2")) for row in (
            (f"inside {where}: 64 KiB stream, of lo", get(f"{lo}-carried", "stream", 65536), get(lo, "stream", 65536),
             ">=", 1.7),
            (f"inside {where}: 64 B round trips, of lo", times(f"{lo}-carried", "rr", 64), times(lo, "rr", 64), ">=", 2))),
        ("others, with the module: instructions per connection", get("other", "insn_per_connect", 64),
         get("other-bare", "insn_per_connect", 64), "<=", 1.02),
        ("others, with the module: instructions per byte", get("other", "insn_per_kb", 65536),
         get("other-bare", "insn_per_kb", 65536), "<=", 1.02),
    ]


def verdicts(wanted):
    lines = ["", "targets"]
    for name, ours, other, sign, limit in wanted:
        if not ours or not other:
            lines.append(f"  {name}: not measured")
            continue
        ratio = ours / other
        reached = ratio >= limit if sign == ">=" else ratio <= limit
        lines.append(f"  {name}: {ratio:.3f} (to reach: {sign} {limit:.3g}) {'reached' if reached else 'MISSED'}")
    return lines


def measured(rows):
    return any(row["metric"] == "stream" for row in rows)


def data(rows, metric, paths, file):
    """A block for each path, as gnuplot reads them."""
    lines = []
    for path in paths:
        some = sorted((row for row in rows if (row["path"], row["metric"]) == (path, metric)),
                      key=lambda row: row["size"])
        lines.append(f'"{path}"')
        lines += [f"{row['size']} {row['median']} {row['min']} {row['max']}" for row in some] or ["NaN NaN NaN NaN"]
        lines += ["", ""]
    file.write_text("\n".join(lines))


def gnuplot(name, folder):
    """PNG and SVG."""
    if not shutil.which("gnuplot"):
        say("no plot: gnuplot is missing (apt-get install gnuplot-nox)")
        return
    script = Path(__file__).with_name(name)
    done = subprocess.run(["gnuplot", script], cwd=folder, check=False, text=True, capture_output=True)
    if done.returncode != 0:
        say(f"no plot: gnuplot: {done.stderr.strip()}")


def plot(rows, folder):
    for metric in ("stream", "rr", "cpu_per_gb"):
        data(rows, metric, PATHS[:PLOTTED], folder / f"{metric}.dat")
    gnuplot("plot.gp", folder)


def write(results, where, folder, tables=(), wanted=()):
    """All of it, with the lines `tables` and the targets `wanted` of a part."""
    rows = results.rows()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(rows, indent=1) + "\n")
    if measured(rows):
        plot(rows, folder)
    lines = [where, *table(rows), *bells(results), *tables, *verdicts([*targets(results), *wanted])]
    if results.notes:
        lines += ["", "notes", *(f"  {note}" for note in results.notes)]
    text = "\n".join(lines)
    (folder / "latest.txt").write_text(text + "\n")
    print(text)
    print(f"\nresults: {folder}/latest.json, latest.txt; plots bench and zerocopy, as .png and .svg")
