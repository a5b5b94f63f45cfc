"""The names that an added statement needs at a boundary and the recording's images do not hold.

An image holds what the *recorded* source carries at its boundary (`florlog.source.carried_names`).  An
added statement may read more: ``run.log(last=loss)`` after a loop in which ``loss`` was of no further use,
or a sum that added code keeps over the iterations.  Restoring such an image would leave the name stale, so
the plan must not use it.

What is live is computed as for recording, with one difference: a loop that always ran in the recording is
taken to run at least once.  A name that each pass binds anew is then needed only behind the loop's end, and
the images inside it stay usable.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from florlog.source.carry.liveness import NOTHING, Names, _all_statements, _FrameNames, _Liveness, _scopes
from florlog.source.graph.functions import header_lines
from florlog.source.names.syntax import LOOPS


@dataclass(frozen=True)
class Exposed:
    """Names that images lack: at boundaries before another iteration, and at the loop's end."""

    inside: Names
    end: Names


def exposed_names(
    old: str, new: str, qualname: str, lines: tuple[int, int], running: Iterable[int]
) -> Exposed:
    """What the images of a loop lack for the new source.

    ``lines`` are the loop's line in the old and the new source; ``running`` are the new lines of the loops
    that ran at least once whenever they were reached.
    """
    before, after = _frame_at(old, qualname, lines[0]), _frame_at(new, qualname, lines[1])
    if before is None or after is None:
        return Exposed(NOTHING, NOTHING)
    recorded = before.carried(lines[0])
    return after.exposed(lines[1], frozenset(running), recorded, before.names)


def _frame_at(source: str, qualname: str, line: int) -> _Exposure | None:
    scopes = _scopes(source)
    if qualname == "<module>":
        return _Exposure(scopes, scopes.root)
    for node, scope in scopes.inner.items():
        first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
        if scope.qualname == qualname and first <= line <= last and hasattr(node, "body"):
            return _Exposure(scopes, scope)
    return None


class _Exposure(_FrameNames):
    """A code object, asked for names that somebody else's images lack."""

    @property
    def names(self) -> Names:
        """The names of the code object."""
        return self._own

    def exposed(self, line: int, running: frozenset[int], recorded: Names, known: Names) -> Exposed:
        """Names bound in the region around ``line`` or unknown before, live there, and not recorded."""
        statements = list(_all_statements(self._body))
        loops = [s for s in statements if isinstance(s, LOOPS) and line in header_lines(s)]
        if not loops:
            return Exposed(NOTHING, NOTHING)
        loop = loops[0]
        around = [s for s in self._body_path(loop) if isinstance(s, LOOPS)]
        bound: set[str] = set()
        for node in ast.walk(around[0]):
            bound |= self._rebound_by(node)
        suspects = ((self._own & bound) | (self._own - known)) - recorded - self._quiet
        sure = frozenset(s for s in statements if isinstance(s, LOOPS) and running & set(header_lines(s)))
        liveness = _SureLiveness(self._reads, sure | {loop})
        liveness.block(self._body, NOTHING)
        always = self._captured
        return Exposed(
            suspects & (liveness.before[loop] | always), suspects & (liveness.after[loop] | always)
        )


class _SureLiveness(_Liveness):
    """Liveness under the assumption that some loops run at least once."""

    def __init__(self, reads: Callable[[Iterable[ast.AST]], Names], sure: frozenset[ast.AST]) -> None:
        super().__init__(reads, NOTHING)
        self._sure = sure

    def _entered(self, node: ast.AST, head: Names, running: Names) -> Names:
        return running if node in self._sure else head
