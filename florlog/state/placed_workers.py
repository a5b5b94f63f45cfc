"""An iterator over a DataLoader with workers, put to a place: after the last batch that was handed out.

What workers have read ahead belongs to no place.  So the iterator gets new workers, with the seed of the old ones, when
its next batch is asked for; until then it has none, and nothing is loaded for a place that is left again.  They get all
that the old ones got, in the same turn, marked as passed over (`florlog.state.loader_workers`), and then what was not
handed out yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from florlog.errors import ImageError
from florlog.program.terminal import reason
from florlog.state.loader_workers import PassedBatch, PassingDataset
from florlog.state.worker_history import (
    History,
    Tasks,
    has_history,
    history_of,
    is_changed,
    loading_state_of,
    streams,
)

SETTINGS = (
    "_num_workers", "_prefetch_factor", "_timeout", "_drop_last", "_auto_collation", "_dataset_kind", "_pin_memory",
    "_persistent_workers", "_IterableDataset_len_called",
)  # fmt: skip
"""Attributes of an iterator that never change, plain values; but for the underscore a loader's are called the same."""
PLACE = ("_base_seed", "_rcvd_idx", "_send_idx", "_num_yielded")
"""Attributes that say where it is."""
PARTS = ("_dataset", "_collate_fn", "_worker_init_fn", "_index_sampler", "_sampler_iter")
"""Attributes that hold objects."""
_PRIVATE = ("_auto_collation", "_dataset_kind", "_IterableDataset_len_called", "_index_sampler")
"""Attributes that a loader has under the iterator's name."""


class PlacedIterator(_MultiProcessingDataLoaderIter):
    """One that has no workers yet; with the first batch it becomes an ordinary one, and passes for one before."""

    __module__ = _MultiProcessingDataLoaderIter.__module__
    __qualname__ = _MultiProcessingDataLoaderIter.__qualname__

    def _next_data(self) -> Any:
        _start(self)
        return self._next_data()

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        _start(self)
        self._reset(loader, first_iter)


