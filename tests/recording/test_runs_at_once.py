"""A process records one run at a time: what is opened beside it goes on without a log, and nothing of it is in that."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import florlog


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLORLOG_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def train(name: str, epochs: int = 3) -> None:
    with florlog.run(name) as run:
        for epoch in run.loop("epoch", range(epochs)):
            florlog.log(who=name)
            for _ in florlog.loop("step", range(2)):
                run.log(epoch=epoch)


def recorded(store: Path) -> dict[str, list[str]]:
    """The runs, by name, with what each logged as ``who``."""
    with florlog.open(store) as log:
        return {
            run.id.partition("-")[0]: [value.value for value in run.logged() if value.name == "who"]
            for run in log.runs
        }


@pytest.mark.filterwarnings("ignore:florlog")
def test_threads_log_into_no_other_thread_s_run(store: Path) -> None:
    both = threading.Barrier(2)

    def trained(name: str) -> str:
        with florlog.run(name) as run:
            both.wait(10)
            for _ in run.loop("epoch", range(20)):
                florlog.log(who=name)
        return name

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(trained, ["one", "other"])) == ["one", "other"]
    ((name, values),) = recorded(store).items()
    assert values == [name] * 20


def test_tasks_too(store: Path) -> None:
    async def trained(name: str) -> None:
        with florlog.run(name) as run:
            for _ in run.loop("epoch", range(3)):
                await asyncio.sleep(0)
                florlog.log(who=name)

    async def both() -> None:
        await asyncio.gather(trained("one"), trained("other"))

    with pytest.warns(match="run 'other' is not recorded, the training goes on: run 'one' is still open"):
        asyncio.run(both())
    assert recorded(store) == {"one": ["one"] * 3}


def test_a_run_in_a_run_is_not_recorded_and_the_one_after_it_is(store: Path) -> None:
    with florlog.run("outer") as run:
        for _ in run.loop("epoch", range(1)):
            florlog.log(who="outer")
            with pytest.warns(match="run 'inner' is not recorded"):
                train("inner")
            florlog.log(who="outer")
    train("next")
    assert recorded(store) == {"outer": ["outer"] * 2, "next": ["next"] * 3}


def test_what_was_asked_for_is_an_error(store: Path) -> None:
    with florlog.run("first") as first:
        for asked in ({"strict": True}, {"resume": first.id}):
            with pytest.raises(florlog.FlorlogError, match="run 'first' is still open: close it before"):
                florlog.run("second", **asked)  # type: ignore[arg-type]


def test_a_run_that_could_not_be_opened_is_not_open(store: Path) -> None:
    for wrong in ({"resume": "no-such-run"}, {"strict": True, "store": os.devnull}):
        with pytest.raises(florlog.FlorlogError):
            florlog.run("refused", **wrong)  # type: ignore[arg-type]
    train("after")
    assert recorded(store) == {"after": ["after"] * 3}


def test_a_child_that_is_forked_beside_a_run_trains_without_a_log(store: Path) -> None:
    fork = multiprocessing.get_context("fork")
    with florlog.run("parent") as run:
        for _ in run.loop("epoch", range(2)):
            florlog.log(who="parent")
            child = fork.Process(target=train, args=("child",))
            child.start()
            child.join(20)
            assert child.exitcode == 0
    assert recorded(store) == {"parent": ["parent"] * 2}
