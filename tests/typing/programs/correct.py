"""A program that uses the public interface as the documentation says: mypy finds no error in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pandas as pd
import torch

import florlog
from florlog import FlorlogError, NoRunError, Run, RunView


def batches() -> Iterator[tuple[torch.Tensor, int]]:
    yield torch.zeros(2), 1


def train(store: Path) -> str:
    model = torch.nn.Linear(2, 1)
    with florlog.run(
        "digits", store=store, params={"lr": 1e-3}, max_redo="5min", budget=10_000, audit=False
    ) as run:
        assert_type(run, Run)
        run.track(model=model, names=["a"])
        for epoch in run.loop("epoch", range(3)):
            assert_type(epoch, int)
            for item, label in run.loop("step", batches()):
                assert_type(item, torch.Tensor)
                assert_type(label, int)
                assert_type(run.log(loss=item.sum(), label=label), None)
            for number, word in florlog.loop("word", enumerate(["a", "b"])):
                assert_type((number, word), tuple[int, str])
        with run.iteration("extra", 0):
            florlog.log(done=True)
        with florlog.iteration("more", 0):
            florlog.track(model=model, derived={"cache": list})
    assert_type(run.id, str)
    return run.id


def read(store: Path, run_id: str) -> None:
    with florlog.open(store) as log:
        assert_type(log, florlog.Log)
        assert_type(log.runs, list[RunView])
        view = log.run(run_id)
        assert_type(view.id, str)
        assert_type(view.params, dict[str, Any])
        assert_type(view.values("loss"), pd.DataFrame)
        assert_type(log.sql("select count(*) from runs"), pd.DataFrame)
        for iteration in view.iterations():
            assert_type(iteration, dict[str, Any])
        for value in view.logged():
            assert_type((value.name, value.trust), tuple[str, str])
            assert_type(value.path, tuple[tuple[str, int], ...])
        state = view.state_at(epoch=2, at="end")
        assert_type(state.trust, str)
        assert_type(state.redone, int)
        assert_type(state["model"], Any)


def mistakes_are_told_apart() -> list[str]:
    try:
        florlog.log(loss=1)
    except NoRunError as error:
        assert_type(error, florlog.NoRunError)
        return [str(error)]
    except florlog.SourceChangedError as error:
        assert_type(error.changes, tuple[str, ...])
        return list(error.changes)
    except FlorlogError as error:
        return [str(error)]
    return []


class Vocabulary:
    def __init__(self, words: list[str]) -> None:
        self.words = words


florlog.register(Vocabulary, lambda known: known.words, Vocabulary)
