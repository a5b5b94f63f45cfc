"""What a process does with its program is set for a block of code, and for no longer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from florlog.program.cells import NO_NOTEBOOK, NotebookProgram
from florlog.program.process import HandsFree, Process, Role

CELLS = NotebookProgram("/home/me/notebook.cells.py", "a = 1\nb = 2\n", {"<cell 2>": 1})


@pytest.mark.parametrize(
    ("fact", "value", "setting"),
    [
        ("role", Role(), Process.in_role),
        ("notebook", CELLS, Process.standing_for_script),
        ("hands_free", HandsFree({}, {}), Process.recording_hands_free),
        ("run", object(), Process.running),
    ],
)
def test_a_fact_is_as_it_was_after_a_block_that_raises(
    fact: str, value: Any, setting: Callable[[Process, Any], AbstractContextManager[None]]
) -> None:
    process = Process()
    before = getattr(process, fact)
    with pytest.raises(ZeroDivisionError), setting(process, value):
        1 / (getattr(process, fact) is not value)
    assert getattr(process, fact) is before


def test_a_line_of_a_cell_is_found_in_the_program() -> None:
    assert CELLS.placed("<cell 2>", 1) == (CELLS.file, 2)
    assert CELLS.placed("/home/me/model.py", 1) == ("/home/me/model.py", 1)


def test_where_no_notebook_runs_no_code_and_no_variable_is_a_notebooks() -> None:
    assert NO_NOTEBOOK.placed("<cell 2>", 1) == ("<cell 2>", 1)
    assert not NO_NOTEBOOK.has_code_of("")
    assert not NO_NOTEBOOK.is_shell_variable("_")
    assert CELLS.has_code_of("<cell 2>")
    assert CELLS.is_shell_variable("_")
