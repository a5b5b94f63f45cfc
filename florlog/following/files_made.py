"""Which files and directories a recorded run has made: the set-up of a replay or a resume does not see them.

Scripts look whether a checkpoint, a cache or a directory for results is there, and go another way if it is: they load
it, begin at a later epoch, or fail.  When the run began it was not there.  What came into being while the run was
recorded has a time of birth in the file system that lies in that time.  A copy of a file is born later: it is seen.

A resume is the real run.  It may take hours to make a cache again, and what was downloaded may not be there any more.
So where an image puts back what the set-up leaves, it sees the files that the set-up made and nothing has changed
since, and does not see what was written later.

Seen are also sources, whose text a replay compares itself, names that begin with a dot, and florlog's own directories.
A file that was there before the run and was written again is seen as it is now (`changed_text`).
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from florlog_recovery import Node, RunTree
from florlog_recovery.costs import KIND
from florlog_wal import Note, RunEnd, RunLog

CLOCK_SECONDS = 0.02
"""By so much a file may seem older than it is: the file system reads a coarser clock."""
ENDING_SECONDS = 10.0
"""After a run, the time that its script may take for what it writes at its end."""
UNRECORDED_SHARE = 0.25
"""Of what is recorded of a killed run, the share that it may have taken in addition, in florlog and after that."""
MAX_ENTRIES = 20_000
"""How many files and directories are looked at: data sets may have millions."""
_NEAR = 8  # records after a session's first, or before its last
_AT_FDCWD, _STATX_BTIME = -100, 0x800  # linux/fcntl.h, linux/stat.h
_STATX_BYTES, _MASK, _BIRTH = 256, slice(0, 4), slice(80, 92)  # struct statx: its length, stx_mask, stx_btime


@dataclass(frozen=True, slots=True)
class _Lifetime:
    """When a run was recorded, in seconds since 1970."""

    began: float
    """When the script has started, or its run if it came after others."""
    looped: float
    """Not later than its first loop began; infinity where it had none."""
    ended: float
    """Not earlier than its last session ended."""

    @classmethod
    def of(cls, log: RunLog, tree: RunTree) -> _Lifetime:
        loops = tree.root.loops
        looped = log.sessions()[0].begin.started + loops[0].before - CLOCK_SECONDS if loops else math.inf
        return cls(_began(log), looped, _ended(log, tree))

    def has(self, made: float) -> bool:
        return self.began <= made <= self.ended


def files_made(log: RunLog, tree: RunTree, directories: Iterable[str]) -> frozenset[str]:
    """The absolute paths of what was made below ``directories`` while the run of ``log`` was recorded.

    A directory stands for all that is in it.  What contains the log, a source or temporary files is left out.
    """
    lifetime = _Lifetime.of(log, tree)
    return frozenset(_made_below(directories, lifetime, _kept(log, tree)))


def files_of_loops(log: RunLog, tree: RunTree, directories: Iterable[str]) -> frozenset[str]:
    """As `files_made`, without the files that were as they are when the first loop began, and what contains one."""
    lifetime = _Lifetime.of(log, tree)
    later: set[str] = set()
    for path in _made_below(directories, lifetime, _kept(log, tree)):
        with suppress(OSError):
            later.update(_later_in(path, lifetime.looped))
    return frozenset(later)


def changed_text(log: RunLog, tree: RunTree, directories: Iterable[str]) -> str:
    """That files were there before the run, and were written while it was recorded; "" where none was."""
    lifetime, found = _Lifetime.of(log, tree), []
    own = _inside(str(log.path))
    for entry in _entries(directories):
        with suppress(OSError):
            if entry.is_file(follow_symlinks=False) and lifetime.has(entry.stat().st_mtime):
                before = made_at(entry.path) < lifetime.began and not os.path.realpath(entry.path).startswith(
                    own
                )
                found += [entry.path] if before else []
    if not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{min(found)}{more} was there before the run began and has been written since: if the script reads that "
        "before its first loop, put its old content back"
    )


def _kept(log: RunLog, tree: RunTree) -> list[str]:
    return [*map(_inside, (str(log.path), tempfile.gettempdir())), *map(os.path.realpath, tree.sources)]


def _inside(directory: str) -> str:
    """How the real paths below a directory begin."""
    return os.path.join(os.path.realpath(directory), "")  # noqa: PTH118


def _made_below(directories: Iterable[str], lifetime: _Lifetime, kept: list[str]) -> Iterator[str]:
    found: set[str] = set()
    for entry in _entries(directories, found):
        with suppress(OSError):
            if entry.stat().st_mtime >= lifetime.began and lifetime.has(made_at(entry.path)):
                inside = _inside(entry.path)
                found.add(entry.path)
                if not any(path.startswith(inside) for path in kept):
                    yield entry.path


def _later_in(path: str, looped: float) -> list[str]:
    """What was written from then on, of a path and what is in it; one path where that is all there is."""
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114
        return [path] if max(made_at(path), os.lstat(path).st_mtime) >= looped else []
    inner = sorted(os.path.join(path, name) for name in os.listdir(path))  # noqa: PTH118, PTH208
    later = [_later_in(one, looped) for one in inner]
    if all(found == [one] for found, one in zip(later, inner, strict=True)):
        return [path]
    return [one for found in later for one in found]


def _entries(directories: Iterable[str], leaves: Collection[str] = ()) -> Iterator[os.DirEntry[str]]:
    """What is below directories, and not below one that is added to ``leaves`` meanwhile."""
    pending, seen = list(dict.fromkeys(map(os.path.abspath, directories)))[::-1], 0
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
            yield entry
            with suppress(OSError):
                if entry.path not in leaves and entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def _began(log: RunLog) -> float:
    first = log.sessions()[0]
    began = first.begin.started - CLOCK_SECONDS
    if first.begin.earlier:
        return began
    for lsn in range(first.lsn + 1, min(first.last_lsn, first.lsn + _NEAR) + 1):
        with suppress(LookupError):
            if isinstance(record := log.record(lsn).record, Note) and record.kind == KIND:
                return began - float(record.data.get("setup", 0.0))
    return began


def _ended(log: RunLog, tree: RunTree) -> float:
    last = log.sessions()[-1]
    for lsn in range(last.last_lsn, max(last.lsn, last.last_lsn - _NEAR), -1):
        with suppress(LookupError):
            if isinstance(record := log.record(lsn).record, RunEnd):
                return last.begin.started + record.seconds + ENDING_SECONDS
    longest = max((seconds for loop in tree.loops() for seconds in loop.seconds), default=0.0)
    return last.begin.started + _seconds(tree.root) * (1 + UNRECORDED_SHARE) + longest + ENDING_SECONDS


def _seconds(node: Node) -> float:
    """What is recorded of an iteration's time, or of the run's, also where it was killed in there."""
    return node.after + sum(
        loop.before + sum(loop.seconds) + sum(_seconds(n) for n in loop.nodes.values() if not n.committed)
        for loop in node.loops
    )


@functools.cache
def _statx() -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


def made_at(path: str) -> float:
    """When the file system made a file, in seconds since 1970; -inf where it does not say."""
    found = ctypes.create_string_buffer(_STATX_BYTES)
    statx = _statx()
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, found) != 0:
        return -math.inf
    if not int.from_bytes(found.raw[_MASK], "little") & _STATX_BTIME:
        return -math.inf
    birth = found.raw[_BIRTH]
    return int.from_bytes(birth[:8], "little", signed=True) + int.from_bytes(birth[8:], "little") / 1e9
