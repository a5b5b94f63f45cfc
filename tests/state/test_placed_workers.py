"""An iterator over a loader with workers, taken anywhere and put back in its place: the same batches, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, get_worker_info
from tqdm import tqdm

from florlog.errors import ImageError
from florlog.state.cursors import Cursor
from florlog.state.heap.capture import Graph, capture
from florlog.state.heap.restore import restore
from florlog.state.placed_workers import PLACE, SETTINGS, obstacle
from florlog.state.worker_history import Tasks, noting_tasks

pytestmark = pytest.mark.drawn_in_file(14)

ITEMS = 22


class Plain(Dataset[Any]):
    """Gives the index alone."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index)])


class Noisy(Plain):
    """Draws from all three generators."""

    def __getitem__(self, index: int) -> Any:
        return torch.rand(1) + random.random() + float(np.random.random()) + index


class SeldomNoisy(Plain):
    """Draws for some items alone, so that the first batch may draw nothing."""

    def __getitem__(self, index: int) -> Any:
        return torch.rand(1) + index if index % 5 == 0 else torch.tensor([float(index)])


class Counting(Plain):
    """Gives another item each time, by a number that its copy in the worker holds."""

    def __init__(self) -> None:
        self.count = 0

    def __getitem__(self, index: int) -> Any:
        self.count += 1
        return torch.tensor([index + self.count / 100])


class Global(Plain):
    """The same by a variable of the module."""

    def __getitem__(self, index: int) -> Any:
        CALLS.append(index)
        return torch.tensor([index + len(CALLS) / 100])


CALLS: list[int] = []


class Own(Plain):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(4)

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index + float(self.generator.normal())])


class Shards(IterableDataset[Any]):
    """Each worker streams its part, with noise."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        for index in range(info.id, ITEMS, info.num_workers):
            yield torch.rand(1) + random.random() + index


def seeded(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    random.seed(info.seed % 97)
    np.random.seed(worker)


def shaken(items: list[Any]) -> Any:
    return torch.stack(items)[torch.randperm(len(items))]


DATA = [Plain, Noisy, SeldomNoisy, Counting, Global, Own, Shards]
MODULE = {"module": {kind.__name__: kind for kind in DATA}}
"""What a program's own names hold."""


def loader(chance: random.Random, *, kind: Any = None) -> dict[str, Any]:
    """The arguments of a loader."""
    data = (kind or chance.choice(DATA))()
    made: dict[str, Any] = {
        "dataset": data,
        "batch_size": chance.choice([2, 3]),
        "num_workers": chance.choice([1, 2, 4]),
        "prefetch_factor": chance.randint(1, 4),
        "persistent_workers": chance.random() < 0.5,
        "drop_last": chance.random() < 0.3,
        "worker_init_fn": chance.choice([None, seeded]),
        "collate_fn": chance.choice([None, shaken]),
    }
    if isinstance(data, Shards):
        return made
    order = chance.choice(["in order", "shuffled", "weighted", "numbers", "unbatched"])
    if order == "shuffled":
        made["shuffle"] = True
        made["generator"] = chance.choice([None, torch.Generator().manual_seed(5)])
    elif order == "weighted":
        made["sampler"] = WeightedRandomSampler([1.0 + i for i in range(ITEMS)], ITEMS)
    elif order == "numbers":
        made["sampler"] = list(np.random.default_rng(1).permutation(ITEMS))
    elif order == "unbatched":
        made |= {"batch_size": None, "drop_last": False, "shuffle": True, "collate_fn": None}
    return made


def rest(chosen: DataLoader[Any], iterator: Iterator[Any]) -> list[Any]:
    """What comes next: the batches that are left, and another pass."""
    torch.manual_seed(7)
    return [batch.tolist() for batch in (*iterator, *chosen)]


def taken(chance: random.Random, chosen: DataLoader[Any]) -> tuple[Graph, list[Any]]:
    """A graph of an iterator that stands somewhere, and what it gives after."""
    torch.manual_seed(3)
    iterator = iter(chosen)
    streams = isinstance(chosen.dataset, IterableDataset)
    for _ in range(chance.randint(0, 2) if chosen.persistent_workers else 0):  # passes before this one
        for _ in range(99 if streams or chance.random() < 0.5 else 2):
            next(iterator, None)
        iterator = iter(chosen)
    for _ in range(chance.randint(0, 6)):
        next(iterator, None)
    graph = capture({"": {"loader": chosen, "iterator": iterator}, **MODULE})
    assert not graph.missing
    return graph, rest(chosen, iterator)


