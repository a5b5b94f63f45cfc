"""Where in an iteration a statement can run: the segments that a replay must re-execute.

The direct child loop executions c1..cm of an iteration cut its body into segments 0..m; segment i lies between the end
of c_i and the start of c_(i+1).  `ProgramAnalysis.may_run` finds the segments in which a statement can run *directly*,
that is, not inside an iteration of a child.  It compares the position of the statement, or of a call that may reach
it, with the position of each child (`florlog.source.reach.positions`).

A segment is left out only if the statement is definitely on the other side of one of its ends.  A loop whose body
yields to a consumer, or whose body is not found, may run anything.  `florlog.source.graph.callgraph` decides what a
statement may call, with its limits; recursion is followed as deep as the recorded stack goes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from florlog.source.carry.liveness import Names
from florlog.source.graph.callees import GraphNode
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function, LoopCode, enclosing_plain_loop
from florlog.source.names.syntax import blocks, own_nodes
from florlog.source.reach.positions import ChildLoop, LoopSite, SegmentSearch, Stack
from florlog.source.skip.entering import Entering
from florlog.source.skip.marks import NONE, Marks
from florlog.source.skip.noise import Noise
from florlog.source.skip.pieces import Piece, pieces
from florlog.source.skip.skipping import Skipping
from florlog.source.skip.staleness import LineNumbers
from florlog.source.skip.steadiness import UNKNOWN, Steadiness

CODE_WITH_STATEMENTS = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Location:
    """A statement of the program, as a diff names it."""

    file: str
    line: int
    qualname: str


@dataclass(frozen=True)
class Exit:
    """Where an iteration can be left because the rest of its body is not needed."""

    file: str
    line: int  # of the statement of the body after which nothing requested runs
    points: frozenset[tuple[int, int]]  # leave after these: that statement, and the last ones of its branches
    share: float  # of the body's statements, up to there


class ProgramAnalysis:
    """A script and its local modules: where a statement may run, and what can be skipped."""

    def __init__(self, files: Mapping[str, str], script: str) -> None:
        self._code = Code(files)
        self._graph = CallGraph(self._code)
        self._script = script
        self._reaching: dict[Location, frozenset[GraphNode]] = {}
        self._steadiness: dict[bool, Steadiness] = {}  # by whether hashes are as recorded
        self._noise: dict[bool, Noise] = {}  # by the same
        self._entering: dict[Names, Entering] = {}  # by the names in added code
        self._unsteady: dict[tuple[Location, LoopSite | None, bool, str], str] = {}
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
        """Where an iteration can be left in a segment because none of ``sites`` runs later in it; None: nowhere.

        That is after the last statement of the body that may run one of ``sites`` in this segment.  If that statement
        is an ``if`` or a ``with``, it is already after the last such statement of the branch or block.  Only a ``for``
        over a certain florlog loop can be left early.
        """
        key = (sites, loop, tuple(children), segment)
        if key not in self._exits:
            self._exits[key] = self._exit(*key)
        return self._exits[key]

    def skipping(self, added: LineNumbers) -> Skipping:
        """Which loops can be skipped, given the lines that were added since the recording."""
        return Skipping(self._code, self._graph, added)

    def pieces(self, skipping: Skipping) -> list[Piece]:
        """Which plain loops and calls can be skipped, by the answers of `skipping`."""
        return pieces(self._code, self._graph, skipping)

    def may_enter(self, around: LoopSite, stack: Sequence[LoopSite], asked: Names) -> bool:
        """Whether a loop in an iteration of another one may be entered blindly (`florlog.source.skip.entering`).

        ``stack``: the frames from the loop's call outwards.  ``asked``: the names in added code.
        """
        if asked not in self._entering:
            self._entering[asked] = Entering(self._code, self._graph, asked)
        found = self._code.loop(*around)
        return found is not None and self._entering[asked].may_enter(found, stack)

    def loop(self, frame: LoopSite) -> LoopCode | None:
        """The florlog loop whose call a frame is executing."""
        return self._code.loop(*frame)

    def unsteady(self, site: Location, loop: LoopSite | None, *, same_hashes: bool, name: str = "") -> str:
        """What else than the state an iteration's body up to a statement reads; "" if it gives the same everywhere.

        ``same_hashes``: sets are in the order of the recording.  ``name``: a value that the statement logs; then its
        other values do not count.
        """
        key = (site, loop, same_hashes, name)
        if key not in self._unsteady:
            self._unsteady[key] = self._reads_before(*key)
        return self._unsteady[key]

    def outside(self, site: Location, names: Sequence[str], *, same_hashes: bool) -> Marks:
        """Where the values come from that a log statement logs under some names."""
        function = self._code.function(site.file, site.qualname, site.line)
        return NONE if function is None else self._noise_with(same_hashes).at(function, site.line, names)

    def noisy(self, *, same_hashes: bool) -> frozenset[tuple[str, str]]:
        """The variables and attributes that hold what was read from outside (`Noise.carriers`)."""
        return self._noise_with(same_hashes).carriers()

    def unsteady_alone(self, site: Location, *, same_hashes: bool, name: str) -> str:
        """What else than the state a statement itself reads for a value, with all that it may call; "" if nothing."""
        query = self._query(site, ())
        if query is None or query.statement is None:
            return UNKNOWN
        return self._steadiness_with(same_hashes).unsteady([query.statement], query.statement, name)

    @property
    def clock_keys(self) -> tuple[str, ...]:
        """How the keys end under which frameworks keep what they read from the clock."""
        return self._noise_with(same_hashes=True).clock_keys

    def _steadiness_with(self, same_hashes: bool) -> Steadiness:
        if same_hashes not in self._steadiness:
            self._steadiness[same_hashes] = Steadiness(self._code, self._graph, same_hashes=same_hashes)
        return self._steadiness[same_hashes]

    def _noise_with(self, same_hashes: bool) -> Noise:
        if same_hashes not in self._noise:
            self._noise[same_hashes] = Noise(self._code, self._graph, same_hashes=same_hashes)
        return self._noise[same_hashes]

    def _reads_before(self, site: Location, loop: LoopSite | None, same_hashes: bool, name: str) -> str:
        query = self._query(site, ())
        if query is None:
            return UNKNOWN
        if loop is None:
            body = list(self._code.function_at[self._code.trees[self._script]].block)
        else:
            found = self._code.loop(*loop)
            if found is None or found.body is None:
                return UNKNOWN
            body = list(found.body.body)
        statements = list(self._code.statements_below(body))
        concerned = [place for place, statement in enumerate(statements) if query.concerns(statement)]
        if not concerned:
            return UNKNOWN
        before = statements[: concerned[-1] + 1]
        return self._steadiness_with(same_hashes).unsteady(before, query.statement, name)

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
        numbered = [ChildLoop(i, stack, None) for i, stack in enumerate(children, 1)]
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

    def _ends(self, statement: ast.AST, queries: list[SegmentSearch]) -> Iterator[tuple[int, int]]:
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

    def _query(self, site: Location, children: tuple[Stack, ...]) -> SegmentSearch | None:
        everywhere = frozenset(range(len(children) + 1))
        function = self._code.function(site.file, site.qualname, site.line)
        statement = None if function is None else self._code.statement(function, site.line)
        if function is None or (statement is None and isinstance(function.node, CODE_WITH_STATEMENTS)):
            return None
        reached = self._reached_by(site, function, statement)
        return SegmentSearch(self._code, self._graph, statement, reached, everywhere)

    def _may_run(self, site: Location, loop: LoopSite | None, children: tuple[Stack, ...]) -> frozenset[int]:
        everywhere = frozenset(range(len(children) + 1))
        query = self._query(site, children)
        if query is None:
            return everywhere
        numbered = [ChildLoop(i, stack, None) for i, stack in enumerate(children, 1)]
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


def _yields(block: Sequence[ast.AST]) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)) for node in own_nodes(block))
