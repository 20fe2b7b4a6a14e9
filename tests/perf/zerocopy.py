# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Zero copy: granting and mapping beside copying, by size, by what the memory is used for, and by consumer."""

from dataclasses import dataclass

import report
from client import ask
from lab import Failed, say

# How each path sends and receives, over the connection that its name begins with; fgdp-perf does the same with the bytes on
# all of them.
PATHS = {
    "fgdp-copy": (),
    "fgdp-grant": ("--lend", "--window"),
    "carried-copy": (),
    "carried-grant": ("--lend", "--window"),
    "fgdp-lend": ("--lend",),
    "fgdp-sendfile": ("--sendfile",),
    "fgdp-splice": ("--splice",),
}
# Copying and granting over each kind of connection; the first ones above, as zerocopy.gp has them.
BOTH = ("fgdp-copy", "fgdp-grant", "carried-copy", "carried-grant")
GRANTS = ("fgdp-grant", "carried-grant")
SIZES = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 2 << 20, 16 << 20, 64 << 20]
QUICK_SIZES = [4 << 10, 64 << 10, 2 << 20]
# Of so large messages a run has few: it takes twice as long.
LARGE = 16 << 20


@dataclass(frozen=True)
class Case:
    """What both sides do with the bytes; `name` is the metric of the rate."""
    name: str
    title: str
    options: tuple
    paths: tuple
    quick: bool = False

    @property
    def cpu(self):
        return f"cpu_per_gb-{self.name.removeprefix('stream-')}"


CASES = [
    Case("stream-look", "the same memory again and again, each line read", ("--look",), tuple(PATHS), quick=True),
    Case("stream-write", "the same memory again and again, each line read and written by the receiver", ("--write",),
         BOTH, quick=True),
    Case("first-look", "memory mapped, filled and sent once, each line read", ("--look", "--fresh"),
         (*BOTH, "fgdp-lend"), quick=True),
    Case("first-write", "memory mapped, filled and sent once, each line read and written by the receiver",
         ("--write", "--fresh"), BOTH),
    Case("rewrite-look", "the same memory, filled each time, each line read", ("--look", "--rewrite"),
         (*BOTH, "fgdp-lend")),
]
# Nobody looks: what is left is the grant itself.
BLIND = Case("stream-blind", "the same memory again and again, nothing read", (), GRANTS, quick=True)
PER_GRANT = "us_per_grant"
QUICK_PATHS = (*BOTH, "fgdp-lend", "fgdp-sendfile")
# Below this much of the bytes, what was measured is not what its name says.
IN_PLACE = 99


def chosen(args):
    """Sizes, and cases with their paths."""
    cases = [case for case in [*CASES, BLIND] if case.quick or not args.quick]
    paths = [[path for path in case.paths if path in QUICK_PATHS or not args.quick] for case in cases]
    return QUICK_SIZES if args.quick else SIZES, list(zip(cases, paths))


def measure(results, ways, args):
    """All paths in turn, over the connections `ways` between two guests."""
    ways = {way.name: way for way in ways}
    sizes, cases = chosen(args)
    left_out = set()
    for number in range(args.rounds):
        for size in sizes:
            for case, paths in cases:
                for path in paths:
                    way = ways[path.partition("-")[0]]
                    if (path, case, size) not in left_out and not one(results, way, args, path, case, size):
                        left_out.add((path, case, size))
        say(f"zero copy: round {number + 1} of {args.rounds} done")


def one(results, way, args, path, case, size):
    """False if there is no memory for it, now or later."""
    seconds = args.seconds * (2 if size >= LARGE else 1)
    try:
        result, cpu = ask(way, args, "stream", size, (*PATHS[path], *case.options), seconds)
    except Failed as error:
        what = f"{path} {case.name} {report.human(size)}"
        if "Cannot allocate memory" in str(error):
            results.notes.append(f"{what} is left out: the slot has too little memory to lend (--slot)")
        else:
            results.notes.append(f"{what}: {error}")
        say(results.notes[-1])
        return "Cannot allocate memory" not in str(error)
    note(results, path, case, size, result, cpu)
    return True


def note(results, path, case, size, result, cpu):
    arrived = result["arrived"]
    results.add(path, case.name, size, "MB/s", result["bytes"] / result["seconds"] / 1e6)
    if cpu:
        results.add(path, case.cpu, size, "s", cpu / (result["bytes"] / 1e9))
    if path not in GRANTS:
        return
    results.add(path, f"in_place-{case.name}", size, "%", 100 * arrived["in_place"] / arrived["bytes"])
    # Those of the warm-up are counted, too.
    grants = arrived["grants"] * result["bytes"] / arrived["bytes"]
    if case is BLIND and grants:
        results.add(path, PER_GRANT, size, "us", result["seconds"] * 1e6 / grants)
        results.add(path, "us_per_message", size, "us", result["seconds"] * 1e6 / result["ops"])


