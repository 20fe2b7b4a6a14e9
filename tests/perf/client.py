# SPDX-License-Identifier: Apache-2.0 OR MIT
"""One run of fgdp-perf's client, and what the host sees of it."""

import contextlib
import json
import signal

from lab import PERF, Failed


def ask(path, args, mode, size, options=(), seconds=None):
    """One measurement: the client's result, and the CPU time that the host spent meanwhile."""
    seconds = seconds or args.seconds
    command = [PERF, "client", "--family", path.family, "--addr", path.addr, "--mode", mode,
               "--size", size, "--seconds", seconds, *options]
    if path.poll:
        command += ["--busy-poll", path.poll]
    path.lab.set_inet(path.inet)
    with path.lab.alone() if args.alone else contextlib.nullcontext():
        return observe(path.lab, path.lab.start("a", *command), path.guests, seconds)


def observe(lab, client, guests, seconds):
    signal.alarm(int(seconds * 3) + 40)
    result, start, cpu = None, None, None
    try:
        for line in client.stdout:
            event = json.loads(line)
            match event["event"]:
                case "start":
                    start = lab.cpu_seconds(guests)
                case "end" if start is not None:
                    cpu = lab.cpu_seconds(guests) - start
                case "result":
                    result = event
        client.wait()
    except TimeoutError:
        client.kill()
        client.wait()
        raise Failed("no result in time") from None
    finally:
        signal.alarm(0)
        lab.background.remove(client)
    if result is None or client.returncode != 0:
        raise Failed(client.stderr.read().strip() or f"the client ended with {client.returncode}")
    return result, cpu
