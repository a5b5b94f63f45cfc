"""Running the cells of a notebook's program: the recorded one hands-free in the kernel, all of them in a replay.

Hands-free, a cell's own tree is rewritten before it runs (`florlog.source.edit.rewrite`), and the functions that exist
already have rewritten code for the duration of the run (`florlog.programs.live_functions`).

The names that instrumented code uses (`florlog.source.edit.instrument`) are builtins meanwhile, so nothing is left
in the user's namespace.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from florlog_wal import RunBegin

from florlog.errors import FlorlogError
from florlog.program.cells import NotebookProgram
from florlog.program.environment import CELLS, HANDS_FREE, is_local, is_own
from florlog.program.process import HandsFree, this_process
from florlog.programs.announcement import Announcement
from florlog.programs.finders import LocalModuleFinder
from florlog.programs.hands_free import open_around
from florlog.programs.live_functions import functions_replaced
from florlog.programs.program_files import program_files
from florlog.recording.roles import Replay
from florlog.source.edit.cell_text import CellPart, parts, statements_in
from florlog.source.edit.instrument import CALLED_NAMES, Instrumenter, instrument
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.names.syntax import read_as


def record_cell(
    program: NotebookProgram,
    namespace: dict[str, Any],
    *,
    name: str,
    store: Path,
    overhead: float,
    resume: str,
) -> None:
    """Execute a program's recorded cell in ``namespace``, hands-free, with a run open around it.

    ``name``, ``store``, ``overhead`` and ``resume`` are those of `florlog.run`.  What the cell raises is raised.
    """
    __tracebackhide__ = True
    files = program_files(program.file, Path(program.file).parent, program.text)
    texts = {
        file: program.text if file == program.file else Path(file).read_text(encoding="utf-8")
        for file in files
    }
    choice = choose(texts)
    hands_free = HandsFree({HANDS_FREE: True, "module": ""}, files)
    plain = [
        code
        for file, text in texts.items()
        for code in (
            _as_compiled(program)
            if file == program.file
            else [compile(text, file, "exec", dont_inherit=True)]
        )
    ]
    instrumenter = Instrumenter()
    opened = open_around(
        name,
        store=store,
        announce=Announcement(choice, store, texts, {}),
        overhead=overhead,
        resume=resume,
    )
    with (
        this_process.standing_for_script(program),
        this_process.recording_hands_free(hands_free),
        LocalModuleFinder(files, instrumenter),
        read_as(reading(choice.loops)),
        _called_names_bound(),
    ):
        rewritten = [instrumenter.code(text, file) for file, text in texts.items()]
        with functions_replaced(plain, rewritten), opened():
            _execute_shown(program, instrumenter, namespace)


def replay_cells(
    script: str,
    begin: RunBegin,
    instrumenter: Instrumenter,
    rewrite: Rewrite | None,
    text: str | None = None,
) -> None:
    """Run a notebook's program as ``__main__``; a replay was commanded.

    ``rewrite`` is how its recorded cell was rewritten for the recording, None where that cell opened the run itself.
    ``text`` is run in the place of what the file holds.  Raises `FlorlogError` where the cells cannot be repeated.
    """
    refuse_unrepeatable(begin)
    source = Path(script).read_text(encoding="utf-8") if text is None else text
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, display=_display)
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    sys.argv = ["", *begin.argv]
    sys.path.insert(0, str(Path.cwd()))
    sys.modules["__main__"] = main
    try:
        with this_process.standing_for_script(NotebookProgram(script, source)), _called_names_bound():
            _run_cells(script, source, begin, instrumenter, rewrite, main)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before


def refuse_unrepeatable(begin: RunBegin) -> None:
    """Raise `FlorlogError` where the texts of a run's cells are not enough to repeat what they did."""
    if obstacle := begin.environment[CELLS]["obstacle"]:
        raise FlorlogError(
            f"run {begin.run} cannot be replayed: {obstacle}. Restart the kernel, run the cells without that, "
            "and record again"
        )