def ratios(results, metric, ours, other):
    """Per size, what path `ours` has to what `other` has."""
    found = {}
    for size in sizes(results, metric):
        both = results.get(ours, metric, size), results.get(other, metric, size)
        if all(both):
            found[size] = both[0] / both[1]
    return found


def sizes(results, metric):
    return sorted({row["size"] for row in results.rows() if row["metric"] == metric})


def wins_from(ratio):
    """The size from which on the ratio is above 1, if there is one."""
    first = None
    for size in sorted(ratio, reverse=True):
        if ratio[size] <= 1:
            break
        first = size
    return first


def verdict(what, ratio, other):
    first = wins_from(ratio)
    if not ratio:
        return f"  {what} against {other}: not measured"
    if first is None:
        return f"  {what} does not win against {other}"
    return f"  {what} wins against {other} from {report.human(first)} on"


def table(results, metric, paths, ratio):
    """A column for each path that was measured, and those of `ratio`: their titles, and what they have per size."""
    ratio = {title: found for title, found in ratio.items() if found}
    rows = {(row["path"], row["size"]): row for row in results.rows() if row["metric"] == metric}
    paths = [path for path in paths if any(path == seen for seen, _ in rows)]
    text = [["", *paths, *ratio]]
    for size in sizes(results, metric):
        cells = [report.cell(metric, rows.get((path, size))) for path in paths]
        cells += [report.number(found[size]) if size in found else "-" for found in ratio.values()]
        text.append([report.human(size), *cells])
    return report.columns(text)


def granting(results, metric):
    """What granting has to what copying has, over each kind of connection."""
    return {"grant / copy": ratios(results, metric, "fgdp-grant", "fgdp-copy"),
            "carried": ratios(results, metric, "carried-grant", "carried-copy")}


def tables(results):
    lines = []
    for case in CASES:
        if not sizes(results, case.name):
            continue
        ratio = granting(results, case.name)
        lines += ["", f"zero copy, {case.title}: MB/s (more is better)",
                  *table(results, case.name, case.paths, ratio), verdict("granting", ratio["grant / copy"], "copying"),
                  verdict("carried: granting", ratio["carried"], "copying")]
        if "fgdp-lend" in case.paths:
            lent = ratios(results, case.name, "fgdp-lend", "fgdp-copy")
            lines.append(verdict("granting to a receiver that copies", lent, "copying"))
        if "fgdp-sendfile" in case.paths:
            kept = ratios(results, case.name, "fgdp-lend", "fgdp-sendfile")
            lines.append(verdict("a file kept in lent memory, received by copying,", kept, "sendfile"))
            piped = ratios(results, case.name, "fgdp-splice", "fgdp-sendfile")
            lines += [verdict("splice", piped, "sendfile")] if piped else []
        if sizes(results, case.cpu):
            lines += ["  CPU seconds of both guests and the host daemon per GB (less is better)",
                      *table(results, case.cpu, case.paths, granting(results, case.cpu))]
    if sizes(results, PER_GRANT):
        lines += ["", "zero copy: us for each grant, sent, received and given back, nothing read (less is better)",
                  *table(results, PER_GRANT, GRANTS, {})]
    return [*lines, *copied(results)]


def copied(results):
    """What of the grants was copied after all."""
    lines = []
    for row in results.rows():
        if row["metric"].startswith("in_place-") and row["median"] < IN_PLACE:
            case = row["metric"].removeprefix("in_place-")
            lines.append(f"  {row['path']} {case} {report.human(row['size'])}: {row['median']:.0f} % was read in place")
    return ["", "zero copy: grants of which not all was read in place", *lines] if lines else []


def targets(results):
    """What is to be reached, as report.targets() has it."""
    get = results.get
    costs = [get("fgdp-grant", PER_GRANT, size) for size in sizes(results, PER_GRANT) if size >= 64 << 10]
    if not sizes(results, "stream-look"):
        return []
    return [
        ("zero copy: 2 MiB granted again and again, each line read, of copying", get("fgdp-grant", "stream-look", 2 << 20),
         get("fgdp-copy", "stream-look", 2 << 20), ">=", 5),
        # As far apart as runs of one size are.
        ("zero copy: the dearest grant of 64 KiB and more, of one of 64 KiB", max(costs, default=None),
         get("fgdp-grant", PER_GRANT, 64 << 10), "<=", 1.25),
    ]


def plot(results, folder):
    for metric in ("stream-look", "stream-write", "first-look", "cpu_per_gb-look"):
        report.data(results.rows(), metric, PATHS, folder / f"zerocopy-{metric}.dat")
    report.gnuplot("zerocopy.gp", folder)
