"""A loop's data goes on at any index: the same items, nothing loaded that is skipped."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader

import florlog
from florlog.state.adapters import adapter
from florlog.state.cursors import Cursor, draw, passed_over
from florlog.state.iterables import length_of
from florlog.state.loaders import loader_generators
from florlog.state.random_generators import Randomness
from florlog.state.same_data import check, identity

ITEMS = 46


class Loads:
    """How many items were loaded, across processes, in memory that no data set shows as its state."""

    def __init__(self) -> None:
        self._count = multiprocessing.Value("q", 0)

    def add(self) -> None:
        """One more."""
        with self._count.get_lock():
            self._count.value += 1

    def __int__(self) -> int:
        return self._count.value


class Counted(Dataset[Any]):
    """Counts what it loads."""

    def __init__(self) -> None:
        self.loaded = Loads()

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> torch.Tensor:
        self.loaded.add()
        return torch.tensor([float(index)])


class Augmented(Counted):
    """Adds noise from all three generators."""

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + float(np.random.random())
        return super().__getitem__(index) + torch.rand(1) + noise


class Pairs(Sampler[list[int]]):
    """A batch sampler of a user's own."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(ITEMS).tolist()
        yield from ([order[i], order[-1 - i]] for i in range(0, ITEMS // 2, 2))

    def __len__(self) -> int:
        return ITEMS // 4


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        start = random.randrange(100)
        yield from (torch.tensor([start + i]) for i in range(ITEMS))


LOADERS: dict[str, Callable[[Any, int], DataLoader[Any]]] = {
    "in-order": lambda data, workers: DataLoader(data, 4, num_workers=workers),
    "shuffled": lambda data, workers: DataLoader(data, 4, shuffle=True, num_workers=workers),
    "drop-last": lambda data, workers: DataLoader(data, 4, shuffle=True, drop_last=True, num_workers=workers),
    "generator": lambda data, workers: DataLoader(
        data, 4, shuffle=True, generator=torch.Generator().manual_seed(5), num_workers=workers
    ),
    "weighted": lambda data, workers: DataLoader(
        data,
        4,
        sampler=WeightedRandomSampler([i + 1.0 for i in range(ITEMS)], ITEMS),
        num_workers=workers,
    ),
    "replacement": lambda data, workers: DataLoader(
        data, 4, sampler=RandomSampler(data, True, 40, torch.Generator().manual_seed(1)), num_workers=workers
    ),
    "batch-sampler": lambda data, workers: DataLoader(data, batch_sampler=Pairs(), num_workers=workers),
    "sampled-batches": lambda data, workers: DataLoader(
        data, batch_sampler=BatchSampler(RandomSampler(data), 5, False), num_workers=workers
    ),
    "unbatched": lambda data, workers: DataLoader(data, batch_size=None, shuffle=True, num_workers=workers),
    "persistent": lambda data, workers: DataLoader(
        data, 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    ),
}


def passes(make: Callable[[], Any], at: int) -> tuple[list[Any], list[Any]]:
    """What a loop gets from item ``at``, in one go and after a seek; training draws random numbers too."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    rng = Randomness()
    iterable = make()
    entry = rng.capture()
    generators = [generator.get_state() for generator in loader_generators(iterable)]
    cursor = Cursor(iterable)
    expected, boundary, position = [], None, None
    number = 0
    while True:
        if number == at:
            boundary, position = rng.capture(), cursor.position()
        try:
            item = cursor.next()
        except StopIteration:
            break
        drawn = torch.rand(1).item(), random.random()
        if number >= at:
            expected.append((item, drawn))
        number += 1

    random.seed(99)  # a later process, with other random numbers so far
    torch.manual_seed(99)
    iterable = again = make()
    rng.restore(entry)
    for generator, state in zip(loader_generators(again), generators, strict=True):
        generator.set_state(state)
    cursor = Cursor(iterable)
    cursor.seek(at, position)
    assert boundary is not None
    rng.restore(boundary)
    got = []
    while True:
        try:
            item = cursor.next()
        except StopIteration:
            return expected, got
        got.append((item, (torch.rand(1).item(), random.random())))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_goes_on_with_the_very_items_and_loads_none_that_it_skips(kind: str, at: int) -> None:
    data = Counted()
    loaded = []

    def make() -> DataLoader[Any]:
        loaded.append(int(data.loaded))
        return LOADERS[kind](data, 0)

    expected, got = passes(make, at)
    assert len(expected) > 3
    assert same(got, expected)
    items = sum(item.numel() for item, _ in expected)
    assert int(data.loaded) - loaded[1] == items


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", LOADERS)
def test_what_a_pass_over_a_loader_draws_is_drawn_without_its_items(kind: str, workers: int) -> None:
    states = []
    for over in (lambda loader: [None for _ in loader], draw):
        torch.manual_seed(3)
        data = Counted()
        loader = LOADERS[kind](data, workers)
        over(loader)
        own = [generator.get_state() for generator in loader_generators(loader)]
        states.append([torch.get_rng_state(), *own])
    assert same(*states)
    # Without batches all is loaded in workers, and workers that stay have to load all.
    assert int(data.loaded) <= (ITEMS if kind in ("unbatched", "persistent") and workers else 0)


@pytest.mark.parametrize(("workers", "at"), [(2, 1), (2, 4), (4, 7)])
@pytest.mark.parametrize(
    "kind", ["shuffled", "weighted", "batch-sampler", "persistent", "generator", "unbatched"]
)
def test_with_workers_too_and_each_loads_one_batch_to_see_what_it_changes(
    kind: str, workers: int, at: int
) -> None:
    data = Counted()
    loaded = []

    def make() -> DataLoader[Any]:
        loaded.append(int(data.loaded))
        return LOADERS[kind](data, workers)

    expected, got = passes(make, at)
    assert same(got, expected)
    if kind not in ("unbatched", "persistent"):
        items = sum(item.numel() for item, _ in expected)
        probes = 4 * min(workers, at)
        assert int(data.loaded) - loaded[1] <= items + probes


@pytest.mark.parametrize(("workers", "at"), [(0, 5), (2, 5), (4, 9)])
def test_random_augmentation_goes_on_exactly(workers: int, at: int) -> None:
    expected, got = passes(lambda: LOADERS["shuffled"](Augmented(), workers), at)
    assert same(got, expected)


def prepare(worker: int) -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, Counted)
    random.seed(worker)
    np.random.seed(worker)


def test_a_workers_own_preparation_sees_its_dataset() -> None:
    expected, got = passes(lambda: DataLoader(Augmented(), 4, num_workers=2, worker_init_fn=prepare), 3)
    assert same(got, expected)


class Bar:
    """What tqdm is, as far as a loop sees it."""

    def __init__(self, iterable: Any) -> None:
        self.iterable = iterable
        self.n = self.initial = 0

    def __len__(self) -> int:
        return len(self.iterable)

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            self.n += 1
            yield item


class tqdm(Bar):  # noqa: N801 - the name by which progress bars are known
    pass


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "enumerate": enumerate,
    "enumerate-from": lambda loader: enumerate(loader, 10),
    "zip": lambda loader: zip(loader, range(100), strict=False),
    "tqdm": tqdm,
    "tqdm-enumerate": lambda loader: tqdm(enumerate(loader)),
    "enumerate-tqdm": lambda loader: enumerate(tqdm(loader)),
    "enumerate-zip": lambda loader: enumerate(zip(loader, "abcdefghijklmnop", strict=False)),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_loader_goes_on_exactly(wrapper: str, workers: int) -> None:
    data = Counted()
    loaded = []

    def make() -> Any:
        loaded.append(int(data.loaded))
        torch.manual_seed(4)  # an iterator made before the loop draws before the loop
        return WRAPPERS[wrapper](LOADERS["shuffled"](data, workers))

    expected, got = passes(make, 5)
    assert len(got) == 7
    assert same(got, expected)
    if not workers and wrapper != "enumerate-tqdm":
        assert int(data.loaded) - loaded[1] == sum(1 for _ in range(26))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterable_dataset_is_advanced(workers: int) -> None:
    expected, got = passes(lambda: DataLoader(Stream(), 4, num_workers=workers), 3)
    assert len(expected) > 3
    assert same(got, expected)


@pytest.mark.parametrize(
    "make", [lambda: range(9), lambda: list("abcdef"), lambda: (i * i for i in range(8))]
)
def test_other_iterables_go_on(make: Callable[[], Any]) -> None:
    expected, got = passes(make, 4)
    assert len(expected) > 1
    assert same(got, expected)


class Own:
    """An iterable that keeps its place itself, as torchdata's StatefulDataLoader."""

    def __init__(self) -> None:
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[int]:
        while self.at < 6:
            self.at += 1
            yield self.at


def test_an_iterable_with_a_state_is_continued_by_it() -> None:
    cursor = Cursor(Own())
    assert [cursor.next(), cursor.next()] == [1, 2]
    position = cursor.position()
    again = Cursor(Own())
    again.seek(2, position)
    assert [again.next() for _ in range(4)] == [3, 4, 5, 6]


class Resumable(Stream):
    """A stream that knows its place."""

    def __init__(self) -> None:
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[Any]:
        while self.at < ITEMS:
            self.at += 1
            yield torch.tensor([self.at])
        self.at = 0


STATEFUL: dict[str, Callable[[Any, int], Any]] = {
    "in-order": lambda data, workers: StatefulDataLoader(data, 4, num_workers=workers),
    "shuffled": lambda data, workers: StatefulDataLoader(data, 4, shuffle=True, num_workers=workers),
    "generator": lambda data, workers: StatefulDataLoader(
        data, 4, shuffle=True, generator=torch.Generator().manual_seed(5), num_workers=workers
    ),
    "stream": lambda data, workers: StatefulDataLoader(Resumable(), 4, num_workers=workers),
    "in-tqdm": lambda data, workers: tqdm(StatefulDataLoader(data, 4, shuffle=True, num_workers=workers)),
    "in-zip": lambda data, workers: zip(
        StatefulDataLoader(data, 4, shuffle=True, num_workers=workers), range(99), strict=False
    ),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", STATEFUL)
def test_torchdatas_loader_goes_on_exactly_once_by_its_own_state(kind: str, workers: int) -> None:
    def make() -> Any:
        torch.manual_seed(4)  # an iterator made before the loop draws before the loop
        return STATEFUL[kind](Counted(), workers)

    expected, got = passes(make, 5)
    assert len(got) == (19 if kind == "stream" and workers else 7)
    assert same(got, expected)


def test_a_stream_with_a_state_produces_nothing_again() -> None:
    loader = DataLoader(Resumable(), 4)
    cursor = Cursor(tqdm(enumerate(loader, 3)))
    expected = [cursor.next() for _ in range(12)]
    again = Resumable()
    cursor = Cursor(tqdm(DataLoader(again, 4)))
    for _ in range(5):
        cursor.next()
    position = cursor.position()
    assert not passed_over(cursor.iterable, position)
    again.at = 99
    cursor = Cursor(tqdm(DataLoader(again, 4)))
    cursor.seek(5, position)
    assert again.at == 20
    assert same([cursor.next() for _ in range(7)], [item for _, item in expected[5:]])


def test_what_produces_its_items_again_is_named() -> None:
    assert "Stream, which" in passed_over(tqdm(DataLoader(Stream(), 4)), None)
    assert "Resumable" in passed_over(DataLoader(Resumable(), 4, num_workers=2), None)
    assert passed_over(enumerate(i for i in range(3)), None) == "generator <genexpr>"
    for quiet in (range(3), [1], zip("ab", [1, 2], strict=True), DataLoader(Counted(), 4, num_workers=2)):
        assert passed_over(quiet, None) == ""


def test_a_tracked_loader_of_torchdata_draws_nothing_when_its_state_is_taken() -> None:
    loader = StatefulDataLoader(Counted(), 4, shuffle=True)
    before = torch.get_rng_state()
    taken = adapter("loader", loader).capture()
    assert torch.equal(torch.get_rng_state(), before)
    first = [batch.tolist() for batch in loader]
    assert [batch.tolist() for batch in loader] != first
    adapter("loader", loader).restore(taken)
    assert [batch.tolist() for batch in loader] == first


CHANGES: dict[str, Callable[[], DataLoader[Any]]] = {
    "batch_size": lambda: DataLoader(Counted(), 5, shuffle=True),
    "drop_last": lambda: DataLoader(Counted(), 4, shuffle=True, drop_last=True),
    "dataset": lambda: DataLoader(Augmented(), 4, shuffle=True),
    "sampler": lambda: DataLoader(Counted(), 4),
    "workers": lambda: DataLoader(Counted(), 4, shuffle=True, num_workers=1),
    "batch_sampler": lambda: DataLoader(Counted(), batch_sampler=Pairs()),
    "items": lambda: DataLoader(torch.utils.data.Subset(Counted(), range(5)), 4, shuffle=True),
}


@pytest.mark.parametrize("wrap", [lambda loader: loader, tqdm], ids=["bare", "tqdm"])
@pytest.mark.parametrize("what", CHANGES)
def test_other_data_is_refused_with_the_difference(what: str, wrap: Callable[[Any], Any]) -> None:
    recorded = identity(wrap(DataLoader(Counted(), 4, shuffle=True)))
    check("step", wrap(DataLoader(Counted(), 4, shuffle=True)), 12, recorded)
    with pytest.raises(florlog.ChangedError) as caught:
        check("step", wrap(CHANGES[what]()), -1, recorded)
    if what not in ("items", "batch_sampler"):  # where another difference is named first
        assert f"{what}=" in str(caught.value)


def test_another_length_is_refused() -> None:
    with pytest.raises(florlog.ChangedError, match="had 9 items when recorded and has 8 now"):
        check("step", range(8), 9, identity(range(9)))
    assert length_of(iter([])) == -1
