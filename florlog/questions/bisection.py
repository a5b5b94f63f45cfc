"""The first place of a run at which a condition holds, found with as little re-execution as possible.

A condition is either about *values*, logged or found by replays, which the log alone answers; or about the *state*.
A state is looked at at every boundary, in the order of the run.  Where images stand it is read.  What lies between
them is re-executed in one process, from the nearest image on, which ends at the first boundary at which the
condition holds.

Nothing is assumed of the condition: without more, every boundary before the answer is looked at.  With ``monotone``
the caller vouches that it goes on holding once it holds.  Then images are searched by halves, and only the boundaries
between the last image at which it does not hold and the next are re-executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from florlog_recovery import Condition, Node, RunTree, WhereError, state_name
from florlog_wal import Path, RunLog

from florlog.errors import FlorlogError
from florlog.following.failed_images import Boundary
from florlog.following.trust import CONSISTENT, DIVERGED, PROVEN, UNVERIFIED
from florlog.images.imager import SavedState
from florlog.programs.permission import Trust
from florlog.questions.elements import StateElements
from florlog.reading.columns import RECORDED
from florlog.reading.reader import RunView
from florlog.redo.boundary_visit import answers, order_of
from florlog.redo.past_state import public

_TRUST = (RECORDED, PROVEN, CONSISTENT, UNVERIFIED, DIVERGED)


@dataclass(frozen=True, slots=True)
class First:
    """Where a condition holds first; ``path`` is None where it never does."""

    path: Path | None = None
    at: str = "end"
    values: dict[str, Any] = field(default_factory=dict)  # what its terms are there
    trust: str = RECORDED
    detail: str = ""
    redone: int = 0  # innermost iterations
    images: int = 0  # read
    source: str = "log"  # "log" or "state"


def first(view: RunView, text: str, *, monotone: bool) -> First:
    """The first place at which the condition ``text`` holds.

    Raises `FlorlogError` for a condition that cannot be used, `UntrustedRunError` where the run's script would have to
    be executed and may not be, and `DivergedError` where redo does not give what was recorded.
    """
    tree = view.tree()
    loops = {loop.name.split("#")[0] for loop in tree.loops()} | {loop.name for loop in tree.loops()}
    values: dict[Path, dict[str, tuple[Any, str]]] = {}
    for value in view.logged():
        values.setdefault(value.path, {})[value.name] = value.value, value.trust
    names = {name for held in values.values() for name in held}
    try:
        condition = Condition(text, loops, names - loops, state=True)
        if not condition.keys:
            return _in_log(tree, condition, values, condition.names - loops)
        if mixed := sorted(condition.names - loops):
            raise FlorlogError(
                f"a condition is about the state or about values, and {text!r} has both: leave out {', '.join(mixed)}"
            )
        return _in_states(view.log, tree, condition, view.trust, monotone=monotone)
    except WhereError as error:
        raise FlorlogError(str(error)) from None


# -- values ----------------------------------------------------------------------------------------


def _in_log(
    tree: RunTree,
    condition: Condition,
    values: dict[Path, dict[str, tuple[Any, str]]],
    names: frozenset[str],
) -> First:
    if not names:
        raise FlorlogError("the condition names no value: use what was logged, or state['model.weight']")
    orders: dict[tuple[Path, str], int] = {(loop.parent.path, loop.name): loop.order for loop in tree.loops()}

    def ended(path: Path) -> list[tuple[float, float]]:
        """Iterations by this are in the order in which they ended."""
        order = [
            (float(orders.get((path[:depth], name), 0)), float(index))
            for depth, (name, index) in enumerate(path)
        ]
        return [*order, (float("inf"), 0.0)]

    for path in sorted((path for path, held in values.items() if names & held.keys()), key=ended):
        here: dict[str, tuple[Any, str]] = {}
        for depth in range(len(path) + 1):
            here |= values.get(path[:depth], {})
        known = {name: _single(held[0]) for name, held in here.items()} | dict(path)
        if condition(known):
            trusts = [here[name][1] for name in names if name in here]
            return First(path, values=condition.terms(known), trust=max(trusts, key=_TRUST.index))
    return First()


def _single(value: Any) -> Any:
    """A value as a number or text; None for what is neither."""
    if getattr(value, "size", 0) == 1 and hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None


# -- states ----------------------------------------------------------------------------------------


def boundaries(tree: RunTree) -> list[Boundary]:
    """Every boundary in the order of the run."""

    def inside(node: Node) -> Iterator[Boundary]:
        for loop in node.loops:
            for index in range(loop.count + 1):
                yield loop, index
                if index in loop.nodes:
                    yield from inside(loop.nodes[index])

    return list(inside(tree.root))


def values_at(condition: Condition, place: Boundary, tree: Callable[[str], Any]) -> dict[str, Any]:
    """The values of a condition's names at a boundary; ``tree`` gives the tree of a tracked name.

    Loops have the indices of the iteration that ended there, or begins.
    """
    loop, index = place
    state = {}
    for name in {key.partition(".")[0] for key in condition.keys}:
        try:
            state[name] = public(tree(name))
        except KeyError:
            raise FlorlogError(f"nothing is tracked as {name!r} at this place") from None
    held = {state_name(key): StateElements(state, key) for key in condition.keys}
    return {**dict(loop.path(max(index - 1, 0))), **held}


def _in_states(log: RunLog, tree: RunTree, condition: Condition, trusted: Trust, *, monotone: bool) -> First:
    order = boundaries(tree)
    images = [place for place, (loop, index) in enumerate(order) if index in loop.images]
    looked: dict[int, dict[str, Any] | None] = {}  # at images: the terms where it holds, else None

    def holds(place: int) -> bool:
        if place not in looked:
            loop, index = order[place]
            saved = SavedState(log, loop.images[index].table)
            values = values_at(condition, order[place], saved.tree)
            looked[place] = condition.terms(values) if condition(values) else None
        return looked[place] is not None

    if monotone:
        low, high = 0, len(images)  # the first image at which it holds lies in [low, high]
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(images[middle]) else (middle + 1, high)
        start = images[low - 1] + 1 if low else 0
    else:
        low = next((number for number, place in enumerate(images) if holds(place)), len(images))
        start = 0
    stop = images[low] if low < len(images) else len(order)
    redone = 0
    if any(index not in loop.images for loop, index in order[start:stop]):
        search = order_of(log, tree, trusted, condition=condition.text, start=start, stop=stop)
        for message in answers(tree, "florlog.questions.search_worker", search):
            match message:
                case [
                    "found",
                    int() as place,
                    dict() as terms,
                    str() as trust,
                    str() as detail,
                    int() as redone,
                ]:
                    path, at = _named(order[place])
                    return First(path, at, terms, trust, detail, redone, len(looked), "state")
                case ["none", int() as redone]:
                    break
    if stop == len(order):
        return First(redone=redone, images=len(looked), source="state")
    path, at = _named(order[stop])
    return First(path, at, looked[stop] or {}, redone=redone, images=len(looked), source="state")


def _named(place: Boundary) -> tuple[Path, str]:
    """A boundary as an iteration's start or end."""
    loop, index = place
    return (loop.path(index - 1), "end") if index else (loop.path(0), "start")
