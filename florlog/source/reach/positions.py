"""The position of a statement in an iteration, relative to the child loops that were recorded in it.

The position of the statement, or of a call that may reach it, is compared with the position of each child along the
child's recorded stack:

* In one statement list the index decides, unless a plain loop repeats both.
* ``try`` comes before its handlers and its ``else``, and these come before ``finally``.  The test of an ``if`` comes
  before its branches.  The order of different branches, and of everything else in one statement, is unknown.
* If the call that leads to the child is the only one in its statement to that function, the comparison goes on inside
  the called function.  So code of ``train_epoch`` before its loop is before the child.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TypeAlias

from florlog.source.graph.callees import GraphNode
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.syntax import COMPREHENSIONS, LOOPS, header_parts

LoopSite: TypeAlias = tuple[str, str, int]
"""A source position: file, qualified name of the code, line."""

Stack: TypeAlias = tuple[LoopSite, ...]
"""Call sites, from a loop's own call outwards to the code of its parent's body."""

Step: TypeAlias = tuple[ast.AST, str, int, ast.AST]
"""One step down to a statement: the owner of a block, the block's field, an index in it, the statement there."""

TRY_ORDER = {"body": 0, "handlers": 1, "orelse": 1, "finalbody": 2}
BEFORE, AFTER, SAME, UNKNOWN = "before", "after", "same", "unknown"


@dataclass(frozen=True)
class ChildLoop:
    """A child loop execution; ``path`` leads to it from the block that is searched, None if it is not found there."""

    number: int  # from 1
    stack: Stack
    path: tuple[Step, ...] | None


class SegmentSearch:
    """The search for the segments of one iteration in which one requested statement may run.

    ``reached_by`` are the functions and groups that may run the statement, ``everywhere`` all segments.
    """

    def __init__(
        self, code: Code, graph: CallGraph, statement: ast.AST | None, reached_by: frozenset[GraphNode],
        everywhere: frozenset[int],
    ) -> None:  # fmt: skip
        self._code, self._graph = code, graph
        self.statement = statement
        self._reached_by = reached_by
        self._everywhere = everywhere
        self._found: set[int] = set()

    def concerns(self, statement: ast.AST) -> bool:
        """Whether a statement's own part is, or may call, the requested statement."""
        return statement is self.statement or not self._reached_by.isdisjoint(self._graph.callees(statement))

    def concerns_any(self, loop: ast.AST) -> bool:
        """Whether anything in a loop, outside the florlog loops in it, may run the requested statement."""
        return any(map(self.concerns, self._code.statements_below([loop])))

    def run(
        self, owner: ast.AST, block: list[ast.AST], function: Function, children: list[ChildLoop]
    ) -> frozenset[int]:
        """The segments in which a block of ``owner``, a part of ``function``, may run the requested statement."""
        self._found = set()
        self._search(owner, block, function, children, 0, max(self._everywhere))
        return frozenset(self._found)

    def _search(
        self, owner: ast.AST, block: list[ast.AST], function: Function, children: list[ChildLoop],
        low: int, high: int,
    ) -> None:  # fmt: skip
        children = [
            ChildLoop(c.number, c.stack, self._path_of(c.stack[-1], owner, function)) for c in children
        ]
        for statement in self._code.statements_below(block):
            if self.concerns(statement):
                self._place(statement, owner, children, low, high)

    def _place(
        self, statement: ast.AST, owner: ast.AST, children: list[ChildLoop], low: int, high: int
    ) -> None:  # fmt: skip
        path = self._path(statement, owner)
        inside = []
        for child in children:
            order = self._order(path, child.path) if path is not None and child.path is not None else UNKNOWN
            if order == BEFORE:
                high = min(high, child.number - 1)
            elif order == AFTER:
                low = max(low, child.number)
            elif order == SAME and len(child.stack) > 1:
                inside.append(child)
        repeated = path is None or any(isinstance(step[3], LOOPS) for step in path[:-1])
        called = None if repeated or not inside else self._entered(statement, inside)
        if called is None:
            self._found.update(range(min(low, high), max(low, high) + 1))
            return
        call, callee = called
        others = frozenset().union(*(c for node, c in self._graph.events(statement) if node is not call))
        if statement is self.statement or not self._reached_by.isdisjoint(others):
            self._found.update(range(min(low, high), max(low, high) + 1))
        inner = [ChildLoop(c.number, c.stack[:-1], None) for c in inside]
        self._search(callee.node, callee.block, callee, inner, low, high)

    def _entered(self, statement: ast.AST, inside: list[ChildLoop]) -> tuple[ast.AST, Function] | None:
        """The one call of a statement through which all these children were reached, and the callee."""
        functions = {self._code.function(*child.stack[-2]) for child in inside}
        callee = functions.pop()
        if functions or callee is None or callee in self._graph.lazy or isinstance(statement, ast.While):
            return None
        calls = [node for node, callees in self._graph.events(statement) if callee in callees]
        if len(calls) != 1 or _in_comprehension(calls[0], statement):
            return None
        return calls[0], callee

    def _path_of(self, frame: LoopSite, owner: ast.AST, function: Function) -> tuple[Step, ...] | None:
        """The path from a block to the statement that a frame is executing; None if it is not in the block."""
        if self._code.function(*frame) is not function:
            return None
        loop = self._code.loop(*frame)
        statement = loop.statement if loop is not None else self._code.statement(function, frame[2])
        return None if statement is None else self._path(statement, owner)

    def _path(self, statement: ast.AST, owner: ast.AST) -> tuple[Step, ...] | None:
        steps: list[Step] = []
        while statement in self._code.place:
            above, field, index = self._code.place[statement]
            steps.append((above, field, index, statement))
            if above is owner:
                return tuple(reversed(steps))
            if above in self._code.function_at:
                return None
            statement = above
        return None

    def _order(self, here: tuple[Step, ...], there: tuple[Step, ...]) -> str:
        """When the statement of the first path runs relative to that of the second, by the constants above."""
        repeated = False
        steps = zip(here, there, strict=False)
        for depth, ((owner, field, index, statement), (_, other_field, other_index, other)) in enumerate(
            steps
        ):
            repeated |= depth > 0 and isinstance(owner, LOOPS) and field == other_field == "body"
            if field != other_field:
                return UNKNOWN if repeated else _order_of_fields(owner, field, other_field)
            if statement is not other:
                if repeated or field in ("handlers", "cases"):
                    return UNKNOWN
                return BEFORE if index < other_index else AFTER
        if len(here) == len(there):
            return SAME
        shorter, longer = (here, there) if len(here) < len(there) else (there, here)
        statement, field = shorter[-1][3], longer[len(shorter)][1]
        first = isinstance(statement, (ast.If, ast.Match)) or (
            isinstance(statement, LOOPS) and field == "orelse"
        )
        if repeated or not first:
            return UNKNOWN
        return BEFORE if shorter is here else AFTER


def _order_of_fields(owner: ast.AST, field: str, other: str) -> str:
    if isinstance(owner, (ast.Try, ast.TryStar)):
        here, there = TRY_ORDER[field], TRY_ORDER[other]
        return UNKNOWN if here == there else BEFORE if here < there else AFTER
    if isinstance(owner, LOOPS):
        return BEFORE if field == "body" else AFTER
    return UNKNOWN


def _in_comprehension(node: ast.AST, statement: ast.AST) -> bool:
    return any(
        node in ast.walk(inner)
        for part in header_parts(statement)
        for inner in ast.walk(part)
        if isinstance(inner, COMPREHENSIONS)
    )
