"""The notebook's program that is being recorded or replayed, if one is.

A notebook has no script file.  While a run is open in one, this module holds the text that stands for the script
(`florlog.source.edit.cell_text`), under a path at which there is no file, and tells where in it the code of each
cell is: IPython compiles every cell under a file name of its own.  It knows nothing of IPython.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

_SHELL = re.compile(r"_+|_i+|_i?\d+|In|Out|_dh|_oh|_ih|exit|quit|get_ipython|display")


@dataclass(frozen=True)
class NotebookProgram:
    """A notebook's program: the path that it goes by, its text, the lines before each cell's code in it."""

    file: str
    text: str
    offsets: Mapping[str, int] = field(default_factory=dict)  # file name of a cell's code -> lines before it
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is kept of it with the run
    seconds: float = 0.0  # that the cells before the recorded one took


current: NotebookProgram | None = None


def begin(program: NotebookProgram) -> None:
    """From now on, ``program`` is what stands for the script."""
    global current
    linecache.cache[program.file] = (
        len(program.text),
        None,
        program.text.splitlines(keepends=True),
        program.file,
    )
    current = program


def end() -> None:
    """No notebook's program is running any more."""
    global current
    current = None


def script() -> str:
    """The path that stands for the script's, "" outside a notebook."""
    return "" if current is None else current.file


def placed(file: str, line: int) -> tuple[str, int]:
    """Where a line of a cell's code is in the program; a line of another file as it is."""
    if current is None or (offset := current.offsets.get(file)) is None:
        return file, line
    return current.file, line + offset


def first_line(code: CodeType) -> int:
    """Where code begins, in the program if it is a cell's; a module's code begins at 1."""
    return 1 if code.co_qualname == "<module>" else placed(code.co_filename, code.co_firstlineno)[1]


def is_cell(file: str) -> bool:
    """Whether a file name is that of a cell's code."""
    return current is not None and (file == current.file or file in current.offsets)


def is_shells(name: str) -> bool:
    """Whether a variable of the notebook is the shell's own."""
    return current is not None and _SHELL.fullmatch(name) is not None
