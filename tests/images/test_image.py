"""Images: never torn, bounded in memory, and why no version counter decides what is in them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    CorruptValue,
    PageEntry,
    PagesFailed,
    RunBegin,
    RunLog,
    encode_table,
    page_digest,
)

import florlog
from florlog.images.imager import Imager, SavedState
from florlog.images.snapshot import Buffers, snapshot
from florlog.redo.past_state import Pages
from florlog.state.adapters import adapter
from tests.state.memory import Memory, clone_bits


def test_what_changes_right_after_the_boundary_is_not_in_the_image() -> None:
    tensor, array, values = torch.arange(100_000.0), np.arange(9.0), {"best": [1.0]}
    trees = {
        name: adapter(name, held).capture() for name, held in {"t": tensor, "a": array, "v": values}.items()
    }
    copy = snapshot(trees)
    tensor.add_(1)
    array += 1
    values["best"][0] = 2.0
    assert torch.equal(copy.tensors["t.data"], torch.arange(100_000.0))
    assert copy.tensors["a"].tolist() == list(range(9))
    again = snapshot({"v": {"best": [1.0]}})
    assert copy.hosts["v"] == again.hosts["v"]


@pytest.mark.parametrize("sizes", [[3_000_000], [10, 4_000_000, 7], [1000] * 3000, [5_000_000, 1]])
def test_a_large_state_is_copied_whole_by_two_threads(sizes: list[int]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = {f"{number}": torch.rand(size) for number, size in enumerate(sizes)}
        expected = {f"x.{name}": tensor.clone() for name, tensor in state.items()}
        copy = snapshot({"x": state})
        for tensor in state.values():
            tensor.zero_()  # right after the boundary
        assert copy.tensors.keys() == expected.keys()
        assert all(torch.equal(copy.tensors[key], tensor) for key, tensor in expected.items())
        helped = any(thread.name.startswith("florlog-copy") for thread in threading.enumerate())
        assert helped or len(sizes) == 1 or len(os.sched_getaffinity(0)) < 2
        child = os.fork()
        if child == 0:  # where the helper is not
            again = snapshot({"x": {name: tensor + 1 for name, tensor in state.items()}})
            os._exit(0 if all((tensor == 1).all() for tensor in again.tensors.values()) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


def test_no_buffer_shares_memory_with_the_state() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    model(torch.randn(2, 3)).sum().backward()
    copy = snapshot({"m": adapter("m", model).capture(), "a": np.arange(5)})
    live = {t.data_ptr() for t in [*model.parameters(), *model.buffers()]}
    live |= {p.grad.data_ptr() for p in model.parameters() if p.grad is not None}
    assert not live & {t.data_ptr() for t in copy.tensors.values()}


def test_buffers_are_used_again_and_hold_one_state() -> None:
    buffers = Buffers()
    tensors = {"a": torch.randn(100), "b": torch.randn(10)}
    first = {key: t.data_ptr() for key, t in snapshot({"x": tensors}, buffers).tensors.items()}
    tensors["a"].mul_(2)
    copy = snapshot({"x": tensors}, buffers)
    assert {key: t.data_ptr() for key, t in copy.tensors.items()} == first
    assert torch.equal(copy.tensors["x.a"], tensors["a"])
    del tensors["b"]
    snapshot({"x": tensors}, buffers)
    assert sum(t.nbytes for t in buffers.held.values()) == 400


def stores_image(imager: Imager, store: RunLog, session: int, tree: Any) -> int:
    copy = imager.snapshot({"x": tree})
    begin = store.append(CheckpointBegin(0, 0), session=session)
    imager.persist(copy, begin, 0.0)
    return begin


def begin(store: RunLog) -> int:
    record = RunBegin("r", "r", "record", "s", (), "/", {}, {}, (), 0.0, 0, 1, 0)
    return store.append(record)


def test_training_goes_on_while_an_image_persists_and_a_late_one_postpones_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    whole = RunLog.put_pages

    def slow(store: RunLog, pages: Sequence[Any], **how: Any) -> Any:
        assert gate.wait(30)
        return whole(store, pages, **how)

    monkeypatch.setattr(RunLog, "put_pages", slow)
    with RunLog.open(tmp_path / "store", mode="w") as store:
        session = begin(store)
        imager = Imager(store, session, lambda stopped: None, lambda why: None)
        tensor = torch.arange(10_000.0)
        begins = []
        for number in range(2):
            begins.append(stores_image(imager, store, session, {"t": tensor}))
            tensor.add_(1)  # as training does, while the image waits for the disk
            assert imager.pending == number + 1
            assert imager.has_room(main=True) == (number == 0)  # two states at most
            assert not imager.has_room(main=False)
        gate.set()
        imager.close()
        assert imager.pending == 0
        ends = [entry.record for entry in store.scan(types=[CheckpointEnd])]
        for number, end in enumerate(ends):
            assert isinstance(end, CheckpointEnd)
            assert end.begin == begins[number]
            held = SavedState(store, end.table).tree("x")["t"]
            assert torch.equal(held, torch.arange(10_000.0) + number)
        assert len(ends) == 2


def test_an_image_that_cannot_be_stored_leaves_the_buffers_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(store: RunLog, pages: Sequence[Any], **how: Any) -> Any:
        raise MemoryError("no more")

    monkeypatch.setattr(RunLog, "put_pages", broken)
    stopped: list[Any] = []
    lost: list[str] = []
    with RunLog.open(tmp_path / "store", mode="w") as store:
        session = begin(store)
        imager = Imager(store, session, stopped.append, lost.append)
        for _ in range(5):
            copy = imager.snapshot({"x": torch.ones(3)})
            imager.persist(copy, 1, 0.0)
        imager.close()
    assert lost == ["no more"] * 5
    assert not stopped


def test_an_equal_state_writes_no_page_again() -> None:
    memory = Memory()
    frozen, moving = torch.randn(300_000), torch.randn(10)
    memory.image({"x": [frozen, moving]})
    before = set(memory.pages)
    moving.add_(1)
    memory.image({"x": [frozen, moving]})
    new = [page for digest, page in memory.pages.items() if digest not in before]
    assert sum(map(len, new)) < 1000


def fused() -> tuple[torch.Tensor, Callable[[], Any]]:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.ones(3)
    return weight, optimizer.step


def running_mean() -> tuple[torch.Tensor, Callable[[], Any]]:
    norm = torch.nn.BatchNorm1d(3)
    mean: Any = norm.running_mean
    return mean, lambda: norm(torch.randn(4, 3) + 5)


def through_data() -> tuple[torch.Tensor, Callable[[], Any]]:
    tensor = torch.ones(3)
    return tensor, lambda: tensor.data.add_(1)


def through_numpy() -> tuple[torch.Tensor, Callable[[], Any]]:
    tensor = torch.ones(3)
    return tensor, lambda: tensor.numpy().fill(7)


@pytest.mark.parametrize("make", [fused, running_mean, through_data, through_numpy])
def test_a_version_counter_does_not_prove_that_a_tensor_is_unchanged(make: Any) -> None:
    tensor, change = make()
    before, version = clone_bits(tensor), tensor._version
    change()
    assert clone_bits(tensor) != before
    assert tensor._version == version  # which is why every image hashes everything


def test_a_failed_page_write_costs_one_image_and_one_warning_and_the_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = RunLog.put_pages, []

    def fails_twice(store: RunLog, pages: Sequence[Any], **how: Any) -> Any:
        calls.append(len(pages))
        if 1 < len(calls) <= 3:  # the first call stores the sources
            raise PagesFailed(str(store.path), "no space left on device")
        return whole(store, pages, **how)

    monkeypatch.setattr(RunLog, "put_pages", fails_twice)
    weight = torch.zeros(1000)
    with (
        pytest.warns(
            RuntimeWarning, match="could not store an image, the recording goes on.*no space"
        ) as warned,
        florlog.run("full disk", store=tmp_path / "store", overhead=float("inf")) as run,
    ):
        run.track(weight=weight)
        for index in run.loop("step", range(6)):
            weight += 1
            run.log(index=index)
    assert len([w for w in warned if "could not store" in str(w.message)]) == 1
    with florlog.open(tmp_path / "store") as log:
        ends = [entry for entry in log.records() if isinstance(entry.record, CheckpointEnd)]
        assert len(ends) == 7 - 2
        assert list(log.runs[-1].values("index")["index"]) == list(range(6))


class Counting:
    """Tracked state that knows how often it was captured."""

    def __init__(self) -> None:
        self.captured = 0
        self.held = torch.zeros(1000)

    def state_dict(self) -> dict[str, torch.Tensor]:
        self.captured += 1
        return {"held": self.held}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.held = state["held"]


def test_state_is_captured_only_for_images_that_are_taken(tmp_path: Path) -> None:
    """Of steps that are much shorter than a persist, most would find no buffers."""
    counting = Counting()
    with florlog.run("quick", store=tmp_path / "store", overhead=0.5) as run:
        run.track(state=counting)
        at_first = counting.captured
        for index in run.loop("step", range(100_000)):
            counting.held[0] = index
            if counting.captured - at_first >= 3:
                break
    with florlog.open(tmp_path / "store") as log:
        images = sum(isinstance(entry.record, CheckpointBegin) for entry in log.records())
    assert 1 <= images == counting.captured - at_first


def test_an_entry_that_lies_about_its_bytes_is_refused_before_memory_is_taken() -> None:
    page = bytes(16)

    def state(**wrong: Any) -> SavedState:
        fields = {
            "kind": "tensor",
            "dtype": "float32",
            "shape": (4,),
            "size": 16,
            "pages": (page_digest(page),),
        }
        table = encode_table({"w:": PageEntry(**{**fields, **wrong})})
        pages = Pages({page_digest(page): page, page_digest(table): table})
        return SavedState(pages, page_digest(table))

    assert state().tensors(["w"])["w"].tolist() == [0.0] * 4
    for wrong in (
        {"shape": (2**40,), "size": 0, "pages": ()},
        {"shape": (2**40, 2**20)},
        {"shape": (5,)},
        {"size": 2**63},
        {"size": 0},
        {"pages": (page_digest(page),) * 100_000},
        {"dtype": "nn"},
        {"dtype": "float7"},
    ):
        with pytest.raises((ValueError, CorruptValue)):
            state(**wrong).tensors(["w"])
