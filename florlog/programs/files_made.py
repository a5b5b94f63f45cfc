"""Which files and directories a recorded run has made: a replay's set-up does not see them, as the run's did not.

Scripts look whether a checkpoint, a cache or a directory for results is there, and go another way if it is: they load
it, begin at a later epoch, or fail.  When the run began it was not there.  What came into being while the run was
recorded is told by the time at which the file system has made it.  A copy of a file is made later: it is seen.

Seen are also sources, whose text a replay compares itself, names that begin with a dot, and florlog's own directories.
A file that was there before the run and was written again is seen as it is now.
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

from florlog_recovery.costs import KIND
from florlog_wal import Note, RunEnd, RunLog

CLOCK_SECONDS = 0.02
"""How much the file system's clock may be behind."""
ENDING_SECONDS = 10.0
"""After a run, the time that its script may take for what it writes at its end."""
MAX_ENTRIES = 20_000
"""How many files and directories are looked at: data sets may have millions."""
_NEAR = 8  # records after a session's first, or before its last
_AT_FDCWD, _STATX_BTIME = -100, 0x800  # linux/fcntl.h, linux/stat.h
_STATX_BYTES, _MASK, _BIRTH = 256, slice(0, 4), slice(80, 92)  # struct statx: its length, stx_mask, stx_btime


def files_made(log: RunLog, directories: Iterable[str]) -> frozenset[str]:
    """The absolute paths of what was made below ``directories`` while the run of ``log`` was recorded.

    A directory stands for all that is in it.  What contains the log or temporary files is left out.
    """
    began, ended = _began(log), _ended(log)
    kept = [os.path.join(os.path.realpath(path), "") for path in (log.path, tempfile.gettempdir())]  # noqa: PTH118
    return frozenset(
        path
        for directory in dict.fromkeys(map(os.path.abspath, directories))
        for path in _made_below(directory, began, ended)
        if not any(inside.startswith(os.path.join(os.path.realpath(path), "")) for inside in kept)  # noqa: PTH118
    )


def _began(log: RunLog) -> float:
    """When the script has started, or its run if it came after others, in seconds since 1970."""
    first = log.sessions()[0]
    began = first.begin.started - CLOCK_SECONDS
    if first.begin.earlier:
        return began
    for lsn in range(first.lsn + 1, min(first.last_lsn, first.lsn + _NEAR) + 1):
        with suppress(LookupError):
            if isinstance(record := log.record(lsn).record, Note) and record.kind == KIND:
                return began - float(record.data.get("setup", 0.0))
    return began


def _ended(log: RunLog) -> float:
    """When the last session has ended, in seconds since 1970; infinity where it did not end by itself."""
    last = log.sessions()[-1]
    for lsn in range(last.last_lsn, max(last.lsn, last.last_lsn - _NEAR), -1):
        with suppress(LookupError):
            if isinstance(record := log.record(lsn).record, RunEnd):
                return last.begin.started + record.seconds + ENDING_SECONDS
    return math.inf


def _made_below(directory: str, began: float, ended: float) -> Iterator[str]:
    pending, seen = [directory], 0
    while pending and seen < MAX_ENTRIES:
        try:
            entries = sorted(os.scandir(pending.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if entry.name.startswith((".", "__pycache__", "florlog-")) or entry.name.endswith(
                (".py", ".pyc", ".ipynb")
            ):
                continue
            with suppress(OSError):
                if entry.stat().st_mtime >= began and began <= made_at(entry.path) <= ended:
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def made_at(path: str) -> float:
    """When the file system made a file, in seconds since 1970; -inf where it does not say."""
    found = ctypes.create_string_buffer(_STATX_BYTES)
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, found) != 0:
        return -math.inf
    if not int.from_bytes(found.raw[_MASK], "little") & _STATX_BTIME:
        return -math.inf
    birth = found.raw[_BIRTH]
    return int.from_bytes(birth[:8], "little", signed=True) + int.from_bytes(birth[8:], "little") / 1e9
