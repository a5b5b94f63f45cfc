"""Which loops' items are made of state that images hold, and what of it an image has to reach."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from tqdm import tqdm

from florlog.state.item_sources import gives_state, parts_of

HELD = [torch.ones(2), torch.zeros(2)]
DATA = TensorDataset(torch.ones(4, 2))


class Reading(Dataset[bytes]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> bytes:
        return Path(__file__).read_bytes()


STATE: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "list": (lambda: HELD, [HELD]),
    "enumerated list": (lambda: enumerate(HELD), [HELD]),
    "iterator": (lambda: iter(HELD), [HELD]),
    "reversed": (lambda: enumerate(reversed(HELD)), [HELD]),
    "zip": (lambda: zip(HELD, range(2), strict=True), [HELD, range(2)]),
    "loader": (lambda: enumerate(DataLoader(DATA, 2, shuffle=True), 1), [DATA]),
    "subset": (lambda: enumerate(DataLoader(Subset(DATA, [1, 2]))), [Subset]),
    "bar": (lambda: enumerate(tqdm(HELD, disable=True)), [HELD]),
    "bar over a loader": (lambda: tqdm(enumerate(DataLoader(DATA)), disable=True), [DATA]),
    "tensor": (lambda: enumerate(torch.ones(3, 2)), [tuple]),
    "workers": (lambda: DataLoader(DATA, num_workers=1), [DataLoader]),
    "workers that compute": (lambda: DataLoader(data_set(Computing.drawn), num_workers=1), [DataLoader]),
}
OUTSIDE: dict[str, Callable[[], Any]] = {
    "a generator": lambda: (Path(name) for name in ()),
    "an enumerated generator": lambda: enumerate(Path(name) for name in ()),
    "files": lambda: enumerate(DataLoader(Reading())),
    "workers that count": lambda: DataLoader(data_set(Computing.counted), num_workers=1),
    "workers that are given a function that counts": lambda: DataLoader(
        DATA, num_workers=1, collate_fn=counting
    ),
    "a mapped file": lambda: np.memmap(__file__, mode="r"),
}


@pytest.mark.parametrize("name", STATE)
def test_items_of_what_images_hold_are_state(name: str) -> None:
    make, sources = STATE[name]
    iterable = make()
    assert gives_state(iterable)
    for part, source in zip(parts_of(iterable), sources, strict=True):
        assert isinstance(part, source) if isinstance(source, type) else part is source or part == source


def test_an_iterator_over_a_mapping_is_looked_through() -> None:
    held = {"a": 1}
    for iterator in (iter(held), iter(held.values()), enumerate(held.items())):
        assert gives_state(iterator)
        assert parts_of(iterator) == [held]


@pytest.mark.parametrize("name", OUTSIDE)
def test_items_from_outside_are_not(name: str) -> None:
    assert not gives_state(OUTSIDE[name]())


def test_an_iterator_that_has_ended_no_longer_shows_what_it_went_over() -> None:
    """Images at the end of a loop are taken before the iterator finds its end or after it: they have to be alike."""
    numbered = enumerate(HELD)
    assert parts_of(numbered) == [HELD]
    list(numbered)
    assert parts_of(numbered) == []
    assert gives_state(numbered)


class Computing:
    """Data sets that give items of their own attributes and of generators that images have."""

    def of_a_seed(self, index: int) -> Any:
        return torch.randn(3, generator=torch.Generator().manual_seed(self.seed + index))  # type: ignore[attr-defined]

    def drawn(self, index: int) -> Any:
        return random.random() + np.random.rand() + torch.rand(1).item()

    def of_a_new_generator(self, index: int) -> Any:
        return np.random.default_rng(self.seed + index).random() + default_rng(index).random()  # type: ignore[attr-defined]

    def by_a_method(self, index: int) -> Any:
        return self.drawn(index)

    def by_a_property(self, index: int) -> Any:
        return self.size + index

    @property
    def size(self) -> int:
        return len(str(self.seed))  # type: ignore[attr-defined]

    def by_a_transform(self, index: int) -> Any:
        return self.transform(torch.ones(3)), self.nothing and self.nothing(index)  # type: ignore[attr-defined]

    def by_a_function(self, index: int) -> Any:
        return [double(item) for item in torch.ones(3).tolist()]

    def counted(self, index: int) -> Any:
        self.count = index
        return index

    def of_fields_like_sources(self, index: int) -> Any:
        return self.open, self.time, self.load[index]  # type: ignore[attr-defined]


class Outside(Computing):
    """Data sets that read something that no image has."""

    def clock(self, index: int) -> Any:
        return time.time()

    def clock_of_an_object(self, index: int) -> Any:
        return self.held.perf_counter()  # type: ignore[attr-defined]

    def entropy(self, index: int) -> Any:
        return np.random.default_rng().random()

    def entropy_by_name(self, index: int) -> Any:
        return default_rng().random()

    def entropy_of_torch(self, index: int) -> Any:
        return torch.seed()  # type: ignore[no-untyped-call]

    def entropy_of_a_generator(self, index: int) -> Any:
        return self.generator.seed()  # type: ignore[attr-defined]

    def a_file(self, index: int) -> Any:
        return self.file.read()  # type: ignore[attr-defined]

    def a_file_later(self, index: int) -> Any:
        read = self.file.read  # type: ignore[attr-defined]
        return read()

    def files_in_a_comprehension(self, index: int) -> Any:
        return [np.load(name) for name in self.names]  # type: ignore[attr-defined]

    def an_opened_file(self, index: int) -> Any:
        with open(str(index)) as file:  # noqa: PTH123
            return file

    def by_a_method_that_reads(self, index: int) -> Any:
        return self.a_file(index)

    def by_a_property_that_reads(self, index: int) -> Any:
        return self.lines[index]

    @property
    def lines(self) -> Any:
        return Path(__file__).open().readlines()

    def by_a_function_that_reads(self, index: int) -> Any:
        return self.reading(index)  # type: ignore[attr-defined]

    def by_a_transform_that_reads(self, index: int) -> Any:
        transform = self.reading  # type: ignore[attr-defined]
        return transform(index)

    def by_an_object_that_reads(self, index: int) -> Any:
        reader = self.reader  # type: ignore[attr-defined]
        return reader.fetch(index)

    def by_a_part_that_reads(self, index: int) -> Any:
        return self.parts(index)  # type: ignore[attr-defined]

    def the_process(self, index: int) -> Any:
        return os.getpid()


def double(value: float) -> float:
    return 2 * value


def reading(index: int) -> Any:
    return Path(str(index)).read_text()


def counting(items: list[Any]) -> list[Any]:
    HELD.append(items[0])
    return items


class Reads(torch.nn.Module):
    def forward(self, index: Any) -> Any:
        return reading(index)


def data_set(method: Any) -> Any:
    """A user's data set whose items one of these functions gives."""
    methods = {"__getitem__": method, "__len__": lambda self: 3, "__module__": __name__}
    made = type("Made", (Outside, Dataset), methods)()
    made.seed, made.nothing, made.reading = 3, None, reading
    made.transform = torch.nn.Sequential(torch.nn.ReLU())
    made.parts = torch.nn.Sequential(Reads())
    return made


def functions_of(kind: type) -> list[str]:
    """The functions of a class that give items."""
    return [name for name, held in vars(kind).items() if callable(held) and not name.startswith("_")]


@pytest.mark.parametrize("name", functions_of(Computing))
def test_items_that_a_data_set_computes_are_state(name: str) -> None:
    assert gives_state(DataLoader(data_set(vars(Computing)[name])))


@pytest.mark.parametrize("name", functions_of(Outside))
def test_items_that_a_data_set_reads_are_not(name: str) -> None:
    assert not gives_state(DataLoader(data_set(vars(Outside)[name])))
