"""A cursor over a loop's iterable that can go on at any index without loading what it skips.

Ranges, texts and tuples are indexed, and a list is gone over by position (`florlog.state.live_lists`).
Of a DataLoader the sampler is drawn from exactly as before, but no skipped
item is loaded (`florlog.state.placed_workers` has what worker processes need beyond that).  Under ``enumerate`` and
``zip`` each part is advanced for itself, and under a progress bar the iterable that it shows.  An iterable or a
streamed data set that `has_state_dict` (torchdata's StatefulDataLoader) is given its state.  A loader that reads ahead
begins anew, and its generator is put to its place with the rest of the state (`florlog.state.reading_ahead`).  Anything
else is advanced item by item: a generator computes what is skipped.  An iterable of the user's own is gone over again
from the state that it had when the loop began (`florlog.state.own_iterables`).

Position counts items that the loop's body received, not what was prefetched (CheckFreq, FAST 2021, section
4.4).  A shuffling loader draws its order from an RNG when iteration starts, so a cursor that starts in the
middle needs the RNGs as they were then; the caller restores them first, and puts them to their present
state afterwards.  So all that a skip draws, it draws within `Cursor.seek`.
"""

from __future__ import annotations

import gc
import itertools
import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from types import GeneratorType
from typing import Any

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)

from florlog.errors import ImageError
from florlog.state.cpython import move_enumerate, move_list_iterator, next_number
from florlog.state.cpython_generators import stack_of
from florlog.state.iterables import innermost, is_indexed, is_progress_bar, wrapped_in
from florlog.state.live_lists import LIST_ITERATOR, LiveList, lists_in
from florlog.state.loaders import keeps_workers
from florlog.state.own_iterables import Watch, gone_elsewhere, name_of
from florlog.state.placed_workers import iterator_at
from florlog.state.reading_ahead import reads_ahead, waiting
from florlog.state.stateful import has_state_dict
from florlog.state.worker_history import is_changed

_INNER = "/inner"  # the key of what the iterable itself gave
_VIEWS: tuple[Any, ...] = (dict.keys, dict.values, dict.items)
_REFILLED = (dict, OrderedDict, defaultdict, Counter, deque, *(type(view({})) for view in _VIEWS))
"""Not gone over by position, and they do not change in size meanwhile; a restore fills them again."""
_REFILLED_ITERATORS: dict[type, Any] = {
    type(iter(deque())): lambda held: held,
    **{type(iter(view({}))): view for view in _VIEWS},
}
"""Their iterators, and what they run over of such a container."""


def _consume(iterator: Iterator[Any], count: int) -> Iterator[Any]:
    """The iterator, without its next items; they are drawn now, not when it is used."""
    for _ in range(count):
        if next(iterator, iterator) is iterator:
            break
    return iterator


def _keeper(iterable: Any) -> Any:
    """What knows the place of an iterable: itself, or the data set that it streams from; None if nothing does."""
    if isinstance(iterable, _BaseDataLoaderIter) or reads_ahead(iterable):
        return None  # could not be given its place back, or has it in its generator
    if has_state_dict(iterable):
        return iterable
    if isinstance(iterable, DataLoader) and iterable.num_workers == 0:
        dataset = iterable.dataset
        return dataset if isinstance(dataset, IterableDataset) and has_state_dict(dataset) else None
    return None


def _position(iterable: Any) -> Any:
    """The ``state_dict`` of what knows the place; for a wrapper, a list of its parts' places; None if nothing knows."""
    if (keeper := _keeper(iterable)) is not None:
        return keeper.state_dict()
    held = [_position(part) for part in wrapped_in(iterable)]
    return held if any(place is not None for place in held) else None


def passed_over(iterable: Any, position: Any) -> str:
    """What must produce and drop items so that an iterable can go on in its middle; "" if nothing must."""
    position = _inner(position)
    if reads_ahead(iterable) or (isinstance(iterable, GeneratorType) and waiting(iterable)):
        return ""
    if position is not None and _keeper(iterable) is not None:
        return ""
    parts = wrapped_in(iterable)
    places = position if position is not None else [None] * len(parts)
    for part, place in zip(parts, places, strict=True):
        if found := passed_over(part, place):
            return found
    dataset = getattr(iterable, "dataset", getattr(iterable, "_dataset", None))
    if isinstance(dataset, IterableDataset):
        return f"{type(dataset).__name__}, which streams its items and has no state_dict() in this process,"
    if isinstance(iterable, GeneratorType):
        return f"generator {iterable.gi_code.co_name}"
    return ""


def can_restart(iterable: Any) -> bool:
    """Whether items can be passed over unloaded, and another pass can still start with the first."""
    if isinstance(iterable, DataLoader):
        stays = keeps_workers(iterable)  # its workers would have to load all the same
        return not (isinstance(iterable.dataset, IterableDataset) or has_state_dict(iterable) or stays)
    return is_indexed(iterable)


