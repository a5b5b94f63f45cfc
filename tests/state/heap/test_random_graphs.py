"""Any graph of objects comes back: random ones are captured, changed, and restored."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from florlog.errors import ImageError
from florlog.state.heap.capture import capture
from florlog.state.heap.compare import difference
from florlog.state.heap.graph import Graph
from florlog.state.heap.kinds import KINDS
from florlog.state.heap.restore import restore


class Plain:
    """Attributes in a ``__dict__``."""


class Slotted:
    """Attributes in slots, inherited ones included."""

    __slots__ = ("first", "other")


class Both(Slotted):
    """Slots and a ``__dict__``."""


@dataclass(frozen=True)
class Key:
    """Equal by value, and a key of mappings and sets."""

    number: int
    parts: tuple[Any, ...] = ()


class Listed(list[Any]):
    """A list with attributes."""


CLASSES: dict[str, Any] = {kind.__name__: kind for kind in (Plain, Slotted, Both, Key, Listed)}
ATOMS = (None, True, 7, -1.5, float("nan"), 1j, "text", b"bytes", 0.0, -0.0)
MAKERS: tuple[Any, ...] = (
    list,
    dict,
    set,
    deque,
    OrderedDict,
    Plain,
    Slotted,
    Both,
    Listed,
    lambda: defaultdict(list),
    lambda: bytearray(b"abc"),
    lambda: torch.zeros(4),
    lambda: torch.nn.Parameter(torch.ones(2, 2)),
    lambda: np.zeros(3),
    lambda: np.array([None, 1], dtype=object),
)
numbers = st.integers(0, 1 << 16)
OPERATIONS = st.lists(st.tuples(st.integers(0, 11), numbers, numbers, numbers), max_size=30)


class Program:
    """A pool of objects that random operations make, link, change and cut."""

    def __init__(self) -> None:
        self.pool: list[Any] = [[]]

    def take(self, number: int) -> Any:
        """An object of the pool, or an atom."""
        everything = [*self.pool, *ATOMS]
        return everything[number % len(everything)]

    def run(self, operations: list[tuple[int, int, int, int]]) -> None:
        for operation, one, two, three in operations:
            self._step(operation, self.pool[one % len(self.pool)], self.take(two), three)

    def _step(self, operation: int, held: Any, part: Any, number: int) -> None:
        if operation <= 2:
            self.pool.append(MAKERS[number % len(MAKERS)]())
        elif operation == 3:
            self.pool.append((held, part, number))
        elif operation == 4:
            self.pool.append(Key(number % 4, (number,)))
        elif operation == 5 and len(self.pool) > 1:
            del self.pool[next(place for place, item in enumerate(self.pool) if item is held)]
        elif operation == 6 and isinstance(held, (list, deque, bytearray)) and len(held):
            held.pop()
        elif isinstance(held, torch.Tensor):
            self._tensor(operation, held, part, number)
        elif isinstance(held, np.ndarray) and held.dtype != object:
            held += number
            if operation > 8:
                self.pool.append(held[number % 3 :])
        else:
            _link(held, part, number)

    def _tensor(self, operation: int, held: torch.Tensor, part: Any, number: int) -> None:
        with torch.no_grad():
            held += number
        if operation == 8:
            self.pool.append(held.detach().flatten()[number % 3 :])
        elif operation == 9 and held.requires_grad:
            held.grad = torch.ones_like(held) * number
        elif operation == 10:
            self.pool.append(held.detach().numpy())
        elif operation == 11 and type(held) is torch.Tensor:
            vars(held)["note"] = part

    def roots(self) -> dict[str, Any]:
        return {"pool": self.pool, **CLASSES}


def _link(held: Any, part: Any, number: int) -> None:
    """Let an object refer to another."""
    if isinstance(held, (list, deque)):
        held.append(part)
        if isinstance(held, Listed):
            held.note = part  # type: ignore[attr-defined]
    elif isinstance(held, dict):
        held[part if isinstance(part, (Key, Plain, str, int)) else number % 5] = part
    elif isinstance(held, set):
        held.add(part if isinstance(part, (Key, Plain, str)) else (number % 5, Key(number % 3)))
    elif isinstance(held, bytearray):
        held.append(number % 256)
    elif isinstance(held, np.ndarray):
        held[0] = part
    elif isinstance(held, (Plain, Slotted)):
        names = ("first", "other") if isinstance(held, Slotted) else ("first", "other", "third")
        if isinstance(held, Both):
            names = (*names, "third")
        name = names[number % len(names)]
        if number % 7 == 0 and hasattr(held, name):
            delattr(held, name)
        else:
            setattr(held, name, part)


def frozen(program: Program) -> Graph:
    """The program's graph, with bytes of its own."""
    graph = capture({"m": program.roots()})
    graph.regions = [
        tuple(part.clone() if isinstance(part, torch.Tensor) else part for part in region)
        for region in graph.regions
    ]
    return graph


