"""Puts statements of one version of a file into another version of it.

The versions are aligned as trees (`florlog.source.diff.alignment`).  A statement follows its neighbours: it goes after
the counterpart of the statement before it or, if that has none, before the counterpart of the statement after it.  It
goes into the block whose owner is the counterpart of its own block's owner.  Neighbours without a counterpart do not
matter.

A statement is refused if its block has no counterpart, if none of its neighbours has one, and if it reads a name that
the other version binds nowhere.  FlorDB (Garcia et al., "Multiversion Hindsight Logging for Continuous Training",
2023) does the same with GumTree's matching; here the matching is the one that also finds the added statements.

The text of the other version is kept line by line.  The new statements are printed from their trees.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from florlog.source.diff.alignment import DEFINITIONS, Alignment, paired_blocks
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import blocks, one_line, own_nodes


class CannotPlaceError(Exception):
    """A statement has no place in a version.  The message is the reason."""


@dataclass(frozen=True)
class Placed:
    """A version with statements put into it, and the line on which each of them begins, in the given order."""

    text: str
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """A statement to put in, by its line in its own version.  ``names``: put in only these keywords of a log call."""

    line: int
    names: tuple[str, ...] = ()


def needed(tree: ast.Module, wanted: set[ast.stmt], others: set[ast.stmt]) -> set[ast.stmt]:
    """Those of ``others`` that bind names which the wanted statements read, directly or through each other."""
    taken = set(wanted)
    while True:
        reads = {n.id for s in taken for n in ast.walk(s) if isinstance(n, ast.Name)}
        more = {s for s in others - taken if _bound_by(s) & reads}
        if not more:
            return taken - wanted
        taken |= more


def place(old: ast.Module, text: str, new: ast.Module, wanted: Iterable[Wanted], file: str) -> Placed:
    """Put statements of ``new`` into the version ``old``, whose text is ``text``.  Raises `CannotPlaceError`."""
    placement = _Placement(old, text, new, file)
    return placement.result([placement.insertion(item) for item in wanted])


def statement_at(tree: ast.Module, line: int) -> ast.stmt:
    """The outermost statement that begins on a line."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno == line]
    return min(found, key=lambda node: node.col_offset)


@dataclass(frozen=True)
class _Insertion:
    line: int  # the line of the old text before which it goes
    indent: str
    node: ast.stmt


