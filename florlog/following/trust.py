"""Values that a replay finds, and how far each can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from florlog_recovery import RunTree
from florlog_wal import Path, StackFrame

from florlog.program.environment import has_same_hashes

PROVEN, CONSISTENT, UNVERIFIED, DIVERGED = "PROVEN", "CONSISTENT", "UNVERIFIED", "DIVERGED"


@dataclass(slots=True)
class FoundValue:
    """A value that the recording does not have."""

    file: str
    line: int
    qualname: str
    name: str
    path: Path
    value: Any
    trust: str = UNVERIFIED
    detail: str = ""
    closed: int = 0  # comparisons of the whole state or iteration before it
    outside: str = ""  # what it reads that is neither state nor item, such as the clock
    unsteady: str = ""  # what else than state and items the code before it reads
    received: bool = True  # the items were compared
    reads_item: bool = False  # its statement reads what comes from the item
    sampled: bool = False  # of the item no more than a sample was compared
    segment: int = 0  # loops of its iteration that had ended


LoggedValue: TypeAlias = tuple[str, int, str]
"""File and line of a statement, and the name of a value that it logs, as the text has it."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What the values of added statements read, as source analysis answers it; the texts go into labels."""

    unsteady: Mapping[tuple[StackFrame | None, LoggedValue], str] = field(default_factory=dict)
    """Loop and value -> what its code, and the code before its statement, reads that is neither state nor item."""
    outside: Mapping[LoggedValue, str] = field(default_factory=dict)
    """What a value comes from that is neither state nor item."""
    alone: Mapping[LoggedValue, str] = field(default_factory=dict)
    """The same of what its code itself executes, by its text, for a statement that is not watched while it runs."""
    items: frozenset[LoggedValue] = frozenset()
    """The values that read an item, or what was computed from it."""


def hashes_repeat(tree: RunTree) -> bool:
    """Whether text has the hashes in this process that it had in a run, and a set of it the same order."""
    return len(tree.sessions) == 1 and has_same_hashes(tree.begin.environment)


def where(path: Path) -> str:
    """An iteration's address as text: ``epoch=3, step=17``."""
    return ", ".join(f"{name}={index}" for name, index in path) or "the run's start"


class Circumstances(NamedTuple):
    """What is known where a value is labelled."""

    local: str  # the variable that was not as recorded
    skipped: str  # what was not executed since the state was last known to be the recorded one
    last: bool  # nothing that covers an iteration or a state was compared after the value


Rule = Callable[[FoundValue, Circumstances], str]

RULES: dict[str, Rule] = {
    "variable": lambda found, here: here.local,
    "skipped": lambda found, here: (
        f"{here.skipped} was skipped, and no image that was reached afterwards confirms it"
        if here.skipped
        else ""
    ),
    "outside": lambda found, here: found.outside,
    "sampled": lambda found, here: (
        "reads an item of which no more than a sample was compared"
        if found.reads_item and found.sampled
        else ""
    ),
    "unsteady": lambda found, here: (
        f"the code before it {found.unsteady}, and nothing that was recorded after it was reached"
        if here.last and found.unsteady
        else ""
    ),
    "unread": lambda found, here: (
        "the item of its iteration has no fingerprint, as the iteration was short, and it reads the item, or nothing "
        "that was recorded after it was reached"
        if not found.received and (found.reads_item or here.last)
        else ""
    ),
}
"""What keeps a value from being PROVEN that an image and no difference speak for: name -> the reason, or ""."""
