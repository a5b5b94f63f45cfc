"""Compiles a script so that a replayed loop can leave the rest of an iteration's body.

A redo plan asks for parts of iterations: only the code before the second inner loop of epoch 7, say.  The
inner loop that comes after that part raises `SkipRest`, and the enclosing florlog loop must go on with its
next iteration.  An iterator cannot catch what its ``for`` body raises, so the body is wrapped:

    for epoch in run.loop("epoch", range(20)):          for epoch in run.loop("epoch", range(20)):
        BODY                                                try: BODY
                                                            except __florlog_skip__: pass

The rest depends on the replay (`Edits`):

- After the last statement that a replay asks for in a body (``exits``), a call is inserted that leaves the iteration
  when nothing more of it is planned:  ``__florlog_leave__(FILE, LINE)``.
- Each run of added statements (``added``) is put into ``with __florlog_isolated__(FILE, LINE, UNITS):``, which lets
  them draw random numbers without an effect on the recorded code, and watches what they read from outside.  The bodies
  of added functions are watched as well:  ``with __florlog_watched__(FILE, LINE, UNITS):``.
- A statement that reads what a skipped loop would have made (``may_fail``) is put into a ``try`` whose handler calls
  ``__florlog_excuse__()``, which raises again unless such a loop was skipped; a ``return`` returns None then.
- A piece that may be passed over (``pieces``) is put into ``if not __florlog_passed__(NUMBER, (OBJECT, ...)):``.
  Where the piece is not run, the call does what is left to do with these objects.

The change is made in the tree, and each new node takes the position of the code that it stands for, so
tracebacks, ``f_lineno`` and ``inspect.getsource`` show the user's file.  ``break``, ``continue``,
``return`` and ``else:`` mean what they meant.  The names are bound at the head of the module, after docstring
and ``__future__`` imports; a module without a florlog loop is compiled as it is.

Which loops are florlog's is over-approximated: a loop whose object is unknown is wrapped as well, and only
catches what florlog raises.  Not wrapped: loops in comprehensions, and iterators kept in a variable first;
`Instrumented.wrapped` says which loops can be left this way.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from florlog.source.edit.edits import Edits, Position
from florlog.source.edit.rewrite import executable
from florlog.source.edit.units import unit
from florlog.source.edit.without import without_statements
from florlog.source.names.calls import LoopCall, loop_call
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, blocks, reread

if TYPE_CHECKING:  # recording does not wait for the analysis
    from florlog.source.skip.pieces import Piece

_SKIP = "__florlog_skip__"
_LEAVE = "__florlog_leave__"
_ISOLATED = "__florlog_isolated__"
_WATCHED = "__florlog_watched__"
_EXCUSE = "__florlog_excuse__"
_PASSED = "__florlog_passed__"
CALLED_NAMES = {
    _SKIP: ("florlog.source.edit.skip_signal", "SkipRest"),
    _LEAVE: ("florlog.recording.session", "leave"),
    _EXCUSE: ("florlog.recording.session", "excuse"),
    _PASSED: ("florlog.recording.session", "passed"),
    _ISOLATED: ("florlog.programs.isolation", "Isolated"),
    _WATCHED: ("florlog.programs.isolation", "Watched"),
}
"""The names that instrumented code uses -> the module and the name that each is imported from."""
_DECLARATIONS = (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)


@dataclass(frozen=True)
class Instrumented:
    """A compiled module; ``wrapped``: the lines of the loop calls whose bodies can be left early."""

    code: CodeType
    wrapped: frozenset[int]


@dataclass(frozen=True)
class InstrumentedTree:
    """The same before it is compiled; ``used``: the `CALLED_NAMES` that must be bound where it runs."""

    tree: ast.Module
    wrapped: frozenset[int]
    used: frozenset[str]


def instrument(source: str, filename: str, edits: Edits) -> Instrumented:
    """Compiles a module's text with the bodies of its florlog loops wrapped, and with a replay's edits."""
    made = instrumented_tree(source, filename, edits)
    for name, (module, imported) in CALLED_NAMES.items():
        if name in made.used:
            _import(made.tree, module, imported, name)
    return Instrumented(compile(made.tree, filename, "exec", dont_inherit=True), made.wrapped)


def instrumented_tree(source: str, filename: str, edits: Edits) -> InstrumentedTree:
    """The tree that `instrument` compiles, without the imports at its head."""
    text = without_statements(source, edits.unasked_in(filename))
    tree = reread(ast.parse(text, filename), filename)
    used = set()
    if _let_pass(tree, edits.pieces_in(filename)):
        used.add(_PASSED)
    if _let_fail(tree, edits.may_fail_in(filename)):
        used.add(_EXCUSE)
    if added := edits.added.get(filename, frozenset()):
        used |= {
            name for name, done in ((_WATCHED, _watch), (_ISOLATED, _isolate)) if done(tree, filename, added)
        }
    wrapped = _wrap_loops(tree)
    if wrapped:
        _insert_exits(tree, filename, edits.exits_in(filename))
        used |= {_SKIP, _LEAVE}
    return InstrumentedTree(executable(tree), wrapped, frozenset(used))


@dataclass(slots=True)
class Instrumenter:
    """Instruments the files of one program with the same edits; ``files``: the compiled ones -> their wrapped loops."""

    edits: Edits = field(default_factory=Edits)
    files: dict[str, frozenset[int]] = field(default_factory=dict)

    def code(self, source: str, filename: str) -> CodeType:
        """The code of a module's text."""
        made = instrument(source, filename, self.edits)
        self.files[filename] = made.wrapped
        return made.code

    def tree(self, source: str, filename: str) -> ast.Module:
        """The tree of a module's text; where it runs, `CALLED_NAMES` must be bound."""
        made = instrumented_tree(source, filename, self.edits)
        self.files[filename] = made.wrapped
        return made.tree


