"""The text of a notebook's program: the cells of a session in the order in which they ran, as one Python module.

    # The cells of a notebook's session, in the order in which they ran; the last one was recorded.
    from __future__ import annotations                    (where a cell has it; else a comment)
    # %% In [1]
    import torch
    # %% In [2], raised ValueError
    ...
    # %% In [5], recorded
    for epoch in range(9): ...

So everything that reads, compares and places source gets a script like any other, and the script itself says where its
cells begin and how they ended.  A session only appends to it: a cell keeps its lines in every later program.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from florlog.errors import FlorlogError

HEAD = "# The cells of a notebook's session, in the order in which they ran; the last one was recorded."
_NO_FUTURE = "# (no cell has a future import)"
_SEPARATOR = re.compile(r"^# %% In \[(\d+)\](?:, raised (\w+)|(, recorded))?$")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Cell:
    """A cell that ran; ``raised`` is the name of the exception that ended it, "" if none did."""

    number: int
    text: str
    raised: str = ""


@dataclass(frozen=True)
class CellPart:
    """Where a cell is in a program: ``lines``, from 1; the last part of a program is the recorded cell."""

    number: int
    raised: str
    recorded: bool
    lines: range


def joined(cells: Iterable[Cell], last: Cell, future: Iterable[str] = ()) -> str:
    """The program of cells, ``last`` being the recorded one; ``future``: what cells import from ``__future__``.

    Raises `FlorlogError` where a cell has a line that looks like the head of one.
    """
    names = ", ".join(sorted(set(future)))
    text = [HEAD, f"from __future__ import {names}" if names else _NO_FUTURE]
    for cell in cells:
        text += [f"# %% In [{cell.number}]" + (f", raised {cell.raised}" if cell.raised else "")]
        text += _lines(cell.text)
    text += [f"# %% In [{last.number}], recorded", *_lines(last.text)]
    return "\n".join(text) + "\n"


def _lines(text: str) -> list[str]:
    lines = text.rstrip("\n").split("\n")
    for line in lines:
        if _SEPARATOR.match(line):
            raise FlorlogError(
                f"a cell contains the line {line!r}, which florlog uses to separate cells: change it"
            )
    return lines


def is_program(text: str) -> bool:
    """Whether a text is a program that `joined` made."""
    return text.startswith(HEAD + "\n")


def parts(text: str) -> list[CellPart]:
    """The cells of a program, in order."""
    lines = text.split("\n")
    found = [(at, match) for at, line in enumerate(lines, 1) if (match := _SEPARATOR.match(line))]
    ends = [at for at, _ in found[1:]] + [len(lines) + 1]
    return [
        CellPart(int(match[1]), match[2] or "", bool(match[3]), range(at + 1, end))
        for (at, match), end in zip(found, ends, strict=True)
    ]


def with_recorded(text: str, cell: str) -> str:
    """A program with another text for its recorded cell."""
    last = parts(text)[-1]
    return "\n".join([*text.split("\n")[: last.lines.start - 1], *_lines(cell)]) + "\n"


def executed(text: str) -> str:
    """A program without the statements before its recorded cell, except definitions; any other text as it is.

    Those statements are no part of the run: their loops and what they print are not recorded.  No line moves.
    """
    if not is_program(text):
        return text
    start = parts(text)[-1].lines.start
    lines = text.split("\n")
    for node in ast.parse(text).body:
        if node.lineno < start and not isinstance(node, _DEFINITIONS):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[line - 1] = ""
    return "\n".join(lines)


def statements_in(tree: ast.Module, lines: range) -> Iterator[ast.stmt]:
    """The statements of a program's tree that begin on ``lines``."""
    return (node for node in tree.body if node.lineno in lines)