class _Starting(_MultiProcessingDataLoaderIter):
    """One whose workers are started: they get the seed that it has, not the one that its maker draws."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, vars(self)[name] if name == "_base_seed" else value)


class _Source:
    """What stands for a sampler while the workers get again what they got."""

    tasks: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tasks)


def obstacle(iterator: Any) -> str:
    """Why an iterator with workers could not be put to where it is, "" if it can."""
    if type(iterator) not in (_MultiProcessingDataLoaderIter, PlacedIterator):
        return "it is of another class than a DataLoader gives"
    if isinstance(iterator._dataset, (IterDataPipe, MapDataPipe)):
        return "it is over a data pipe"
    if not iterator._in_order:
        return "its workers hand over batches in the order in which they are done"
    history = history_of(iterator)
    if history is None:
        return "what its workers were given is not known: they were started before the run, or got too much"
    if streams(iterator):
        if history.left:
            return "its workers stay, and a pass over what they stream was left before its end"
    elif (len(history.passes[-1]), iterator._num_yielded) != (iterator._send_idx, iterator._rcvd_idx):
        return "a batch could not be loaded"
    return "its data set was changed after its workers had got theirs" if is_changed(iterator) else ""


def start_method(iterator: Any) -> str | None:
    """How its workers are started; None: as the process starts any."""
    if isinstance(iterator, PlacedIterator):
        method: str | None = vars(iterator)["_start_method"]
        return method
    return getattr(iterator._workers[0], "_start_method", None)


def place(iterator: Any, state: Mapping[str, Any], method: str | None, passes: Iterable[Tasks]) -> None:
    """Put an iterator to a place; ``state``: its `SETTINGS`, `PLACE` and `PARTS`, by name."""
    if not vars(iterator).get("_shutdown", True):
        iterator._shutdown_workers()
    vars(iterator).clear()
    name = f"enumerate(DataLoader)#{_MultiProcessingDataLoaderIter.__name__}.__next__"
    vars(iterator).update(state, _start_method=method, _in_order=True, _shutdown=True, _profile_name=name)
    if state["_sampler_iter"] is None:  # it asks whether it has one
        iterator._sampler_iter = iter(())
    iterator.__class__ = PlacedIterator
    has_history(iterator, History(passes, b""))


def iterator_at(loader: DataLoader[Any], count: int) -> Iterator[Any]:
    """An iterator over a loader with workers, after ``count`` batches; it has drawn what one draws until then."""
    if loader.persistent_workers or not can_be_placed(loader):
        made = iter(loader)
        for _ in range(count):
            if next(made, made) is made:
                break
        return made
    known: Any = loader
    iter(known._index_sampler)  # an iterator begins two, and drops the first
    seed = torch.empty((), dtype=torch.int64).random_(generator=loader.generator).item()
    drawing = iter(known._index_sampler)
    ahead = known.prefetch_factor * loader.num_workers
    tasks = Tasks(itertools.islice(drawing, min(count + ahead, _MOST)))
    given = min(count, len(tasks))
    state = {name: getattr(loader, name if name in _PRIVATE else name[1:]) for name in SETTINGS}
    state |= zip(PLACE, (seed, given, len(tasks), given), strict=True)
    parts = (loader.dataset, loader.collate_fn, loader.worker_init_fn, known._index_sampler, drawing)
    context: Any = loader.multiprocessing_context
    placed = PlacedIterator.__new__(PlacedIterator)
    place(
        placed,
        state | dict(zip(PARTS, parts, strict=True)),
        None if context is None else context.get_start_method(),
        [tasks],
    )
    return placed


_MOST = 1 << 62  # of an endless sampler's tasks


def can_be_placed(loader: Any) -> bool:
    """Whether where an iterator of a loader with workers is follows from how much it has given."""
    dataset = loader.dataset
    kinds = (torch.utils.data.IterableDataset, MapDataPipe)
    return loader.batch_sampler is not None and loader.in_order and not isinstance(dataset, kinds)


def _start(iterator: Any) -> None:
    """Start the workers of a placed iterator, and bring them to its place.

    Raises `ImageError` where what they got cannot be loaded again.
    """
    state, known = dict(vars(iterator)), history_of(iterator)
    assert known is not None
    streaming, batched = streams(iterator), state["_auto_collation"]
    source = _Source()
    method = state["_start_method"]
    loader = SimpleNamespace(
        **{name if name in _PRIVATE else name[1:]: state[name] for name in SETTINGS},
        **dict(
            zip(
                ("dataset", "collate_fn", "worker_init_fn"), _parts(state, passing=not streaming), strict=True
            )
        ),
        _index_sampler=state["_index_sampler"] if streaming else source,
        generator=torch.Generator(),
        pin_memory_device="",
        in_order=True,
        multiprocessing_context=None if method is None else torch.multiprocessing.get_context(method),
    )
    iterator.__class__ = _Starting
    try:
        for number, tasks in enumerate(known.passes):
            last = number == len(known.passes) - 1
            count = state["_rcvd_idx"] if last else len(tasks)
            source.tasks = [
                PassedBatch(task) if batched and place < count else task for place, task in enumerate(tasks)
            ]
            if number:
                iterator._reset(loader)
            else:
                iterator.__init__(loader)
            if streaming:
                _stream(iterator, state["_num_yielded"] if last else _MOST)
            while not streaming and iterator._rcvd_idx < count:
                iterator._next_data()
    except Exception as error:  # whatever the data set raises
        raise ImageError(
            f"what a loader's workers were given cannot be loaded again: {reason(error)}"
        ) from error
    kept = ("_sampler_iter", "_rcvd_idx", "_send_idx") if streaming else ("_rcvd_idx", "_send_idx")
    for name in (*PLACE, *PARTS):
        if name not in kept:
            setattr(iterator, name, state[name])
    del iterator._start_method
    iterator.__class__ = _MultiProcessingDataLoaderIter
    has_history(iterator, History(known.passes, loading_state_of(iterator)))


def _parts(state: Mapping[str, Any], *, passing: bool) -> tuple[Any, Any, Any]:
    """The data set of a loader, and the functions around it, as its workers get them."""
    dataset, collate, prepare = (state[name] for name in PARTS[:3])
    if not passing:
        return dataset, collate, prepare
    made = PassingDataset(dataset, collate, prepare)
    return made, made.collate, made.prepare


def _stream(iterator: Any, count: int) -> None:
    """Take as many batches from workers that stream, or all that they have."""
    for _ in range(count):
        try:
            iterator._next_data()
        except StopIteration:
            if count == _MOST:
                return
            raise ImageError("they have less than was given") from None
