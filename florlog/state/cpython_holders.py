"""What florlog needs of CPython's insides to see what iterators and caches hold; see `florlog.state.cpython`.

The module imports neither florlog nor torch: any interpreter can run its checks.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# -- where an iterator stands -------------------------------------------------------------------------


def taken_apart(iterator: Any) -> tuple[Any, ...]:
    """What makes an iterator, with which arguments, and the state that it is given then; it is not advanced.

    Raises TypeError for one that does not say it.  ``itertools`` warns of it since 3.12, and ends it in 3.14.
    """
    if type(iterator).__module__ != "itertools":
        return tuple(iterator.__reduce__())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tuple(iterator.__reduce__())


def give_state(iterator: Any, state: Any) -> None:
    """Give an iterator a state that `taken_apart` gave of one with the same parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        iterator.__setstate__(state)


@functools.cache
def can_take_apart() -> bool:
    """Check: whether an iterator that is made of what `taken_apart` gave goes on as the one that it was taken of."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: iter([1, 2, 3]),
        lambda: iter((1, 2, 3)),
        lambda: iter("abc"),
        lambda: iter(range(9)),
        lambda: reversed([1, 2, 3]),
        lambda: zip([1, 2, 3], "abc", strict=True),
        lambda: map(abs, [1, 2, 3]),
        lambda: filter(None, [1, 2, 3]),
        lambda: itertools.count(3, 2),
        lambda: itertools.cycle([1, 2, 3]),
        lambda: itertools.islice(range(50), 3, 40, 2),
        lambda: itertools.chain([1, 2], [3]),
        lambda: itertools.accumulate([1, 2, 3], initial=3),
        lambda: itertools.repeat(3, 5),
        lambda: itertools.product("ab", repeat=2),
        lambda: itertools.permutations("abc"),
        lambda: itertools.takewhile(abs, [1, 2, 0]),
    )
    for make, taken in itertools.product(makers, range(4)):
        one, other = make(), make()
        for iterator in (one, other):
            list(itertools.islice(iterator, taken))
        maker, arguments, *state = taken_apart(other)
        made = maker(*arguments)
        for part in state:
            if part is not None:
                give_state(made, part)
        if list(itertools.islice(made, 9)) != list(itertools.islice(one, 9)):
            return False
    return True


def range_left(iterator: Any) -> range:
    """What an iterator over a range has still to give."""
    _, (whole,), *place = taken_apart(iterator)
    left: range = whole[place[0] :] if place and place[0] else whole
    return left


def place_range(iterator: Any, left: range) -> bool:
    """Let an iterator over a range give ``left`` from now on.  False where its memory is not as expected."""
    now = range_left(iterator)
    size = ctypes.sizeof(ctypes.c_long)
    base = id(iterator) + object.__basicsize__
    fields = [ctypes.c_long.from_address(base + number * size) for number in range(4)]
    if sys.version_info < (3, 12):  # the index comes first, and start and length are those of the whole range
        index = fields.pop(0)
        seen = (
            fields[0].value + index.value * fields[1].value,
            fields[1].value,
            fields[2].value - index.value,
        )
    else:
        index = ctypes.c_long()
        seen = (fields[0].value, fields[1].value, fields[2].value)
    if seen != (now.start, now.step, len(now)) and len(now):
        return False
    index.value, fields[0].value, fields[1].value, fields[2].value = 0, left.start, left.step, len(left)
    return True


@functools.cache
def can_place_ranges() -> bool:
    """Check: whether an iterator over a range gives what it was given."""
    found = []
    for left in (range(5, 9), range(9, 0, -2), range(0)):
        for taken in (0, 2, 6):
            iterator = iter(range(1, 13, 2))
            for _ in range(taken):
                next(iterator)
            found.append(place_range(iterator, left) and [*iterator] == [*left])
    return all(found)


def dict_under(iterator: Any) -> dict[Any, Any] | None:
    """The mapping that one of its iterators runs over, None for one that has ended."""
    return next((held for held in gc.get_referents(iterator) if isinstance(held, dict)), None)


def place_in_dict(iterator: Any, given: int) -> None:
    """Let an iterator over a mapping go on after its first ``given`` items; the mapping was filled anew.

    Raises ValueError where its memory is not as expected: the mapping, its size, the place, a result, what is left.
    """
    held = dict_under(iterator)
    base = id(iterator) + object.__basicsize__
    size = ctypes.sizeof(ctypes.c_ssize_t)
    if held is None or ctypes.c_ssize_t.from_address(base).value != id(held):
        raise ValueError("an iterator over a mapping is not as it is expected")
    for number, value in ((1, len(held)), (2, given), (4, len(held) - given)):
        ctypes.c_ssize_t.from_address(base + number * size).value = value


@functools.cache
def can_place_in_dict() -> bool:
    """Check: whether iterators over a mapping go on from where they were put."""
    held = dict.fromkeys("ab", 0)
    views: list[Iterator[Any]] = [iter(held), iter(held.values()), iter(held.items())]
    for view in views:
        next(view)
    held.clear()
    held.update(zip("uvwxyz", range(6), strict=True))
    for view in views:
        place_in_dict(view, 3)
    return [list(view) for view in views] == [["x", "y", "z"], [3, 4, 5], [("x", 3), ("y", 4), ("z", 5)]]


# -- what a cache holds -------------------------------------------------------------------------------


def cached_results(cache: Any) -> dict[Any, Any] | list[Any] | None:
    """What a function under `functools.lru_cache` holds: the mapping of an unbounded one, the results of a bounded one.

    None where it cannot be seen.
    """
    size, limit = cache.cache_info().currsize, cache.cache_info().maxsize
    own = vars(cache)
    referents = gc.get_referents(cache)
    at = next((i for i, held in enumerate(referents) if type(held) is dict and held is not own), None)
    if at is None:
        return [] if size == 0 else None
    if limit is None:
        found: dict[Any, Any] = referents[at]
        return found if len(found) == size else None
    links = [held for held in referents[:at] if getattr(held, "__name__", "") != "_lru_list_elem"]
    entries = links[len(links) - 2 * size :]
    return entries[1::2] if len(entries) == 2 * size and len(links) <= 2 * size + 1 else None


@functools.cache
def can_see_results() -> bool:
    """Check: whether `cached_results` gives what caches hold, and putting into an unbounded one is seen."""

    def twice(value: Any) -> Any:
        return [value, value]

    unbounded, bounded = functools.lru_cache(None)(twice), functools.lru_cache(2)(twice)
    for number in range(3):
        unbounded(number)
        bounded(number)
    seen = cached_results(unbounded)
    if not isinstance(seen, dict) or seen != {0: [0, 0], 1: [1, 1], 2: [2, 2]}:
        return False
    seen[3] = "put"
    return unbounded(3) == "put" and cached_results(bounded) == [[1, 1], [2, 2]]


CHECKS: tuple[Callable[[], bool], ...] = (
    can_take_apart,
    can_place_ranges,
    can_place_in_dict,
    can_see_results,
)
"""What shows that an interpreter is as this module takes it to be."""
