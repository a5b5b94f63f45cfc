"""Running the cells of a notebook's program: the recorded one hands-free in the kernel, all of them in a replay.

Hands-free, a cell's own tree is turned before it runs (`florlog.source.edit.rewrite`).  The functions that it calls
were
defined by earlier cells, or come from local modules that are imported already, and are turned while they live: for the
duration of the run each gets the turned code in the place of its own, and its own back.  A function is turned only if
its code is what its text compiles to; one whose file was edited since stays as it is.

What turned code calls (`florlog.source.edit.instrument`) is found among the builtins meanwhile, so nothing is left
in the user's namespace.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from florlog_wal import RunBegin

from florlog.errors import FlorlogError
from florlog.program.cells import NotebookProgram
from florlog.program.environment import CELLS, is_local, is_own
from florlog.program.process import HandsFree, this_process
from florlog.programs.hands_free import KEY, Announcement, program_files, session
from florlog.programs.isolation import Isolated
from florlog.programs.scripts import LocalModuleFinder
from florlog.recording import session as _session
from florlog.source.edit.cell_text import CellPart, parts, statements_in
from florlog.source.edit.instrument import (
    EXCUSE_NAME,
    ISOLATED_NAME,
    LEAVE_NAME,
    PASSED_NAME,
    SKIP_NAME,
    instrument,
    instrumented_tree,
)
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.edit.skip_signal import SkipRest
from florlog.source.names.syntax import read_as

CodePlace = tuple[str, int, str]  # file, first line, qualified name


def record_cell(
    program: NotebookProgram,
    namespace: dict[str, Any],
    *,
    name: str,
    store: Path,
    overhead: float,
    resume: str,
) -> None:
    """Execute a program's recorded cell hands-free, with a run open around it; what it raises is raised."""
    __tracebackhide__ = True
    files = program_files(program.file, Path(program.file).parent, program.text)
    texts = {
        file: program.text if file == program.file else Path(file).read_text(encoding="utf-8")
        for file in files
    }
    choice = choose(texts)
    hands_free = HandsFree({KEY: True, "module": ""}, files)
    plain = [
        code
        for file, text in texts.items()
        for code in (
            _as_compiled(program)
            if file == program.file
            else [compile(text, file, "exec", dont_inherit=True)]
        )
    ]
    finder = LocalModuleFinder.install(lambda file: str(Path(file).absolute()) in files)
    opened = session(
        name,
        store=store,
        announce=Announcement(choice, store, texts),
        overhead=overhead,
        resume=resume,
    )
    try:
        with (
            this_process.standing_for_script(program),
            this_process.recording_hands_free(hands_free),
            read_as(reading(choice.loops)),
            _helpers(),
            _turned(plain, texts),
            opened(),
        ):
            _execute_shown(program, namespace)
    finally:
        finder.uninstall()


def run_cells(script: str, begin: RunBegin, how: Rewrite | None, text: str | None = None) -> None:
    """Run a notebook's program as ``__main__``, in the reading ``how`` of its recorded cell; a replay was commanded.

    ``text`` is run in the place of what the file holds.
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
        with this_process.standing_for_script(NotebookProgram(script, source)), _helpers():
            _run(script, source, begin, how, main)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before


def refuse_unrepeatable(begin: RunBegin) -> None:
    """Raise `FlorlogError` where the texts of a run's cells are not enough to repeat what they did."""
    if obstacle := begin.environment[CELLS]["obstacle"]:
        raise FlorlogError(
            f"run {begin.run} cannot be replayed: {obstacle}. Restart the kernel, run the cells without that, "
            "and record again"
        )


def _run(script: str, source: str, begin: RunBegin, how: Rewrite | None, main: ModuleType) -> None:
    *setup, recorded = parts(source)
    tree = ast.parse(source, script) if how else instrumented_tree(source, script)[0]
    replay = this_process.role
    assert replay is not None
    replay.taken = True  # runs of earlier cells are not the one that is replayed
    for part in setup:
        _set_up(part, _compiled(statements_in(tree, part.lines), script, source), main.__dict__)
    replay.taken = False
    if how is None:
        exec(_compiled(statements_in(tree, recorded.lines), script, source), main.__dict__)
        return
    texts = {script: source} | {
        file: Path(file).read_text(encoding="utf-8")
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str)
        and is_local(file, script)
        and not is_own(module.__name__)
    }
    # The set-up imported modules instrumented, but not turned.
    modules = [instrument(text, file).code for file, text in texts.items() if file != script]
    plain = [*_as_compiled(NotebookProgram(script, source)), *modules]
    with read_as(how), _turned(plain, texts), session(begin.name)():
        turned = instrumented_tree(source, script)[0]
        exec(_compiled(statements_in(turned, recorded.lines), script, source), main.__dict__)


