"""The names that an added statement needs at a boundary but that the recording's images do not contain.

An image contains what the *recorded* source carries at its boundary (`florlog.source.carry.carried`).  An added
statement may read more: ``run.log(last=loss)`` after a loop that had no further use for ``loss``, or a sum that added
code keeps over the iterations.  If such an image were restored, the name would be stale, so the plan must not use it.

Liveness is computed as for recording, with one difference: a loop that always ran in the recording is taken to run at
least once.  A name that each pass binds again is then needed only after the end of the loop, and the images inside the
loop stay usable.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from florlog.source.carry.carried import scopes_of
from florlog.source.carry.frame_names import FrameNames, own_statements
from florlog.source.carry.liveness import NOTHING, Liveness, Names
from florlog.source.graph.functions import header_lines
from florlog.source.names.syntax import LOOPS


@dataclass(frozen=True)
class Exposed:
    """The names that images lack at boundaries before another iteration, and at the loop's end."""

    inside: Names
    end: Names


def exposed_names(
    old: str, new: str, qualname: str, lines: tuple[int, int], running: Iterable[int]
) -> Exposed:
    """The names that the images of a loop lack for the new source.

    ``lines`` are the loop's line in the old and in the new source.  ``running`` are the lines, in the new source, of
    the loops that ran at least once whenever they were reached.
    """
    before, after = _frame_at(old, qualname, lines[0]), _frame_at(new, qualname, lines[1])
    if before is None or after is None:
        return Exposed(NOTHING, NOTHING)
    recorded = before.carried(lines[0])
    return after.exposed(lines[1], frozenset(running), recorded, before.names)


def _frame_at(source: str, qualname: str, line: int) -> _Exposure | None:
    scopes = scopes_of(source)
    if qualname == "<module>":
        return _Exposure(scopes, scopes.root)
    for node, scope in scopes.inner.items():
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
        if scope.qualname == qualname and first <= line <= last and hasattr(node, "body"):
            return _Exposure(scopes, scope)
    return None


class _Exposure(FrameNames):
    """The names of a code object, compared with the images that another version of it left."""

    @property
    def names(self) -> Names:
        """The names of the code object."""
        return self._own

    def exposed(self, line: int, running: frozenset[int], recorded: Names, known: Names) -> Exposed:
        """The live names that the loop at ``line`` may bind, or that are not ``known``, without the ``recorded``."""
        statements = list(own_statements(self._body))
        loops = [s for s in statements if isinstance(s, LOOPS) and line in header_lines(s)]
        if not loops:
            return Exposed(NOTHING, NOTHING)
        loop = loops[0]
        around = [s for s in self.enclosing_statements(loop) if isinstance(s, LOOPS)]
        bound: set[str] = set()
        for node in ast.walk(around[0]):
            bound |= self.rebound_by(node)
        suspects = ((self._own & bound) | (self._own - known)) - recorded - self._definitions
        always_run = frozenset(
            s for s in statements if isinstance(s, LOOPS) and running & set(header_lines(s))
        )
        liveness = _RunningLiveness(self._reads, always_run | {loop})
        liveness.block(self._body, NOTHING)
        inside = suspects & (liveness.before[loop] | self._captured)
        end = suspects & (liveness.after[loop] | self._captured)
        return Exposed(inside, end)


class _RunningLiveness(Liveness):
    """Liveness if some loops are known to run at least once."""

    def __init__(self, reads: Callable[[Iterable[ast.AST]], Names], always_run: frozenset[ast.AST]) -> None:
        super().__init__(reads, NOTHING)
        self._always_run = always_run

    def _entered(self, node: ast.AST, head: Names, running: Names) -> Names:
        return running if node in self._always_run else head
