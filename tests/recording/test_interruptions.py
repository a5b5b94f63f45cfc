"""Wherever a signal's handler raises inside the recorder, the log is right and a resume loses nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .interruptions import KINDS, Kind, points, problem

_DRAWN = 12


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_interrupted_at_any_point_of_the_recorder_a_run_can_be_read_and_resumed(
    kind: Kind, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    expected, found = points(tmp_path, kind)
    for number, (point, time) in enumerate(random.Random(seed).sample(found, _DRAWN)):
        assert not problem(tmp_path / f"{number}", kind, expected, point, time), (point, time)
