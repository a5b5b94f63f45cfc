"""Compiles a script so that a replayed loop can leave the rest of an iteration's body.

A redo plan asks for parts of iterations: only the code before the second inner loop of epoch 7, say.  The
inner loop that comes after that part raises `SkipRest`, and the enclosing florlog loop must go on with its
next iteration.  An iterator cannot catch what its ``for`` body raises, so the body is wrapped:

    for epoch in run.loop("epoch", range(20)):          for epoch in run.loop("epoch", range(20)):
        BODY                                                try: BODY
                                                            except __florlog_skip__: pass

Behind the last statement that a replay asks for in a body (`leave_behind`), a call is inserted that leaves the
iteration when nothing more of it is planned:  ``__florlog_leave__(FILE, LINE)``.

Around each run of added statements (`isolate`) stands ``with __florlog_isolated__(FILE, LINE):``, which lets them draw
random numbers without the recorded code noticing.

A statement that reads what a skipped loop would have made (`excuse`) stands in a ``try`` whose handler calls
``__florlog_excuse__()``, which raises again unless such a loop was skipped; a ``return`` returns None then.

A piece that may be passed over (`pass_over`) stands in ``if not __florlog_passed__(NUMBER, (OBJECT, ...)):``, which
does what is left to do with these objects where the piece is not run.

The change is made in the tree and each new node takes the position of the code that it stands for, so
tracebacks, ``f_lineno`` and ``inspect.getsource`` show the user's file.  ``break``, ``continue``,
``return`` and ``else:`` mean what they meant.  The name is bound at the head of the module, after docstring
and ``__future__`` imports; a module without a florlog loop is compiled untouched.

Which loops are florlog's is over-approximated: a loop whose object is unknown is wrapped as well, and only
catches what florlog raises.  Not wrapped: loops in comprehensions, and iterators kept in a variable first;
`wrapped_at` tells a replayed loop whether the loop that encloses it can be left this way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import CodeType
from typing import TYPE_CHECKING, Protocol

from florlog.source.edit.skip_signal import SkipRest
from florlog.source.names.calls import LoopCall, loop_call
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, blocks, reread

if TYPE_CHECKING:  # recording does not wait for the analysis
    from florlog.source.skip.pieces import Piece

SKIP_NAME = "__florlog_skip__"
LEAVE_NAME = "__florlog_leave__"
ISOLATED_NAME = "__florlog_isolated__"
EXCUSE_NAME = "__florlog_excuse__"
PASSED_NAME = "__florlog_passed__"
DECLARATIONS = (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)

_wrapped: dict[str, frozenset[int]] = {}
_points: dict[str, dict[tuple[int, int], int]] = {}
_apart: dict[str, frozenset[tuple[int, int]]] = {}
_excused: dict[str, set[tuple[int, int]]] = {}
_pieces: dict[str, dict[tuple[int, int], tuple[int, tuple[str, ...]]]] = {}


class Leaving(Protocol):
    """Where iterations can be left: behind the statements at ``points``, which belong to that at ``line``."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def points(self) -> frozenset[tuple[int, int]]: ...


def leave_behind(exits: Iterable[Leaving]) -> None:
    """From now on, instrument files so that iterations can be left there, and nowhere else."""
    _points.clear()
    for found in exits:
        _points.setdefault(found.file, {}).update(dict.fromkeys(found.points, found.line))


def isolate(places: Mapping[str, frozenset[tuple[int, int]]]) -> None:
    """From now on, instrument files so that the statements at these lines and columns are isolated, and no others."""
    _apart.clear()
    _apart.update(places)


def excuse(places: Iterable[tuple[str, int, int]]) -> None:
    """From now on, statements at these files, lines and columns may fail behind a skipped loop, and no others."""
    _excused.clear()
    for file, line, column in places:
        _excused.setdefault(file, set()).add((line, column))


def pass_over(pieces: Iterable[Piece]) -> None:
    """From now on, instrument files so that these pieces may be passed over, numbered from 0, and no others."""
    _pieces.clear()
    for number, piece in enumerate(pieces):
        objects = tuple(act.of for act in piece.acts)
        _pieces.setdefault(piece.file, {})[piece.line, piece.column] = number, objects


