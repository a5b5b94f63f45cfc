"""Iterators of the language and of ``itertools``: their parts and their position, taken without advancing them.

A live iterator is moved in place where its parts are the same and it lets itself be moved.  Otherwise a new one takes
its place wherever the graph refers to it.
"""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from florlog.state.cpython import can_move, move_enumerate, move_list_iterator, next_number
from florlog.state.cpython_holders import (
    dict_under,
    give_state,
    place_in_dict,
    place_range,
    range_left,
    taken_apart,
)
from florlog.state.heap.graph import Node, Ref
from florlog.state.heap.kinds.base import MISSING, Build, Kind, Walk, all_same
from florlog.state.heap.names import constant, constant_name

_VIEWS: dict[str, Any] = {
    "dict_keyiterator": dict.keys,
    "dict_valueiterator": dict.values,
    "dict_itemiterator": dict.items,
}
_COPYING = frozenset({"_tee_dataobject"})
"""What gives a copy of its items: the live one is no object of the program."""
_LIST_ITERATOR: Any = type(iter([]))
_PLAIN_ITERATORS: tuple[Any, ...] = (_LIST_ITERATOR, type(iter(())), type(iter(range(1))), type(iter("")))
"""Of which each item can be asked for without an effect on anything else."""


class _Iterator(Kind):
    """``own``: what makes it, the number of its arguments; ``refs``: arguments and, where it has one, its state.

    Of a cycle that has gone round, ``own`` also has how many items this round has left, and how many a round has.
    """

    name = "iterator"
    immutable = True
    rank = 2

    def take(self, walk: Walk, value: Any) -> Node:
        try:
            maker, arguments, *state = taken_apart(value)
        except TypeError:  # no description: `itertools.pairwise`, for one
            return walk.opaque(value, "where it stands cannot be read")
        if maker is iter and not state and len(arguments) == 1 and not arguments[0]:
            return _ended()
        if type(value) is itertools.zip_longest:
            arguments = [iter(()) if part == () else part for part in arguments]
        own = (constant_name(maker), len(arguments), *_in_round(value))
        refs = walk.refs([*arguments, *(part for part in state if part is not None)])
        return Node("iterator", constant_name(type(value)), own, refs)

    def steps(self, node: Node) -> Iterator[str]:
        yield from (f".args[{index}]" for index in range(node.own[1]))
        yield from (".state" for _ in node.refs[node.own[1] :])

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        _go_round(live, node.own[2:])
        _, arguments, *state = taken_apart(live)
        if len(arguments) != node.own[1] or type(live).__name__ in _COPYING:
            return ()
        return zip(node.refs, [*arguments, *state], strict=False)

    def make(self, build: Build, node: Node, live: Any) -> Any:
        count = node.own[1]
        arguments = list(map(build.value, node.refs[:count]))
        if live is not MISSING:
            _, parts, *state = taken_apart(live)
            if not count and not state:
                return live
            if len(node.own) == 2 and len(state) == len(node.refs) - count and all_same(parts, arguments):
                return live
        if not count and node.own[0] == "builtins:iter":
            return _an_ended_one()
        if len(node.own) > 2 and live is not MISSING and _in_round(live) == node.own[2:]:
            return live
        return constant(node.own[0])(*map(build.ready, node.refs[:count]))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if len(node.own) > 2 and _in_round(held) == node.own[2:]:
            return
        for ref in node.refs[node.own[1] :]:
            state = build.value(ref)
            if type(held) is _LIST_ITERATOR:  # also beyond the end of a list that is short now
                _, _, place = taken_apart(held)
                if move_list_iterator(held, state - place):
                    continue
            give_state(held, state)


class _Enumerate(Kind):
    """``own``: the number that comes next."""

    name = "enumerate"
    immutable = True

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(
            "enumerate", "builtins:enumerate", next_number(value), [walk.ref(taken_apart(value)[1][0])]
        )

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        return [(node.refs[0], taken_apart(live)[1][0])]

    def make(self, build: Build, node: Node, live: Any) -> Any:
        inner = build.value(node.refs[0])
        if live is not MISSING and taken_apart(live)[1][0] is inner and can_move(live):
            return live
        return enumerate(inner, node.own)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        move_enumerate(held, node.own - next_number(held))


