"""One answer to "is this stateful?": every kind of object, and what each part of florlog that asks makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import florlog
from florlog.bridges.plain_loops import _has_state
from florlog.state import adapters
from florlog.state.adapters import adapter
from florlog.state.cursors import Cursor
from florlog.state.heap.capture import capture
from florlog.state.heap.graph import Graph
from florlog.state.random_generators import ADAPTERS
from florlog.state.stateful import class_has_state_dict, has_state_dict, is_stateful


class Pair:
    """Both methods."""

    def __init__(self) -> None:
        self.at = 3

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.at))


class Half:
    """Gives a state, and takes none."""

    def __init__(self) -> None:
        self.at = 3

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}


class Assigned:
    """Both names, as attributes of the object that are no methods."""

    def __init__(self) -> None:
        self.state_dict, self.load_state_dict = {"at": 3}, {"at": 3}


class Delegating:
    """A wrapper that passes lookups on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 7

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class Plain:
    def __init__(self) -> None:
        self.at = 3


class Streamed(Pair, IterableDataset[int]):
    """A data set that knows its place."""


class Items(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


class Kind(NamedTuple):
    """What the callers make of one object."""

    make: Callable[[], Any]
    given: bool  # `has_state_dict`: tracked, or the iterable of a loop
    found: bool  # `is_stateful`: found in a variable
    tracked_by: str  # the adapter of a tracked one, "" if it is refused
    captured: str  # the kind of node of one that is found in a variable, "" where it needs none
    position: bool = False  # whether its cursor knows its place
    hands_free: bool = False  # whether a training without florlog tracks it


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


STEP = torch.optim.lr_scheduler.StepLR
KINDS = {
    "module": Kind(lambda: nn.Linear(1, 1), True, True, "_Module", "module", True, True),
    "optimizer": Kind(optimizer, True, True, "_Optimizer", "object", True, True),
    "scheduler": Kind(lambda: STEP(optimizer(), 1), True, True, "_Scheduler", "object", True, True),
    "scaler": Kind(lambda: torch.amp.GradScaler("cpu"), True, True, "_Stateful", "object", True, True),
    "user's pair": Kind(Pair, True, True, "_Stateful", "object", True),
    "half a pair": Kind(Half, False, False, "", "object"),
    "assigned": Kind(Assigned, False, False, "", "object"),
    "delegating": Kind(lambda: Delegating(Pair()), True, False, "_Stateful", "object", True),
    "delegating, no pair": Kind(lambda: Delegating(Plain()), False, False, "", "object"),
    "user's object": Kind(Plain, False, False, "", "object"),
    "class with the pair": Kind(lambda: Pair, False, False, "", "class"),
    "stream": Kind(Streamed, True, True, "_Stateful", "object", True),
    "loader": Kind(lambda: DataLoader(Items()), False, False, "LoaderAdapter", "loader"),
    "loader of a stream": Kind(lambda: DataLoader(Streamed()), False, False, "LoaderAdapter", "loader", True),
    "tensor": Kind(lambda: torch.ones(1), False, False, "_Tensor", "tensor"),
    "array": Kind(lambda: np.ones(1), False, False, "_ArrayAdapter", "array"),
    "list": Kind(lambda: [1, 2], False, False, "_ValueAdapter", "list"),
    "number": Kind(lambda: 3, False, False, "_ValueAdapter", ""),
    "range": Kind(lambda: range(3), False, False, "_ValueAdapter", ""),
    "torch generator": Kind(torch.Generator, False, True, "TorchGeneratorAdapter", "random"),
    "random": Kind(random.Random, False, True, "PythonRandomAdapter", "random"),
    "numpy generator": Kind(np.random.default_rng, False, True, "NumpyGeneratorAdapter", "random"),
    "numpy bits": Kind(np.random.PCG64, False, True, "NumpyGeneratorAdapter", "random"),
    "numpy legacy": Kind(np.random.RandomState, False, True, "NumpyLegacyAdapter", "random"),
}


@pytest.fixture(autouse=True)
def _classes_of_this_file_are_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florlog.state.heap.rules.is_user_class", lambda kind: kind.__module__ == __name__)


def captured(target: Any) -> Graph:
    """The graph of an object that was found under the name ``it``."""
    return capture({"": {"it": target}})


@pytest.mark.parametrize("name", KINDS)
def test_all_who_ask_agree(name: str) -> None:
    kind = KINDS[name]
    target = kind.make()
    assert (has_state_dict(target), is_stateful(target)) == (kind.given, kind.found)
    tracked = ""
    with_error = ""
    try:
        tracked = type(adapter("it", target)).__name__
    except florlog.TrackError as error:
        with_error = str(error)
    assert tracked == kind.tracked_by, with_error
    graph = captured(target)
    assert (graph.nodes[0].kind if graph.nodes else "") == kind.captured
    assert graph.missing == {}
    assert (Cursor(target).position() is not None) == kind.position
    assert _has_state(target) == kind.hands_free


@pytest.mark.parametrize("name", KINDS)
def test_what_is_found_stateful_has_an_adapter_that_is_not_for_plain_values(name: str) -> None:
    target = KINDS[name].make()
    random_generator = isinstance(target, tuple(ADAPTERS))
    assert is_stateful(target) == (random_generator or class_has_state_dict(type(target)))
    if is_stateful(target):
        assert not isinstance(adapter("it", target), adapters._ValueAdapter)
        assert has_state_dict(target) or random_generator


def test_every_adapter_has_an_example_here() -> None:
    known = {made.__name__ for made in adapters._ADAPTERS.values()} | {"_Stateful", "_ValueAdapter"}
    assert known == {kind.tracked_by for kind in KINDS.values()} - {""}


def test_what_was_only_found_is_not_asked() -> None:
    mock = MagicMock()
    assert not is_stateful(mock)
    assert mock.mock_calls == []
    proxy = Delegating(MagicMock())
    assert not is_stateful(proxy)
    assert has_state_dict(proxy)


def test_capturing_asks_nothing_of_what_it_finds() -> None:
    mock = MagicMock()
    captured([mock])
    assert mock.mock_calls == []


def test_a_wrapper_that_was_found_keeps_its_own_attributes() -> None:
    graph = captured(Delegating(Pair()))
    outer = graph.nodes[0].attributes
    assert outer is not None
    assert outer["calls"] == 7
    assert graph.nodes[outer["inner"][1]].attributes == {"at": 3}


def test_a_random_generator_without_a_state_is_a_tool() -> None:
    graph = captured({"dice": random.SystemRandom()})
    assert not graph.missing
    assert [node.kind for node in graph.nodes if "SystemRandom" in node.name] == ["tool"]