@dataclass(frozen=True)
class Instrumented:
    """A compiled module and the lines of the loop calls whose bodies can be left early."""

    code: CodeType
    wrapped: frozenset[int]


def instrument(source: str, filename: str) -> Instrumented:
    """Compiles a module's text with the bodies of its florlog loops wrapped."""
    tree, wrapped, isolated, excused, passed = instrumented_tree(source, filename)
    if wrapped:
        _import(tree, SkipRest.__module__, SkipRest.__name__, SKIP_NAME)
        _import(tree, "florlog.recording.session", "leave", LEAVE_NAME)
    if excused:
        _import(tree, "florlog.recording.session", "excuse", EXCUSE_NAME)
    if passed:
        _import(tree, "florlog.recording.session", "passed", PASSED_NAME)
    if isolated:
        _import(tree, "florlog.programs.isolation", "Isolated", ISOLATED_NAME)
    code = compile(tree, filename, "exec", dont_inherit=True)
    return Instrumented(code, wrapped)


def instrumented_tree(source: str, filename: str) -> tuple[ast.Module, frozenset[int], bool, bool, bool]:
    """The tree that `instrument` compiles, without the imports at its head: with it, what makes them necessary."""
    tree = reread(ast.parse(source, filename), filename)
    passed = _pass(tree, _pieces.get(filename, {}))
    excused = _excuse(tree, _excused.get(filename, set()))
    isolated = _isolate(tree, filename, _apart.get(filename, frozenset()))
    wrapped = _wrap_loops(tree)
    if wrapped:
        _insert_leaving(tree, filename, _points.get(filename, {}))
    _wrapped[filename] = wrapped
    return tree, wrapped, isolated, excused, passed


def is_instrumented(filename: str) -> bool:
    """Whether a file's code was compiled here."""
    return filename in _wrapped


def wrapped_at(filename: str, line: int) -> bool:
    """Whether the loop called at a line of an instrumented file can be left by `SkipRest`."""
    return line in _wrapped.get(filename, ())


def iterated_loops(loop: ast.For | ast.AsyncFor, scopes: Scopes) -> list[LoopCall]:
    """The florlog loop calls in what a ``for`` iterates over, also inside ``enumerate(...)`` or the like."""
    calls = (loop_call(n, scopes) for n in ast.walk(loop.iter) if isinstance(n, ast.Call))
    return [call for call in calls if call is not None and call.form == "loop"]


def _wrap_loops(tree: ast.Module) -> frozenset[int]:
    scopes = Scopes(tree)
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.For, ast.AsyncFor)):
            continue
        calls = iterated_loops(node, scopes)
        if calls:
            lines.update(*(call.lines for call in calls))
            node.body = [_guarded(node)]
    return frozenset(lines)


def _guarded(loop: ast.For | ast.AsyncFor) -> ast.stmt:
    handler = ast.ExceptHandler(type=ast.Name(SKIP_NAME, ast.Load()), name=None, body=[ast.Pass()])
    for node in ast.walk(handler):  # the handler stands for the jump back to the loop's head
        ast.copy_location(node, loop.iter)
    guard = ast.Try(body=loop.body, handlers=[handler], orelse=[], finalbody=[])
    return ast.copy_location(guard, loop.body[0])


class _Isolator(ast.With):
    """The ``with`` around a run of added statements."""


def _isolate(tree: ast.Module, filename: str, places: frozenset[tuple[int, int]]) -> bool:
    """Put each run of statements at ``places`` in a context; whether there was one that executes something."""
    found = False
    for node in list(ast.walk(tree)) if places else ():
        for _, block in blocks(node):
            kept: list[ast.AST] = []
            for added, run in groupby(
                block, key=lambda part: _place(part) in places and not _is_future(part)
            ):
                statements = list(run)
                if added and not all(isinstance(part, DECLARATIONS) for part in statements):
                    found = True
                    statements = [_apart_from([s for s in statements if isinstance(s, ast.stmt)], filename)]
                kept += statements
            block[:] = kept
    return found


