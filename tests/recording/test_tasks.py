"""Loops in coroutines and threads: those of one task nest, those of two that take turns do not."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch

import florlog
from florlog.source.edit.loop_choice import choose


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """One step of a training; its loss."""
    loss = model(torch.ones(4, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


async def train(run: Any, name: str) -> list[float]:
    """A training that gives way to others in each step; its losses."""
    torch.manual_seed(3)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in run.loop(name, range(3)):
        for index in run.loop(f"{name} step", range(4)):
            losses.append(step(model, optimizer))
            await asyncio.sleep(0)
            with run.iteration(f"{name} part", 0):
                await asyncio.sleep(0)
            run.log(index=index)
    return losses


def recorded(store: Path, main: Callable[[Any], Coroutine[Any, Any, Any]]) -> tuple[Any, list[str]]:
    """What a coroutine returns that is given a run, and the warnings."""

    async def whole() -> Any:
        with florlog.run("tasks", store=store, overhead=float("inf")) as run:
            return await main(run)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = asyncio.run(whole())
    return found, [str(warning.message) for warning in caught]


def iterations(store: Path) -> dict[str, int]:
    """How many iterations a store's run has, by the innermost loop."""
    with florlog.open(store) as log:
        return dict(Counter(list(iteration["path"])[-1] for iteration in log.iterations()))


A = {"a": 3, "a step": 12, "a part": 12}


def test_loops_of_a_coroutine_nest(tmp_path: Path) -> None:
    losses, said = recorded(tmp_path, lambda run: train(run, "a"))
    assert len(losses) == 12
    assert not said
    assert iterations(tmp_path) == A


def test_of_two_tasks_that_take_turns_one_is_recorded(tmp_path: Path) -> None:
    async def both(run: Any) -> list[list[float]]:
        return await asyncio.gather(train(run, "a"), train(run, "b"))

    (one, other), said = recorded(tmp_path / "both", both)
    alone, _ = recorded(tmp_path / "alone", lambda run: train(run, "a"))
    assert one == other == alone
    text = "loop 'b' runs in another task or thread than loop 'a', which is open; its iterations are not recorded"
    assert sum(text in line for line in said) == 1
    assert sum("no images are taken while train() (test_tasks.py" in line for line in said) == 1
    assert iterations(tmp_path / "both") == A


def test_loops_of_two_threads_do_not_mix(tmp_path: Path) -> None:
    def body(run: Any, name: str, meet: threading.Barrier) -> None:
        for _ in run.loop(name, range(3)):
            meet.wait(20)
            meet.wait(20)

    def both() -> None:
        meet = threading.Barrier(2)
        with florlog.run("threads", store=tmp_path) as run:
            threads = [threading.Thread(target=body, args=(run, name, meet)) for name in ("a", "b")]
            threads[0].start()
            while not run.open_loops:
                pass
            threads[1].start()
            for thread in threads:
                thread.join()

    with pytest.warns(RuntimeWarning, match="runs in another task or thread"):
        both()
    assert iterations(tmp_path) == {"a": 3}


def test_tasks_after_one_another_are_all_recorded(tmp_path: Path) -> None:
    with florlog.run("phases", store=tmp_path) as run:
        for index in range(2):
            with run.iteration("outside", index):
                asyncio.run(train(run, "a"))
        asyncio.run(train(run, "b"))
    assert iterations(tmp_path) == {
        "outside": 2,
        "a": 6,
        "a step": 24,
        "a part": 24,
        "b": 3,
        "b step": 12,
        "b part": 12,
    }


def test_a_loop_that_awaits_is_taken_hands_free() -> None:
    text = (
        "async def main():\n"
        "    for step in range(3):\n        await fetch()\n        loss.backward()\n"
        "    async for x in batches():\n        loss.backward()\n"
    )
    choice = choose({"train.py": text})
    assert choice.loops == {"train.py": {2: "step"}}
    assert choice.not_taken == ("train.py:5 is asynchronous",)