def _set_up(part: CellPart, code: CodeType, namespace: dict[str, Any]) -> None:
    """Execute a cell before the recorded one; it ends as it did."""
    raised = ""
    try:
        exec(code, namespace)
    except Exception as error:
        if not part.raised:
            raise
        raised = type(error).__name__
    if raised != part.raised:
        raise FlorlogError(
            f"cell In [{part.number}], which ran before the recorded one, raised {part.raised} then and "
            f"{raised or 'nothing'} now: its effects cannot be repeated"
        )


def _display(*values: Any, **options: Any) -> None:
    """IPython's ``display``, where nobody looks."""


def _compiled(nodes: Iterable[ast.stmt], file: str, source: str) -> CodeType:
    code: CodeType = compile(ast.Module(list(nodes), []), file, "exec", _flags(source), dont_inherit=True)
    return code


def _as_compiled(program: NotebookProgram) -> Iterator[CodeType]:
    """The code of a program's cells as it may have been compiled: by statement, as IPython does, or by cell.

    That is not what the whole program compiles to: CPython looks whether a name is imported in the same module.
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


def _execute_shown(program: NotebookProgram, namespace: dict[str, Any]) -> None:
    """Execute the recorded cell; the value of an expression at its end is shown, as IPython does."""
    __tracebackhide__ = True
    tree = instrumented_tree(program.text, program.file)[0]
    nodes = list(statements_in(tree, parts(program.text)[-1].lines))
    shown = nodes.pop() if nodes and isinstance(nodes[-1], ast.Expr) else None
    exec(_compiled(nodes, program.file, program.text), namespace)
    if shown is not None:
        flags = _flags(program.text)
        code = compile(ast.Interactive([shown]), program.file, "single", flags, dont_inherit=True)
        exec(code, namespace)


@contextmanager
def _helpers() -> Iterator[None]:
    """Within, what instrumented code calls is there."""
    names = {
        SKIP_NAME: SkipRest,
        LEAVE_NAME: _session.leave,
        EXCUSE_NAME: _session.excuse,
        PASSED_NAME: _session.passed,
        ISOLATED_NAME: Isolated,
    }
    vars(builtins).update(names)
    try:
        yield
    finally:
        for name in names:
            vars(builtins).pop(name, None)


@contextmanager
def _turned(plain: Iterable[CodeType], texts: Mapping[str, str]) -> Iterator[None]:
    """Within, the living functions of a program have their turned code; the reading is in force.

    ``plain``: code as they may have it now.
    """
    had: dict[CodePlace, list[CodeType]] = {}
    for inner in _all_codes(plain):
        had.setdefault(_place(inner), []).append(inner)
    turned = _by_place(instrument(text, file).code for file, text in texts.items())
    kept: list[tuple[FunctionType, CodeType]] = []
    for function in gc.get_objects():
        if type(function) is not FunctionType:
            continue
        code = function.__code__
        file, line = this_process.notebook.placed(code.co_filename, code.co_firstlineno)
        place = file, line, code.co_qualname
        new = turned.get(place)
        if new is not None and any(_same(code, old) for old in had.get(place, ())):
            kept.append((function, code))
            function.__code__ = new
    try:
        yield
    finally:
        for function, code in kept:
            function.__code__ = code


def _by_place(codes: Iterable[CodeType]) -> dict[CodePlace, CodeType]:
    """The code of functions by their places; two at one place cannot be told apart, and neither is taken."""
    found: dict[CodePlace, CodeType] = {}
    twice: set[CodePlace] = set()
    for code in _all_codes(codes):
        if _place(code) in found:
            twice.add(_place(code))
        found[_place(code)] = code
    return {place: code for place, code in found.items() if place not in twice}


def _all_codes(codes: Iterable[CodeType]) -> Iterator[CodeType]:
    """Codes and those inside them."""
    pending = list(codes)
    while pending:
        code = pending.pop()
        pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        yield code


def _place(code: CodeType) -> CodePlace:
    return code.co_filename, code.co_firstlineno, code.co_qualname


_PARTS: tuple[Callable[[CodeType], Any], ...] = (
    lambda code: code.co_code,
    lambda code: code.co_names,
    lambda code: code.co_varnames,
    lambda code: code.co_freevars,
    lambda code: code.co_cellvars,
)


def _same(one: CodeType, other: CodeType) -> bool:
    """Whether two codes do the same, wherever they stand."""
    if any(part(one) != part(other) for part in _PARTS) or len(one.co_consts) != len(other.co_consts):
        return False
    return all(map(_same_constant, one.co_consts, other.co_consts))


def _same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return _same(one, other)
    # By repr, 0.0 is not -0.0, nor True 1; the order of a frozenset means nothing.
    return bool(one == other) if isinstance(one, frozenset) else repr(one) == repr(other)
