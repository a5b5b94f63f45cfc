"""Where in an iteration a statement can run: the segments that a replay must re-execute.

An iteration's body is cut by its direct child loop executions c1..cm into segments 0..m; segment i lies
between the end of c_i and the start of c_(i+1).  `ProgramAnalysis.may_run` tells in which of them a statement can
run *directly*, that is not inside an iteration of a child.  It compares the statement's position, or the
position of a call that may reach it, with the position of each child along the child's recorded stack:

* in one statement list the index decides, unless a plain loop repeats both;
* ``try`` comes before its handlers and ``else``, those before ``finally``; an ``if`` test before the
  branches; different branches and everything else in one statement are unknown;
* where the call that leads to the child is the only one in its statement to that function, the comparison
  goes on inside the called function, so code of ``train_epoch`` before its loop lies before the child.

A segment is left out only if the statement is definitely on the other side of one of its ends.  A loop whose
body yields to a consumer, or whose body is not found, may run anything.  What a statement may call is
`callgraph`'s, with its limits; recursion is followed as deep as the recorded stack goes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from florlog.source.graph.callgraph import CallGraph, GraphNode
from florlog.source.graph.functions import Code, Function, LoopCode, enclosing_plain_loop
from florlog.source.names.syntax import COMPREHENSIONS, LOOPS, blocks, header_parts, own_nodes
from florlog.source.skip.pieces import Piece, pieces
from florlog.source.skip.skipping import Skipping
from florlog.source.skip.staleness import LineNumbers
from florlog.source.skip.steadiness import Steadiness

LoopSite: TypeAlias = tuple[str, str, int]
"""A source position: file, qualified name of the code, line."""

Stack: TypeAlias = tuple[LoopSite, ...]
"""Call sites, from a loop's own call outwards to the code of its parent's body."""

Step: TypeAlias = tuple[ast.AST, str, int, ast.AST]  # owner, field, index, statement

TRY_ORDER = {"body": 0, "handlers": 1, "orelse": 1, "finalbody": 2}
BEFORE, AFTER, SAME, UNKNOWN = "before", "after", "same", "unknown"


@dataclass(frozen=True)
class Location:
    """A statement of the program, as a diff names it."""

    file: str
    line: int
    qualname: str


@dataclass(frozen=True)
class Exit:
    """Where the rest of an iteration's body can be left out."""

    file: str
    line: int  # of the statement of the body behind which nothing asked for runs
    points: frozenset[
        tuple[int, int]
    ]  # statements to leave behind: that one, and the last ones of its branches
    share: float  # of the body's statements, up to there


@dataclass(frozen=True)
class _Child:
    number: int  # from 1
    stack: Stack
    path: tuple[Step, ...] | None