def draw(loader: DataLoader[Any]) -> None:
    """Draw what going over all items of a loader draws, and load none."""
    _continued(loader, sys.maxsize)  # to the sampler's end, wherever that is


class Cursor:
    """Yields the items of one loop execution, from any index."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable
        self._items: Iterator[Any] | None = None
        self._source: Iterator[Any] | None = None  # what gives them, without the watch around it
        self._taken = 0
        self._lists: list[LiveList] | None = None
        self._watch: Watch | None = None
        self._unsettled = False
        self._hidden = ""  # what cannot be looked at

    def _begin(self) -> None:
        """Before the first item or seek: what the loop's body may change is as it is when the loop begins."""
        if self._lists is None:
            self._lists = []
            try:
                self._lists = [LiveList(held) for held in lists_in(self.iterable)]
                if not is_indexed(self.iterable) and (watch := Watch(self.iterable)).needed:
                    self._watch = watch
            except Exception as error:  # whatever an iterable of the user's raises when it is looked at
                self._hidden = f"{type(self.iterable).__name__}, which raises {type(error).__name__}"

    def obstacle(self) -> str:
        """Why the loop could not go on from where it is, "" if it can."""
        found = [self._hidden, *(held.obstacle() for held in self._lists or ())]
        if self._watch is not None:
            self._watch.look()
            found.append(self._watch.why)
        if any(map(is_changed, _workers_of(self._source))):
            found.append(f"the loop's body changes what the items of {name_of(self.iterable)} depend on")
        return next(filter(None, found), "")

    def position(self) -> Any:
        """Where the iterable says that it is, for `seek`; None if it does not know."""
        inner = _position(self.iterable)
        sources = b"" if self._watch is None else self._watch.digest(lasting=True)
        if not self._lists and not sources:
            return inner
        return {_INNER: inner, "lists": [held.place() for held in self._lists or ()], "sources": sources}

    def waiting(self) -> dict[str, Any]:
        """What holds where the loop is, by place: generators of loaders that read ahead, and iterators with workers."""
        if self._source is None:
            return {}
        found = {f"ahead {place}": generator for place, generator in enumerate(waiting(self._source))}
        return found | {f"workers {place}": held for place, held in enumerate(_held_workers(self.iterable))}

    def leave(self) -> None:
        """The loop is left: no item is asked for any more."""
        self._source = None

    def seek(self, index: int, position: Any = None, *, placed: bool = False) -> None:
        """Continue with item ``index``; draws from the RNGs as a start from 0 would.

        ``position`` is what the iterable gave there; ``placed``: what is `waiting` is put to its place afterwards.
        Lists may be restored afterwards, until the next item is asked for.  Raises `ImageError` for an iterator that is
        already further, and where the iterable goes elsewhere.
        """
        self._begin()
        iterable: Any = self.iterable
        done = self._taken if isinstance(iterable, Iterator) else 0  # an iterator cannot start again
        inner = _inner(position)
        if index < done and not (inner is not None and has_state_dict(iterable)):
            raise ImageError("the data cannot go back to where an image was taken")
        self._source = self._items = _continued(iterable, index - done, inner, placed=placed)
        if self._watch is not None:
            self._items = self._watch.over(self._items)
        self._taken = index
        if inner is not position:
            for held, place in zip(self._lists or (), position["lists"], strict=True):
                held.expect((place[0], place[1]))
            self._unsettled = True
            if self._watch is not None and position["sources"] not in (b"", self._watch.digest(lasting=True)):
                raise gone_elsewhere(iterable)

    def rewind(self) -> None:
        """Start again with the first item, of an iterable that can."""
        self._items = self._source = None
        self._taken, self._unsettled = 0, False

    def items(self) -> Iterator[Any]:
        """What gives the items, from where it is."""
        if self._items is None:
            self._begin()
            self._source = items = iter(self.iterable)
            self._items = items if self._watch is None else self._watch.over(items)
        return self._items

    def next(self) -> Any:
        """The next item; raises StopIteration at the end, and `ImageError` where a list was not restored."""
        if self._unsettled:
            self._settle()
        item = next(self.items())
        self._taken += 1
        return item

    def _settle(self) -> None:
        self._unsettled = False
        for held in self._lists or ():
            held.settle()
            if held.own is None:
                continue
            if held.held is not self.iterable:
                raise ImageError(
                    "the list under the loop is not the one that a variable holds, and cannot be restored"
                )
            self._items = _from_place(held.own, self._taken)


def _inner(position: Any) -> Any:
    """What the iterable itself gave, of a position of `Cursor.position`."""
    return position[_INNER] if isinstance(position, dict) and _INNER in position else position


