"""The values of a run, one a line: ``florlog inspect values``."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePath

from florlog.inspect.record_forms import TRUST_COLOURS, coloured, path_text
from florlog.inspect.selection import RecordSelection
from florlog.reading.reader import LoggedValue, RunView
from florlog.reading.render import brief, printable

CSV_COLUMNS = ("path", "name", "value", "trust", "file", "line")


def values_of(view: RunView, selection: RecordSelection) -> Iterator[LoggedValue]:
    """The values whose iteration and name are selected: recorded ones first, then those of replays."""
    for value in view.logged():
        if selection.at is not None and not selection.at(value.path):
            continue
        if not selection.names or any(fnmatchcase(value.name, pattern) for pattern in selection.names):
            yield value


def value_line(value: LoggedValue, *, colour: bool = False) -> str:
    """A value as a line with stable columns."""
    trust = f"{value.trust:<10}"
    shown = coloured(trust, TRUST_COLOURS[value.trust]) if colour and value.trust in TRUST_COLOURS else trust
    site = f"{PurePath(value.statement.file).name}:{value.statement.line}"
    return (
        f"{path_text(value.path):<24}  {printable(value.name):<16}  {brief(value.value):<24}  {shown}  "
        f"{printable(site)}"
    )