def _apart_from(statements: list[ast.stmt], filename: str) -> ast.stmt:
    first = statements[0]
    where: list[ast.expr] = [ast.Constant(filename), ast.Constant(first.lineno)]
    call = ast.Call(ast.Name(ISOLATED_NAME, ast.Load()), where, [])
    for node in ast.walk(call):
        ast.copy_location(node, first)
    return ast.copy_location(_Isolator([ast.withitem(call)], statements), first)


class _PieceSkipper(ast.If):
    """The ``if`` around a piece that may be passed over."""


def _pass(tree: ast.Module, pieces: Mapping[tuple[int, int], tuple[int, tuple[str, ...]]]) -> bool:
    """Let the statements at these places be passed over; whether there was one."""
    found = False
    for node in list(ast.walk(tree)) if pieces else ():
        for _, block in blocks(node):
            for place, statement in enumerate(block):
                if isinstance(statement, ast.stmt) and (piece := pieces.get(_place(statement))) is not None:
                    found = True
                    block[place] = _passed(statement, *piece)
    return found


def _passed(statement: ast.stmt, number: int, objects: tuple[str, ...]) -> ast.stmt:
    held = ast.Tuple([ast.parse(of, mode="eval").body for of in objects], ast.Load())
    call = ast.Call(ast.Name(PASSED_NAME, ast.Load()), [ast.Constant(number), held], [])
    test = ast.UnaryOp(ast.Not(), call)
    for node in ast.walk(test):
        ast.copy_location(node, statement)
    return ast.copy_location(_PieceSkipper(test, [statement], []), statement)


class _Excused(ast.Try):
    """The ``try`` around a statement that may fail behind a skipped loop."""


def _excuse(tree: ast.Module, places: set[tuple[int, int]]) -> bool:
    """Let the statements at ``places`` fail; whether there was one."""
    found = False
    for node in list(ast.walk(tree)) if places else ():
        for _, block in blocks(node):
            for place, statement in enumerate(block):
                if _place(statement) in places and isinstance(statement, ast.stmt):
                    found = True
                    block[place] = _failing(statement)
    return found


def _failing(statement: ast.stmt) -> ast.stmt:
    call = ast.Expr(ast.Call(ast.Name(EXCUSE_NAME, ast.Load()), [], []))
    body: list[ast.stmt] = [call, ast.Return()] if isinstance(statement, ast.Return) else [call]
    handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, body)
    for node in ast.walk(handler):
        ast.copy_location(node, statement)
    return ast.copy_location(_Excused([statement], [handler], [], []), statement)


def _place(node: ast.AST) -> tuple[int, int]:
    return (node.lineno, node.col_offset) if isinstance(node, ast.stmt) else (0, 0)


def _is_future(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _insert_leaving(tree: ast.Module, filename: str, points: dict[tuple[int, int], int]) -> None:
    for node in list(ast.walk(tree)) if points else ():
        for _, block in blocks(node):
            for place in reversed(range(len(block))):
                statement = block[place]
                if not isinstance(statement, ast.stmt) or isinstance(statement, ast.Try | _Isolator):
                    continue  # these have their first statement's position
                line = points.get((statement.lineno, statement.col_offset))
                if line is not None:
                    call = ast.Call(
                        ast.Name(LEAVE_NAME, ast.Load()), [ast.Constant(filename), ast.Constant(line)], []
                    )
                    block.insert(place + 1, _all_at(ast.Expr(call), statement))


def _all_at(made: ast.stmt, place: ast.stmt) -> ast.stmt:
    for node in ast.walk(made):
        ast.copy_location(node, place)
    return made


def _import(tree: ast.Module, module: str, name: str, bound: str) -> None:
    place = 0
    for statement in tree.body:
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        docstring = place == 0 and ast.get_docstring(tree) is not None
        if not (future or docstring):
            break
        place += 1
    alias = ast.alias(name, bound)
    binding = ast.ImportFrom(module, [alias], 0)
    for node in (binding, alias):
        ast.copy_location(node, tree.body[max(place - 1, 0)])
    tree.body.insert(place, binding)
