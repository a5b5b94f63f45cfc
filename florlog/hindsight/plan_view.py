"""A redo plan as programs read it: EXPLAIN, and with what execution took: ANALYZE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

from florlog_recovery import Atoms, CostModel, Loop, LoopPlan, NodePlan, Plan, Stretch
from florlog_recovery import Node as TreeNode
from florlog_wal import Path as IterationPath

if TYPE_CHECKING:
    from florlog.following.shortcuts import PassedPieces
    from florlog.hindsight.request import Request
    from florlog.source.skip.pieces import Piece

Reasons = Mapping[Loop | tuple[TreeNode, int], Sequence[str]]
"""Names that are asked for in a loop's innermost iterations, or in a segment of another iteration."""

Redo = TypedDict("Redo", {"from": dict[str, int], "to": dict[str, int], "part": str, "asked": list[str]})
"""Iterations executed in a row.

``part``: "full"; "prefix" for an iteration that is left after its last requested statement; "outer-only" for
an iteration's own code around its loops; "entry" for that code up to its first loop, on whatever state there is, as an
image is restored next; "skipped" for a loop that is not run, as nothing asked for depends on it.
``asked``: the names that are asked for there; none: it is on the way.
"""


class PlanSegment(TypedDict):
    """One restore and what is executed after it; an empty ``restore`` is the run's own start."""

    restore: dict[str, int]
    restore_at: str
    redo: list[Redo]
    predicted_seconds: float
    actual_seconds: NotRequired[float]


class SkippedPiece(TypedDict):
    """Code within executed iterations that is passed over, as nothing asked for depends on it.

    ``piece``: its number among the request's.
    ``times``: how often it was; it is run where an object that it concerns speaks against that.
    """

    piece: int
    code: str
    file: str
    line: int
    times: NotRequired[int]


class RunBefore(TypedDict):
    """A run that the program opened before the one that is asked.

    ``part``: "end" where it is passed over, from its last image on; "full" where it is executed.  ``why``: the reason
    for that, or "".
    """

    run: str
    name: str
    part: str
    why: str
    redone: int
    predicted_seconds: float


class PlanView(TypedDict):
    """The JSON shape of a plan."""

    run: str
    iterations_total: int
    iterations_redone: int
    answered_from_log: int
    answered_from_state: int
    segments: list[PlanSegment]
    skips: list[SkippedPiece]
    runs_before: list[RunBefore]
    setup_seconds: float
    predicted_seconds: float
    full_rerun_seconds: float
    actual_seconds: NotRequired[float]


class _Viewer:
    def __init__(
        self, plan: Plan, request: Atoms, costs: CostModel, reasons: Reasons, passing: PassedPieces
    ) -> None:
        self.request = request
        self.passing = passing
        self.passed: set[int] = set()
        self.costs = costs
        self.reasons = reasons
        self.redone = 0
        self.from_state = 0
        self.segments: list[PlanSegment] = []
        self._segment({}, "start")
        self._fresh = False  # no innermost iteration was executed since the last restore
        self.node(plan.root)

    def _segment(self, restore: dict[str, int], at: str) -> None:
        self.segments.append({"restore": restore, "restore_at": at, "redo": [], "predicted_seconds": 0.0})

    def _pay(self, seconds: float) -> None:
        self.segments[-1]["predicted_seconds"] += seconds

    def node(self, plan: NodePlan, *, blind: bool = False) -> None:
        node = plan.node
        wanted = self.request.segments.get(node, {})
        for segment in range(plan.segments):
            if blind and segment == 0:
                self._redo(node.path, node.path, "entry")
            elif node.loop is not None and segment == blind:
                asked = [name for number in wanted for name in self.reasons.get((node, number), ())]
                self._redo(node.path, node.path, "outer-only", asked)
            self.passed.update(self.passing.get((node, segment), ()))
            left = plan.left and segment == len(plan.loops)
            whole = node.loops[segment].before if segment < len(node.loops) else node.after
            self._pay(whole * (wanted[segment] if left else 1.0))
            if segment in wanted and self._fresh:
                self.from_state += 1
            if segment < len(plan.loops):
                self.loop(plan.loops[segment])

    def loop(self, plan: LoopPlan) -> None:
        if plan.skipped:
            self._redo(plan.loop.path(0), plan.loop.path(plan.loop.count - 1), "skipped")
        for stretch in plan.stretches:
            if stretch.restore:
                self._restore(plan.loop, stretch.first)
            self._stretch(plan, stretch)
        if plan.restore_end:
            self._restore(plan.loop, plan.loop.count)

    def _stretch(self, plan: LoopPlan, stretch: Stretch) -> None:
        first = stretch.first
        for index in sorted(i for i in plan.nodes if first <= i <= stretch.last):
            self._leaves(plan.loop, first, index - 1)
            self.node(plan.nodes[index], blind=stretch.blind and index == stretch.first)
            first = index + 1
        self._leaves(plan.loop, first, stretch.last - stretch.left)
        if stretch.left:
            self._leaves(plan.loop, stretch.last, stretch.last, "prefix")

    def _leaves(self, loop: Loop, first: int, last: int, part: str = "full") -> None:
        if first > last:
            return
        self.redone += last - first + 1
        self.passed.update(self.passing.get(loop, ()))
        self._fresh = False
        mask = self.request.leaves.get(loop)
        asked = self.reasons.get(loop, ()) if mask is not None and mask[first : last + 1].any() else ()
        self._redo(loop.path(first), loop.path(last), part, asked)
        share = self.request.leaf_share(loop, last) if part == "prefix" else 1.0
        self._pay(share * sum(loop.seconds[first : last + 1]))

    def _restore(self, loop: Loop, index: int) -> None:
        at_end = index == loop.count and loop.ended
        path = loop.path(index - 1 if at_end else index)
        self._segment(dict(path), "end" if at_end else "start")
        self._pay(self.costs.restore(loop.images[index]))
        self._fresh = True

    def _redo(self, first: IterationPath, last: IterationPath, part: str, asked: Sequence[str] = ()) -> None:
        redo: Redo = {"from": dict(first), "to": dict(last), "part": part, "asked": list(asked)}
        self.segments[-1]["redo"].append(redo)