def put_back(graph: Graph, chosen: DataLoader[Any], *, begun: bool = True) -> list[Any]:
    """What comes next in a program that has come to the same line with other random numbers."""
    torch.manual_seed(99)
    held: dict[str, Any] = {"loader": chosen}
    if begun:
        held["iterator"] = iter(chosen)
    found = restore(graph, {"": held, **MODULE})[""]
    return rest(found["loader"], found["iterator"])


@pytest.mark.drawn(10)
@pytest.mark.parametrize("case", range(160))
def test_it_goes_on_with_the_same_batches(case: int) -> None:
    chance = random.Random(case)
    arguments = loader(chance)
    with noting_tasks():
        torch.manual_seed(3)
        graph, expected = taken(chance, DataLoader(**arguments))
        assert (
            put_back(graph, DataLoader(**loader(random.Random(case))), begun=chance.random() < 0.7)
            == expected
        )


def test_a_graph_is_the_same_before_and_after_it_was_put_back() -> None:
    chance = random.Random(1)
    with noting_tasks():
        chosen = DataLoader(Noisy(), 3, shuffle=True, num_workers=2)
        graph, expected = taken(chance, chosen)
        again = DataLoader(Noisy(), 3, shuffle=True, num_workers=2)
        held = {"loader": again, "iterator": iter(again)}
        for _ in range(2):
            restore(graph, {"": held, **MODULE})
            now = capture({"": held, **MODULE})
            workers = [[node.own for node in made.nodes if node.kind == "workers"] for made in (graph, now)]
            assert workers[0] == workers[1]
            assert workers[0]
        assert rest(again, held["iterator"]) == expected


@pytest.mark.parametrize("forgotten", [*PLACE[:2], "order", "generator"])
def test_what_the_place_does_without_is_noticed(forgotten: str) -> None:
    with noting_tasks():
        chosen = DataLoader(Noisy(), 2, shuffle=True, num_workers=2)
        torch.manual_seed(3)
        iterator = iter(chosen)
        for _ in range(5):
            next(iterator)
        graph = capture({"": {"loader": chosen, "iterator": iterator}, **MODULE})
        expected = rest(chosen, iterator)
        node = next(node for node in graph.nodes if node.kind == "workers")
        if forgotten in PLACE:
            own = list(node.own)
            own[len(SETTINGS) + PLACE.index(forgotten)] -= 1
            node.own = tuple(own)
        elif forgotten == "order":
            numbers = graph.nodes[node.refs[5][1]].own.region
            graph.regions[numbers][1].reshape(-1).copy_(graph.regions[numbers][1].flip(0))
        else:
            node.refs = [*node.refs[:4], None, *node.refs[5:]]  # what the sampler has still to give
        try:
            got = put_back(graph, DataLoader(Noisy(), 2, shuffle=True, num_workers=2))
        except (ImageError, RuntimeError, TypeError, IndexError):
            return
        assert got != expected


REFUSED = {
    "in the order in which they are done": {"in_order": False},
    "its data set was changed": {},
    "before the run": {},
    "a pass over what they stream": {"persistent_workers": True},
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_brought_to_its_place_is_refused(why: str) -> None:
    torch.manual_seed(3)
    data: Any = Shards() if "stream" in why else Counting()
    made: DataLoader[Any] = DataLoader(data, 2, num_workers=2, **REFUSED[why])
    early = iter(made) if "before" in why else None
    with noting_tasks():
        iterator: Any = early or iter(made)
        next(iterator)
        if "changed" in why:
            data.count = 7
        if "stream" in why:
            iterator = iter(made)
        graph = capture({"": {"iterator": iterator}})
    assert why in obstacle(iterator)
    assert why in graph.missing["iterator"]


@pytest.mark.parametrize("wrap", [lambda loader: loader, tqdm], ids=["bare", "in a progress bar"])
def test_a_loop_whose_body_changes_what_its_workers_have_is_not_continued(wrap: Any) -> None:
    data = Counting()
    with noting_tasks():
        cursor = Cursor(wrap(DataLoader(data, 2, num_workers=2)))
        cursor.next()
        assert cursor.obstacle() == ""
        data.count = 7
        assert "the loop's body changes what the items of a DataLoader depend on" in cursor.obstacle()


def test_tasks_are_kept_as_they_are() -> None:
    for tasks in (
        [[1, 2], [3], []],
        [5, 6],
        [[np.int64(4)], [np.int64(1), np.int64(2)]],
        [[1], ["a"], [2]],
        [[1 << 70], [2]],
        [(1, 2), (3,)],
        [[1], 2, [3, 4]],
        [[True], [1]],
    ):
        kept = list(Tasks(tasks))
        assert kept == tasks
        assert [type(task) for task in kept] == [type(task) for task in tasks]
        flat = [
            [index for task in several if isinstance(task, list) for index in task]
            for several in (kept, tasks)
        ]
        assert [*map(type, flat[0])] == [*map(type, flat[1])]