class ProgramAnalysis:
    """A script and its local modules, asked for the places where a statement may run."""

    def __init__(self, files: Mapping[str, str], script: str) -> None:
        self._code = Code(files)
        self._graph = CallGraph(self._code)
        self._script = script
        self._reaching: dict[Location, frozenset[GraphNode]] = {}
        self._steadiness = Steadiness(self._code, self._graph)
        self._steady: dict[tuple[Location, LoopSite | None], bool] = {}
        self._exits: dict[tuple[tuple[Location, ...], LoopSite, tuple[Stack, ...], int], Exit | None] = {}
        self._answers: dict[tuple[Location, LoopSite | None, tuple[Stack, ...]], frozenset[int]] = {}

    @property
    def loops(self) -> tuple[LoopCode, ...]:
        """The florlog loops of the program."""
        return tuple(self._code.loops)

    def may_run(self, site: Location, loop: LoopSite | None, children: Sequence[Stack]) -> frozenset[int]:
        """The segments of one iteration of a loop (None: the run) in which a statement may run directly."""
        key = (site, loop, tuple(children))
        if key not in self._answers:
            self._answers[key] = self._may_run(*key)
        return self._answers[key]

    def exit(
        self, sites: tuple[Location, ...], loop: LoopSite, children: Sequence[Stack], segment: int
    ) -> Exit | None:
        """Where an iteration can be left in a segment, because no statement asked for runs later in it.

        That is behind the last statement of the body that may run one of ``sites`` in this segment, or already
        behind the last such statement in the branch of an ``if`` or in the block of a ``with`` that it is.
        None: nowhere before the body's end.  Only for a ``for`` over a certain florlog loop.
        """
        key = (sites, loop, tuple(children), segment)
        if key not in self._exits:
            self._exits[key] = self._exit(*key)
        return self._exits[key]

    def skipping(self, added: LineNumbers) -> Skipping:
        """Which loops can be skipped, given the lines that the recording does not have."""
        return Skipping(self._code, self._graph, added)

    def pieces(self, skipping: Skipping) -> list[Piece]:
        """Which plain loops and calls can be passed over, by the answers of `skipping`."""
        return pieces(self._code, self._graph, skipping)

    def loop(self, frame: LoopSite) -> LoopCode | None:
        """The florlog loop whose call a frame is in."""
        return self._code.loop(*frame)

    def steady(self, site: Location, loop: LoopSite | None) -> bool:
        """Whether an iteration's body, up to a statement, gives the same in every process (`steadiness`)."""
        key = (site, loop)
        if key not in self._steady:
            self._steady[key] = self._is_steady(site, loop)
        return self._steady[key]

    def _is_steady(self, site: Location, loop: LoopSite | None) -> bool:
        query = self._query(site, ())
        if query is None:
            return False
        if loop is None:
            body = list(self._code.function_at[self._code.trees[self._script]].block)
        else:
            found = self._code.loop(*loop)
            if found is None or found.body is None:
                return False
            body = list(found.body.body)
        statements = list(self._code.statements_below(body))
        concerned = [place for place, statement in enumerate(statements) if query.concerns(statement)]
        if not concerned:
            return False
        return self._steadiness.steady(statements[: concerned[-1] + 1], query.statement)

    def _exit(
        self, sites: tuple[Location, ...], loop: LoopSite, children: tuple[Stack, ...], segment: int
    ) -> Exit | None:
        found = self._code.loop(*loop)
        if found is None or not isinstance(found.body, ast.For) or not found.call.certain:
            return None
        body = found.body.body
        queries = []
        for site in sites:
            query = self._query(site, children)
            if query is None or query.concerns(found.body):
                return None
            queries.append(query)
        if _yields(body):
            return None
        numbered = [_Child(i, stack, None) for i, stack in enumerate(children, 1)]
        concerned = [
            index
            for index, statement in enumerate(body)
            if any(segment in q.run(found.body, [statement], found.function, numbered) for q in queries)
        ]
        if not concerned:
            return None
        last = concerned[-1]
        points = frozenset(self._ends(body[last], queries))
        if last == len(body) - 1 and len(points) == 1:
            return None
        weights = [sum(1 for _ in self._code.statements_below([statement])) for statement in body]
        return Exit(loop[0], body[last].lineno, points, sum(weights[: last + 1]) / sum(weights))

    def _ends(self, statement: ast.AST, queries: list[_Query]) -> Iterator[tuple[int, int]]:
        yield statement.lineno, statement.col_offset  # type: ignore[attr-defined]
        if statement in self._code.looping or not isinstance(statement, (ast.If, ast.With)):
            return
        for _, block in blocks(statement):
            inner = [
                node
                for node in block
                if any(q.concerns(s) for q in queries for s in self._code.statements_below([node]))
            ]
            if inner:
                yield from self._ends(inner[-1], queries)

    def _query(self, site: Location, children: tuple[Stack, ...]) -> _Query | None:
        everywhere = frozenset(range(len(children) + 1))
        function = self._code.function(site.file, site.qualname, site.line)
        statement = None if function is None else self._code.statement(function, site.line)
        if function is None or (statement is None and isinstance(function.node, _WITH_STATEMENTS)):
            return None
        reached = self._reached_by(site, function, statement)
        return _Query(self._code, self._graph, statement, reached, everywhere)

    def _may_run(self, site: Location, loop: LoopSite | None, children: tuple[Stack, ...]) -> frozenset[int]:
        everywhere = frozenset(range(len(children) + 1))
        query = self._query(site, children)
        if query is None:
            return everywhere
        numbered = [_Child(i, stack, None) for i, stack in enumerate(children, 1)]
        if loop is None:
            body = self._code.function_at[self._code.trees[self._script]]
            return query.run(body.node, body.block, body, numbered)
        found = self._code.loop(*loop)
        if found is None or found.body is None or _yields(found.body.body):
            return everywhere
        if query.concerns(found.body):
            return everywhere  # what the iterable wraps runs inside the iteration, at any time
        around = enclosing_plain_loop(self._code, found.body) if found.call.form == "iteration" else None
        if around is not None and (_yields([around]) or query.concerns_any(around)):
            return everywhere
        return query.run(found.body, list(found.body.body), found.function, numbered)

    def _reached_by(
        self, site: Location, function: Function, statement: ast.AST | None
    ) -> frozenset[GraphNode]:
        if site not in self._reaching:
            inside = statement is not None and self._code.own_loop_body(statement)
            self._reaching[site] = frozenset() if inside else self._graph.reaching(function)
        return self._reaching[site]


class _Query:
    """One statement asked for, one iteration."""

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
        """Whether a statement's own part is, or may call, the statement asked for."""
        return statement is self.statement or not self._reached_by.isdisjoint(self._graph.callees(statement))

    def concerns_any(self, loop: ast.AST) -> bool:
        """Whether anything in a loop, outside florlog loops in it, may run the statement."""
        return any(map(self.concerns, self._code.statements_below([loop])))

    def run(
        self, owner: ast.AST, block: list[ast.AST], function: Function, children: list[_Child]
    ) -> frozenset[int]:
        self._found = set()
        self._search(owner, block, function, children, 0, max(self._everywhere))
        return frozenset(self._found)

    def _search(
        self, owner: ast.AST, block: list[ast.AST], function: Function, children: list[_Child],
        low: int, high: int,
    ) -> None:  # fmt: skip
        children = [_Child(c.number, c.stack, self._path_of(c.stack[-1], owner, function)) for c in children]
        for statement in self._code.statements_below(block):
            if self.concerns(statement):
                self._place(statement, owner, children, low, high)

    def _place(
        self, statement: ast.AST, owner: ast.AST, children: list[_Child], low: int, high: int
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
        inner = [_Child(c.number, c.stack[:-1], None) for c in inside]
        self._search(callee.node, callee.block, callee, inner, low, high)

    def _entered(self, statement: ast.AST, inside: list[_Child]) -> tuple[ast.AST, Function] | None:
        """The one call of a statement through which all these children were reached, and what it called."""
        functions = {self._code.function(*child.stack[-2]) for child in inside}
        callee = functions.pop()
        if functions or callee is None or callee in self._graph.lazy or isinstance(statement, ast.While):
            return None
        calls = [node for node, callees in self._graph.events(statement) if callee in callees]
        if len(calls) != 1 or _in_comprehension(calls[0], statement):
            return None
        return calls[0], callee

    def _path_of(self, frame: LoopSite, owner: ast.AST, function: Function) -> tuple[Step, ...] | None:
        """The way from a block to the statement that a frame is executing, None if it is not found there."""
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
        """How the first path's statement is placed in time relative to the second's."""
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


_WITH_STATEMENTS = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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


def _yields(block: Sequence[ast.AST]) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)) for node in own_nodes(block))
