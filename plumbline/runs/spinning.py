"""How long OpenMP's threads spin for one another before they sleep.

torch cuts an operation into parts, one for each thread, and the threads wait for the slowest. While
they wait they spin, which saves the few microseconds that waking a sleeper takes. On a machine with
nothing else to do that is right. Where other programs want the cores, a thread that spins keeps the
core from the very thread that it waits for, and a run takes many times as long.

libgomp, which torch brings along, reads the number of spins from ``GOMP_SPINCOUNT`` when it is
loaded, and never again. So it is chosen when the process server starts, from what the machine did
in the moments before. The number of threads does not depend on the load: it decides in which order
numbers are added, and with it the last digits of results.

Measured by ``benchmarks/busy.py``.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: On a quiet machine: enough for the gaps between two operations, and far fewer than libgomp's own.
QUIET = 10_000
#: Where others want the cores: sleep at once.
BUSY = 0
#: Cores that others keep busy, above which the machine counts as busy.
_OTHERS = 0.5
#: Shorter than this, a measurement of the load says nothing.
_SECONDS = 0.2
#: If one of these is set, the user has decided.
_DECIDED_BY = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


@dataclass(frozen=True)
class Moment:
    """What the machine's cores and this process had done at a moment."""

    clock: float
    busy: float
    """Seconds of all cores that were not idle."""
    own: float
    """Seconds of this process and of its children that have ended."""

    @classmethod
    def now(cls) -> Moment:
        """Return the present one."""
        cores = psutil.cpu_times()
        idle = cores.idle + getattr(cores, "iowait", 0.0)
        guests = getattr(cores, "guest", 0.0) + getattr(cores, "guest_nice", 0.0)  # in user already
        own = os.times()
        return cls(time.monotonic(), sum(cores) - idle - guests, sum(own[:4]))


def others(before: Moment, after: Moment) -> float | None:
    """Return how many cores other programs kept busy between two moments, if that can be told."""
    seconds = after.clock - before.clock
    if seconds < _SECONDS:
        return None
    return max(0.0, (after.busy - before.busy - (after.own - before.own)) / seconds)


def quota(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many cores a container's quota allows; None where there is no quota."""
    try:  # version 2 of control groups has both numbers in one file, version 1 in two
        if (groups / "cpu.max").exists():
            allowed, period = (groups / "cpu.max").read_text(encoding="ascii").split()
        else:
            allowed = (groups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (groups / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return None if allowed in ("max", "-1") else int(allowed) / int(period)


def spin_count(busy_cores: float | None, allowed: float | None, cores: int) -> int:
    """Return the spins for a machine on which others keep so many cores busy.

    A quota below the number of cores counts as a busy machine: a thread that spins uses it up.
    """
    shared = busy_cores is not None and busy_cores > _OTHERS
    limited = allowed is not None and allowed < cores
    return BUSY if shared or limited else QUIET


def choose_busy() -> None:
    """Let threads of processes that start from now on sleep at once: several stages will run."""
    if sys.platform == "linux" and not any(name in os.environ for name in _DECIDED_BY):
        os.environ["GOMP_SPINCOUNT"] = str(BUSY)


def choose(since: Moment) -> None:
    """Set ``GOMP_SPINCOUNT`` for processes that start from now on, unless the user has decided."""
    if sys.platform != "linux" or any(name in os.environ for name in _DECIDED_BY):
        return
    cores = len(os.sched_getaffinity(0))
    count = spin_count(others(since, Moment.now()), quota(), cores)
    os.environ["GOMP_SPINCOUNT"] = str(count)
