"""Iterables that change while a loop runs over them go on as Python would have gone on."""

from __future__ import annotations

import copy
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Sampler

from florlog.errors import ImageError
from florlog.recording.entry_state import entry_state, restore_entry
from florlog.state.cursors import Cursor
from florlog.state.inplace import put_back
from florlog.state.random_generators import Randomness
from florlog.state.tree import flatten, unflatten

MAX_VISITS = 25
ITERATIONS: dict[str, Callable[[Any], Any]] = {
    "list": lambda held: held,
    "iter": iter,
    "enumerate": lambda held: enumerate(held, 3),
    "zip": lambda held: zip(held, itertools.count(), strict=False),
    "zipped-with-itself": lambda held: zip(held, held, strict=False),
}


def stored(tree: Any) -> Any:
    """A tree as an image gives it back."""
    skeleton, tensors = flatten(copy.deepcopy(tree), "")
    return unflatten(skeleton, dict(tensors).__getitem__)


class Execution:
    """Two nested loops over one list that is changed meanwhile, in one go or from images.

    ``seen``: the list is in a variable that images have.  ``restores``: by loop and index of the outer loop, where to
    go on and what the image there has.
    """

    def __init__(
        self,
        initial: list[int],
        changes: list[tuple[str, int]],
        *,
        wrap: Callable[[Any], Any],
        nested: bool,
        seen: bool,
        restores: dict[tuple[str, int], tuple[int, Any]],
    ) -> None:
        self.names = SimpleNamespace(todo=list(initial), visits=0)
        self.changes, self.wrap, self.nested, self.seen = changes, wrap, nested, seen
        self.restores = restores
        self.images: list[tuple[str, int, int, Any]] = []
        self.trace: list[tuple[Any, ...]] = []
        self.loop("outer", 0)

    def loop(self, name: str, outer: int) -> None:
        source = self.names.todo
        cursor = Cursor(self.wrap(source))
        index = 0
        if (name, outer) in self.restores:
            index, (position, names) = self.restores.pop((name, outer))
            if index:
                cursor.seek(index, position)
            self.names.visits = names["visits"]
            if self.seen:
                held = names["todo"]  # of which object it is, images know (`florlog.state.heap`)
                self.names.todo = put_back(self.names.todo, held) if names["is source"] else list(held)
        while self.names.visits < MAX_VISITS:
            position = cursor.position() if index else None
            self.images.append((name, outer, index, stored((position, self.state(source)))))
            try:
                item = cursor.next()
            except StopIteration:
                break
            if name == "outer":
                outer = index
            self.visit(name, item)
            if name == "outer" and self.nested:
                self.loop("inner", index)
            index += 1

    def state(self, source: list[int]) -> dict[str, Any]:
        return {**vars(self.names), "is source": self.names.todo is source}

    def visit(self, name: str, item: Any) -> None:
        names = self.names
        self.trace.append((name, item, names.visits, list(names.todo)))
        change, where = self.changes[names.visits % len(self.changes)] if self.changes else ("", 0)
        names.visits += 1
        match change:
            case "append":
                names.todo.append(100 + names.visits)
            case "insert":
                names.todo.insert(where, 100 + names.visits)
            case "pop" if names.todo:
                names.todo.pop(where % len(names.todo))
            case "set" if names.todo:
                names.todo[where % len(names.todo)] = 100 + names.visits
            case "clear":
                names.todo.clear()
            case "rebind":
                names.todo = [*names.todo, 100 + names.visits]


CHANGES = st.lists(
    st.tuples(st.sampled_from(["", "append", "append", "insert", "pop", "set", "clear"]), st.integers(0, 5)),
    max_size=12,
)


def goes_on_everywhere(
    data: st.DataObject,
    initial: list[int],
    changes: list[tuple[str, int]],
    wrap: Any,
    *,
    nested: bool,
    seen: bool,
) -> None:
    def execute(restores: dict[tuple[str, int], tuple[int, Any]]) -> Execution:
        return Execution(initial, changes, wrap=wrap, nested=nested, seen=seen, restores=restores)

    whole = execute({})
    plain = python(initial, changes, wrap, nested=nested)
    assert whole.trace == plain
    name, outer, index, image = data.draw(st.sampled_from(whole.images))
    restores = {(name, outer if name == "inner" else 0): (index, image)}
    if name == "inner":
        restores["outer", 0] = next(
            (at, held) for loop, _, at, held in whole.images if loop == "outer" and at == outer
        )
    again = execute(restores)
    assert not again.restores
    visits = image[1]["visits"]
    assert [step for step in again.trace if step[2] >= visits] == [s for s in whole.trace if s[2] >= visits]