def _continued(iterable: Any, index: int, position: Any = None, *, placed: bool = False) -> Iterator[Any]:
    """An iterator over an iterable's items from ``index``, or from a ``position`` that it gave.

    ``placed``: where a loader that reads ahead stands is put back afterwards.
    """
    if position is not None and (keeper := _keeper(iterable)) is not None:
        keeper.load_state_dict(position)
        items: Iterator[Any] = iter(iterable)
        if isinstance(items, _SingleProcessDataLoaderIter):
            items._num_yielded += index
        return items
    parts = wrapped_in(iterable)
    places = position if position is not None else [None] * len(parts)
    if isinstance(iterable, list) and is_indexed(iterable):
        return _from_place(iterable, index)
    if isinstance(iterable, Sequence) and is_indexed(iterable):
        return iter(iterable[index:])
    if type(iterable) in _REFILLED:
        return _later(iterable, index)
    if type(iterable) in (set, frozenset):
        return iter(list(iterable)[index:])  # one that is filled again may have another order
    if (
        isinstance(iterable, Iterator)
        and type(iterable) is LIST_ITERATOR
        and move_list_iterator(iterable, index)
    ):
        return iterable
    if type(iterable) in _REFILLED_ITERATORS:
        container = next(held for held in gc.get_referents(iterable) if hasattr(held, "__len__"))
        done = len(container) - operator.length_hint(iterable)
        return _later(_REFILLED_ITERATORS[type(iterable)](container), done + index)
    if type(iterable) is type(iter(set())):
        return iter(list(iterable)[index:])
    if placed and _is_put_back(iterable):
        return iter(iterable)
    if isinstance(iterable, DataLoader) and not reads_ahead(iterable):
        return _loader_from(iterable, index)
    if isinstance(iterable, _SingleProcessDataLoaderIter) and not isinstance(
        iterable._dataset, IterableDataset
    ):
        _consume(iterable._sampler_iter, index)
        iterable._num_yielded += index
        return iterable
    if isinstance(iterable, enumerate):
        part = _continued(parts[0], index, places[0], placed=placed)
        if part is parts[0] and move_enumerate(iterable, index):
            return iterable
        return enumerate(part, next_number(iterable) + index)
    if isinstance(iterable, zip):
        each = zip(parts, places, strict=True)
        continued = [_continued(part, index, place, placed=placed) for part, place in each]
        if all(part is moved for part, moved in zip(parts, continued, strict=True)):
            return iterable
        return zip(*continued, strict=len(iterable.__reduce__()) > 2)
    if is_progress_bar(iterable):
        iterable.iterable = _Started(_continued(iterable.iterable, index, places[0], placed=placed))
        iterable.initial = iterable.n = index
        return iter(iterable)
    return _consume(iter(iterable), index)


def _is_put_back(iterable: Any) -> bool:
    """Whether where an iterable stands is put back with the rest of the state (`Cursor.waiting`)."""
    if isinstance(iterable, GeneratorType):
        return bool(waiting(iterable))
    return (
        reads_ahead(iterable)
        or keeps_workers(iterable)
        or isinstance(iterable, _MultiProcessingDataLoaderIter)
    )


def _from_place(held: list[Any], index: int) -> Iterator[Any]:
    """An iterator over a list as it will be, from an index."""
    iterator: Iterator[Any] = iter(held)
    return iterator if move_list_iterator(iterator, index) else _later(held, index)


def _later(iterable: Iterable[Any], index: int) -> Iterator[Any]:
    """An iterator over what an iterable has when the first item is asked for: until then it may be filled again."""
    yield from itertools.islice(iter(iterable), index, None)


class _Started:
    """An iterable whose iterator has been made already."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


def _workers_of(source: Any) -> list[Any]:
    """The iterators with workers in what gives a loop its items, inside a progress bar as well."""
    found = [source]
    if isinstance(source, GeneratorType) and source.gi_frame is not None:
        found = stack_of(source) if is_progress_bar(source.gi_frame.f_locals.get("self")) else []
    return [part for part in found if isinstance(part, _MultiProcessingDataLoaderIter)]


def _held_workers(iterable: Any) -> Iterator[Any]:
    """The iterators with workers in an iterable that are there before or after a pass over it."""
    for leaf in innermost(iterable):
        iterator = leaf._iterator if keeps_workers(leaf) else leaf
        if isinstance(iterator, _Started) and getattr(iterator.iterator, "_persistent_workers", False):
            iterator = iterator.iterator
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            yield iterator


def _loader_from(loader: DataLoader[Any], count: int) -> Iterator[Any]:
    if loader.num_workers == 0:
        return _continued(iter(loader), count)
    return iterator_at(loader, count)
