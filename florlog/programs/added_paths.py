"""What a script adds to ``sys.path``, read from its text: ``sys.path.insert(0, str(Path(__file__).parent.parent))``.

Only what can be said without running anything: texts, ``__file__``, functions of ``os.path`` and `pathlib.Path`, and
names that the module assigns from these.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_PATH_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "os.path.abspath": os.path.abspath,
    "os.path.dirname": os.path.dirname,
    "os.path.join": os.path.join,
    "os.path.normpath": os.path.normpath,
    "os.path.realpath": os.path.realpath,
    "os.getcwd": os.getcwd,
    "str": str,
    "Path": Path,
    "pathlib.Path": Path,
    "Path.cwd": Path.cwd,
}
_PATH_METHODS = {"resolve", "absolute", "as_posix", "joinpath"}


class _NotKnownError(Exception):
    """An expression cannot be evaluated from the text."""


def added_paths(tree: ast.Module, file: Path) -> Iterator[Path]:
    """The directories that a module adds to ``sys.path``."""
    names: dict[str, Any] = {"__file__": str(file)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    names[target.id] = _value(statement.value, names)
                except _NotKnownError:
                    names.pop(target.id, None)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="append" | "insert"), args=[*_, added]):
                if ast.unparse(owner) == "sys.path":
                    try:
                        yield Path(os.path.normpath(Path.cwd() / _value(added, names)))
                    except (_NotKnownError, TypeError, ValueError):
                        continue


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression gives.  Raises `_NotKnownError`."""
    try:
        match node:
            case ast.Constant(value=str() | int()):
                return node.value
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return _value(left, names) / _value(right, names)
            case ast.Attribute(value=owner, attr="parent" | "parents" as attribute):
                return getattr(_path(_value(owner, names)), attribute)
            case ast.Subscript(value=ast.Attribute(attr="parents") as owner, slice=index):
                return _value(owner, names)[_value(index, names)]
            case ast.Call(func=function, args=arguments, keywords=[]):
                values = [_value(argument, names) for argument in arguments]
                if (known := _PATH_FUNCTIONS.get(ast.unparse(function))) is not None:
                    return known(*values)
                if isinstance(function, ast.Attribute) and function.attr in _PATH_METHODS:
                    return getattr(_path(_value(function.value, names)), function.attr)(*values)
    except (TypeError, ValueError, IndexError, OSError):
        pass
    raise _NotKnownError


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    raise _NotKnownError