def python(initial: list[int], changes: list[tuple[str, int]], wrap: Any, *, nested: bool) -> list[Any]:
    """The same by Python's own loops."""
    made = Execution.__new__(Execution)
    made.names, made.changes, made.trace = SimpleNamespace(todo=list(initial), visits=0), changes, []
    for item in wrap(made.names.todo):
        made.visit("outer", item)
        if nested and made.names.visits < MAX_VISITS:
            for inner in wrap(made.names.todo):
                made.visit("inner", inner)
                if made.names.visits >= MAX_VISITS:
                    break
        if made.names.visits >= MAX_VISITS:
            break
    return made.trace


@settings(deadline=None, max_examples=300)
@given(
    data=st.data(),
    initial=st.lists(st.integers(0, 9), max_size=5),
    changes=CHANGES,
    kind=st.sampled_from(sorted(ITERATIONS)),
    nested=st.booleans(),
    seen=st.booleans(),
)
def test_a_list_that_changes_is_gone_over_by_position_from_any_boundary(
    data: st.DataObject,
    initial: list[int],
    changes: list[tuple[str, int]],
    kind: str,
    nested: bool,
    seen: bool,
) -> None:
    # Where images do not have the list, it is what the innermost loop goes over that is put back.
    goes_on_everywhere(data, initial, changes, ITERATIONS[kind], nested=nested, seen=seen)


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    initial=st.lists(st.integers(0, 9), max_size=5, unique=True),
    changes=st.lists(
        st.tuples(st.sampled_from(["", "append", "pop", "rebind"]), st.integers(0, 5)), max_size=8
    ),
)
def test_a_name_that_is_given_another_list_leaves_the_loop_its_own(
    data: st.DataObject, initial: list[int], changes: list[tuple[str, int]]
) -> None:
    goes_on_everywhere(data, initial, changes, ITERATIONS["list"], nested=False, seen=True)


# -- what cannot be gone over by position ---------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda held: held, enumerate, lambda held: zip(held, held, strict=False)])
@pytest.mark.parametrize(
    "held",
    [
        {3: 1, 1: 2, 2: 3},
        deque([3, 1, 2]),
        {3, 1, 2},
        {3: 1, 1: 2}.keys(),
        {3: 1, 1: 2}.items(),
        {3: 1, 1: 2}.values(),
    ],
    ids=lambda held: type(held).__name__,
)
def test_a_container_that_a_restore_fills_again_goes_on_in_its_order(
    held: Any, wrap: Callable[[Any], Any]
) -> None:
    expected = list(wrap(held))
    cursor = Cursor(wrap(held))
    cursor.seek(1, cursor.position())
    if not isinstance(held, (set, dict, deque)):
        assert [cursor.next() for _ in expected[1:]] == expected[1:]
        return
    put_back(held, stored(held))
    assert [cursor.next() for _ in expected[1:]] == expected[1:]


class Order:
    """The user's: it draws an order with each pass, from a generator of its own."""

    def __init__(self, make: Callable[[], Any] = lambda: random.Random(3)) -> None:
        self.generator = make()
        self.items = list(range(8))
        self.passes = 0
        self.unread = iter([])

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        self.generator.shuffle(self.items)
        return iter(list(self.items))


def drawn(order: Drawing) -> int:
    return order.generator.randrange(1000)


class Drawing:
    """Its items are made in a comprehension, by a function that alone names the generator."""

    def __init__(self) -> None:
        self.generator = random.Random(3)

    def __iter__(self) -> Iterator[int]:
        return iter([drawn(self) for _ in range(8)])


class Ordered(Sampler[int]):
    """A sampler with a generator that no DataLoader knows of."""

    def __init__(self) -> None:
        self.numbers = np.random.default_rng(3)

    def __iter__(self) -> Iterator[int]:
        yield from self.numbers.permutation(8).tolist()

    def __len__(self) -> int:
        return 8


