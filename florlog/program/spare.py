"""What this machine has to spare besides the running training: cores and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def idle_cores() -> float:
    """Cores that this process may use and that nobody used during the last minute, by the system's load."""
    cores = float(len(os.sched_getaffinity(0)))
    found = cores - os.getloadavg()[0]
    limit, _, period = _group_file("cpu.max").partition(" ")
    if limit.isdecimal() and period.strip().isdecimal():
        times = os.times()
        used = (times.user + times.system + times.children_user + times.children_system) / _age()
        found = min(found, int(limit) / int(period) - used)
    return found


def available_bytes() -> int:
    """Memory that can be had without swapping, here and in this process's control group."""
    found = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = 1024 * int(next((line for line in lines if line.startswith("MemAvailable:")), "").split()[1])
    limit, used = _group_file("memory.max").strip(), _group_file("memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        found = min(found, int(limit) - int(used))
    return found


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _age() -> float:
    """Seconds since this process began, at least one."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf(
        "SC_CLK_TCK"
    )
    return max(1.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def _group_file(name: str) -> str:
    """A file of this process's control group (version 2); "" where there is none, as without a limit."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        own = next((line.removeprefix("0::/") for line in groups if line.startswith("0::/")), "")
        return (_GROUPS / own / name).read_text()
    except OSError:
        return ""
