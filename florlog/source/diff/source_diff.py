"""What was added to a recorded source, what else was changed, and which new line is which old line.

Hindsight needs one kind of edit: statements are added to a script that otherwise stays as it was recorded.  So the
comparison explains an edit with the fewest *changes* (recorded code that was removed or altered) and, among such
explanations, with the fewest *additions*.  `florlog.source.diff.alignment` finds it.

These are no changes: comments, formatting, a removed ``pass`` or bare constant, a name for a value that was computed
without one (`florlog.source.diff.extraction`), and keywords added to a log call.  Such keywords count as an added log
statement that logs only the new names.

Equal statements that stand elsewhere are a change of kind ``moved``.  A renamed variable is a change of kind
``renamed`` in each statement that uses it, if the file no longer has the old name and did not have the new one before.
An added statement may be anything, even a ``return``; whether it only observes is not decided here.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from florlog.source.diff.alignment import DEFINITIONS, Alignment, call_of, is_idle, paired_blocks
from florlog.source.diff.extraction import Named, names_in, put_back
from florlog.source.names.calls import LogCall, log_calls_in, shown_values
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import blocks, header_nodes, header_parts, one_line, parse


@dataclass(frozen=True)
class AddedStatement:
    """A statement that only the new source has.  For an extended log call: the call, with its new names only."""

    node: ast.stmt
    line: int
    end_line: int
    qualname: str
    log_calls: tuple[LogCall, ...]
    alone: bool = True  # all that it executes is new

    @property
    def place(self) -> tuple[int, int]:
        """Its line and column."""
        return self.line, self.node.col_offset


@dataclass(frozen=True)
class Change:
    """Recorded code that the new source lacks or alters.  A line is None if that side does not have the code."""

    kind: str  # "removed", "altered", "renamed", "moved"
    old_line: int | None
    new_line: int | None
    old: str
    new: str
    renamed: tuple[tuple[str, str], ...] = ()  # the variables' old and new names
    qualname: str = (
        "<module>"  # of the code that contains it, in the new source if it is there, else in the old one
    )

    def __str__(self) -> str:
        if self.kind == "removed":
            return f"line {self.old_line} of the recording: `{self.old}` was removed"
        if self.kind == "moved":
            return f"line {self.new_line}: `{self.new}` was moved from line {self.old_line}"
        if not self.old:
            return f"line {self.new_line}: `{self.new}` is new and changes what the code around it does"
        names = ", ".join(f"{old} was renamed to {new}" for old, new in self.renamed)
        return f"line {self.new_line}: `{self.old}` became `{self.new}`" + (f" ({names})" if names else "")


@dataclass(frozen=True)
class SourceDiff:
    """How a new source differs from the recorded one."""

    added: tuple[AddedStatement, ...]
    changed: tuple[Change, ...]
    line_map: dict[int, int]  # new line -> old line, for code that both sources have
    named: tuple[Named, ...] = ()  # values of the old source that have a name in the new one

    @cached_property
    def old_to_new(self) -> dict[int, int]:
        """Old line -> new line; the first new line if a line was split."""
        return {old: new for new, old in sorted(self.line_map.items(), reverse=True)}


def compare(old: str, new: str, *, filename: str) -> SourceDiff:
    """Compare the recorded text of a file with its present text.  Raises `SourceError` if one does not parse."""
    before = parse(old, filename)
    found = _Comparison(before, parse(new, filename)).result()
    left: set[int] = set()
    while found.changed:
        after = parse(new, filename)
        if not (named := put_back(before, after, left)):
            break
        comparison = _Comparison(before, after)
        other = comparison.result()
        # Code that only looks recorded, but stands where no recorded code was, is an addition with its name.
        mistaken = {name.line for name in named if comparison.is_added(name.statement)}
        if not mistaken:
            return replace(other, named=tuple(named)) if len(other.changed) < len(found.changed) else found
        left |= mistaken
    return found


class _Comparison:
    def __init__(self, old: ast.Module, new: ast.Module) -> None:
        self._old, self._new = old, new
        self._scopes = Scopes(new)
        self._alignment = Alignment(old, new, self._scopes)
        self._removed: list[ast.AST] = []
        self._added: list[ast.AST] = []
        self._extended: list[AddedStatement] = []
        self._changes: list[Change] = []
        self._altered: list[tuple[ast.AST, ast.AST]] = []
        self._line_map: dict[int, int] = {}

    def result(self) -> SourceDiff:
        self._walk_blocks(self._old, self._new)
        self._find_moved()
        self._find_renamed()
        self._changes += [
            Change("removed", _line(n), None, one_line(n), "") for n in self._removed if not is_idle(n)
        ]
        added = [self._addition(n) for n in self._added if isinstance(n, ast.stmt)] + self._extended
        self._changes += [
            Change("altered", None, _line(n), "", one_line(n))
            for n in self._added
            if not isinstance(n, ast.stmt)
        ]
        added.sort(key=lambda a: (a.line, a.node.col_offset))
        self._changes = [replace(change, qualname=self._holder(change)) for change in self._changes]
        self._changes.sort(key=lambda c: (c.new_line or c.old_line or 0, c.old_line or 0))
        return SourceDiff(tuple(added), tuple(self._changes), self._line_map)

    def is_added(self, node: ast.AST) -> bool:
        """Whether a statement of the new source has no counterpart."""
        return node in self._added

    def _holder(self, change: Change) -> str:
        scopes = self._scopes if change.new_line is not None else self._old_scopes
        line = change.new_line or change.old_line or 0
        holders = [
            (first, scope.qualname)
            for node, scope in scopes.inner.items()
            if isinstance(node, DEFINITIONS)
            and (first := node.lineno) < line <= (node.end_lineno or first)
        ]  # fmt: skip
        return max(holders)[1] if holders else "<module>"

    @cached_property
    def _old_scopes(self) -> Scopes:
        return Scopes(self._old)

    def _walk_blocks(self, old: ast.AST, new: ast.AST) -> None:
        for old_block, new_block in paired_blocks(old, new):
            for before, after in self._alignment.align(old_block, new_block)[1]:
                if before is None and after is not None:
                    self._added.append(after)
                elif after is None and before is not None:
                    self._removed.append(before)
                elif before is not None and after is not None:
                    self._walk_pair(before, after)

    def _walk_pair(self, old: ast.AST, new: ast.AST) -> None:
        if self._alignment.equal(old, new):
            self._map(zip(ast.walk(old), ast.walk(new), strict=True))
            return
        if self._alignment.is_extended(old, new):
            self._extend(old, new)
            return
        if self._alignment.same_header(old, new):
            nodes: list[tuple[ast.AST, ast.AST]] = [(old, new)]
            for before, after in zip(header_parts(old), header_parts(new), strict=True):
                nodes += zip(ast.walk(before), ast.walk(after), strict=True)
            self._map(nodes)
        else:
            self._map([(old, new)])
            self._altered.append((old, new))
        self._walk_blocks(old, new)

    def _extend(self, old: ast.AST, new: ast.AST) -> None:
        before, after = call_of(old), call_of(new)
        assert before is not None
        assert after is not None
        functions = zip(ast.walk(before.func), ast.walk(after.func), strict=True)
        self._map([(old, new), (before, after), *functions])
        left = Counter(text for _, text in _logged(before))
        names = []
        for name, text in _logged(after):
            if left[text]:
                left[text] -= 1
            else:
                names.append(name)
        addition = self._addition(new)
        calls = tuple(
            replace(c, names=tuple(names)) for c in addition.log_calls if (c.line, c.col) == _place(after)
        )
        parts: list[ast.AST] = [code for _, code in shown_values(before)]
        parts = parts or [*before.args, *before.keywords]
        recorded = (node for part in parts for node in ast.walk(part))
        alone = not any(isinstance(node, ast.Call) for node in recorded)
        self._extended.append(replace(addition, log_calls=calls, alone=alone))

    def _map(self, nodes: Iterable[tuple[ast.AST, ast.AST]]) -> None:
        ends = []
        for old, new in nodes:
            if hasattr(new, "lineno"):
                self._line_map.setdefault(new.lineno, old.lineno)  # type: ignore[attr-defined]
                if not any(blocks(new)):
                    ends.append((new.end_lineno, old.end_lineno))  # type: ignore[attr-defined]
        for after, before in ends:
            self._line_map.setdefault(after, before)

    def _addition(self, node: ast.AST) -> AddedStatement:
        assert isinstance(node, ast.stmt)
        calls = tuple(log_calls_in(node, self._scopes))
        return AddedStatement(
            node, node.lineno, node.end_lineno or node.lineno, self._scopes.of[node].qualname, calls
        )

    def _find_moved(self) -> None:
        """Turn a removed and an added statement that are equal, or define the same name, into a move."""
        for same in (self._same_text, self._same_name):
            for old in self._removed[:]:
                new = next((n for n in self._added if same(old, n)), None)
                if new is None or is_idle(old):
                    continue
                self._removed.remove(old)
                self._added.remove(new)
                self._changes.append(Change("moved", _line(old), _line(new), one_line(old), one_line(new)))
                self._walk_pair(old, new)

    def _find_renamed(self) -> None:
        """Report altered pairs, as renamed if they differ only in variables that the file renames one for one."""
        pairs = [(old, new, _renaming(old, new)) for old, new in self._altered]
        renamed = {pair for _, _, names in pairs for pair in names or ()}
        new_names, old_names = names_in(self._new), names_in(self._old)
        news, olds = Counter(new for _, new in renamed), Counter(old for old, _ in renamed)
        sure = {
            (old, new)
            for old, new in renamed
            if old not in new_names and new not in old_names and olds[old] == news[new] == 1
        }
        for old, new, names in pairs:
            kind = "renamed" if names and names <= sure else "altered"
            pairs_renamed = tuple(sorted(names)) if names and kind == "renamed" else ()
            self._changes.append(
                Change(kind, _line(old), _line(new), one_line(old), one_line(new), pairs_renamed)
            )

    def _same_text(self, old: ast.AST, new: ast.AST) -> bool:
        return self._alignment.equal(old, new)

    def _same_name(self, old: ast.AST, new: ast.AST) -> bool:
        return isinstance(old, DEFINITIONS) and self._alignment.pair_cost(old, new) is not None


def _renaming(old: ast.AST, new: ast.AST) -> set[tuple[str, str]] | None:
    """The names in which the headers of two statements differ; None if they differ in anything else."""
    befores, afters = list(header_nodes(old)), list(header_nodes(new))
    found: set[tuple[str, str]] = set()
    if len(befores) != len(afters):
        return None
    for before, after in zip(befores, afters, strict=True):
        if type(before) is not type(after):
            return None
        for field, value in ast.iter_fields(before):
            other = getattr(after, field, None)
            if value == other or isinstance(value, ast.AST | list):
                continue  # nodes come on their own
            if not isinstance(before, ast.Name | ast.arg):
                return None
            found.add((str(value), str(other)))
    return found


def _logged(call: ast.Call) -> list[tuple[str, str]]:
    """The names that a call logs, each with a dump of the logged code."""
    if values := shown_values(call):
        return [(name, f"{name}={ast.dump(code)}") for name, code in values]
    return [(keyword.arg or "*", ast.dump(keyword)) for keyword in call.keywords]


def _line(node: ast.AST) -> int:
    return node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno  # type: ignore[attr-defined]


def _place(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset
