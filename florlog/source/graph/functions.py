"""The functions and loops of a program: its script and its local modules, as they are now.

A *function* here is any code that runs as a unit: the body of a module, a def, a lambda, a class body, a generator
expression.  Comprehensions count as part of the statement that contains them.  Functions are found by file and
qualified name, as frames report them; if several have the same name, the line decides.

The *body* of a florlog loop is the body of the ``for`` that iterates over it, directly or through wrappers known to be
lazy (``enumerate``, ``zip``, ``tqdm``, ...).  For ``with run.iteration(...)`` it is the body of the ``with``.  The
enclosing iteration itself never runs such a body, which makes partial replay possible; so only a certain loop
(`florlog.source.names.calls`) has a body here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from florlog.source.names.calls import LoopCall, loop_call
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, LOOPS, WITHS, blocks, children, header_parts, parse, walk

LAZY_WRAPPERS = {"enumerate", "zip", "iter", "map", "filter", "tqdm", "trange", "islice", "chain", "track"}
COMPREHENSION_SUFFIXES = (".<listcomp>", ".<setcomp>", ".<dictcomp>")


@dataclass(eq=False)
class Function:
    """A unit of code."""

    file: str
    qualname: str
    node: ast.AST
    lines: range

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]

    @cached_property
    def block(self) -> list[ast.AST]:
        """Its statements.  For a lambda or a generator expression: its parts."""
        if isinstance(self.node, ast.Lambda):
            return [self.node.body]
        if isinstance(self.node, ast.GeneratorExp):
            return [self.node.elt, *self.node.generators]
        return list(self.node.body)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class LoopCode:
    """A florlog loop of the program.  ``body`` is the statement that runs its iterations, None if unknown."""

    file: str
    call: LoopCall
    function: Function
    statement: ast.stmt | None
    body: ast.For | ast.AsyncFor | ast.With | ast.AsyncWith | None

    def __str__(self) -> str:
        return f"{self.call.name or '?'} ({self.file}:{self.call.node.lineno})"


class Code:
    """The parsed files of a program, indexed."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.trees = {file: parse(text, file) for file, text in files.items()}
        self.scopes = {file: Scopes(tree) for file, tree in self.trees.items()}
        self.functions: list[Function] = []
        self.loops: list[LoopCode] = []
        self.place: dict[ast.AST, tuple[ast.AST, str, int]] = {}  # statement -> owner, field, index
        self.function_of: dict[ast.AST, Function] = {}  # by statement
        self.function_at: dict[ast.AST, Function] = {}  # by the node that defines it
        self.looping: set[ast.AST] = set()  # for and with statements that run a certain loop's iterations
        self._by_name: dict[tuple[str, str], list[Function]] = {}
        for file, tree in self.trees.items():
            self._define(file, tree)
            self._find_loops(file)

    def function(self, file: str, qualname: str, line: int) -> Function | None:
        """The function that a frame runs; None if it is unknown or ambiguous."""
        while qualname.endswith(COMPREHENSION_SUFFIXES):
            qualname = qualname.rpartition(".")[0].removesuffix(".<locals>")
        if qualname in {suffix[1:] for suffix in COMPREHENSION_SUFFIXES}:
            qualname = "<module>"
        found = [f for f in self._by_name.get((file, qualname), ()) if line in f.lines]
        return found[0] if len(found) == 1 else None

    def loop(self, file: str, qualname: str, line: int) -> LoopCode | None:
        """The loop whose call a frame is executing; None if there is none or it is ambiguous."""
        function = self.function(file, qualname, line)
        found = [
            loop for loop in self.loops
            if loop.file == file and line in loop.call.lines and loop.function is function
        ]  # fmt: skip
        return found[0] if len(found) == 1 else None

    def statement(self, function: Function, line: int) -> ast.stmt | None:
        """The statement of a function that a frame at a line is executing; None if that is ambiguous."""
        found = [s for s in self._statements(function) if line in header_lines(s)]
        return found[0] if len(found) == 1 else None

    def enclosing(self, statement: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        """The compound statements of a function around a statement, innermost first, with the block's field."""
        while statement in self.place:
            owner, field, _ = self.place[statement]
            if owner in self.function_at:
                return
            yield owner, field
            statement = owner

    def own_loop_body(self, statement: ast.AST) -> bool:
        """Whether a statement is in the body of a certain florlog loop of its function."""
        return any(owner in self.looping and field == "body" for owner, field in self.enclosing(statement))

    def statements_below(self, block: list[ast.AST]) -> Iterator[ast.AST]:
        """The statements of a block and those nested in it, without the bodies of certain florlog loops."""
        for node in block:
            yield node
            if node in self.function_at:
                continue
            for field, inner in blocks(node):
                if not (node in self.looping and field == "body"):
                    yield from self.statements_below(inner)

    def _statements(self, function: Function) -> Iterator[ast.stmt]:
        pending = list(function.block)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.stmt):
                yield node
            if node not in self.function_at:
                for _, inner in blocks(node):
                    pending.extend(inner)

    def _define(self, file: str, node: ast.AST) -> None:
        scopes = self.scopes[file]
        qualname = scopes.inner[node].qualname if node in scopes.inner else "<module>"
        if isinstance(node, ast.Module):
            lines = range(1 << 31)
        else:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])  # type: ignore[attr-defined]
            lines = range(first, (node.end_lineno or first) + 1)  # type: ignore[attr-defined]
        function = Function(file, qualname, node, lines)
        self.functions.append(function)
        self.function_at[node] = function
        self._by_name.setdefault((file, qualname), []).append(function)
        if isinstance(node, (ast.Lambda, ast.GeneratorExp)):
            for part in function.block:
                self._index_parts(file, part, function)
        else:
            self._index_block(file, node, "body", function.block, function)

    def _index_block(
        self, file: str, owner: ast.AST, field: str, block: list[ast.AST], function: Function
    ) -> None:
        for index, node in enumerate(block):
            self.place[node] = (owner, field, index)
            self.function_of[node] = function
            for part in header_parts(node):
                self._index_parts(file, part, function)
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                self._define(file, node)
            else:
                for inner_field, inner in blocks(node):
                    self._index_block(file, node, inner_field, inner, function)

    def _index_parts(self, file: str, node: ast.AST, function: Function) -> None:
        if isinstance(node, (ast.Lambda, ast.GeneratorExp)):
            self._define(file, node)
            return
        for child in children(node):
            self._index_parts(file, child, function)

    def _find_loops(self, file: str) -> None:
        scopes = self.scopes[file]
        in_file = [n for n, f in self.function_of.items() if f.file == file]
        for node in in_file:
            iterated = set(lazy_calls(node.iter)) if isinstance(node, (ast.For, ast.AsyncFor)) else set()
            entered = {i.context_expr for i in node.items} if isinstance(node, WITHS) else set()
            for part in header_parts(node):
                for inner in walk(part):
                    call = loop_call(inner, scopes) if isinstance(inner, ast.Call) else None
                    if call is None:
                        continue
                    body = node if inner in (iterated if call.form == "loop" else entered) else None
                    if body is not None and call.certain:
                        self.looping.add(body)
                    statement = node if isinstance(node, ast.stmt) else None
                    self.loops.append(LoopCode(file, call, self.function_of[node], statement, body))  # type: ignore[arg-type]


def lazy_calls(expr: ast.expr) -> Iterator[ast.Call]:
    """The calls in an iterable whose items arrive one by one, through lazy wrappers only."""
    if isinstance(expr, ast.Call):
        yield expr
        name = expr.func.attr if isinstance(expr.func, ast.Attribute) else getattr(expr.func, "id", "")
        if name in LAZY_WRAPPERS:
            for argument in expr.args:
                yield from lazy_calls(argument)


def header_lines(statement: ast.stmt) -> range:
    """The lines of a statement without its blocks."""
    if not any(blocks(statement)):
        return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    lines = [statement.lineno]
    for part in header_parts(statement):
        for node in walk(part):
            lines += [getattr(node, "lineno", lines[0]), getattr(node, "end_lineno", None) or lines[0]]
    return range(min(lines), max(lines) + 1)


def enclosing_plain_loop(code: Code, statement: ast.AST) -> ast.AST | None:
    """The innermost ``for`` or ``while`` around a statement, if it is not itself a florlog loop."""
    for owner, field in code.enclosing(statement):
        if isinstance(owner, LOOPS) and field == "body":
            return None if owner in code.looping else owner
    return None
