"""A break in a handler of KeyboardInterrupt leaves a loop that can go on; any other break ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import florlog


def _train(run: Any, error: type[BaseException] | None) -> None:
    for epoch in run.loop("epoch", range(3)):
        try:
            for step in run.loop("step", range(3)):
                if error is not None and (epoch, step) == (1, 1):
                    raise error
                run.log(step=epoch * 10 + step)
        except KeyboardInterrupt:
            break
        except ValueError:
            break
        run.log(epoch=epoch)


def _record(store: Path, error: type[BaseException] | None, resume: str = "never") -> str:
    with florlog.run("ended", store=store, overhead=float("inf"), resume=resume) as run:
        _train(run, error)
        return str(run.id)


def test_a_break_for_a_keyboard_interrupt_can_be_resumed_and_then_nothing_is_missing(tmp_path: Path) -> None:
    run = _record(tmp_path / "store", KeyboardInterrupt)
    with florlog.open(tmp_path / "store") as log:
        tree = log.run(run).tree()
        assert (tree.status, tree.problems) == ("complete", [])
        assert [(loop.count, loop.cut) for loop in tree.root.loops] == [(1, True)]
    assert _record(tmp_path / "store", None, resume=run) == run
    _record(tmp_path / "whole", None)
    with florlog.open(tmp_path / "store") as log, florlog.open(tmp_path / "whole") as whole:
        assert [(value.path, value.value) for value in log.run().logged()] == [
            (value.path, value.value) for value in whole.run().logged()
        ]


def test_a_break_for_another_exception_ends_the_loop(tmp_path: Path) -> None:
    run = _record(tmp_path / "store", ValueError)
    with florlog.open(tmp_path / "store") as log:
        assert [(loop.count, loop.cut) for loop in log.run(run).tree().root.loops] == [(2, False)]
    with pytest.raises(florlog.FlorlogError, match="complete"):
        _record(tmp_path / "store", None, resume=run)
