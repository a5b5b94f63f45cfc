"""Wherever a signal's handler raises inside the recorder, the log is right and a resume loses nothing."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

import florlog

from .interruptions import KINDS, Interrupter, Kind, execute, points, problem

_DRAWN = 12


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_interrupted_at_any_point_of_the_recorder_a_run_can_be_read_and_resumed(
    kind: Kind, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    expected, found = points(tmp_path, kind)
    for number, (point, time) in enumerate(random.Random(seed).sample(found, _DRAWN)):
        assert not problem(tmp_path / f"{number}", kind, expected, point, time), (point, time)


class _PreemptedError(Exception):
    """What a cluster's signal means to a training."""


def test_an_exception_that_a_handler_raises_inside_an_append_reaches_the_training(tmp_path: Path) -> None:
    def preempted(number: int, frame: object) -> None:
        raise _PreemptedError

    _, found = points(tmp_path, KINDS[0])
    inside = [it for it in found if (it[0][0][0], it[0][-1][0]) == ("LogWriter.append", "Journal.append")]
    assert len(inside) > 2
    before = signal.signal(signal.SIGUSR1, preempted)
    try:
        reached = 0
        for number, (point, time) in enumerate(inside):
            store, interrupter = tmp_path / f"{number}", Interrupter(point, time, signal.SIGUSR1)
            passed_on = False
            try:
                execute(store, KINDS[0], interrupter=interrupter)
            except _PreemptedError:
                passed_on = True
            assert passed_on == interrupter.raised  # a thread that appends too may take a point away
            reached += passed_on
            with florlog.open(store) as log:
                assert not log.run().tree().problems
        assert reached > 2
    finally:
        signal.signal(signal.SIGUSR1, before)
