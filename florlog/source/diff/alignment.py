"""The cheapest alignment of two trees whose edits are whole statements.

Statement lists are aligned by dynamic programming.  The cost has two parts, compared in this order: the number of
statements of the old side that were removed or altered, and the number of statements that only the new side has.
Compound statements of the same kind may be paired.  That costs a differing header plus the cost of their blocks.
Definitions are paired only if they have the same name.

If insertions alone turn the old tree into the new one, that alignment costs no change and is found.  Two alignments of
equal cost (which of two equal lines is the new one?) are interchangeable.  Zhang and Shasha (SIAM J. Comput. 18(6),
1989) allow more kinds of edits; this restriction keeps the work quadratic in the length of a block.

A ``pass`` or a bare constant (a docstring) is removed at no cost.  If both blocks have more than some hundred
statements after their common ends are cut off, they are first split at statements that occur once on each side
(patience diff). Then an unusual edit may be read as more changes than necessary.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from florlog.source.names.calls import is_log_call, shows_more
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import BLOCK_FIELDS, FUNCTIONS, blocks, dump_header

Cost: TypeAlias = tuple[int, int]  # changes, additions
StatementPair: TypeAlias = tuple[ast.AST | None, ast.AST | None]

MAX_EXACT_CELLS = 250_000  # of the table of an exact alignment: old statements times new ones
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


class Alignment:
    """Costs and alignments between the statements of two modules."""

    def __init__(self, old: ast.Module, new: ast.Module, scopes: Scopes) -> None:
        self._scopes = scopes
        self._keys: dict[ast.AST, int] = {}
        self._headers: dict[ast.AST, str] = {}
        self._sizes: dict[ast.AST, int] = {}
        numbers: dict[tuple[object, ...], int] = {}
        for tree in (old, new):
            self._index(tree, numbers)
        self._pair_costs: dict[tuple[ast.AST, ast.AST], Cost | None] = {}

    def equal(self, old: ast.AST, new: ast.AST) -> bool:
        """Whether two statements are equal, including their blocks."""
        return self._keys[old] == self._keys[new]

    def same_header(self, old: ast.AST, new: ast.AST) -> bool:
        """Whether two statements are equal except for their blocks."""
        return self._headers[old] == self._headers[new]

    def _index(self, node: ast.AST, numbers: dict[tuple[object, ...], int]) -> None:
        """Give structurally equal statements equal keys, from the leaves up; each node is dumped once."""
        header = dump_header(node)
        inner: list[object] = [header]
        size = 1
        for field, block in blocks(node):
            inner.append(field)
            for child in block:
                self._index(child, numbers)
                inner.append(self._keys[child])
                size += self._sizes[child]
        self._headers[node] = header
        self._keys[node] = numbers.setdefault(tuple(inner), len(numbers))
        self._sizes[node] = 0 if is_idle(node) else size

    def pair_cost(self, old: ast.AST, new: ast.AST) -> Cost | None:
        """The cost of pairing two statements; None if they cannot be paired."""
        if self._keys[old] == self._keys[new]:
            return (0, 0)
        if type(old) is not type(new):
            return None
        if isinstance(old, DEFINITIONS) and old.name != new.name:  # type: ignore[attr-defined]
            return None
        key = (old, new)
        if key not in self._pair_costs:
            self._pair_costs[key] = self._compute_pair_cost(old, new)
        return self._pair_costs[key]

    def _compute_pair_cost(self, old: ast.AST, new: ast.AST) -> Cost | None:
        if self.is_extended(old, new):
            return (0, 1)
        changes, added = int(self._headers[old] != self._headers[new]), 0
        for old_block, new_block in paired_blocks(old, new):
            inner = self.align(old_block, new_block)[0]
            changes, added = changes + inner[0], added + inner[1]
        return None if is_idle(old) else (changes, added)

    def align(self, old: Sequence[ast.AST], new: Sequence[ast.AST]) -> tuple[Cost, list[StatementPair]]:
        """The cheapest alignment of two blocks, and its cost; a pair has None on the side that lacks the statement."""
        keys = self._keys
        start = 0
        while start < min(len(old), len(new)) and keys[old[start]] == keys[new[start]]:
            start += 1
        stop = 0
        while stop < min(len(old), len(new)) - start and keys[old[-1 - stop]] == keys[new[-1 - stop]]:
            stop += 1
        head: list[StatementPair] = list(zip(old[:start], new[:start], strict=True))
        tail: list[StatementPair] = list(zip(old[len(old) - stop :], new[len(new) - stop :], strict=True))
        old, new = old[start : len(old) - stop], new[start : len(new) - stop]
        anchors = self._anchors(old, new) if len(old) * len(new) > MAX_EXACT_CELLS else []
        if not anchors:
            cost, middle = self._align_exactly(old, new)
            return cost, head + middle + tail
        changes = added = done_old = done_new = 0
        for i, j in [*anchors, (len(old), len(new))]:
            cost, middle = self.align(old[done_old:i], new[done_new:j])
            changes, added = changes + cost[0], added + cost[1]
            head += middle
            if i < len(old):
                head.append((old[i], new[j]))
            done_old, done_new = i + 1, j + 1
        return (changes, added), head + tail

    def _align_exactly(
        self, old: Sequence[ast.AST], new: Sequence[ast.AST]
    ) -> tuple[Cost, list[StatementPair]]:
        sizes = self._sizes
        rows: list[list[Cost]] = [[(0, 0)]]
        for statement in new:
            changes, added = rows[0][-1]
            rows[0].append((changes, added + max(sizes[statement], 1)))
        for before in old:
            above = rows[-1]
            row = [(above[0][0] + sizes[before], above[0][1])]
            for j, after in enumerate(new):
                best = min(
                    (above[j + 1][0] + sizes[before], above[j + 1][1]),
                    (row[j][0], row[j][1] + max(sizes[after], 1)),
                )
                pair = self.pair_cost(before, after) if above[j] <= best else None
                if pair is not None:
                    best = min(best, (above[j][0] + pair[0], above[j][1] + pair[1]))
                row.append(best)
            rows.append(row)
        pairs: list[StatementPair] = []
        i, j = len(old), len(new)
        while i or j:
            here = rows[i][j]
            pair = self.pair_cost(old[i - 1], new[j - 1]) if i and j else None
            if pair is not None:
                diagonal = rows[i - 1][j - 1]
                if here == (diagonal[0] + pair[0], diagonal[1] + pair[1]):
                    i, j = i - 1, j - 1
                    pairs.append((old[i], new[j]))
                    continue
            if j and here == (rows[i][j - 1][0], rows[i][j - 1][1] + max(sizes[new[j - 1]], 1)):
                j -= 1
                pairs.append((None, new[j]))
            else:
                i -= 1
                pairs.append((old[i], None))
        return rows[-1][-1], pairs[::-1]

    def _anchors(self, old: Sequence[ast.AST], new: Sequence[ast.AST]) -> list[tuple[int, int]]:
        """The indices of equal statements that occur once on each side: the longest increasing sequence of them."""
        old_counts, new_counts = (Counter(self._keys[n] for n in side) for side in (old, new))
        index_of = {self._keys[n]: j for j, n in enumerate(new) if new_counts[self._keys[n]] == 1}
        points = [
            (i, index_of[self._keys[n]])
            for i, n in enumerate(old)
            if self._keys[n] in index_of and old_counts[self._keys[n]] == 1
        ]
        ends: list[int] = []
        links: list[
            tuple[int, int]
        ] = []  # length of the best sequence that ends at a point, its predecessor's index
        last: list[int] = []
        for index, (_, j) in enumerate(points):
            length = bisect_left(ends, j)
            links.append((length, last[length - 1] if length else -1))
            ends[length : length + 1] = [j]
            last[length : length + 1] = [index]
        anchors: list[tuple[int, int]] = []
        index = last[-1] if last else -1
        while index >= 0:
            anchors.append(points[index])
            index = links[index][1]
        return anchors[::-1]

    def is_extended(self, old: ast.AST, new: ast.AST) -> bool:
        """Whether ``new`` is the log call ``old`` with more keywords, or a rewritten one that shows more values."""
        before, after = call_of(old), call_of(new)
        if before is not None and after is not None and shows_more(before, after):
            return True
        if before is None or after is None or not is_log_call(after, self._scopes):
            return False
        if before.args or after.args:
            return False
        if ast.dump(before.func) != ast.dump(after.func):
            return False
        missing = Counter(map(ast.dump, before.keywords)) - Counter(map(ast.dump, after.keywords))
        return bool(before.keywords) and not missing


def paired_blocks(old: ast.AST, new: ast.AST) -> Iterator[tuple[list[ast.AST], list[ast.AST]]]:
    """The blocks of two nodes by field; empty on the side that lacks the field."""
    before, after = dict(blocks(old)), dict(blocks(new))
    for field in BLOCK_FIELDS:
        if field in before or field in after:
            yield before.get(field, []), after.get(field, [])


def is_idle(node: ast.AST) -> bool:
    """Whether a statement does nothing: ``pass`` or a bare constant."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def call_of(statement: ast.AST) -> ast.Call | None:
    """The call that a statement consists of; None for any other statement."""
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    return statement.value if is_call else None  # type: ignore[attr-defined]