def _iterated_loops(loop: ast.For | ast.AsyncFor, scopes: Scopes) -> list[LoopCall]:
    """The florlog loop calls in what a ``for`` iterates over, also inside ``enumerate(...)`` or the like."""
    calls = (loop_call(n, scopes) for n in ast.walk(loop.iter) if isinstance(n, ast.Call))
    return [call for call in calls if call is not None and call.form == "loop"]


def _wrap_loops(tree: ast.Module) -> frozenset[int]:
    """Put the bodies of florlog loops into a ``try``; the lines of these loops' calls."""
    scopes = Scopes(tree)
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.For, ast.AsyncFor)):
            continue
        calls = _iterated_loops(node, scopes)
        if calls:
            lines.update(*(call.lines for call in calls))
            node.body = [_guarded(node)]
    return frozenset(lines)


def _guarded(loop: ast.For | ast.AsyncFor) -> ast.stmt:
    handler = ast.ExceptHandler(ast.Name(_SKIP, ast.Load()), None, [ast.Pass()])
    _place_at(handler, loop.iter)  # the handler stands for the jump back to the loop's head
    return ast.copy_location(ast.Try(loop.body, [handler], [], []), loop.body[0])


class _Isolation(ast.With):
    """The ``with`` around a run of added statements, or around the body of an added function."""


def _watch(tree: ast.Module, filename: str, positions: frozenset[Position]) -> bool:
    """Put the bodies of the functions that are defined at ``positions`` into a context; whether there was one.

    Recorded code may call them, as it does a hook.  A generator is left as it is: other code runs in between.
    """
    found = False
    for node in list(ast.walk(tree)):
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or _position(node) not in positions:
            continue
        for function in [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]:
            if any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(function)):
                continue
            start = 1 if ast.get_docstring(function, clean=False) is not None else 0
            if body := function.body[start:]:
                function.body[start:] = [_within(_WATCHED, body, filename)]
                found = True
    return found


def _isolate(tree: ast.Module, filename: str, positions: frozenset[Position]) -> bool:
    """Put each run of statements at ``positions`` into a context; whether there was one that executes something."""

    def is_added(part: ast.AST) -> bool:
        return isinstance(part, ast.stmt) and _position(part) in positions and not _is_future_import(part)

    found = False
    for node in list(ast.walk(tree)) if positions else ():
        for _, block in blocks(node):
            kept: list[ast.AST] = []
            for added, run in groupby(block, key=is_added):
                statements = list(run)
                if added and not all(isinstance(part, _DECLARATIONS) for part in statements):
                    found = True
                    inside = [s for s in statements if isinstance(s, ast.stmt)]
                    statements = [_within(_ISOLATED, inside, filename)]
                kept += statements
            block[:] = kept
    return found