def plan_view(
    plan: Plan,
    request: Atoms,
    costs: CostModel | None = None,
    *,
    answered_from_log: int = 0,
    reasons: Reasons | None = None,
    pieces: Sequence[Piece] = (),
    passing: PassedPieces | None = None,
) -> PlanView:
    """The plan as its JSON shape; iterations are counted at the innermost loops.

    The set-up, from the script's start to its first loop, is paid by a replay and by a rerun.
    """
    costs = costs or CostModel()
    viewer = _Viewer(plan, request, costs, reasons or {}, passing or {})
    segments = viewer.segments
    loops = plan.tree.root.loops
    before = max(
        0.0, costs.setup - (loops[0].before if loops else 0.0)
    )  # what the first segment does not hold
    setup = before if request else 0.0
    if not segments[0]["redo"] and (len(segments) > 1 or not request):
        setup += segments.pop(0)["predicted_seconds"]
    return {
        "run": plan.tree.run,
        "iterations_total": plan.tree.innermost_iterations(),
        "iterations_redone": viewer.redone,
        "answered_from_log": answered_from_log,
        "answered_from_state": viewer.from_state,
        "segments": segments,
        "skips": [
            {"piece": number, "code": piece.text, "file": piece.file, "line": piece.line}
            for number, piece in enumerate(pieces)
            if number in viewer.passed
        ],
        "runs_before": [],
        "setup_seconds": setup,
        "predicted_seconds": plan.seconds + (before if request else 0.0),
        "full_rerun_seconds": plan.rerun_seconds + before,
    }


def view_of(plan: Plan, request: Request) -> PlanView:
    """The view of a plan that answers a request."""
    view = plan_view(
        plan,
        request.wanted.atoms,
        request.costs,
        answered_from_log=len(request.earlier.values),
        reasons=request.wanted.reasons,
        pieces=request.skippable.pieces,
        passing=request.skippable.passing,
    )
    for skip in view["skips"]:
        skip["file"] = request.program.name(skip["file"])
    if view["segments"]:
        view["runs_before"] = [
            {
                "run": run.run,
                "name": run.name,
                "part": "end" if run.passed_over else "full",
                "why": run.why,
                "redone": run.redone,
                "predicted_seconds": run.seconds,
            }
            for run in request.runs_before
        ]
        view["predicted_seconds"] += sum(run.seconds for run in request.runs_before)
    view["full_rerun_seconds"] += sum(run.whole_seconds for run in request.runs_before)
    return view


def analyzed(view: PlanView, spans: Sequence[float], passed: Mapping[int, int]) -> None:
    """Add to each segment what it took, and to each piece how often it was passed over.

    ``spans``: seconds of the set-up, from there to the first restore, from that to the next, and so on; none are known
    of several processes.
    """
    for skip in view["skips"]:
        skip["times"] = passed.get(skip["piece"], 0)
    if spans:
        view["actual_seconds"] = sum(spans)
    segments = [segment for segment in view["segments"] if segment["restore"]]
    if len(spans) != len(segments) + 2:
        return  # executed otherwise than planned
    for segment, seconds in zip(segments, spans[2:], strict=True):
        segment["actual_seconds"] = seconds
    if len(segments) < len(view["segments"]):
        view["segments"][0]["actual_seconds"] = spans[1]
