"""Which names are live before each statement of a code object: those that may be read later before they are bound.

This is the usual backward analysis, done on the tree.  Loops are iterated to a fixed point, every statement of a
``try`` may jump to its handlers, and a ``with`` may swallow an exception.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from florlog.source.names.syntax import FUNCTIONS, LOOPS, WITHS, header_parts, walk

Names = frozenset[str]

NOTHING: Names = frozenset()


class Liveness:
    """The live names before each statement, found by one backward pass over the tree.

    ``reads`` gives the names that nodes read; names in ``always`` are live everywhere.
    """

    def __init__(self, reads: Callable[[Iterable[ast.AST]], Names], always: Names) -> None:
        self._reads = reads
        self._always = always
        self.before: dict[ast.AST, Names] = {}
        self.after: dict[ast.AST, Names] = {}  # of loops only: after their end
        self._break = self._continue = self._return = self._raise = NOTHING

    def block(self, block: Iterable[ast.AST], after: Names) -> Names:
        """The names that are live before a block, given those that are live after it."""
        for node in reversed(list(block)):
            after = self._statement(node, after) | self._raise | self._always
            self.before[node] = self.before.get(node, NOTHING) | after
        return after

    def _statement(self, node: ast.AST, after: Names) -> Names:
        if isinstance(node, LOOPS):
            return self._loop(node, after)
        if isinstance(node, (ast.Try, ast.TryStar)):
            return self._try(node, after)
        if isinstance(node, WITHS):
            before = self._inside(node.body, after, self._raise | after)
            return before | self._reads(header_parts(node))
        if isinstance(node, ast.If):
            branches = self.block(node.body, after) | (
                self.block(node.orelse, after) if node.orelse else after
            )
            return branches | self._reads([node.test])
        if isinstance(node, ast.Match):
            branches = after.union(*(self.block(case.body, after) for case in node.cases))
            return branches | self._reads([node.subject, *_outside_blocks(node.cases)])
        if isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
            after = {ast.Return: self._return, ast.Raise: self._raise, ast.Break: self._break,
                     ast.Continue: self._continue}[type(node)]  # fmt: skip
        return (after - _killed_by(node)) | self._reads([node]) | _augmented_by(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, after: Names) -> Names:
        header = self._reads([node.test] if isinstance(node, ast.While) else [node.iter, node.target])
        target = NOTHING if isinstance(node, ast.While) else assigned_names([node.target])
        ended = self.block(node.orelse, after) if node.orelse else after
        outer = self._break, self._continue
        head = ended | header
        while True:
            self._break, self._continue = after, head
            grown = head | (self.block(node.body, head) - target)
            if grown == head:
                break
            head = grown
        self._break, self._continue = outer
        self.after[node] = ended
        return self._entered(node, head, header | (self.before[node.body[0]] - target))

    def _entered(self, node: ast.AST, head: Names, running: Names) -> Names:
        """What is live before a loop.

        ``head`` is what is live at its head, where the loop may also end; ``running`` is what is live there if the loop
        certainly runs another pass.
        """
        return head

    def _try(self, node: ast.Try | ast.TryStar, after: Names) -> Names:
        outer = self._break, self._continue, self._return, self._raise
        if node.finalbody:
            after = self.block(node.finalbody, after.union(*outer))
            self._break = self._continue = self._return = self._raise = after
        handlers = self._raise.union(
            *(self.block(handler.body, after) for handler in node.handlers),
            self._reads(_outside_blocks(node.handlers)),
        )
        ended = self.block(node.orelse, after) if node.orelse else after
        before = self._inside(node.body, ended, handlers)
        self._break, self._continue, self._return, self._raise = outer
        return before

    def _inside(self, block: list[ast.stmt], after: Names, raised: Names) -> Names:
        outer, self._raise = self._raise, raised
        before = self.block(block, after)
        self._raise = outer
        return before


def _killed_by(node: ast.AST) -> Names:
    """The names that a statement certainly binds, whatever they were before."""
    if isinstance(node, ast.Assign):
        return assigned_names(node.targets)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return assigned_names([node.target])
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return frozenset({node.name})
    return NOTHING


def _augmented_by(node: ast.AST) -> Names:
    return assigned_names([node.target]) if isinstance(node, ast.AugAssign) else NOTHING


def assigned_names(targets: Iterable[ast.AST]) -> Names:
    """The plain names that assignment targets bind."""
    found = set()
    for target in targets:
        for node in walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return frozenset(found)


def _outside_blocks(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from header_parts(node)
