"""Where a resume starts: early enough to prove, before it goes on, that it is the recorded run.

A resume executes the first atom that the log does not have, the *frontier*.  The cheapest walk to it may re-execute
nothing that was recorded, and then nothing shows whether an image has all that the training needs.  So a resume starts
before the newest image: what it re-executes is compared with the log, and its whole state with that image.  Where this
costs more than is allowed, it re-executes at least one recorded iteration that has a fingerprint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from florlog_recovery.atoms import resume_atoms
from florlog_recovery.costs import CostModel
from florlog_recovery.plan import NodePlan, Plan, plan_redo, planned_restores
from florlog_recovery.tree import Loop, Node, RunTree
from florlog_recovery.walk import Enterable, no_loop

MAX_SEARCHED_ITERATIONS = 20_000
"""How many of the last iterations are looked at for one that has a fingerprint."""


def plan_resume(
    tree: RunTree,
    costs: CostModel,
    unusable: Collection[tuple[Loop, int]],
    *,
    proof_seconds: float,
    has_fingerprint: Callable[[Loop, int], bool],
    enterable: Enterable = no_loop,
) -> tuple[Plan, tuple[Node, int | Loop]]:
    """The plan of a resume, and the place of its frontier as `resume_atoms` gives it.

    ``proof_seconds``: what the plan may cost, over the cheapest one, for the sake of a whole state on the way.
    ``has_fingerprint`` says it of a committed innermost iteration, ``enterable`` is that of `plan_redo`.
    ``unusable``: boundaries whose images are not restored; a state is compared with them nonetheless.
    """
    atoms, node, place = resume_atoms(tree)
    line = _Timeline(tree)
    apart = frozenset(unusable)

    def from_before(done: int) -> Plan:
        later = {(image.loop, image.index) for image in line.images if image.done >= done}
        return plan_redo(tree, atoms, costs, apart | later, enterable=enterable)

    cheapest = plan_redo(tree, atoms, costs, apart, enterable=enterable)
    newest = max((image.done for image in line.images if image.compared), default=0)
    if newest > 0:
        proven = from_before(newest)
        if proven.seconds <= cheapest.seconds + proof_seconds:
            return proven, (node, place)
    if line.iterations == 0:
        return cheapest, (node, place)
    return from_before(line.last_where(has_fingerprint) + 1), (node, place)


@dataclass(frozen=True, slots=True)
class _PlacedImage:
    loop: Loop
    index: int
    done: int  # innermost iterations that are committed before it
    compared: bool  # execution that comes there by itself compares its state


class _Timeline:
    """The images of a run and its innermost iterations, in the order of execution."""

    def __init__(self, tree: RunTree) -> None:
        self.iterations = 0
        self.images: list[_PlacedImage] = []
        self._rows: list[
            tuple[Loop, int, int]
        ] = []  # a loop's iterations from one to before another, in a row
        self._node(tree.root)

    def _node(self, node: Node) -> None:
        for loop in node.loops:
            images, first = sorted(loop.images), 0
            for stop in [*sorted(loop.nodes), loop.count]:
                if first > stop:
                    break
                for index in images:
                    if first <= index <= stop:
                        # A with loop's last boundary lies after code that may belong to the iteration before it.
                        compared = loop.form == "for" or index < loop.count
                        done = self.iterations + index - first
                        self.images.append(_PlacedImage(loop, index, done, compared))
                self._rows.append((loop, first, stop))
                self.iterations += stop - first
                if stop in loop.nodes:
                    self._node(loop.nodes[stop])
                first = stop + 1

    def last_where(self, holds: Callable[[Loop, int], bool]) -> int:
        """The number of the last innermost iteration for which ``holds``; without one, of the last."""
        number = self.iterations
        for loop, index in self._backwards():
            number -= 1
            if self.iterations - number > MAX_SEARCHED_ITERATIONS:
                break
            if holds(loop, index):
                return number
        return self.iterations - 1

    def _backwards(self) -> Iterator[tuple[Loop, int]]:
        for loop, first, stop in reversed(self._rows):
            for index in range(stop - 1, first - 1, -1):
                yield loop, index


def last_restore(plan: NodePlan) -> tuple[Loop, int] | None:
    """The last boundary that a plan restores."""
    return next(iter(deque(planned_restores(plan), maxlen=1)), None)
