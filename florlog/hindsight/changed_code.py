"""What was changed in a recorded program in addition to added statements, and what that may invalidate.

A question needs the recorded program to be what runs.  Where its code was changed nonetheless and the replay is forced,
it executes new code on recorded states, so no value of it can be PROVEN; and a value in whose iteration, or in one
around it, the changed code may run is vouched for by nothing that was recorded: it is UNVERIFIED.  Any other
value is CONSISTENT at best.  Source analysis (`florlog.source.reach.regions`) says where changed code may run: it is
asked of the present program for code that it has, and of the recorded one for code that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from florlog_recovery import Loop, Node, RunTree

from florlog.hindsight.compared_files import Compared, read_in
from florlog.hindsight.request import Doubts
from florlog.source.diff.source_diff import Change
from florlog.source.edit.recorded_reading import recorded_reading
from florlog.source.reach.positions import LoopSite
from florlog.source.reach.regions import Location, ProgramAnalysis


@dataclass(frozen=True)
class _Changed:
    """A change and where its code runs."""

    file: Compared
    change: Change
    program: ProgramAnalysis
    site: Location

    def __str__(self) -> str:
        return f"{Path(self.file.present).name}, {self.change}"


class ChangedCode:
    """The changes of a program, asked for what they reach in a recorded run; ``present``: the program as it is now."""

    def __init__(
        self,
        tree: RunTree,
        files: Sequence[Compared],
        script: str,
        present: ProgramAnalysis,
        *,
        hands_free: bool,
    ) -> None:
        self._tree = tree
        self._files = {file.recorded: file for file in files}
        self._present = present
        self._hands_free = hands_free
        self._script = script

    @cached_property
    def _recorded(self) -> ProgramAnalysis:
        texts = {file.present: file.old for file in self._files.values()}
        with read_in(recorded_reading(texts, hands_free=self._hands_free)):
            return ProgramAnalysis(texts, self._script)

    @cached_property
    def _changes(self) -> list[_Changed]:
        found = []
        for file in self._files.values():
            for change in file.diff.changed:
                new = change.new_line is not None
                line = change.new_line if change.new_line is not None else change.old_line
                site = Location(file.present, line or 1, change.qualname)
                found.append(_Changed(file, change, self._present if new else self._recorded, site))
        return found

    def __bool__(self) -> bool:
        return any(file.diff.changed for file in self._files.values())

    def described(self) -> Iterator[str]:
        """Each change, with its line and what it may invalidate."""
        for changed in self._changes:
            yield f"{changed}; {self._reach(changed)}"

    def doubts(self) -> Doubts:
        """Which change may have run for which values."""
        inside: dict[Loop | Node, int] = {}
        for loop in self._tree.loops():
            for node in (None, *loop.nodes.values()):
                if (number := self._first(loop, node)) is not None:
                    inside[loop if node is None else node] = number
        root = self._tree.root
        return Doubts(
            tuple(map(str, self._changes)),
            inside,
            before_end=self._first(None, root, len(root.loops)),
            anywhere=self._first(None, root),
        )

    def _first(self, loop: Loop | None, node: Node | None, stop: int | None = None) -> int | None:
        """The number of the first change that may run in an iteration, in segments before ``stop``."""
        for number, changed in enumerate(self._changes):
            if any(stop is None or segment < stop for segment in self._segments(changed, loop, node)):
                return number
        return None

    def _reach(self, changed: _Changed) -> str:
        root = self._segments(changed, None, self._tree.root)
        last = len(self._tree.root.loops)
        loops = dict.fromkeys(
            loop.name.partition("#")[0]
            for loop in self._tree.loops()
            if self._segments(changed, loop, None)
            or any(self._segments(changed, loop, node) for node in loop.nodes.values())
        )
        if loops:
            first = next(iter(self._tree.root.loops)).name
            return f"it may run in {_joined(list(loops))}: values of these iterations, from {first}=0 on"
        if any(segment < last for segment in root) or (root and not last):
            return "it runs before the loops: everything that the log does not restore"
        if root:
            return "it runs after the last loop: values from there on"
        return "it runs in no recorded iteration"

    def _segments(self, changed: _Changed, loop: Loop | None, node: Node | None) -> set[int]:
        children = [] if node is None else node.loops
        stacks = [tuple(self._frame(changed, frame) for frame in child.stack) for child in children]
        around = None if loop is None else self._frame(changed, loop.site)
        return {s for s in changed.program.may_run(changed.site, around, stacks) if s <= len(children)}

    def _frame(self, changed: _Changed, frame: LoopSite) -> LoopSite:
        path, qualname, line = frame
        file = self._files.get(path)
        if file is None:
            return frame
        if changed.program is self._present:
            line = file.diff.old_to_new.get(line, line)
        return file.present, qualname, line


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
