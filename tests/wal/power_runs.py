"""Power cuts in operations on whole runs, replayed from their traces (`traces`, `disk`).

After a cut at any event the same is legal as after a kill.  After the last one the work has come to its end, and all
of it must be there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from xxhash import xxh3_128_digest

from tests.wal import opening, operations, power
from tests.wal.crash import Outcome
from tests.wal.disk import Disk
from tests.wal.operations import Operation
from tests.wal.traces import Event, Trace, trace_of

OPERATIONS: dict[str, Callable[[Path], Operation]] = {
    "rm": operations.rm_operation,
    "pack": operations.pack_operation,
    "pack, a new file": partial(operations.pack_operation, name="new"),
    "unpack": operations.unpack_operation,
    "copy": opening.copy_operation,
    "a first run": opening.first_operation,
    "a resume": opening.resume_operation,
    **{policy: partial(operations.gc_operation, policy, beside=False) for policy in operations.POLICIES},
}
"""By name, how they are made for a folder that `operations.make_template` has made."""


def traced(operation: Operation, template: Path) -> Trace:
    """What an operation does to a copy of a folder."""
    return trace_of(operation.work, template)


def cuts(trace: Trace, first_seed: int, each: int) -> Iterator[tuple[int, int]]:
    """Of so many cuts after each event those that leave different disks, and always those at the end."""
    disk = Disk(trace.events[: trace.standing])
    seen: set[bytes] = set()
    for after in range(trace.standing, len(trace.events) + 1):
        for seed in range(first_seed, first_seed + each):
            left = disk.left(power.choices(after, seed))
            key = xxh3_128_digest(
                repr(sorted((path, _key(content)) for path, content in left.items())).encode()
            )
            if key not in seen or after == len(trace.events):
                seen.add(key)
                yield after, seed
        if after < len(trace.events):
            disk.do(trace.events[after])


def _key(content: bytes | bytearray | None) -> bytes:
    return b"" if content is None else xxh3_128_digest(content)


def cut_at(at: tuple[int, int], operation: Operation, events: Sequence[Event]) -> Outcome:
    """A power cut after an event, with a seed for what is left."""
    after, seed = at
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "left"
        power.cut(events, after, root, seed)
        try:
            wrong = operation.done(root) if after == len(events) else []
            wrong += operation.judge(root)
        except Exception as error:  # whatever it is, repeating the work should have been possible
            wrong = [f"{type(error).__name__}: {error}"]
    return Outcome(f"event {after}, seed {seed}", True, wrong)


def syncs(trace: Trace) -> list[int]:
    """Where a trace has a sync, or a write that is one."""
    numbers = range(trace.standing, len(trace.events))
    return [number for number in numbers if trace.events[number].kind in ("sync", "through")]


def without(events: Sequence[Event], sync: int) -> list[Event]:
    """The same events, as they are where one sync has no effect."""
    event = events[sync]
    left = [replace(event, kind="write")] if event.kind == "through" else []
    return [*events[:sync], *left, *events[sync + 1 :]]


def missed(operation: Operation, trace: Trace, sync: int, tries: int, first_seed: int) -> Outcome | None:
    """A cut that is not survived when a sync is left out, if that is found.

    Until the same is synced again, more may be left than with the sync; most of all before other syncs, and at the end.
    """
    events, event = without(trace.events, sync), trace.events[sync]
    later = range(sync + (event.kind == "through"), len(events))
    again = [at for at in later if (events[at].kind, events[at].path) == ("sync", event.path)]
    last = again[0] if again else len(events)
    for after in (last, *(at for at in later if at < last and events[at].kind in ("sync", "through"))):
        for seed in range(first_seed, first_seed + tries):
            if (outcome := cut_at((after, seed), operation, events)).wrong:
                return outcome
    return None
