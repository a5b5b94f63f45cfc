"""The names that a loop binds: those whose values each pass makes anew, unless they are carried."""

from __future__ import annotations

import ast
from functools import lru_cache

from florlog.source.names.syntax import FUNCTIONS, LOOPS, parse, walk

_INNER_SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)


def bound_in_loop(source: str, line: int) -> frozenset[str]:
    """The names that the innermost loop around a line binds in its target and its body; none outside of loops.

    Functions and classes that are defined there count as bound, what they bind inside does not.
    Raises `florlog.source.names.syntax.SourceError`.
    """
    loops = [
        node
        for node in walk(_tree(source))
        if isinstance(node, LOOPS) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not loops:
        return frozenset()
    innermost = max(loops, key=lambda node: node.lineno)
    found: set[str] = set()
    pending: list[ast.AST] = [innermost]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found.add(node.name)
        if node is innermost or not isinstance(node, _INNER_SCOPES):
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(found)


@lru_cache(maxsize=64)
def _tree(source: str) -> ast.Module:
    return parse(source, "<source>")