def _within(context: str, statements: list[ast.stmt], filename: str) -> ast.stmt:
    first = statements[0]
    units = ast.Constant(cast("Any", tuple(map(unit, statements))))  # which typeshed does not know
    call = _call(context, ast.Constant(filename), ast.Constant(first.lineno), units)
    _place_at(call, first)
    return ast.copy_location(_Isolation([ast.withitem(call)], statements), first)


def _let_pass(tree: ast.Module, pieces: Mapping[Position, tuple[int, Piece]]) -> bool:
    """Let pieces be passed over; whether there was one."""
    return _replace(tree, pieces, lambda statement: _passable(statement, *pieces[_position(statement)]))


def _passable(statement: ast.stmt, number: int, piece: Piece) -> ast.stmt:
    objects = [ast.parse(act.of, mode="eval").body for act in piece.acts]
    call = _call(_PASSED, ast.Constant(number), ast.Tuple(objects, ast.Load()))
    test = ast.UnaryOp(ast.Not(), call)
    _place_at(test, statement)
    return ast.copy_location(ast.If(test, [statement], []), statement)


def _let_fail(tree: ast.Module, positions: frozenset[Position]) -> bool:
    """Let the statements at ``positions`` fail; whether there was one."""
    return _replace(tree, positions, _excusable)


def _excusable(statement: ast.stmt) -> ast.stmt:
    body: list[ast.stmt] = [ast.Expr(_call(_EXCUSE))]
    if isinstance(statement, ast.Return):
        body.append(ast.Return())
    handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, body)
    _place_at(handler, statement)
    return ast.copy_location(ast.Try([statement], [handler], [], []), statement)


def _replace(
    tree: ast.Module, positions: Iterable[Position], replacement: Callable[[ast.stmt], ast.stmt]
) -> bool:
    """Put another statement in the place of each at ``positions``; whether there was one."""
    wanted = set(positions)
    found = False
    for node in list(ast.walk(tree)) if wanted else ():
        for _, block in blocks(node):
            for index, statement in enumerate(block):
                if isinstance(statement, ast.stmt) and _position(statement) in wanted:
                    found = True
                    block[index] = replacement(statement)
    return found


def _insert_exits(tree: ast.Module, filename: str, exits: Mapping[Position, int]) -> None:
    """Insert the call that leaves an iteration after each statement that an exit names."""
    for node in list(ast.walk(tree)) if exits else ():
        for _, block in blocks(node):
            for index in reversed(range(len(block))):
                statement = block[index]
                if not isinstance(statement, ast.stmt) or isinstance(statement, ast.Try | _Isolation):
                    continue  # these have their first statement's position
                line = exits.get(_position(statement))
                if line is not None:
                    call = ast.Expr(_call(_LEAVE, ast.Constant(filename), ast.Constant(line)))
                    _place_at(call, statement)
                    block.insert(index + 1, call)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _place_at(made: ast.AST, place: ast.AST) -> None:
    """Give a new node and all below it the position of the code that it stands for."""
    for node in ast.walk(made):
        ast.copy_location(node, place)


def _position(statement: ast.stmt) -> Position:
    return statement.lineno, statement.col_offset


def _is_future_import(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _import(tree: ast.Module, module: str, name: str, bound: str) -> None:
    """Bind a name at the head of a module, after its docstring and its imports from ``__future__``."""
    place = 0
    for statement in tree.body:
        docstring = place == 0 and ast.get_docstring(tree) is not None
        if not (_is_future_import(statement) or docstring):
            break
        place += 1
    binding = ast.ImportFrom(module, [ast.alias(name, bound)], 0)
    _place_at(binding, tree.body[max(place - 1, 0)])
    tree.body.insert(place, binding)
