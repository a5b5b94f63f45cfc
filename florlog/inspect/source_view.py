"""The recorded source of a run with its statements: ``florlog inspect source``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from florlog_recovery import RunTree
from florlog_wal import RunLog, Statement

from florlog.program.recorded_sources import recorded_sources
from florlog.reading.render import printable


@dataclass(slots=True)
class Recorded:
    """A recorded file: its path when recorded, module name, text, and statements by line."""

    path: str
    module: str
    text: str
    statements: dict[int, list[Statement]] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """The text's lines, printable, with tabs as spaces."""
        return [printable(line.expandtabs()) for line in self.text.splitlines()]


def sources_of(log: RunLog, tree: RunTree) -> list[Recorded]:
    """The script first, then the local modules in order of import, also those imported late."""
    found = {s.path: Recorded(s.path, s.module, s.text) for s in recorded_sources(log, tree)}
    for table in tree.statements.values():
        for statement in table.values():
            if statement.file in found:
                at = found[statement.file].statements.setdefault(statement.line, [])
                if all((s.kind, s.names) != (statement.kind, statement.names) for s in at):
                    at.append(statement)
    return list(found.values())


def mark(statements: list[Statement]) -> str:
    """The note at a line: the names that it logs, or the loop that it runs."""
    parts = [("loop " if s.kind == "loop" else "") + ", ".join(s.names) for s in statements]
    return printable("; ".join(parts))


def sources_text(sources: list[Recorded]) -> Iterator[str]:
    """The files, each line with its number; a line with statements is marked."""
    shared = _shared_directory([source.path for source in sources])
    for source in sources:
        yield f"== {printable(source.path.removeprefix(shared))}"
        for number, line in enumerate(source.lines, 1):
            held = source.statements.get(number)
            sign = ">" if held else " "
            yield f"{sign}{number:>5}  {line}" + (f"    <- {mark(held)}" if held else "")


def _shared_directory(paths: list[str]) -> str:
    """What the paths of recorded files have in common, as text: they are no paths of this machine."""
    directories = [path.rpartition("/")[0] + "/" for path in paths]
    return os.path.commonprefix(directories).rpartition("/")[0] + "/"  # noqa: RUF071 - cut at a name
