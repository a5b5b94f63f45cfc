"""What ran in a notebook's session, and the program that it makes.

With the extension loaded, IPython's events say of each cell how it ended and how long it took; before that, and
without it, there is IPython's input history, which has the texts alone.  Cells are taken as IPython
compiled them, after its input transformations, so lines are those of the running code.

Not seen: code that a front end executes silently, callbacks of widgets, and what a debugger does.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from florlog.errors import FlorlogError
from florlog.program.cells import NotebookProgram
from florlog.source.edit.cell_text import Cell, joined, parts

ASKING = ("replay", "explain")
_WITHOUT_EFFECT = {
    "alias", "autoreload", "colors", "conda", "config", "doctest_mode", "history", "load_ext", "ls", "lsmagic", "man",
    "matplotlib", "pdoc", "pdef", "pfile", "pinfo", "pinfo2", "pip", "precision", "psearch", "psource", "pwd",
    "reload_ext", "system", "uv", "who", "who_ls", "whos", "xmode",
}  # fmt: skip
"""Line magics that leave the namespace and the random generators alone; a replay goes without them."""
_OUTSIDE = {
    "HTML", "SVG", "bash", "html", "javascript", "js", "latex", "markdown", "perl", "ruby", "script", "sh", "svg",
    "system", "writefile",
}  # fmt: skip
"""Cell magics whose body is no code of the kernel's; the same holds for them."""


@dataclass(slots=True)
class Ran:
    """A cell that was executed, or is running."""

    raw: str
    number: int
    identity: str = ""  # the front end's name for the cell, "" where it has none
    raised: str = ""
    seconds: float = 0.0
    running: bool = False
    void: bool = False  # nothing of it was executed
    _began: float = field(default_factory=time.perf_counter)

    def ended(self, error: BaseException | None) -> None:
        """It has run."""
        self.running = False
        self.seconds = time.perf_counter() - self._began
        self.raised = "" if error is None else type(error).__name__


@dataclass(frozen=True, slots=True)
class Understood:
    """A cell's text without what IPython adds to Python; ``obstacle`` is why it cannot be repeated, "" if it can."""

    text: str
    obstacle: str = ""
    future: tuple[str, ...] = ()
    timed: bool = False  # under %%time, which compiles it under a name of its own


class History:
    """The cells of a session."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        texts = shell.history_manager.input_hist_raw
        errors = getattr(shell.history_manager, "exceptions", {})  # older versions do not keep them
        self.cells = [
            Ran(raw, number, raised=errors.get(number, {}).get("ename", ""))
            for number, raw in enumerate(texts)
            if number
        ]
        file = _running_file(shell)
        if file and not (self.cells and self._name(self.cells[-1]) == file):
            raw = "".join(linecache.getlines(file))  # not kept in the history
            self.cells.append(Ran(raw, shell.execution_count))
        if file:
            self.cells[-1].running = True

    def begins(self, info: Any) -> None:
        """IPython's event before a cell is executed."""
        # By now versions of IPython differ in whether they have counted the cell.
        hist = self.shell.history_manager.input_hist_raw
        number = len(hist) if info.store_history else self.shell.execution_count
        self.cells.append(Ran(info.raw_cell, number, str(getattr(info, "cell_id", None) or ""), running=True))

    def ends(self, result: Any) -> None:
        """IPython's event after a cell was executed."""
        for cell in reversed(self.cells):
            if cell.running:
                cell.ended(result.error_in_exec)
                cell.number = result.execution_count or cell.number
                cell.void = cell.void or result.error_before_exec is not None
                break

    @property
    def running(self) -> Ran | None:
        """The cell that is running, the innermost where cells run cells."""
        return next((cell for cell in reversed(self.cells) if cell.running), None)

    @property
    def file(self) -> str:
        """The path that stands for the session's script."""
        notebook = self.shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
        stem = Path(str(notebook)).stem or "notebook"
        return str(Path(self.shell.starting_dir, f"{stem}.cells.py").absolute())

    def program(self, last: Understood) -> NotebookProgram:
        """The program of the session with ``last`` as the recorded cell."""
        running = self.running
        cells, ids, future, seconds, obstacle = [], [], set(last.future), 0.0, last.obstacle
        names: list[tuple[str, ...]] = []
        for ran in self.cells:
            if ran.running or ran.void:
                continue
            try:
                found = understood(self.shell.transform_cell, ran.raw)
            except SyntaxError:  # it was never executed
                continue
            if found is None:
                continue
            cells.append(Cell(ran.number, found.text, ran.raised))
            ids.append(ran.identity)
            future.update(found.future)
            seconds += ran.seconds
            why = "was interrupted" if ran.raised in ("KeyboardInterrupt", "SystemExit") else found.obstacle
            if why and not obstacle:
                obstacle = f"cell In [{ran.number}] {why}"
            names.append(self._names(ran, found))
        recorded = Cell(self.shell.execution_count if running is None else running.number, last.text)
        text = joined(cells, recorded, future)
        if running is not None:
            names.append(self._names(running, last))
            ids.append(running.identity)
        offsets = {
            name: part.lines.start - 1
            for part, found_names in zip(parts(text), names, strict=False)
            for name in found_names
        }
        return NotebookProgram(self.file, text, offsets, {"obstacle": obstacle, "ids": ids}, seconds)

    def _names(self, ran: Ran, found: Understood) -> tuple[str, ...]:
        """The file names under which IPython compiled a cell."""
        return (self._name(ran), "<timed exec>") if found.timed else (self._name(ran),)

    def _name(self, ran: Ran) -> str:
        name: str = self.shell.compile.get_code_name(ran.raw, self.shell.transform_cell(ran.raw), ran.number)
        return name