@pytest.mark.parametrize(
    "make",
    [
        Order,
        lambda: Order(lambda: np.random.default_rng(3)),
        lambda: DataLoader(torch.arange(8), 2, sampler=Ordered()),
        Drawing,
    ],
    ids=["python", "numpy", "sampler", "comprehension"],
)
def test_an_iterable_with_a_generator_of_its_own_is_gone_over_from_its_state_at_the_loops_start(
    make: Callable[[], Any],
) -> None:
    rng = Randomness()
    iterable = make()
    list(iterable)  # an earlier pass
    entry = stored(entry_state(iterable, rng))
    cursor = Cursor(iterable)
    first = [cursor.next() for _ in range(2)]
    position = cursor.position()
    rest = list(cursor.items())
    assert len(first) + len(rest) == (4 if isinstance(iterable, DataLoader) else 8)

    cursor = Cursor(iterable)  # whose generator has moved
    restore_entry(entry, iterable, rng)
    cursor.seek(2, position)
    assert [str(item) for item in cursor.items()] == [str(item) for item in rest]


class Work:
    """A work list of the user's own."""

    def __init__(self) -> None:
        self.todo = [3, 2, 1]
        self.noted = 0

    def __iter__(self) -> Iterator[int]:
        while self.todo:
            yield self._next()

    def _next(self) -> int:
        return self.todo.pop()


def walk(todo: list[int]) -> Iterator[int]:
    for number in todo:
        yield number + 1


@pytest.mark.parametrize("kind", ["object", "generator", "map", "islice", "callable", "genexp"])
@pytest.mark.parametrize("changed", [False, True])
def test_where_the_body_changes_what_other_iterables_draw_from_the_loop_cannot_go_on_in_its_middle(
    kind: str, *, changed: bool
) -> None:
    work = Work()
    iterables: dict[str, Callable[[], Any]] = {
        "object": lambda: work,
        "generator": lambda: walk(work.todo),
        "map": lambda: map(abs, work.todo),
        "islice": lambda: itertools.islice(work.todo, 5),
        "callable": lambda: iter(work._next, 0),
        "genexp": lambda: (item for item in work.todo),
    }
    cursor = Cursor(iterables[kind]())
    items = cursor.items()
    for _ in range(3):
        assert next(items, None) is not None
        work.noted += 1  # of which no item depends
        if changed:
            work.todo.insert(0, 5)
    assert bool(cursor.obstacle()) is changed
    if changed:
        assert "the loop's body changes what the items of" in cursor.obstacle()


def test_a_pass_that_an_unwatched_change_leads_elsewhere_is_refused() -> None:
    work, rng = Work(), Randomness()
    entry = stored(entry_state(work, rng))
    cursor = Cursor(work)
    cursor.next()
    work.todo.append(7)
    position = cursor.position()
    again = Work()
    restore_entry(entry, again, rng)
    with pytest.raises(ImageError, match="going over a Work again does not lead to where an image was taken"):
        Cursor(again).seek(1, position)


def test_a_list_of_objects_that_changes_is_not_taken() -> None:
    todo: list[Any] = [Work(), Work()]
    cursor = Cursor(todo)
    cursor.next()
    assert cursor.obstacle() == ""
    todo.append(Work())
    assert cursor.obstacle() == "its list has changed, and an image cannot hold all of the list's items"


@pytest.mark.parametrize("kind", ["count", "cycle", "islice", "generator", "iter"])
def test_iterators_of_the_loop_itself_go_on(kind: str) -> None:
    make: dict[str, Callable[[], Any]] = {
        "count": lambda: itertools.count(3, 2),
        "cycle": lambda: itertools.cycle([1, 2, 3]),
        "islice": lambda: itertools.islice(itertools.count(), 2, 90, 3),
        "generator": lambda: walk([5, 4, 3, 2, 1, 0, 7]),
        "iter": lambda: iter([5, 4, 3, 2, 1, 0, 7]),
    }
    whole = Cursor(make[kind]())
    expected = [whole.next() for _ in range(4)]
    assert whole.obstacle() == ""
    position = stored(whole.position())
    expected = [whole.next() for _ in range(2)]
    cursor = Cursor(make[kind]())
    cursor.seek(4, position)
    assert [cursor.next() for _ in range(2)] == expected


def test_an_enumerate_that_is_restored_twice_in_one_pass_counts_on() -> None:
    cursor = Cursor(enumerate("abcdefgh", 10))
    cursor.seek(2)
    assert cursor.next() == (12, "c")
    cursor.seek(5)
    assert [cursor.next(), cursor.next()] == [(15, "f"), (16, "g")]