class _Placement:
    def __init__(self, old: ast.Module, text: str, new: ast.Module, file: str) -> None:
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._new = new
        self._file = file
        self._counterpart: dict[ast.AST, ast.AST] = {new: old}
        self._alignment = Alignment(old, new, Scopes(new))
        self._pair(old, new)
        self._block: dict[ast.AST, tuple[ast.AST, list[ast.AST]]] = {}  # statement -> owner and block
        for tree in (old, new):
            for owner in ast.walk(tree):
                for _, block in blocks(owner):
                    for node in block:
                        self._block[node] = (owner, block)

    def _pair(self, old: ast.AST, new: ast.AST) -> None:
        for before, after in paired_blocks(old, new):
            for there, here in self._alignment.align(before, after)[1]:
                if there is not None and here is not None:
                    self._counterpart[here] = there
                    self._pair(there, here)

    def insertion(self, wanted: Wanted) -> _Insertion:
        """Where a statement goes.  Raises `CannotPlaceError`."""
        node = statement_at(self._new, wanted.line)
        if wanted.names:
            return self._after_counterpart(self._only(node, wanted.names), node)
        owner, block = self._block[node]
        if owner not in self._counterpart:
            raise CannotPlaceError(
                f"the code around it has no counterpart in {self._file}: `{one_line(owner)}`"
            )
        place = block.index(node)
        home = self._counterpart[owner]
        # (neighbour, whether the statement goes after it), the nearest first on each side
        near = [*((n, True) for n in block[:place][::-1]), *((n, False) for n in block[place + 1 :])]
        found = [(self._counterpart[n], after) for n, after in near if self._is_in(home, n)]
        if not found:
            raise CannotPlaceError(
                f"{self._file} has none of its neighbours in `{one_line(home) or 'the module'}`"
            )
        direct = [near[0], next((n for n in near if not n[1]), near[0])]
        chosen = next(
            ((self._counterpart[n], after) for n, after in direct if self._is_in(home, n)), found[0]
        )
        return self._at(*chosen, node)

    def _is_in(self, home: ast.AST, node: ast.AST) -> bool:
        counterpart = self._counterpart.get(node)
        return counterpart is not None and self._block[counterpart][0] is home

    def _after_counterpart(self, made: ast.stmt, node: ast.stmt) -> _Insertion:
        if node not in self._counterpart:
            raise CannotPlaceError(f"`{one_line(node)}` has no counterpart in {self._file}")
        return self._at(self._counterpart[node], True, made)

    @staticmethod
    def _only(node: ast.stmt, names: tuple[str, ...]) -> ast.stmt:
        assert isinstance(node, ast.Expr)
        assert isinstance(node.value, ast.Call)
        keywords = [k for k in node.value.keywords if (k.arg or "*") in names]
        return ast.Expr(ast.Call(node.value.func, [], keywords))

    def _at(self, anchor: ast.AST, after: bool, node: ast.stmt) -> _Insertion:
        first, last = _first_line(anchor), anchor.end_lineno  # type: ignore[attr-defined]
        for other in self._block[anchor][1]:
            shared = last if after else first
            if other is not anchor and _first_line(other) <= shared <= (other.end_lineno or 0):  # type: ignore[attr-defined]
                raise CannotPlaceError(f"line {shared} of {self._file} has more than one statement")
        line = self._lines[first - 1]
        indent = line[: len(line) - len(line.lstrip())]
        owner = self._block[anchor][0]
        if not isinstance(owner, ast.Module) and len(indent) <= _indent_of(owner):
            raise CannotPlaceError(f"line {first} of {self._file} has more than one statement")
        return _Insertion(last + 1 if after else first, indent, node)

    def result(self, insertions: list[_Insertion]) -> Placed:
        """The text with all insertions.  Raises `CannotPlaceError` for a name that is not bound."""
        lines: dict[int, list[tuple[int, str]]] = {}
        for number, item in enumerate(insertions):
            text = "".join(f"{item.indent}{line}\n" for line in ast.unparse(item.node).splitlines())
            lines.setdefault(item.line, []).append((number, text))
        made: list[str] = []
        begins = [0] * len(insertions)
        for at in range(1, len(self._lines) + 2):
            for number, text in lines.get(at, ()):
                if made and not made[-1].endswith("\n"):
                    made[-1] += "\n"
                begins[number] = sum(part.count("\n") for part in made) + 1
                made.append(text)
            if at <= len(self._lines):
                made.append(self._lines[at - 1])
        whole = "".join(made)
        self._check_names(whole, [(b, n.node) for b, n in zip(begins, insertions, strict=True)])
        return Placed(whole, tuple(begins))

    def _check_names(self, text: str, placed: Iterable[tuple[int, ast.stmt]]) -> None:
        tree = ast.parse(text)
        scopes = Scopes(tree)
        for line, _ in placed:
            for node in ast.walk(statement_at(tree, line)):
                if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
                    continue
                if scopes.of[node].holder(node.id) is None and not hasattr(builtins, node.id):
                    raise CannotPlaceError(f"it reads `{node.id}`, which {self._file} does not bind there")


def _first_line(node: ast.AST) -> int:
    decorators = node.decorator_list if isinstance(node, DEFINITIONS) else []
    return min([int(node.lineno), *(d.lineno for d in decorators)])  # type: ignore[attr-defined]


def _indent_of(owner: ast.AST) -> int:
    return getattr(owner, "col_offset", -1)


def _bound_by(statement: ast.stmt) -> set[str]:
    return set(_names_bound(statement))


def _names_bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, DEFINITIONS):
        yield statement.name
        return
    for node in own_nodes([statement]):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