def history_of(shell: Any) -> History:
    """The history of a shell: the extension's, or what IPython itself knows."""
    found: History | None = getattr(shell, "_florlog_history", None)
    return History(shell) if found is None else found


def running_program() -> NotebookProgram | None:
    """The program of the cell that is running now; None where no shell runs, or no cell that is known."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return None
    history = history_of(shell)
    if history.running is None:
        return None
    try:
        last = understood(shell.transform_cell, history.running.raw)
        return None if last is None else history.program(last)
    except (SyntaxError, FlorlogError):
        return None


def _running_file(shell: Any) -> str:
    """The file name of the cell that is running: that of the outermost module's frame in the namespace; else ""."""
    frame: FrameType | None = sys._getframe(1)
    file = ""
    while frame is not None:
        if frame.f_globals is shell.user_ns and frame.f_code.co_name == "<module>":
            file = frame.f_code.co_filename
        frame = frame.f_back
    return file


def understood(transform: Callable[[str], str], raw: str) -> Understood | None:
    """A cell as Python; None where it does nothing in the namespace.  Raises `SyntaxError`."""
    text = transform(raw)
    tree = compile(text, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    match _shell_call(tree.body[0]) if len(tree.body) == 1 else None:
        case ("run_cell_magic", ["florlog", str() as line, str() as body]):
            return None if line.split()[:1] and line.split()[0] in ASKING else understood(transform, body)
        case ("run_cell_magic", ["time", _, str() as body]):
            inner = understood(transform, body)
            return inner and Understood(inner.text, inner.obstacle, inner.future, timed=True)
        case ("run_cell_magic", [str() as magic, *_]) if magic in _OUTSIDE:
            return None
    return _without_magics(text, tree)


def _without_magics(text: str, tree: ast.Module) -> Understood:
    lines = text.split("\n")
    future: tuple[str, ...] = ()
    obstacle = ""
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            future += tuple(alias.name for alias in node.names)
        elif not _is_idle(_shell_call(node)):
            continue
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            start = node.col_offset if line == node.lineno else 0
            kept = "pass  " if line == node.lineno else ""
            lines[line - 1] = lines[line - 1][:start] + f"{kept}# {lines[line - 1][start:]}"
    left = "\n".join(lines)
    for name in ast.walk(ast.parse(left) if _is_plain(left) else tree):
        if isinstance(name, ast.Name) and name.id == "get_ipython":
            call = next((found for node in ast.walk(tree) if (found := _any_call(node, name.lineno))), "")
            obstacle = f"uses {call or 'get_ipython()'}, which a replay cannot repeat"
            break
    if not obstacle and not _is_plain(left):
        obstacle = "awaits at its top level, which a replay cannot repeat"
        left = "\n".join(f"# {line}" for line in lines)  # else the program is no Python
    return Understood(left, obstacle, future)


def _is_plain(text: str) -> bool:
    """Whether a text is Python without awaiting at its top level; raises `SyntaxError` where it is neither."""
    try:
        compile(text, "<cell>", "exec", dont_inherit=True)
    except SyntaxError:
        compile(text, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        return False
    return True


def _shell_call(node: ast.AST) -> tuple[str, list[Any]] | None:
    """The method and constant arguments of a statement ``get_ipython().method(...)``."""
    value = node.value if isinstance(node, ast.Expr) else node
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
        return None
    owner = value.func.value
    if (
        isinstance(owner, ast.Call)
        and isinstance(owner.func, ast.Name)
        and owner.func.id == "get_ipython"
        and all(isinstance(argument, ast.Constant) for argument in value.args)
    ):
        return value.func.attr, [argument.value for argument in value.args]  # type: ignore[attr-defined]
    return None


def _is_idle(call: tuple[str, list[Any]] | None) -> bool:
    match call:
        case ("run_line_magic", [str() as magic, *_]):
            return magic in _WITHOUT_EFFECT
        case ("system", _):
            return True
    return False


def _any_call(node: ast.AST, line: int) -> str:
    if getattr(node, "lineno", 0) != line:
        return ""
    match _shell_call(node):
        case ("run_line_magic", [str() as magic, *_]):
            return f"%{magic}"
        case ("run_cell_magic", [str() as magic, *_]):
            return f"%%{magic}"
    return ""