class _DictIterator(Kind):
    """``own``: how many items it has given; ``refs``: the mapping.  It is placed after that has been filled."""

    name = "dict iterator"
    immutable = True
    rank = 2

    def take(self, walk: Walk, value: Any) -> Node:
        held = dict_under(value)
        left = operator.length_hint(value)
        if held is None:
            return _ended()
        return Node("dict iterator", constant_name(type(value)), len(held) - left, [walk.ref(held)])

    def pairs(self, node: Node, live: Any) -> Iterable[tuple[Ref, Any]]:
        held = dict_under(live)
        return [] if held is None else [(node.refs[0], held)]

    def make(self, build: Build, node: Node, live: Any) -> Any:
        held = build.value(node.refs[0])
        if live is not MISSING and dict_under(live) is held:
            return live
        return iter(_VIEWS[node.name.rpartition(":")[2]](held))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        place_in_dict(held, node.own)


class _RangeIterator(Kind):
    """``own``: start, stop and step of what it has still to give."""

    name = "range iterator"

    def take(self, walk: Walk, value: Any) -> Node:
        left = range_left(value)
        return Node("range iterator", constant_name(type(value)), (left.start, left.stop, left.step))

    def compared(self, node: Node) -> Any:
        return list(map(len, [range(*node.own)])), node.own[:1] if range(*node.own) else ()

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return iter(range(*node.own))

    def fill(self, build: Build, node: Node, held: Any) -> None:
        if not place_range(held, range(*node.own)):
            raise ValueError("an iterator over a range is not as it is expected")


class _Rest(Kind):
    """Iterators over a set or deque, as one over a list of what they have still to give.

    Neither may change its size while it is gone over, and where its items lie is another process's business.
    """

    name = "rest"

    def take(self, walk: Walk, value: Any) -> Node:
        made = taken_apart(value)
        rest = made[1][0]
        if isinstance(rest, deque):
            items = list(rest)
            rest = (items if "reverse" not in type(value).__name__ else items[::-1])[made[1][1] :]
        if not rest:
            return _ended()
        return Node(
            "iterator", constant_name(_LIST_ITERATOR), ("builtins:iter", 1), [walk.ref(list(rest)), 0]
        )


def _in_round(value: Any) -> tuple[int, ...]:
    """How many items a cycle that has gone round has left in this round, and how many a round has; else nothing."""
    if type(value) is not itertools.cycle:
        return ()
    _, (left,), (saved, has_gone_round) = taken_apart(value)
    return (operator.length_hint(left), len(saved)) if has_gone_round else ()


def _go_round(live: Any, place: tuple[int, ...]) -> None:
    """Let a cycle over a plain sequence go on to a place of its round.

    A loop that goes over a cycle holds the cycle itself, so no other can take its place.
    """
    if not place or type(live) is not itertools.cycle:
        return
    if type(taken_apart(live)[1][0]) not in _PLAIN_ITERATORS:
        return
    for _ in range(2 * place[1] + 1):
        if _in_round(live) == place:
            return
        next(live, None)


def _an_ended_one() -> Iterator[Any]:
    made: Iterator[Any] = iter([])
    next(made, None)
    return made


def _ended() -> Node:
    """The node of an iterator that has ended, whatever it ran over."""
    return Node("iterator", constant_name(_LIST_ITERATOR), ("builtins:iter", 0))


ITERATOR, _REST = _Iterator(), _Rest()
_DICT_ITERATORS = tuple(type(iter(view({}))) for view in _VIEWS.values())
_RESTS: tuple[Any, ...] = (
    type(iter(set())),
    type(iter(deque())),
    type(reversed(deque())),
    *(type(reversed(view({}))) for view in _VIEWS.values()),
)
_BUILTIN: tuple[Any, ...] = tuple({
    *map(type, (iter([]), iter(()), iter(""), iter("é"), iter(b""), iter(bytearray()))),
    type(iter(range(1 << 70))), type(iter(int, 1)), type(iter(type("", (), {"__getitem__": lambda s, i: 0})())),
    type(reversed([])), reversed, zip, map, filter,
})  # fmt: skip
ITERATORS: tuple[tuple[Any, Kind], ...] = (
    (enumerate, _Enumerate()),
    (_DICT_ITERATORS, _DictIterator()),
    (type(iter(range(0))), _RangeIterator()),
    (_RESTS, _REST),
    (_BUILTIN, ITERATOR),
)
