"""What a script wraps around a loop's iterator: ``enumerate``, ``zip``, a progress bar.

A replay that jumps to a later iteration must take such wrappers along, because they count for themselves.
``enumerate`` is advanced in its own memory; where that is, is checked by what it gives when pickled.  Of a ``zip`` or
``map`` the other iterators are advanced, where they are plain ones (a range's, a list's, ``count``) that come behind
the loop: what comes before it has given its item for this pass already.  Under anything else that consumes iterators
in step (``islice``, a generator of the user's) no image is taken inside a loop; its end can still be restored.
Wrappers without a position (``tqdm``) are let be.

Who draws from an iterator is found by the garbage collector, which looks at every object there is: some 50 ms under
torch.  Where the source says that a ``for`` takes the loop as it is, nobody is asked (`bare`).
"""

from __future__ import annotations

import ast
import ctypes
import functools
import gc
import itertools
import linecache
from collections.abc import Iterator
from types import CodeType, GeneratorType
from typing import Any

from florlog.errors import ImageError
from florlog.state.objects import is_user_file

_COUNTING = tuple(
    getattr(itertools, name)
    for name in ("islice", "zip_longest", "cycle", "accumulate", "groupby", "batched", "pairwise")
    if hasattr(itertools, name)
)
_IN_STEP = (zip, map)
_BY_TUPLE = (zip, map, itertools.zip_longest)  # they hold their iterators in a tuple
_PLAIN = (
    itertools.count,
    itertools.repeat,
    *map(type, (iter(range(1)), iter(range(1 << 70)), iter([]), iter(()), iter(""), iter("é"), iter(b""))),
)


def bare(site: tuple[CodeType, int]) -> bool:
    """Whether the call of ``loop`` at a line is, as it stands, what a ``for`` there runs over."""
    code, line = site
    return line in _bare("".join(linecache.getlines(code.co_filename)))


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


def wrappers(iterator: Any) -> Iterator[Any]:
    """The iterators that draw from an iterator, inner before outer."""
    pending, seen = [iterator], {id(iterator)}
    while pending:
        inner = pending.pop()
        for outer in gc.get_referrers(inner):
            if id(outer) in seen or (isinstance(inner, tuple) and not isinstance(outer, _BY_TUPLE)):
                continue
            if isinstance(outer, Iterator):
                seen.add(id(outer))
                pending.append(outer)
                yield outer
            elif type(outer) is tuple:
                seen.add(id(outer))
                pending.append(outer)


def _others(outer: Any, inside: set[int]) -> list[Any] | None:
    """The other iterators of a zip or map around one of ``inside``; None if they cannot be advanced."""
    parts = list(outer.__reduce__()[1])
    if isinstance(outer, map):
        del parts[0]  # its function
    if id(parts[0]) not in inside or not all(isinstance(part, _PLAIN) for part in parts[1:]):
        return None
    return parts[1:]


def obstacle(iterator: Any) -> str:
    """The wrapper that keeps a loop from being continued in its middle, or ""."""
    inside = {id(iterator)}
    for outer in wrappers(iterator):
        inside.add(id(outer))
        if isinstance(outer, _COUNTING):
            return type(outer).__name__
        if isinstance(outer, _IN_STEP) and _others(outer, inside) is None:
            return f"{type(outer).__name__}, of which the loop is not the first part or others are no plain ones,"
        if isinstance(outer, GeneratorType) and is_user_file(outer.gi_code.co_filename):
            return f"generator {outer.gi_code.co_name}"
        if isinstance(outer, enumerate) and _index(outer) is None:
            return "enumerate"
    return ""


def counters(iterator: Any) -> list[Any]:
    """What around an iterator counts by itself: every ``enumerate``, and the iterators beside it in a zip or map."""
    inside, found = {id(iterator)}, []
    for outer in wrappers(iterator):
        inside.add(id(outer))
        if isinstance(outer, enumerate):
            found.append(outer)
        elif isinstance(outer, _IN_STEP):
            found += _others(outer, inside) or []
    return found


def advance(counter: Any, by: int) -> None:
    """Let one of `counters` go ``by`` further."""
    if not isinstance(counter, enumerate):
        if by < 0:
            raise ImageError("what is zipped with the loop cannot go back to where an image was taken")
        for _ in zip(range(by), counter, strict=False):
            pass
        return
    cell = _index(counter)
    if cell is None:
        raise ImageError("an enumerate around the loop cannot be advanced to where an image was taken")
    cell.value += by


def _index(counter: enumerate[Any]) -> ctypes.c_ssize_t | None:
    """The memory of an enumerate's next number: behind its head, in CPython since 2.3."""
    cell = ctypes.c_ssize_t.from_address(id(counter) + object.__basicsize__)
    return cell if cell.value == counter.__reduce__()[1][1] else None
