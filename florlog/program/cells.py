"""The program of a notebook, which has no script file.

While a run is open in a notebook, a text stands for the script (`florlog.source.edit.cell_text`), under a path at
which there is no file.  IPython compiles every cell under a file name of its own; a `NotebookProgram` says where in
the text the code of each cell is.  It knows nothing of IPython.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

_SHELL_VARIABLE = re.compile(r"_+|_i+|_i?\d+|In|Out|_dh|_oh|_ih|exit|quit|get_ipython|display")


@functools.cache
def absolute(file: str) -> str:
    """The absolute path of a module's file, in the working directory of the first call: `runpy` leaves it relative.

    What is no file stays as it is: ``torch.ops`` says that it lies in ``_ops.py``.
    """
    if file.startswith(os.sep):
        return file
    try:
        return str(Path(file).absolute()) if file.endswith(".py") and Path(file).exists() else file
    except OSError:  # the working directory was removed
        return file


@dataclass(frozen=True)
class NotebookProgram:
    """A notebook's program."""

    file: str
    """The path that it goes by; "" where no notebook runs (`NO_NOTEBOOK`)."""
    text: str
    offsets: Mapping[str, int] = field(default_factory=dict)
    """File name of a cell's code -> lines before it in the text."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the run's environment contains of it."""
    seconds: float = 0.0
    """What the cells before the recorded one took."""

    def placed(self, file: str, line: int) -> tuple[str, int]:
        """Where a line of a cell's code is in the program; a line of another file as it is, with an absolute path."""
        offset = self.offsets.get(file)
        return (absolute(file), line) if offset is None else (self.file, line + offset)

    def first_line(self, code: CodeType) -> int:
        """Where code begins, in the program if it is a cell's; a module's code begins at 1."""
        return 1 if code.co_qualname == "<module>" else self.placed(code.co_filename, code.co_firstlineno)[1]

    def has_code_of(self, file: str) -> bool:
        """Whether a file name is that of a cell's code."""
        return bool(self.file) and (file == self.file or file in self.offsets)

    def is_shell_variable(self, name: str) -> bool:
        """Whether a variable of the notebook is the shell's own."""
        return bool(self.file) and _SHELL_VARIABLE.fullmatch(name) is not None


NO_NOTEBOOK = NotebookProgram("", "")
"""The program of a process in which no notebook runs: it has no code, and no variable is the shell's."""
