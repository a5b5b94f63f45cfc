"""Lists that change while a loop runs over them: Python goes over them by position, and so does a loop that goes on.

A list's iterator is put at an index of the live list.  The list's contents are put back with whatever variable holds
it, or from the place that was recorded here; only then the loop asks for an item (`LiveLists.settle`).  The variable
may hold another list by then, as after ``todo = todo + [x]``: restoring it fills the live list with the other one's
contents, and the loop goes on with a list of its own.
"""

from __future__ import annotations

from operator import is_
from typing import Any

from florlog_wal import Unencodable

from florlog.errors import ImageError
from florlog.state.cpython import list_under
from florlog.state.heap.rules import ATOMS
from florlog.state.inplace import bits
from florlog.state.iterables import innermost
from florlog.state.tree import flatten

_MAX_ENTRIES = 100_000  # of a list of plain values whose contents are recorded
_MAX_OTHER_ENTRIES, _MAX_OTHER_BYTES = 10_000, 1 << 20  # of a list of other values, and of its tensors
LIST_ITERATOR: type[Any] = type(iter([]))

Place = tuple[int, list[Any] | None]
"""Of a list: its length, and its contents where they are not as they were when the loop began."""


def lists_in(iterable: Any) -> list[list[Any]]:
    """The lists that an iterable goes over by position."""
    if type(iterable) is range:
        return []
    found = []
    for leaf in innermost(iterable):
        if isinstance(leaf, list) and type(leaf).__iter__ is list.__iter__:
            found.append(leaf)
        elif type(leaf) is LIST_ITERATOR and (held := list_under(leaf)) is not None:
            found.append(held)
    return found


class LiveList:
    """One list, from the moment at which a loop over it begins."""

    def __init__(self, held: list[Any]) -> None:
        self.held = held
        plain = len(held) <= _MAX_ENTRIES and ATOMS.issuperset(map(type, held))
        self._entry = list(held) if plain else None
        self._ids = None if plain else list(map(id, held))  # not the items: the body may let go of them
        self._before: list[Any] | None = None
        self._place: Place = (0, None)
        self.own: list[Any] | None = None
        """What the loop goes over instead of ``held``."""

    def _is_as_at_entry(self, now: list[Any]) -> bool:
        return list(map(id, now)) == self._ids if self._entry is None else _alike(now, self._entry)

    def _storable(self, now: list[Any]) -> bool:
        if ATOMS.issuperset(map(type, now)):
            return len(now) <= _MAX_ENTRIES
        if len(now) > _MAX_OTHER_ENTRIES:
            return False
        try:
            _, tensors = flatten(now, "")
        except (Unencodable, RuntimeError, TypeError):
            return False
        return sum(tensor.nbytes for _, tensor in tensors) <= _MAX_OTHER_BYTES

    def obstacle(self) -> str:
        """Why no image may be taken now, "" if one may."""
        now = self.held if self.own is None else self.own
        if self._is_as_at_entry(now) or self._storable(now):
            return ""
        return "its list has changed, and an image cannot hold all of the list's items"

    def place(self) -> Place:
        """Its length and contents now."""
        now = self.held if self.own is None else self.own
        return len(now), None if self._is_as_at_entry(now) or not self._storable(now) else list(now)

    def expect(self, place: Place) -> None:
        """The state of the place is about to be restored."""
        self._place, self._before = place, list(self.held)

    def settle(self) -> None:
        """The state is restored: give the loop the recorded contents.  Raises `ImageError` where they are lost."""
        (length, recorded), before, now = self._place, self._before, self.held
        assert before is not None
        contents: list[Any] = before
        for held in (recorded, self._entry, self.own):
            if held is not None:
                contents = held
                break
        if len(contents) != length:
            raise ImageError(
                f"a list that a loop runs over had {length} items when recorded and has {len(now)} now"
            )
        if self.own is None and _alike(now, contents):
            contents = now
        elif self.own is None and _same(now, before):
            now[:] = contents
        else:
            self.own = contents = list(contents)
        self._before = None
        if recorded is None and self._ids is not None:
            self._ids = list(map(id, contents))


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _alike(one: list[Any], other: list[Any]) -> bool:
    if len(one) != len(other):
        return False
    if _same(one, other):
        return True
    try:
        return bits(one) == bits(other)
    except (Unencodable, RuntimeError, TypeError):
        return False
