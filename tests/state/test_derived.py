"""Derived state is regenerated, never stored, and stored after all where regenerating gives something else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_wal import CheckpointEnd, RunLog
from hypothesis import given, settings
from hypothesis import strategies as st

import florlog
from florlog.images.imager import SavedState
from florlog.state.adapters import adapter
from florlog.state.delta_log import CHUNK_BYTES, DeltaLog, contents
from florlog.state.derived import Derived
from florlog.state.inplace import bits
from florlog.state.random_generators import Randomness
from tests.run_directories import run_directory

from .memory import round_trip


def images(path: Path) -> list[set[str]]:
    """The names in each image of a store."""
    with RunLog.open(run_directory(path)) as store:
        records = [entry.record for entry in store.scan(types=[CheckpointEnd])]
        ends = [record for record in records if isinstance(record, CheckpointEnd)]
        return [set(SavedState(store, end.table).names()) for end in ends]


def record(path: Path, make: Callable[[torch.Tensor, torch.Tensor], Callable[[], Any]]) -> list[str]:
    """Six images of a weight and of its square, which ``make`` has the function for; the warnings."""
    weight = torch.arange(4.0)
    square = weight**2
    regenerate = make(weight, square)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with florlog.run("derived", store=path, overhead=float("inf")) as run:
            run.track(weight=weight, square=square, derived={"square": regenerate})
            for step in run.loop("step", range(5)):
                weight += 1
                square.copy_(weight**2)
                run.log(step=step, square=square)
                assert torch.equal(square, (torch.arange(4.0) + step + 1) ** 2)
    return [str(one.message) for one in told if "derived" in str(one.message)]


def in_place(weight: torch.Tensor, square: torch.Tensor) -> Callable[[], Any]:
    def regenerate() -> None:
        square.copy_(weight**2)

    return regenerate


def returned(weight: torch.Tensor, square: torch.Tensor) -> Callable[[], Any]:
    return lambda: weight**2


@pytest.mark.parametrize("make", [in_place, returned])
def test_derived_state_is_in_no_image(make: Any, tmp_path: Path) -> None:
    assert record(tmp_path / "store", make) == []
    found = images(tmp_path / "store")
    assert len(found) == 6
    assert all("weight" in names and "square" not in names for names in found)


def wrong(weight: torch.Tensor, square: torch.Tensor) -> Callable[[], Any]:
    return lambda: weight**2 + 1e-3


def failing(weight: torch.Tensor, square: torch.Tensor) -> Callable[[], Any]:
    def regenerate() -> None:
        square.zero_()
        raise ValueError("no index yet")

    return regenerate


@pytest.mark.parametrize(("make", "why"), [(wrong, "another state"), (failing, "ValueError: no index yet")])
def test_what_is_not_regenerated_alike_is_stored_from_the_first_image_on(
    make: Any, why: str, tmp_path: Path
) -> None:
    (told,) = record(tmp_path / "store", make)
    assert "derived state 'square' is stored in full from now on" in told
    assert why in told
    assert all("square" in names for names in images(tmp_path / "store"))


def test_a_function_that_goes_wrong_later_is_found_by_sampling(tmp_path: Path) -> None:
    def later(weight: torch.Tensor, square: torch.Tensor) -> Callable[[], Any]:
        return lambda: weight**2 + (weight[0] > 0.5)

    (told,) = record(tmp_path / "store", later)
    assert "another state" in told
    assert ["square" in names for names in images(tmp_path / "store")] == [
        False,
        True,
        True,
        True,
        True,
        True,
    ]


def test_a_check_leaves_the_object_and_the_generators_as_they_were() -> None:
    told: list[str] = []
    square = torch.ones(3)
    held = adapter("square", square)
    derived = Derived(Randomness(), lambda text, why: told.append(text))
    derived.add("square", square.uniform_)
    before, generator = bits(held.capture()), torch.get_rng_state()
    derived.check({"square": held})
    assert derived.masked == {"square"}
    assert bits(held.capture()) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert len(told) == 1


def test_after_a_restore_only_what_the_image_left_out_is_regenerated() -> None:
    weight, square, cube = torch.arange(3.0), torch.zeros(3), torch.zeros(3)
    derived = Derived(Randomness(), lambda text, why: None)
    derived.add("square", lambda: weight**2)
    derived.add("cube", lambda: weight**3)
    tracked = {name: adapter(name, t) for name, t in {"square": square, "cube": cube}.items()}
    derived.regenerate(tracked, {"weight", "cube"})
    assert square.tolist() == [0, 1, 4]
    assert cube.tolist() == [0, 0, 0]
    assert derived.omitted() == {"square"}


edits = st.lists(
    st.one_of(st.integers(), st.floats(), st.text(), st.tuples(st.booleans(), st.none())), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(first=edits, more=edits, later=edits)
def test_a_delta_log_comes_back_as_it_was_and_goes_on(first: Any, more: Any, later: Any) -> None:
    log = DeltaLog("log", list(first), list.append)
    for edit in more:
        log.append(edit)
    state = round_trip(log.state_dict())
    for edit in later:
        log.append(edit)
    other = DeltaLog("log", ["something", "else"], list.append)
    value = other.value
    other.load_state_dict(state)
    assert other.value is value
    assert bits(value) == bits([*first, *more])
    for edit in later:
        other.append(edit)
    assert bits(other.value) == bits(log.value)
    assert bits(other.state_dict()) == bits(log.state_dict())
    base, since = contents(state)
    assert bits([*base, *since]) == bits([*first, *more])


def test_a_delta_log_keeps_no_more_than_twice_its_value_and_old_chunks_stay_as_they_are() -> None:
    log = DeltaLog("buffer", [], list.append)
    piece, rewritten, before = torch.zeros(4096), 0, -1
    for number in range(400):
        log.append(piece + number)
        state = log.state_dict()
        base = state["base"].numel()
        if base != before:
            rewritten, before = rewritten + base, base
        assert sum(chunk.numel() for chunk in state["edits"]) <= base + 2 * CHUNK_BYTES
    size = 400 * piece.nbytes
    assert rewritten < 3 * size
    first = {chunk.data_ptr() for chunk in log.state_dict()["edits"][:-1]}
    log.append(piece)
    assert first <= {chunk.data_ptr() for chunk in log.state_dict()["edits"]}


def test_a_delta_log_takes_any_edit_that_a_function_applies(tmp_path: Path) -> None:
    graph: dict[str, list[str]] = {"a": []}

    def join(graph: dict[str, list[str]], edge: tuple[str, str]) -> None:
        graph.setdefault(edge[0], []).append(edge[1])

    with florlog.run("graph", store=tmp_path / "store", overhead=float("inf")) as run:
        edges = run.delta_log("graph", graph, join)
        for step in run.loop("step", range(4)):
            edges.append(("a", str(step)))
            run.log(degree=len(graph["a"]))
    with florlog.open(tmp_path / "store") as log:
        base, since = contents(log.runs[-1].state_at(step=2)["graph"])
    assert base == {"a": []}
    assert since == [("a", "0"), ("a", "1")]
    assert graph == {"a": ["0", "1", "2", "3"]}


def test_an_edit_without_an_encoding_is_refused_before_it_is_applied() -> None:
    log = DeltaLog("log", [], list.append)
    with pytest.raises(florlog.TrackError, match="delta log 'log' cannot keep a object"):
        log.append(object())
    assert log.value == []
