"""What a run's first record says about its program decides how that is executed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import RunBegin

from florlog.errors import FlorlogError
from florlog.program.environment import CELLS, HANDS_FREE
from florlog.programs.kinds import HandsFreeScript, NotebookCells, OwnRunScript, kind_of, recorded_rewrite

BEGIN = RunBegin("r-1", "r", "record", "/r.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)
FACTS = {"obstacle": "", "ids": []}
TEXTS = {"/r.py": "for epoch in range(3):\n    step()\n"}


@pytest.mark.parametrize(("environment", "kind", "rewritten"), [
    ({}, OwnRunScript, False),
    ({HANDS_FREE: True, "module": ""}, HandsFreeScript, True),
    ({CELLS: FACTS}, NotebookCells, False),
    ({CELLS: FACTS, HANDS_FREE: True, "module": ""}, NotebookCells, True),
])  # fmt: skip
def test_a_program_is_of_one_kind_and_may_have_been_rewritten(
    environment: dict[str, Any], kind: type, rewritten: bool
) -> None:
    begin = replace(BEGIN, environment=environment)
    assert type(kind_of(begin)) is kind
    assert (recorded_rewrite(begin, TEXTS) is not None) is rewritten


def test_a_run_of_a_notebook_is_not_resumed_from_a_script(tmp_path: Path) -> None:
    begin = replace(BEGIN, environment={CELLS: FACTS, HANDS_FREE: True, "module": ""})
    with pytest.raises(FlorlogError, match=r"r-1 was recorded in a notebook: resume it there"):
        kind_of(begin).resume("/r.py", [], tmp_path)