def _run_cells(
    script: str,
    source: str,
    begin: RunBegin,
    instrumenter: Instrumenter,
    rewrite: Rewrite | None,
    main: ModuleType,
) -> None:
    *setup, recorded = parts(source)
    tree = ast.parse(source, script) if rewrite else instrumenter.tree(source, script)
    replay = this_process.role
    assert isinstance(replay, Replay)
    replay.taken = True  # runs of earlier cells are not the one that is replayed
    for part in setup:
        _set_up(part, _compiled(statements_in(tree, part.lines), script, source), main.__dict__)
    replay.taken = False
    this_process.opened.forget()
    if rewrite is None:
        exec(_compiled(statements_in(tree, recorded.lines), script, source), main.__dict__)
        return
    texts = {
        file: Path(file).read_text(encoding="utf-8")
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str)
        and file != script
        and is_local(file, script)
        and not is_own(module.__name__)
    }
    # The set-up imported modules that were instrumented, but not rewritten.
    modules = [instrument(text, file, instrumenter.edits).code for file, text in texts.items()]
    plain = [*_as_compiled(NotebookProgram(script, source)), *modules]
    with read_as(rewrite):
        texts[script] = source
        rewritten = [instrumenter.code(text, file) for file, text in texts.items()]
        with functions_replaced(plain, rewritten), open_around(begin.name)():
            tree = instrumenter.tree(source, script)
            exec(_compiled(statements_in(tree, recorded.lines), script, source), main.__dict__)


def _set_up(part: CellPart, code: CodeType, namespace: dict[str, Any]) -> None:
    """Execute a cell before the recorded one.  Raises `FlorlogError` unless it ends as it did in the notebook."""
    raised = ""
    try:
        exec(code, namespace)
    except Exception as error:
        if not part.raised:
            raise
        raised = type(error).__name__
    if raised != part.raised:
        raise FlorlogError(
            f"cell In [{part.number}], which ran before the recorded one, raised {part.raised} in the notebook and "
            f"raises {raised or 'nothing'} in the replay: its effects cannot be repeated"
        )


def _display(*values: Any, **options: Any) -> None:
    """IPython's ``display`` in a replay, which shows nothing."""


def _compiled(nodes: Iterable[ast.stmt], file: str, source: str) -> CodeType:
    code: CodeType = compile(ast.Module(list(nodes), []), file, "exec", _flags(source), dont_inherit=True)
    return code


def _as_compiled(program: NotebookProgram) -> Iterator[CodeType]:
    """The code of a program's earlier cells as it may have been compiled: by statement, as IPython does, or by cell.

    The whole program compiles to other code: CPython looks whether a name is imported in the same module.
    """
    tree = ast.parse(program.text, program.file)
    for part in parts(program.text)[:-1]:
        nodes = list(statements_in(tree, part.lines))
        for statement in nodes:
            yield _compiled([statement], program.file, program.text)
        yield _compiled(nodes, program.file, program.text)


def _flags(source: str) -> int:
    """Compiler flags of the future imports at a program's head, which hold for all its cells."""
    head = source.split("\n", 2)[1]
    names = [
        alias.name
        for node in ast.parse(head).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return sum(getattr(__future__, name).compiler_flag for name in names)


def _execute_shown(program: NotebookProgram, instrumenter: Instrumenter, namespace: dict[str, Any]) -> None:
    """Execute the recorded cell; the value of an expression at its end is shown, as IPython does."""
    __tracebackhide__ = True
    tree = instrumenter.tree(program.text, program.file)
    nodes = list(statements_in(tree, parts(program.text)[-1].lines))
    shown = nodes.pop() if nodes and isinstance(nodes[-1], ast.Expr) else None
    exec(_compiled(nodes, program.file, program.text), namespace)
    if shown is not None:
        flags = _flags(program.text)
        code = compile(ast.Interactive([shown]), program.file, "single", flags, dont_inherit=True)
        exec(code, namespace)


@contextmanager
def _called_names_bound() -> Iterator[None]:
    """Inside the block, the names that instrumented code uses are builtins."""
    names = {
        name: getattr(importlib.import_module(module), imported)
        for name, (module, imported) in CALLED_NAMES.items()
    }
    vars(builtins).update(names)
    try:
        yield
    finally:
        for name in names:
            vars(builtins).pop(name, None)
