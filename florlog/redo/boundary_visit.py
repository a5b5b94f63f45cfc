"""Running a recorded program to boundaries, in a process of its own that is killed there.

Nothing after the last boundary is executed: no ``finally`` of the script and nothing that it registered for its exit.
What it writes lies in a directory that the asking side removes.

Both sides are here: `answers` starts the process and reads its messages; `visit` is what the process does.  Besides
the messages of the one who looks, there may come ``["differs", text]``, ``["unusable", LSN of
an image, why it cannot be restored]``, ``["lost", the same of a blind entry]``, ``["earlier", why runs that the program
opened before have to be executed and not passed over]`` or ``["error", text]``.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from florlog_recovery import CostModel, Loop, RunTree, WhereError, boundary_atoms, plan_redo
from florlog_recovery.costs import MIN_RESTORE_SECONDS
from florlog_wal import RunLog

from florlog.errors import EarlierRunError, FlorlogError, ImageError
from florlog.following.blind_entries import enterable_loops
from florlog.following.failed_images import Boundary, FailedImages, not_entered
from florlog.following.outside import Outside
from florlog.following.trust import CONSISTENT, DIVERGED, PROVEN, where
from florlog.hindsight.request_data import RunChangedError
from florlog.program.environment import VARIABLES, changes, environment
from florlog.program.measured_costs import costs_of
from florlog.program.spawner import Child, Order, Stderr
from florlog.program.stores import open_log, tree_of
from florlog.program.terminal import report
from florlog.program.wire import Wire
from florlog.programs.permission import Trust, permit
from florlog.programs.recorded_program import RecordedProgram
from florlog.redo.boundary_guide import BoundaryGuide
from florlog.state.boundary_trees import States, Trees
from florlog.state.left_out import NO_GRADIENTS

# -- the side that asks ----------------------------------------------------------------------------


def order_of(log: RunLog, tree: RunTree, trust: Trust, **more: Any) -> Order:
    """An order for `visit`, with what else its module needs.

    Raises `UntrustedRunError` where the run's code may not be executed.
    """
    permit(log, tree, trust)
    return {"log": str(log.path), "trust": trust.runs, **more}


def answers(tree: RunTree, module: str, order: Order, *, once: bool = False) -> Iterator[list[Any]]:
    """The messages of a process that visits boundaries; it is killed when no more of them are asked for.

    Where an image cannot be restored, another process does without it; with ``once`` the message is given.

    Raises `FlorlogError` where it fails, `DivergedError` where the recorded program does not do what it did.
    """
    cwd = tree.begin.cwd if Path(tree.begin.cwd).is_dir() else None
    failed = FailedImages(Path(order["log"]), tree)
    unusable: frozenset[Boundary] = frozenset()
    blind, whole = True, False
    while True:
        with (
            tempfile.TemporaryDirectory(prefix="florlog-state-") as scratch,
            Child(
                module,
                {
                    **order,
                    "unusable": [loop.images[index].lsn for loop, index in unusable],
                    "blind": blind,
                    "whole": whole,
                },
                cwd=cwd,
                environment=_recorded_variables(tree) | {"TMPDIR": scratch},
                stderr=Stderr.KEPT,
            ) as child,
        ):
            for message in child.messages():
                if message[0] == "lost":
                    report(not_entered(*_failed(tree, *message[1:])))
                    blind = False
                    break
                if message[0] == "earlier":
                    report(
                        f"earlier runs of the program, which were passed over, are executed ({message[1]})"
                    )
                    whole = True
                    break
                if message[0] == "unusable" and not once:
                    unusable = failed.without(unusable, *_failed(tree, *message[1:]))
                    break
                yield message
            else:
                said = child.said().strip().splitlines() or ["it said nothing"]
                raise FlorlogError(f"the process that re-executed the script ended early: {said[-1]}")


def _failed(tree: RunTree, lsn: int, why: str) -> tuple[Boundary, str]:
    """The image with an LSN that a process says it cannot restore, and why."""
    for loop in tree.loops():
        for index, image in loop.images.items():
            if image.lsn == lsn:
                return (loop, index), why
    raise RunChangedError


def _recorded_variables(tree: RunTree) -> dict[str, str]:
    """The environment, with the recorded values of those variables that decide numbers."""
    held = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    recorded = tree.begin.environment.get("variables", {})
    return held | {name: recorded[name] for name in VARIABLES if name in recorded}


# -- the side that executes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """Execution stands at a boundary; ``changed``: what of the environment is not as it was recorded."""

    loop: Loop
    index: int
    states: States
    guide: BoundaryGuide
    changed: tuple[str, ...]

    @property
    def trees(self) -> Trees:
        """The state here."""
        return self.states(NO_GRADIENTS)

    @property
    def redone(self) -> int:
        """The innermost iterations executed so far."""
        return self.guide.redone

    def compared(self) -> tuple[str, str]:
        """What the comparison with the image here says, and what differs: a variable, and the last difference."""
        checks = self.guide.checks
        checks.arrive(self.loop, self.index, self.states)
        if checks.differences:
            return DIVERGED, "; ".join(filter(None, (checks.unlike, checks.differences[-1])))
        return (CONSISTENT, checks.unlike) if checks.unlike else (PROVEN, "")

    def trust(self) -> tuple[str, str]:
        """How far the state is proven, and what is against more."""
        return self.guide.trust(self.loop, self.index, self.changed)


Look = Callable[[Arrival], Sequence[Any] | None]
"""What is done at a boundary; the message with which to end there, or None to go on."""


def visit(order: Order, wire: Wire, goal: Callable[[RunTree], tuple[Sequence[Boundary], Look]]) -> None:
    """Run the program of an order's run to boundaries and look at each.

    ``goal`` gives the boundaries, in the order of the run, and what is done there.  Raises `FlorlogError` where the
    program fails or does not come to the last one.
    """

    def finish(*message: Any) -> NoReturn:
        wire.send(*message)
        os._exit(0)

    with open_log(Path(order["log"])) as log:
        tree = tree_of(log)
        wanted, look = goal(tree)
        program = RecordedProgram(permit(log, tree, Trust(order["trust"])), log, tree)
        changed = tuple(changes(tree.begin.environment, environment()))

        def arrived(loop: Loop, index: int, states: States) -> None:
            try:  # here: the script must not catch it
                arrival = Arrival(loop, index, states, guide, changed)
                last = look(arrival)
            except (FlorlogError, WhereError) as error:
                finish("error", str(error))
            if last is not None:
                differences = guide.checks.differences
                finish(*(("earlier", differences[0]) if differences and passes else last))

        atoms = boundary_atoms(wanted)
        newest = order.get("last")
        unusable = [
            (loop, index)
            for loop in tree.loops()
            for index, image in loop.images.items()
            if image.lsn in order["unusable"] or (newest and image.lsn > newest)
        ]
        costs = CostModel(MIN_RESTORE_SECONDS, math.inf) if newest else costs_of(log, tree)
        enterable = enterable_loops(tree, lambda: program.analysis) if order.get("blind") else frozenset()
        plan = plan_redo(tree, atoms, costs, frozenset(unusable), enterable=enterable.__contains__)
        before = program.runs_before(log, tree, whole=bool(order.get("whole")))
        passes = any(run.passed_over for run in before)
        alarm = (
            (lambda text: None) if newest else (lambda text: finish("earlier" if passes else "differs", text))
        )
        guide = BoundaryGuide(log, tree, plan, atoms, arrived, alarm, program.steady_before)
        guide.checks.excuse(Outside(tree, lambda: program.texts, program.script))
        try:
            program.run(guide, before)
        except EarlierRunError as error:
            finish("earlier", str(error))
        except FlorlogError as error:
            if guide.image is None and passes:
                finish("earlier", str(error))
            if guide.image is None or not isinstance(error, ImageError):
                raise
            at, index = guide.image
            finish("lost" if guide.lost else "unusable", at.images[index].lsn, str(error))
    loop, index = wanted[-1]
    place = where(loop.path(index))
    raise FlorlogError(f"the script ended and did not come to {place}, where it was when recorded")
