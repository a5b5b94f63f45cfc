"""Logging never keeps a training from starting, never ends it, and never changes its numbers.

Each test makes one thing fail, and compares the training's numbers with those of the same training without florlog.
What is not recorded is said by one warning; ``strict=True`` raises it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_wal import CheckpointBegin, RunLog, Store, StoreFailed, directory, log, tail

import florlog
from florlog.recording.journal import Journal
from florlog.recording.run import Run
from tests.end_to_end.harness import environment
from tests.run_directories import run_directory

pytestmark = pytest.mark.drawn_in_file(20)


class Plain:
    """A training without florlog."""

    def loop(self, name: str, iterable: Iterable[Any]) -> Iterable[Any]:
        return iterable

    def iteration(self, name: str, index: int) -> Any:
        return nullcontext()

    def log(self, *values: Any, **named: Any) -> None:
        pass

    def track(self, **objects: Any) -> None:
        pass


Use = Callable[[Any, int, torch.Tensor], None]


def nothing(run: Any, step: int, loss: torch.Tensor) -> None:
    pass


def train(run: Any, use: Use = nothing, before: Callable[[Any], None] = lambda run: None) -> list[float]:
    """A training's losses and last parameters; ``use`` is called in each step, ``before`` before the loops."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run.track(model=model, optimizer=optimizer)
    before(run)
    numbers = []
    for _ in run.loop("epoch", range(3)):
        for step in run.loop("step", range(4)):
            loss = model(torch.randn(16, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            use(run, step, loss)
            numbers.append(loss.item())
    return [*numbers, *(float(p.detach().double().sum()) for p in model.parameters())]


PLAIN = train(Plain())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def said(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """What florlog warned of, apart from variables of these tests that images leave out."""
    ours = [w for w in caught if str(w.message).startswith("florlog: ")]
    ours = [w for w in ours if not str(w.message).startswith("florlog: images leave out ")]
    assert all(w.category is RuntimeWarning and "\n" not in str(w.message) for w in ours)
    return [str(w.message).removeprefix("florlog: ") for w in ours]


def recorded(store: Any, **what: Any) -> tuple[list[float], list[str], Run]:
    """A training's numbers, what florlog warned of, and the run; ``what``: arguments of `train` and `florlog.run`."""
    parts = {name: what.pop(name) for name in ("use", "before") if name in what}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with florlog.run("training", store=store, **{"overhead": float("inf")} | what) as run:
            numbers = train(run, **parts)
    return numbers, said(caught), run


# -- the store cannot be opened -----------------------------------------------------------------------


def in_the_way(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_text("a file")


def below_a_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.parent.joinpath("file").write_text("a file")
    store.symlink_to(store.parent / "file" / "below")


def foreign_files(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.mkdir()
    store.joinpath("notes.txt").write_text("mine")


def another_version(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.make(store).close()
    manifest = store / "FLORLOG"
    manifest.write_text(manifest.read_text().replace("format 4", "format 99"))


def no_manifest(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.mkdir()
    store.joinpath("FLORLOG").write_bytes(b"\xff\xfe")


def read_only(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(directory, "make_directory", refused)


def no_room_for_the_tail(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tail.os, "posix_fallocate", full)


def network(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "filesystem", lambda path: "nfs4")


def no_threads(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)


def no_engine(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise MemoryError("no address space for the map")

    monkeypatch.setattr(log, "acquire", refused)


def no_first_record(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> int:
        raise StoreFailed("log", "Input/output error")

    monkeypatch.setattr(RunLog, "append", refused)


IMPOSSIBLE = [
    (in_the_way, "File exists|Not a directory"),
    (below_a_file, "Not a directory|File exists"),
    (foreign_files, "is not a florlog store: it is a directory with other things in it"),
    (another_version, "the store has format 99"),
    (no_manifest, "FLORLOG is not text"),
    (read_only, "Permission denied"),
    (no_room_for_the_tail, "No space left on device"),
    (network, "network file system"),
    (no_threads, "can't start new thread"),
    (no_engine, "no address space"),
    (no_first_record, "Input/output error"),
]


@pytest.mark.parametrize(("break_it", "words"), IMPOSSIBLE, ids=lambda it: getattr(it, "__name__", ""))
def test_a_store_that_cannot_be_opened(
    break_it: Callable[..., None], words: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(store, monkeypatch)
    numbers, warned, run = recorded(store)
    assert numbers == PLAIN
    assert run.id == ""
    assert len(warned) == 1, warned
    assert warned[0].startswith("run 'training' is not recorded, the training goes on: ")
    assert pytest.raises(AssertionError, match=words).matches(AssertionError(warned[0])), warned[0]
    with pytest.raises(Exception, match=words):
        florlog.run("training", store=store, strict=True)
    with pytest.raises(florlog.NoRunError):  # neither of the two is open
        florlog.log(x=1)


def test_a_path_that_can_be_no_directory() -> None:
    for path in ("/proc/nowhere/store", "\0", "x" * 5000):
        numbers, warned, _ = recorded(path)
        assert numbers == PLAIN
        assert len(warned) == 1


@pytest.mark.parametrize("file", ["log/data.mdb", "pages/data.mdb", "FLORLOG", "end"])
@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_a_damaged_run_is_no_other_run_s_trouble(how: str, file: str, store: Path) -> None:
    recorded(store)
    path = run_directory(store) / file
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(b"no pages" * 1000)
    numbers, warned, run = recorded(store)
    assert (numbers, warned) == (PLAIN, [])
    with florlog.open(store) as log:
        assert log.run().id == run.id
        assert len(log.values("loss")) == 12  # the rest of what it logs are no losses


def test_a_run_that_another_writer_has_does_not_go_on(store: Path) -> None:
    _, _, run = recorded(store)
    with (
        RunLog.open(run_directory(store), mode="w"),
        pytest.raises(
            florlog.StoreError, match=f"is in use by process {os.getpid()} on {socket.gethostname()}"
        ),
    ):
        florlog.run("training", store=store, resume=run.id)


def test_functions_of_the_current_run_work_in_a_run_that_is_not_recorded(tmp_path: Path) -> None:
    tmp_path.joinpath("store").write_text("")
    with pytest.warns(RuntimeWarning, match="not recorded"):
        run = florlog.run("r", store=tmp_path / "store")
    with run:
        florlog.track(model=torch.nn.Linear(1, 1), thing=object())
        for _ in florlog.loop("epoch", range(2)):
            for index in range(3):
                with florlog.iteration("step", index):
                    florlog.log({"a/b": object()}, c=index)


def test_a_run_to_go_on_with_that_cannot_be_read_is_begun_anew_or_refused(store: Path) -> None:
    _, warned, run = recorded(store)
    assert warned == []
    (run_directory(store) / "log" / "data.mdb").write_bytes(b"no pages" * 1000)
    numbers, warned, other = recorded(store, resume="auto")
    assert (numbers, warned) == (PLAIN, [])
    assert other.id not in ("", run.id)
    with pytest.raises(florlog.StoreError):  # it was named: the training would not be the one that is meant
        florlog.run("training", store=store, resume=run.id)


# -- parameters ---------------------------------------------------------------------------------------


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no text")

    __str__ = __repr__


def test_parameters_that_cannot_be_kept_are_kept_as_text(store: Path) -> None:
    params: dict[Any, Any] = {
        "lr": 0.1,
        "function": print,
        "object": object(),
        "nested": {"deep": [object()]},
        "meta": torch.empty(3, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
        "mute": Mute(),
        4: "a key that is no text",
    }
    numbers, warned, _ = recorded(store, params=params)
    assert numbers == PLAIN
    (line,) = warned
    assert line.startswith("of params, function, object, nested, meta, sparse, mute is kept as text")
    with florlog.open(store) as opened:
        kept = opened.run().params
    assert kept["lr"] == 0.1
    assert kept["function"] == "<built-in function print>"
    assert kept["object"] == "<object object at 0x>"
    assert kept["mute"] == "<Mute>"
    assert kept["4"] == "a key that is no text"
    with pytest.raises(florlog.LogValueError, match="cannot keep params"):
        florlog.run("training", store=store, params=params, strict=True)


# -- track --------------------------------------------------------------------------------------------


class Named(torch.Tensor):
    pass


class Failing:
    def state_dict(self) -> Any:
        raise ValueError("no state today")

    def load_state_dict(self, state: Any) -> None:
        pass


def with_subclass() -> torch.nn.Module:
    model = torch.nn.Linear(2, 2)
    model.weight = torch.nn.Parameter(model.weight.detach().as_subclass(Named))
    return model


UNTRACKABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "lazy": (lambda: torch.nn.LazyLinear(3), "UninitializedParameter"),
    "meta": (lambda: torch.nn.Linear(2, 2, device="meta"), ""),
    "subclass": (with_subclass, ""),
    "socket": (socket.socket, ""),
    "failing": (Failing, ""),
    "layout": (lambda: torch.eye(3).to_mkldnn(), "_mkldnn"),
    "class": (lambda: dict, ""),
}
"""Objects whose state cannot be shown under a name, and what is said of those that no image can hold either."""


@pytest.mark.parametrize("name", UNTRACKABLE)
def test_what_cannot_be_tracked_is_in_images_or_named(name: str, store: Path) -> None:
    make, words = UNTRACKABLE[name]
    torch_state = torch.get_rng_state()
    target = make()
    torch.set_rng_state(torch_state)
    numbers, warned, run = recorded(store, before=lambda run: run.track(it=target))
    assert numbers == PLAIN
    assert bool(warned) == bool(words)
    for line in warned:
        assert "no images are taken while there is it" in line
        assert words in line
    with florlog.open(store) as opened:
        assert len(opened.values("loss")) == 12
        assert any(isinstance(e.record, CheckpointBegin) for e in opened.run(run.id).records())
    with (
        florlog.run("strict", store=store, strict=True) as strict,
        pytest.raises(florlog.TrackError, match="cannot track 'it'"),
    ):
        strict.track(it=target)


def test_a_name_that_no_longer_stands_for_its_object_has_no_stale_state(store: Path) -> None:
    def rebind(run: Any, step: int, loss: torch.Tensor) -> None:
        if step == 2:
            run.track(it=Failing())

    numbers, warned, _ = recorded(store, use=rebind, before=lambda run: run.track(it=torch.ones(2)))
    assert numbers == PLAIN
    assert warned == []


def test_any_name_can_be_tracked(store: Path) -> None:
    def before(run: Any) -> None:
        run.track(**{"self": torch.ones(1), "a b": [1], "derived": None})

    numbers, warned, _ = recorded(store, before=before)
    assert numbers == PLAIN
    assert warned == []


def test_a_derived_state_without_a_function(store: Path) -> None:
    numbers, warned, _ = recorded(store, before=lambda run: run.track(derived={"index": 3}))
    assert numbers == PLAIN
    assert len(warned) == 1
    assert "derived state 'index' needs a function" in warned[0]


def test_a_delta_log_applies_edits_that_it_cannot_keep(store: Path) -> None:
    edited: list[Any] = []
    held: list[Any] = []

    def before(run: Any) -> None:
        held.append(run.delta_log("seen", edited))

    numbers, warned, _ = recorded(
        store, before=before, use=lambda run, step, loss: held[0].append(object() if step == 1 else step)
    )
    assert numbers == PLAIN
    assert [type(item).__name__ for item in edited] == ["int", "object", "int", "int"] * 3
    assert len(warned) == 1
    assert "delta log 'seen' cannot keep a object" in warned[0]
    with florlog.run("strict", store=store, strict=True) as run, pytest.raises(florlog.TrackError):
        run.delta_log("seen", [object()])


# -- log ----------------------------------------------------------------------------------------------


def endless() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


class Odd(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise ValueError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("changed while it was gone through")

    def __len__(self) -> int:
        return 1


UNLOGGABLE: dict[str, Callable[[], Any]] = {
    "module": lambda: torch.nn.Flatten(),
    "object": object,
    "nested": lambda: {"a": [1, object()]},
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(3, device="meta"),
    "meta scalar": lambda: torch.empty((), device="meta"),
    "endless": endless,
    "mute": Mute,
    "mapping": Odd,
}


@pytest.mark.drawn(10)
@pytest.mark.parametrize("name", UNLOGGABLE)
@pytest.mark.parametrize("through", ["name", "dict", "florlog.log"])
def test_a_value_that_cannot_be_logged_is_left_out(name: str, through: str, store: Path) -> None:
    make = UNLOGGABLE[name]

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        value = make()
        if through == "name":
            run.log(it=value, step=step)
        elif through == "dict":
            run.log({"it": value, "step": step})
        else:
            florlog.log({"it": value}, step=step)

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    (line,) = warned
    assert line.startswith("cannot log 'it': ")
    assert line.endswith("; it is left out of the log")
    assert len(line) < 500
    with florlog.open(store) as opened:
        assert opened.values("step")["step"].tolist() == [0, 1, 2, 3] * 3
    with (
        florlog.run("strict", store=store, strict=True) as run,
        pytest.raises(florlog.LogValueError, match="cannot log 'it'"),
    ):
        run.log(it=make())


def test_a_quantized_tensor_is_logged_by_its_numbers(store: Path) -> None:
    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        run.log(it=torch.quantize_per_tensor(torch.tensor([0.5, 1.0]), 0.5, 0, torch.qint8))

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    assert warned == []
    with florlog.open(store) as opened:
        assert opened.values("it")["it"][0].tolist() == [0.5, 1.0]


def test_a_value_inside_a_transform_of_torch(store: Path) -> None:
    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        torch.vmap(lambda x: (run.log(x=x), x)[1])(torch.arange(3.0))

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    assert len(warned) == 1
    assert "cannot log 'x'" in warned[0]


def test_any_name_can_be_logged(store: Path) -> None:
    names = {"train/loss": 1, "a b": 3, "": 4, "é\n": 7}

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        run.log(self=1, values=2, name=3)
        run.log(names)
        florlog.log({"x-y": 8}, z=9)
        run.log({5: 6})

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    assert warned == []
    with florlog.open(store) as opened:
        assert opened.values("train/loss")["train/loss"].tolist() == [1] * 12
        assert opened.values("self")["self"].tolist() == [1] * 12
        assert opened.values("x-y")["x-y"].tolist() == [8] * 12
        assert opened.values("5")["5"].tolist() == [6] * 12


@pytest.mark.parametrize("value", [object(), Odd(), torch.nn.Flatten()], ids=lambda v: type(v).__name__)
def test_what_is_no_mapping_is_left_out(value: Any, store: Path) -> None:
    numbers, warned, _ = recorded(store, use=lambda run, step, loss: run.log(value))
    assert numbers == PLAIN
    (line,) = warned
    assert line.startswith(f"cannot log '{type(value).__name__}'")


def test_an_error_while_a_statement_is_noted(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> int:
        raise RecursionError("the source is too deep")

    monkeypatch.setattr(Journal, "statement", refused)
    numbers, warned, _ = recorded(store, use=lambda run, step, loss: run.log(a=1))
    assert numbers == PLAIN
    (line,) = warned
    assert line.startswith("stopped recording, the training goes on: the source is too deep")


# -- loops --------------------------------------------------------------------------------------------


@pytest.mark.drawn(4)
@pytest.mark.parametrize("name", ["a=b", "a/b", "x#2", "a,b", "", "\n", 3, "epoch"])
def test_a_name_that_a_loop_cannot_have(name: Any, store: Path) -> None:
    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        assert list(run.loop(name, range(2))) == [0, 1]
        for index in range(2):
            with run.iteration(name, index):
                pass

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    assert len(warned) == 1
    assert "it is called" in warned[0]
    with florlog.run("strict", store=store, strict=True) as run:
        for _ in run.loop("epoch", range(1)):
            with pytest.raises(florlog.LoopError):
                next(iter(run.loop(name, range(2))))


def test_iterations_that_are_numbered_by_data(store: Path) -> None:
    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        for index in (0, 3, 17):
            with run.iteration("batch", index):
                run.log(index=index)

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    (line,) = warned
    assert "numbered 0, 1, 2, ...: got 3 where 1 is due" in line
    with florlog.open(store) as opened:
        assert len(opened.values("index")) == 36


class Sized:
    """An iterable that fails at whatever is not needed to iterate over it."""

    def __len__(self) -> int:
        raise RuntimeError("the length is not known yet")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __iter__(self) -> Iterator[Any]:
        return iter([Strange(1), Strange(2)])


class Strange(dict[str, Any]):
    def __init__(self, number: int) -> None:
        super().__init__(number=number)

    def values(self) -> Any:
        raise RuntimeError("not to be looked through")


def test_an_iterable_that_fails_when_it_is_looked_at(store: Path) -> None:
    seen: list[int] = []
    numbers, warned, _ = recorded(
        store, use=lambda run, step, loss: seen.extend(x["number"] for x in run.loop("data", Sized()))
    )
    assert numbers == PLAIN
    assert seen == [1, 2] * 12
    (line,) = warned
    assert "what loop 'data' runs over cannot be looked at" in line


def test_errors_of_the_trainings_own_are_passed_on(store: Path) -> None:
    class OwnError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        raise OwnError

    with pytest.raises(OwnError):
        recorded(store, use=use)
    with florlog.open(store) as opened:
        assert opened.run().summary()["status"] == "failed"


# -- while it writes ----------------------------------------------------------------------------------


def await_warning(caught: list[warnings.WarningMessage], seconds: float) -> float:
    """The seconds until florlog has warned."""
    started = time.monotonic()
    while not any("no image" not in line for line in said(caught)) and time.monotonic() < started + seconds:
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("durability", ["group", "sync"])
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_store_that_vanishes_is_noticed_within_a_second(how: str, durability: str, store: Path) -> None:
    waited = []

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        if waited:
            return
        if how == "moved":
            store.rename(store.with_name("elsewhere"))
        else:
            shutil.rmtree(store)
        if how == "replaced":
            store.mkdir()
            (store / "FLORLOG").write_text("another")
        waited.append(await_warning(caught, 5))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with florlog.run("training", store=store, durability=durability) as run:  # type: ignore[arg-type]
            numbers = train(run, use)
    assert numbers == PLAIN
    assert waited[0] < 1
    (line,) = said(caught)
    assert line.startswith("stopped recording, the training goes on: the store ")
    assert "is gone: it was deleted, moved or replaced" in line


def test_a_store_that_vanishes_before_the_first_loop_is_noticed(store: Path) -> None:
    def before(run: Any) -> None:
        shutil.rmtree(store)
        time.sleep(0.5)

    numbers, warned, _ = recorded(store, before=before)
    assert numbers == PLAIN
    assert len(warned) == 1


def test_a_strict_run_ends_with_its_store(store: Path) -> None:
    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        if store.exists():
            shutil.rmtree(store)
        time.sleep(0.3)

    with pytest.raises(florlog.StoreError, match="is gone"):
        recorded(store, use=use, strict=True)
    assert threading.active_count() < 20


def test_a_disk_that_fills_is_noticed_within_a_second_and_nothing_is_lost_when_there_is_room_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = log.write_records
    waited = []

    def full(*_: Any) -> None:
        raise StoreFailed(str(store), "No space left on device")

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        if not waited:
            monkeypatch.setattr(log, "write_records", full)
            run.log(big="x" * 1000)
            with run.iteration("inner", 0):
                pass
            waited.append(await_warning(caught, 5))
        if step == 3:
            monkeypatch.setattr(log, "write_records", write)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with florlog.run("training", store=store) as run:
            numbers = train(run, use)
    assert numbers == PLAIN
    assert waited[0] < 1
    line = said(caught)[-1]  # the first one is of an image that cannot have the list of warnings
    assert len(said(caught)) <= 2
    assert "cannot be written (No space left on device)" in line
    assert "make room" in line
    with florlog.open(store) as opened:
        assert len(opened.values("loss")) == 12


def test_a_disk_that_stays_full_to_the_end(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StoreFailed(str(store), "No space left on device")

    def use(run: Any, step: int, loss: torch.Tensor) -> None:
        monkeypatch.setattr(log, "write_records", full)

    numbers, warned, _ = recorded(store, use=use)
    assert numbers == PLAIN
    # A slow training hears of it while it runs, and again when its end cannot be written either.
    assert warned
    assert all("No space left on device" in line for line in warned)
    assert "stopped recording" in warned[-1]
    assert len(warned) == 1 or (len(warned) == 2 and "cannot be written" in warned[0])


@pytest.mark.parametrize("method", ["append", "commit", "put_pages", "sync", "close"])
def test_a_store_whose_methods_fail(method: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by exceptions that nobody thought of."""
    whole = getattr(RunLog, method)

    def before(run: Any) -> None:
        def failing(self: RunLog, *arguments: Any, **named: Any) -> Any:
            if method == "close":
                whole(self)
            raise ZeroDivisionError("a mistake of florlog's own")

        monkeypatch.setattr(RunLog, method, failing)

    numbers, warned, _ = recorded(store, before=before)
    assert numbers == PLAIN
    assert all("a mistake of florlog's own" in line for line in warned)
    assert len(warned) == (2 if method == "put_pages" else 1), warned  # of images and of sources


def test_an_end_that_cannot_be_written(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise ZeroDivisionError("a mistake of florlog's own")

    monkeypatch.setattr(Journal, "end", failing)
    numbers, warned, _ = recorded(store)
    assert numbers == PLAIN
    assert len(warned) == 1
    with florlog.run("next", store=store):
        pass


# -- processes of their own ---------------------------------------------------------------------------

SCRIPT = """
import os
import sys

import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 4)
for epoch in range(3):
    loss = model(torch.randn(8, 4)).square().mean()
    loss.backward()
    print("loss", loss.item())
"""
LOGGED = """
import os
import resource
import sys
import warnings

import torch

import florlog

torch.manual_seed(0)
model = torch.nn.Linear(4, 4)
#
with florlog.run("script") as run:
    run.track(model=model)
    for epoch in run.loop("epoch", range(3)):
        loss = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        print("loss", loss.item())
        run.log(loss=loss, it=object())
"""


def python(directory: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=environment(directory / "store") | variables,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> str:
    return python(tmp_path_factory.mktemp("plain"), "-c", SCRIPT).stdout


@pytest.mark.drawn(5)
@pytest.mark.parametrize(
    ("change", "options", "warned"),
    [
        ("", ["-W", "error"], 1),
        ("warnings.showwarning = None", [], 1),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))", [], 1),
        ("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", [], 1),
        ("os.environ['RANK'], os.environ['WORLD_SIZE'] = 'x', 'y'", [], 1),
        ("sys.stderr.close()", [], 0),
        ("os.close(2)", [], 0),
    ],
    ids=[
        "warnings are errors",
        "no way to warn",
        "file size limit",
        "no directory",
        "ranks",
        "closed",
        "gone",
    ],
)
def test_a_process_in_which_something_is_wrong(
    change: str, options: list[str], warned: int, tmp_path: Path, losses: str
) -> None:
    (tmp_path / "train.py").write_text(LOGGED.replace("\n#\n", f"\n{change}\n"))
    done = python(tmp_path, *options, "train.py", FLORLOG_STORE="store")
    assert (done.returncode, done.stdout) == (0, losses), done.stderr
    assert len(re.findall("florlog: (?!images may take)", done.stderr)) == warned, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_several_ranks_with_resume_auto_begin_anew(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with florlog.run("ranks", store=tmp_path):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with florlog.run("ranks", store=tmp_path, resume="auto") as run:
            numbers = train(run)
    assert numbers == train(Plain())
    said = ["florlog: run 'ranks' begins anew: a run of 2 ranks is not resumed"]
    assert [str(warning.message) for warning in caught] == (said if rank == 0 else [])
    with florlog.open(tmp_path) as log:
        assert len(list(log.runs)) == 2 - rank
    with pytest.raises(florlog.FlorlogError, match="this is rank 0 of 2"):
        florlog.run("ranks", store=tmp_path, resume="auto", strict=True)


BROKEN_HELPER = "try:\n    import helper\nexcept SyntaxError:\n    pass\n"


@pytest.mark.drawn(4)
@pytest.mark.parametrize(
    ("script", "helper", "words"),
    [
        (SCRIPT, None, "run 'train' is not recorded, the training goes on"),
        (SCRIPT + "sys.exit(7)\n", None, "is not recorded"),
        (SCRIPT + "raise KeyError('no')\n", None, "is not recorded"),
        (BROKEN_HELPER + SCRIPT, b"print 'old'\n", "train.py is run without being recorded"),
        ("# -*- coding: latin-1 -*-\n'\xe9'\n" + SCRIPT, None, "is run without being recorded"),
        ("if:\n", None, "is run without being recorded"),
        ("import florlog\nflorlog.open('nowhere')\n", None, ""),
    ],
    ids=["store", "exit", "error", "helper", "encoding", "syntax", "florlog's error"],
)
def test_a_recorded_script_does_as_python_does(
    script: str, helper: bytes | None, words: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_bytes(script.encode("latin-1"))
    if helper is not None:
        (tmp_path / "helper.py").write_bytes(helper)
    (tmp_path / "store").write_text("in the way")
    plain = python(tmp_path, "train.py")
    done = python(tmp_path, "-m", "florlog", "record", "train.py")
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout), done.stderr
    assert words in done.stderr
    assert done.stderr.count("RuntimeWarning: florlog: ") <= 1
    assert done.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:] or not plain.stderr
    assert "During handling" not in done.stderr


UNKNOWN = {
    "lazy": "net = torch.nn.LazyLinear(2)\nnet(torch.ones(1, 3)) if epoch == 1 else None\n",
    "meta": "net = torch.nn.Linear(2, 2, device='meta')\n",
    "derived": "derived = torch.nn.Linear(2, 2)\nself = torch.nn.Linear(2, 2)\n",
}


@pytest.mark.drawn(1)
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_recorded_script_with_what_cannot_be_tracked(name: str, tmp_path: Path) -> None:
    first, rest = UNKNOWN[name].split("\n", 1)
    text = SCRIPT.replace("for epoch", f"{first}\nfor epoch")
    text += f"\n{rest}" if "epoch" not in rest else ""
    (tmp_path / "train.py").write_text(text)
    plain = python(tmp_path, "train.py")
    done = python(tmp_path, "-m", "florlog", "record", "train.py")
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
    assert bool(done.stderr.count("RuntimeWarning")) == (name == "lazy")
