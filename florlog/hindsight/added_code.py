"""Where the added statements of a program may run in a recorded run, as source analysis answers it.

The recording names places by its own files and lines, source analysis by the present ones: this is where one becomes
the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from florlog_recovery import Loop, Node, RunTree
from florlog_wal import StackFrame

from florlog.following.trust import Readings, hashes_repeat
from florlog.hindsight.request import AddedLog
from florlog.source.diff.source_diff import SourceDiff
from florlog.source.reach.regions import Exit, Location, ProgramAnalysis

Stacks = tuple[tuple[StackFrame, ...], ...]


class AddedCode:
    """The added statements of one program; ``diffs`` and ``recorded``: by present file."""

    def __init__(
        self,
        program: ProgramAnalysis,
        added: Iterable[AddedLog],
        diffs: Mapping[str, SourceDiff],
        recorded: Mapping[str, str],
    ) -> None:
        self._program = program
        self._diffs = diffs
        self._present = {old: new for new, old in recorded.items()}
        self.names: dict[Location, list[str]] = {}
        """What is logged at each place."""
        for log in added:
            self.names.setdefault(Location(log.file, log.line, log.qualname), []).extend(log.names)

    def in_node(self, node: Node, sites: Iterable[Location] | None = None) -> list[int]:
        """The segments of an iteration with loops, or of the run, in which statements may run; None: any of them."""
        around = None if node.loop is None else self.present(node.loop.site)
        stacks = self._stacks(node)
        found: set[int] = set()
        for site in self.names if sites is None else sites:
            found |= self._program.may_run(site, around, stacks)
        return [segment for segment in sorted(found) if segment <= len(node.loops)]

    def in_leaves(self, loop: Loop) -> list[Location]:
        """The statements that may run in the innermost iterations of a loop execution."""
        around = self.present(loop.site)
        return [site for site in self.names if self._program.may_run(site, around, ())]

    def exit(self, loop: Loop, node: Node | None, segment: int) -> Exit | None:
        """Where an iteration of a loop can be left in a segment; ``node`` is None for the innermost ones."""
        stacks = () if node is None else self._stacks(node)
        return self._program.exit(tuple(self.names), self.present(loop.site), stacks, segment)

    def readings(self, tree: RunTree) -> Readings:
        """What the statements read that is neither state nor item, and which of them read an item."""
        same_hashes = hashes_repeat(tree)
        unsteady = {}
        for around, stacks in dict.fromkeys(self._iterations(tree)):
            for site, names in self.names.items():
                for name in names if self._program.may_run(site, around, stacks) else ():
                    if read := self._program.unsteady(site, around, same_hashes=same_hashes, name=name):
                        unsteady[around, (site.file, site.line, name)] = read
        values = [(site, name) for site, names in self.names.items() for name in names]
        marks = {
            (site.file, site.line, name): self._program.outside(site, [name], same_hashes=same_hashes)
            for site, name in values
        }
        outside = {value: str(found.outside) for value, found in marks.items() if found.outside is not None}
        items = frozenset(value for value, found in marks.items() if found.item)
        alone = {
            (site.file, site.line, name): read
            for site, name in values
            if (read := self._program.unsteady_alone(site, same_hashes=same_hashes, name=name))
        }
        return Readings(unsteady, outside, alone, items)

    def _iterations(self, tree: RunTree) -> Iterator[tuple[StackFrame | None, Stacks]]:
        yield None, self._stacks(tree.root)
        for loop in tree.loops():
            around = self.present(loop.site)
            yield around, ()
            for node in loop.nodes.values():
                if node.committed:
                    yield around, self._stacks(node)

    def _stacks(self, node: Node) -> Stacks:
        return tuple(tuple(map(self.present, loop.stack)) for loop in node.loops)

    def present(self, frame: StackFrame) -> StackFrame:
        """A recorded source position in the present source."""
        file, qualname, line = frame
        present = self._present.get(file)
        if present is None:
            return frame
        return present, qualname, self._diffs[present].old_to_new.get(line, line)
