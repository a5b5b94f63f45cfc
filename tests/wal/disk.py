"""What a power cut may leave on a disk.

Files and directories are nodes; a directory is what its names stand for.  A sync of a file makes its contents certain,
one of a directory the names in it, and nothing else does.  So a file that was synced is gone if its name was not, and
a directory keeps what it contains under whatever name it has.  A cut may leave:

* of a file's contents: what is certain, and any subset of the later writes, each torn between any 512-byte sectors;
  mapped memory is a file that was written very often.  A write that is lost may have made the file longer: by zeros;
* of the names: what is certain, and any subset of the later changes, also a later one without an earlier one.  A
  change is atomic: a rename inside a directory is kept or lost as a whole; of one between two directories, what was
  synced of one may be there without the other;
* in LMDB's lock file: garbage.

Journalling file systems keep changes of names in their order (``specs/assumptions.md``).  That is one of the ways in
which a subset is drawn; what survives all of them needs no such order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.wal.traces import Event

SECTOR_BYTES = 512
_GARBAGE = random.Random(0).randbytes(8192)


class Write(NamedTuple):
    """A change of a file: bytes at an offset; or, without bytes, an end there, or at least there."""

    offset: int
    data: bytes | None
    kind: str


@dataclass
class File:
    """The contents that are certain, and the later changes."""

    sure: bytearray = field(default_factory=bytearray)
    loose: list[Write] = field(default_factory=list)

    def settle(self) -> None:
        for write in self.loose:
            _apply(self.sure, write)
        self.loose.clear()


@dataclass
class Folder:
    """The names as the running system sees them, those that are certain, and the later changes by event."""

    live: dict[str, Node] = field(default_factory=dict)
    sure: dict[str, Node] = field(default_factory=dict)
    loose: list[tuple[int, str, Node | None]] = field(default_factory=list)

    def name(self, event: int, name: str, node: Node | None) -> None:
        self.loose.append((event, name, node))
        _set(self.live, name, node)

    def settle(self) -> None:
        for _, name, node in self.loose:
            _set(self.sure, name, node)
        self.loose.clear()


Node: TypeAlias = File | Folder
Keeps: TypeAlias = Callable[[Folder, int], bool]
"""Whether the change that an event made in a folder is kept."""


class Disk:
    """A disk after some events."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._root = Folder()
        self._number = 0
        self.acks = ""  # what was acknowledged
        for event in events:
            self.do(event)

    def do(self, event: Event) -> None:
        """One more event."""
        self._do(self._number, event)
        self._number += 1

    def _do(self, number: int, event: Event) -> None:
        if event.kind == "ack":
            self.acks += event.other
            return
        folder, name = self._parent(event.path)
        node = folder.live.get(name) if name else folder
        match event.kind:
            case "make" if node is None:
                folder.name(number, name, File())
            case "make":
                pass
            case "folder":
                folder.name(number, name, Folder())
            case "remove":
                folder.name(number, name, None)
            case "move":
                to, other = self._parent(event.other)
                folder.name(number, name, None)
                to.name(number, other, node)
            case "sync":
                assert node is not None, event
                node.settle()
            case "write" | "through" | "cut" | "extend":
                assert isinstance(node, File), event
                data = event.data if event.kind in ("write", "through") else None
                node.loose.append(Write(event.offset, data, event.kind))
            case kind:
                raise AssertionError(kind)

    def _parent(self, path: str) -> tuple[Folder, str]:
        *above, name = path.split("/")
        folder = self._root
        for part in above:
            inner = folder.live[part]
            assert isinstance(inner, Folder), path
            folder = inner
        return folder, name

    def left(self, choose: random.Random) -> dict[str, bytes | bytearray | None]:
        """What a cut may leave: the contents of files, and None for directories, those above first."""
        keeps = _names(self._root, choose)
        part, torn, longer = (
            choose.choice([0.0, 0.1, 0.5, 0.9, 1.0]),
            choose.random() < 0.5,
            choose.random() < 0.5,
        )
        found: dict[str, bytes | bytearray | None] = {}
        open_folders = [("", self._root)]
        while open_folders:
            where, folder = open_folders.pop()
            found[where] = None
            names = dict(folder.sure)
            for event, name, node in folder.loose:
                if keeps(folder, event):
                    _set(names, name, node)
            for name, node in names.items():
                path = f"{where}/{name}" if where else name
                if isinstance(node, Folder):
                    open_folders.append((path, node))
                else:
                    garbage = name == "lock.mdb"
                    found[path] = _GARBAGE if garbage else _contents(node, part, torn, longer, choose)
        return found

    def leave(self, target: Path, choose: random.Random) -> None:
        """Write what a cut may leave into a new directory."""
        for path, content in self.left(choose).items():
            if content is None:
                (target / path).mkdir()
            else:
                (target / path).write_bytes(content)


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _names(root: Folder, choose: random.Random) -> Keeps:
    """Which changes of names are kept: all or none, the first or the last ones, those of each directory, or any."""
    events = sorted({event for folder in _folders(root) for event, _, _ in folder.loose})
    border = choose.choice([-1, *events])
    match choose.choice(["none", "all", "first", "last", "each", "any"]):
        case "none":
            return lambda folder, event: False
        case "all":
            return lambda folder, event: True
        case "first":
            return lambda folder, event: event <= border
        case "last":
            return lambda folder, event: event >= border
        case "each":
            borders: dict[int, int] = {}
            return lambda folder, event: event <= borders.setdefault(id(folder), choose.choice([-1, *events]))
        case _:
            part = choose.choice([0.1, 0.5, 0.9])
            kept = {event for event in events if choose.random() < part}
            return lambda folder, event: event in kept


def _folders(root: Folder) -> Iterator[Folder]:
    """All directories that any name has led to since it was certain."""
    left, seen = [root], set()
    while left:
        folder = left.pop()
        if id(folder) not in seen:
            seen.add(id(folder))
            yield folder
            nodes = [*folder.sure.values(), *(node for _, _, node in folder.loose)]
            left += [node for node in nodes if isinstance(node, Folder)]


def _contents(file: File, part: float, torn: bool, longer: bool, choose: random.Random) -> bytearray:
    """The certain contents, and the given part of the later changes."""
    if not file.loose:
        return file.sure
    content = bytearray(file.sure)
    for write in file.loose:
        if write.kind == "through":
            _apply(content, write)
        elif write.data is not None and torn:
            for at in range(0, len(write.data), SECTOR_BYTES):
                if choose.random() < part:
                    _apply(content, Write(write.offset + at, write.data[at : at + SECTOR_BYTES], "write"))
        elif choose.random() < part:
            _apply(content, write)
        elif write.data is not None and longer:
            _apply(content, Write(write.offset + len(write.data), None, "extend"))
    return content


def _apply(content: bytearray, write: Write) -> None:
    if len(content) < write.offset:
        content.extend(bytes(write.offset - len(content)))
    if write.data is not None:
        content[write.offset : write.offset + len(write.data)] = write.data
    elif write.kind == "cut":
        del content[write.offset :]
