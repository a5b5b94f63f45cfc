"""A text without some of its statements, in which all other code keeps its lines and columns."""

from __future__ import annotations

import ast
from collections.abc import Collection

from florlog.source.edit.edits import Position

_BINDING = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)


def without_statements(source: str, places: Collection[Position]) -> str:
    """The text with the expression statements at these places as an empty tuple of their length.

    Those that do more than to compute a value, such as binding a name, stay.
    """
    if not places:
        return source
    lines = source.encode().splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and (node.lineno, node.col_offset) in places:
            if any(isinstance(part, _BINDING) for part in ast.walk(node)):
                continue
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            for number in range(node.lineno, node.end_lineno + 1):
                line = bytearray(lines[number - 1])
                start = node.col_offset if number == node.lineno else 0
                end = node.end_col_offset if number == node.end_lineno else len(line.rstrip(b"\r\n"))
                line[start:end] = b" " * (end - start)
                if number == node.lineno:
                    line[start : start + 1] = b"("
                if number == node.end_lineno:
                    line[end - 1 : end] = b")"
                lines[number - 1] = bytes(line)
    return b"".join(lines).decode()