@pytest.fixture(autouse=True, scope="module")
def _classes_of_this_file_are_the_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("florlog.state.heap.rules.is_user_class", lambda kind: kind.__module__ == __name__)
        yield


@given(OPERATIONS, OPERATIONS)
@example([(0, 0, 0, 1052), (5, 0, 0, 0), (5, 0, 0, 0), (5, 0, 0, 1), (5, 0, 0, 2), (5, 0, 1844, 0)], [])
@settings(max_examples=150, deadline=None)
def test_a_graph_that_was_changed_is_restored(
    before: list[tuple[int, int, int, int]], after: list[tuple[int, int, int, int]]
) -> None:
    program = Program()
    program.run(before)
    graph = frozen(program)
    assert difference(graph, frozen(program)) == ""
    program.run(after)
    program.pool = restore(graph, {"m": program.roots()})["m"]["pool"]
    assert difference(graph, frozen(program)) == ""


@given(OPERATIONS)
@settings(max_examples=80, deadline=None)
@example([(0, 0, 0, 1652), (6, 1, 0, 43), (6, 1, 0, 250)])
@example([(0, 0, 0, 1052), (5, 0, 0, 0), (5, 0, 0, 0), (5, 0, 0, 1), (5, 0, 0, 4162)])
def test_a_graph_is_made_anew(before: list[tuple[int, int, int, int]]) -> None:
    program, other = Program(), Program()
    program.run(before)
    graph = frozen(program)
    other.pool = restore(graph, {"m": CLASSES})["m"]["pool"]
    assert difference(graph, frozen(other)) == ""


@given(OPERATIONS, numbers)
@settings(max_examples=80, deadline=None)
def test_an_object_that_is_not_filled_is_noticed(
    before: list[tuple[int, int, int, int]], number: int
) -> None:
    """The twin of the tests above."""
    program, other = Program(), Program()
    program.run(before)
    graph = frozen(program)
    mutable = ("list", "dict", "deque", "object", "set", "bytearray")
    left = [node for node in graph.nodes if node.kind in mutable and (node.refs or node.attributes)]
    assume(left)
    node = left[number % len(left)]
    kind = KINDS[node.kind]
    with pytest.MonkeyPatch.context() as patch:
        fill = type(kind).fill
        patch.setattr(
            type(kind),
            "fill",
            lambda self, build, at, held: None if at is node else fill(self, build, at, held),
        )
        try:
            other.pool = restore(graph, {"m": CLASSES})["m"]["pool"]
        except ImageError:  # a key without its fields has no hash
            return
    assert difference(graph, frozen(other)) != ""


@given(OPERATIONS, OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_what_cannot_be_restored_changes_nothing(
    before: list[tuple[int, int, int, int]], after: list[tuple[int, int, int, int]]
) -> None:
    program = Program()
    program.run(before)
    program.pool.append(open(__file__))  # noqa: PTH123, SIM115 - one that a later program does not have
    graph = frozen(program)
    program.pool.pop().close()
    program.run(after)
    present = frozen(program)
    with pytest.raises(ImageError, match="an open file"):
        restore(graph, {"m": program.roots()})
    assert difference(present, frozen(program)) == ""
