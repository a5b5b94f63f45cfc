"""Which plain loops and calls of the program's own functions a replay may skip.

A *piece* is a statement in an iteration whose inside florlog did not record: a ``for`` that is no florlog loop, or a
call of a function of the program whose result is dropped, named, logged or printed.  A handwritten validation pass is
one.

The conditions are those for florlog loops (`florlog.source.skip.skipping`).  In addition, nothing in the piece or in
what it may call is added, is a florlog loop, or draws random numbers by name.  And what the piece leaves behind can be
done without it (`florlog.source.skip.remains`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from florlog.source.carry.liveness import NOTHING
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.definitions import last_name
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import log_calls_in
from florlog.source.names.syntax import blocks, header_nodes, one_line
from florlog.source.skip.acts import Act
from florlog.source.skip.naming import callee
from florlog.source.skip.remains import Remains
from florlog.source.skip.skipping import Flow, Skipped, Skipping
from florlog.source.skip.staleness import Needed

DRAWING_CALLS = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "gumbel_softmax", "log_normal_", "manual_seed",
    "multinomial", "normal", "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "random_", "random_split", "randperm", "rsample", "sample", "seed", "set_rng_state", "uniform_",
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A statement that need not be run, what is done instead, and what differs from the recording after it."""

    file: str
    qualname: str  # of the code that contains it
    line: int
    column: int
    text: str
    acts: tuple[Act, ...]
    left: Skipped


def pieces(code: Code, graph: CallGraph, skipping: Skipping) -> list[Piece]:
    """The outermost pieces in iterations of florlog loops and in the functions that are called there."""
    search = _Search(code, graph, skipping)
    for loop in code.loops:
        if loop.body is not None and loop.call.certain:
            search.block(loop.function, list(loop.body.body))
    return search.found


class _Search:
    def __init__(self, code: Code, graph: CallGraph, skipping: Skipping) -> None:
        self._code, self._graph, self._skipping = code, graph, skipping
        self._seen: set[Function] = set()
        self._loops = {loop.call.node for loop in code.loops}
        self.found: list[Piece] = []

    def block(self, function: Function, block: list[ast.AST]) -> None:
        for statement in block:
            calls = list(self._calls(statement))
            if (piece := self._piece(function, statement, calls)) is not None:
                self.found.append(piece)
                continue
            for _, called in calls:
                if called not in self._seen:
                    self._seen.add(called)
                    self.block(called, called.block)
            if statement not in self._code.function_at:
                for field, inner in blocks(statement):
                    if not (statement in self._code.looping and field == "body"):
                        self.block(function, inner)

    def _calls(self, statement: ast.AST) -> Iterator[tuple[ast.Call, Function]]:
        """The calls of the program's functions in a statement's own part."""
        for node in header_nodes(statement):
            if isinstance(node, ast.Call) and (called := callee(self._code, self._graph, node, statement)):
                yield node, called

    def _piece(
        self, function: Function, statement: ast.AST, calls: list[tuple[ast.Call, Function]]
    ) -> Piece | None:
        loop = isinstance(statement, ast.For) and statement not in self._code.looping
        if not loop and not (calls and isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign))):
            return None
        assert isinstance(statement, ast.stmt)
        inner = {node for call, _ in calls for node in ast.walk(call) if node is not call}
        try:
            acts, left = self._instead_of(function, statement, frozenset(call for call, _ in calls) - inner)
        except Needed:
            return None
        place = statement.lineno, statement.col_offset
        return Piece(function.file, function.qualname, *place, one_line(statement), acts, left)

    def _instead_of(
        self, function: Function, statement: ast.stmt, given: frozenset[ast.AST]
    ) -> tuple[tuple[Act, ...], Skipped]:
        """What to do instead of a piece, and what is stale after it.  Raises `Needed` if it must be run."""
        skipping = self._skipping
        reached = skipping.check_called([statement])
        flow = Flow(logged=self._log_statements([statement], function.file))
        for called in reached:
            flow.logged |= self._log_statements(called.block, called.file)
        if isinstance(statement, ast.For):
            written, given = skipping.written(statement, function), frozenset()
            if statement.orelse:
                raise Needed
        else:
            written = NOTHING
            if skipping.writes(ast.walk(statement), self._code.scopes[function.file]):
                raise Needed
        remains = Remains(self._code, self._graph, written)
        remains.walk(statement, function)
        mode_calls = {
            call
            for called in reached
            for call in ast.walk(called.node)
            if self._graph.sets_mode(call, self._code.scopes[called.file])
        }
        changed = {_root_name(of) for of in remains.touched} - skipping.tracked
        if mode_calls - remains.mode_calls or changed & skipping.asked:
            raise Needed
        skipping.follow(function, statement, written, given, flow, set())
        own = function.file, statement.lineno, statement.col_offset
        left = Skipped(frozenset(flow.logged), frozenset(flow.stale), frozenset(flow.may_fail - {own}))
        return tuple(remains.acts), left

    def _log_statements(self, block: list[ast.AST], file: str) -> set[tuple[str, int]]:
        """The log statements in code that a piece runs.  Raises `Needed` if the code must be run for another reason."""
        added, scopes = self._skipping.added.get(file, frozenset()), self._code.scopes[file]
        for node in (node for part in block for node in ast.walk(part)):
            if node in self._loops or getattr(node, "lineno", 0) in added:
                raise Needed
            if isinstance(node, ast.Call) and last_name(node.func) in DRAWING_CALLS:
                raise Needed
        calls = [call for part in block for call in log_calls_in(part, scopes)]
        return {(file, line) for call in calls for line in range(call.line, call.end_line + 1)}


def _root_name(of: str) -> str:
    """The variable, or the attribute of ``self``, at the root of an object's name."""
    return of.removeprefix("self.").partition(".")[0].partition("[")[0]
