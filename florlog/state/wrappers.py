"""What a script wraps around a loop's iterator: ``enumerate``, ``zip``, a progress bar.

A replay that jumps to a later iteration must move such wrappers too, because they count for themselves.
``enumerate`` is moved in its own memory (`florlog.state.cpython`).  Of a ``zip`` or ``map`` the other iterators are
advanced, where they are plain ones (a range's, a list's, ``count``) that come after the loop: what comes before it has
given its item for this pass already.  Under anything else that consumes iterators in step (``islice``, a generator of
the user's) no image is taken inside a loop; its end can still be restored.  Wrappers without a position (``tqdm``) are
left alone: what a progress bar shows is not state.

The search for these wrappers takes some 50 ms under torch.  Where the source says that a ``for`` takes the loop as it
is, there is no search (`bare`).
"""

from __future__ import annotations

import ast
import functools
import itertools
from types import CodeType, GeneratorType
from typing import Any

from florlog.errors import ImageError
from florlog.program.process import this_process
from florlog.state.cpython import (
    can_move,
    can_see_iterators,
    inner_iterators,
    iterators_around,
    move_enumerate,
    move_list_iterator,
)
from florlog.state.live_lists import LIST_ITERATOR
from florlog.state.user_code import is_user_generator

_COUNTING = tuple(
    getattr(itertools, name)
    for name in ("islice", "zip_longest", "cycle", "accumulate", "groupby", "batched", "pairwise")
    if hasattr(itertools, name)
)
_IN_STEP = (zip, map)
_PLAIN_ITERATORS = (
    itertools.count,
    itertools.repeat,
    *map(type, (iter(range(1)), iter(range(1 << 70)), iter([]), iter(()), iter(""), iter("é"), iter(b""))),
)


def bare(site: tuple[CodeType, int]) -> bool:
    """Whether the call of ``loop`` at a line is, as it stands, what a ``for`` there runs over."""
    code, line = site
    return line in _bare(this_process.text_of(code.co_filename))


@functools.cache
def _bare(text: str) -> frozenset[int]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return frozenset()
    lines = [call.lineno for call in _calls(tree)]
    loops = [node.iter for node in ast.walk(tree) if isinstance(node, ast.For)]
    return frozenset(
        taken.lineno for taken in loops if _calls(taken) == [taken] and lines.count(taken.lineno) == 1
    )


def _calls(node: ast.AST) -> list[ast.Call]:
    """The calls of something named loop."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) == "loop"]


def _others(outer: Any, inside: set[int]) -> list[Any] | None:
    """The other iterators of a zip or map around one of ``inside``; None if they cannot be advanced."""
    parts = inner_iterators(outer)
    if id(parts[0]) not in inside or not all(isinstance(part, _PLAIN_ITERATORS) for part in parts[1:]):
        return None
    return parts[1:]


def obstacle(iterator: Any) -> str:
    """The name of the wrapper that keeps a loop from being continued in its middle, "" if none does."""
    if not can_see_iterators():
        return "an iterator that this Python does not show"
    inside = {id(iterator)}
    for outer in iterators_around(iterator):
        inside.add(id(outer))
        if isinstance(outer, _COUNTING):
            return type(outer).__name__
        if isinstance(outer, _IN_STEP) and _others(outer, inside) is None:
            return f"{type(outer).__name__}, of which the loop is not the first part or others are no plain ones,"
        if isinstance(outer, GeneratorType) and is_user_generator(outer):
            return f"generator {outer.gi_code.co_name}"
        if isinstance(outer, enumerate) and not can_move(outer):
            return "enumerate"
    return ""


def counters(iterator: Any) -> list[Any]:
    """What around an iterator counts by itself: every ``enumerate``, and the other iterators of a zip or map."""
    inside, found = {id(iterator)}, []
    for outer in iterators_around(iterator):
        inside.add(id(outer))
        if isinstance(outer, enumerate):
            found.append(outer)
        elif isinstance(outer, _IN_STEP):
            found += _others(outer, inside) or []
    return found


def advance(counter: Any, by: int) -> None:
    """Move one of `counters` by so many items.  Raises `ImageError` where it cannot be moved."""
    if type(counter) is LIST_ITERATOR and move_list_iterator(counter, by):  # its list may be restored later
        return
    if not isinstance(counter, enumerate):
        if by < 0:
            raise ImageError("what is zipped with the loop cannot go back to where an image was taken")
        for _ in zip(range(by), counter, strict=False):
            pass
        return
    if not move_enumerate(counter, by):
        raise ImageError("an enumerate around the loop cannot be advanced to where an image was taken")
