"""Which records are shown: by LSN, type, iteration and name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from florlog_wal import RECORD_TYPES, Entry, Path, Record

from florlog.errors import FlorlogError

_PART = re.compile(r"\s*([^=,\s][^=,]*?)\s*=\s*(?:(-?\d+)|(\d*)\s*:\s*(\d*))\s*\Z")


@dataclass(frozen=True, slots=True)
class At:
    """Iterations by their address, and everything inside them: ``epoch=3, step=10:20``.

    A range is Python's: it includes its first index and not its last.  Loops that are not named may have any
    index.
    """

    text: str
    ranges: dict[str, tuple[int, float]]

    @classmethod
    def parse(cls, text: str) -> At:
        """Read an address; raises `FlorlogError`."""
        ranges: dict[str, tuple[int, float]] = {}
        for part in text.split(","):
            found = _PART.match(part)
            if found is None or int(found[2] or 0) < 0:
                raise FlorlogError(
                    f"cannot read the iterations {text!r}: write them as 'epoch=3' or 'epoch=3, step=10:20'"
                )
            name, index, first, stop = found.groups()
            if index is not None:
                ranges[name] = (int(index), int(index) + 1)
            else:
                ranges[name] = (int(first or 0), int(stop) if stop else float("inf"))
        return cls(text, ranges)

    def __call__(self, path: Path) -> bool:
        """Whether an iteration is selected, or is inside one that is."""
        left = len(self.ranges)
        for name, index in path:
            if (wanted := self.ranges.get(name)) is not None:
                if not wanted[0] <= index < wanted[1]:
                    return False
                left -= 1
        return left == 0


@dataclass(frozen=True, slots=True)
class RecordSelection:
    """A filter over records; a part that is None does not filter."""

    start: int | None = None  # LSN
    stop: int | None = None  # the last LSN that is shown
    types: tuple[type[Record], ...] | None = None
    at: At | None = None
    names: tuple[str, ...] = field(default=())  # patterns

    @classmethod
    def of(cls, options: Any) -> RecordSelection:
        """The selection that a command line asks for; raises `FlorlogError`."""
        return cls(
            options.start,
            options.stop,
            types_of(options.type) if options.type else None,
            At.parse(options.at) if options.at else None,
            tuple(options.name or ()),
        )

    def __call__(self, entry: Entry, path: Path) -> bool:
        """Whether a record within the LSNs and of the types is selected."""
        if self.at is not None and not self.at(path):
            return False
        return not self.names or any(
            fnmatchcase(name, pattern) for name in names_of(entry.record) for pattern in self.names
        )

    @classmethod
    def parse(cls, text: str) -> RecordSelection:
        """The selection of some command-line words; raises `FlorlogError`."""
        parser = _ConditionParser(add_help=False)
        add_selection(parser)
        try:
            return cls.of(parser.parse_args(shlex.split(text)))
        except ValueError as error:
            raise FlorlogError(f"cannot read the filter {text!r}: {error}") from None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == RecordSelection()

    def words(self) -> list[str]:
        """The command-line words that ask for this selection."""
        words: list[str] = []
        for flag, value in (("--from", self.start), ("--to", self.stop)):
            words += [flag, str(value)] if value is not None else []
        words += ["--type", ",".join(cls.__name__ for cls in self.types)] if self.types else []
        words += ["--at", self.at.text] if self.at else []
        for pattern in self.names:
            words += ["--name", pattern]
        return words

    def __str__(self) -> str:
        return shlex.join(self.words())


class _ConditionParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlorlogError(
            f"a filter is written as on the command line, --type Commit --at 'epoch=3': {message}"
        )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The arguments that make a selection."""
    parser.add_argument("--from", dest="start", metavar="LSN", type=int, help="the first LSN that is shown")
    parser.add_argument("--to", dest="stop", metavar="LSN", type=int, help="the last LSN that is shown")
    parser.add_argument("--type", metavar="TYPES", help="record types, such as Commit,Abort")
    parser.add_argument(
        "--at", metavar="PATH", help="iterations, such as 'epoch=3, step=10:20' (20 not included)"
    )
    parser.add_argument(
        "--name", metavar="GLOB", action="append", help="names of values, loops; may be repeated"
    )


def types_of(text: str) -> tuple[type[Record], ...]:
    """Record types by their names, separated by commas; case does not count.  Raises `FlorlogError`."""
    known = {cls.__name__.lower(): cls for cls in RECORD_TYPES.values()}
    found = []
    for name in text.split(","):
        if (cls := known.get(name.strip().lower())) is None:
            listed = ", ".join(cls.__name__ for cls in known.values())
            raise FlorlogError(f"no record type is called {name.strip()!r}; there are: {listed}")
        found.append(cls)
    return tuple(found)


def names_of(record: Record) -> Sequence[str]:
    """The names that a record is about: of its values, its statement, its loop."""
    values = getattr(record, "values", None)
    if isinstance(values, tuple):
        return [name for _, name, _ in values]
    names = getattr(record, "names", None)
    if isinstance(names, tuple):
        return names
    name = getattr(record, "name", None)
    return (name,) if isinstance(name, str) else ()
