"""Which logged values and variables are times, which differ whenever code is executed again and decide nothing.

``started = time.time()`` and ``run.log(seconds=time.time() - started)`` differ in a resume that is otherwise the
recorded run.  A variable is a *time* if each of its bindings is a constant or computed from clocks and other times
alone, and if nothing but such bindings, log calls and ``print`` reads it.  A logged value is a time if it is computed
from a clock or a time by operators and a few functions without memory.  Names are those of a whole file: if one is used
for something else elsewhere in it, it is no time.

A clock that decides something (``if time.time() > deadline``) makes no time of what it is compared with.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from florlog.source.names.calls import is_log_call, shown_values
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import SourceError, parse
from florlog.source.skip.steadiness import CLOCK_MODULES, HARMLESS_ORIGINS

_FUNCTIONS = {"abs", "divmod", "float", "format", "int", "len", "max", "min", "round", "str", "sum"}
_METHODS = {"format", "isoformat", "strftime", "timestamp", "total_seconds"}
_SHOWING_METHODS = {"debug", "error", "info", "set_description", "set_postfix", "warning", "write"}


class Clocks:
    """The times of one file."""

    def __init__(self, text: str, file: str) -> None:
        self.times: set[str] = set()
        self._calls: set[ast.Call] = set()
        try:
            tree = parse(text, file)
        except SourceError:
            return
        self._scopes = Scopes(tree)
        nodes = list(ast.walk(tree))
        self._calls = {n for n in nodes if isinstance(n, ast.Call) and is_log_call(n, self._scopes)}
        bindings = _bindings(nodes)
        self.times = set(bindings)
        before = -1
        while len(self.times) != before:  # the largest set in which each name is a time if the others are
            before = len(self.times)
            self.times = {
                name
                for name in self.times
                if all(self._is_time(value) or isinstance(value, ast.Constant) for value in bindings[name])
            }
            self.times = self._from_clocks(bindings) - set(self._read_elsewhere(tree))

    def _from_clocks(self, bindings: dict[str, list[ast.expr]]) -> set[str]:
        """Those of the times that a clock leads to: ``count = count + 1`` leads to itself alone."""
        found: set[str] = set()
        before = -1
        while len(found) != before:
            before = len(found)
            for name in self.times - found:
                if any(self._reads(value, found) for value in bindings[name]):
                    found.add(name)
        return found

    def _reads(self, value: ast.expr, times: set[str]) -> bool:
        """Whether an expression reads a clock or one of ``times``."""
        return any(
            isinstance(node, (ast.Name, ast.Attribute))
            and (self._is_clock(node) or ast.unparse(node) in times)
            for node in ast.walk(value)
        )

    def shows_time(self, line: int, name: str) -> bool:
        """Whether the value that is logged at a line under a name is a time."""
        values = [
            value
            for call in self._calls
            if call.lineno <= line <= (call.end_lineno or call.lineno)
            for shown, value in _logged(call)
            if shown == name
        ]
        return bool(values) and all(map(self._is_time, values))

    def _is_time(self, value: ast.expr) -> bool:
        """Whether an expression is computed from clocks or times, and by nothing with a memory."""
        for node in ast.walk(value):
            if isinstance(node, (ast.Await, ast.Lambda, ast.NamedExpr, ast.Yield, ast.YieldFrom)):
                return False
            if isinstance(node, ast.Call) and not self._is_harmless(node.func):
                return False
        return self._reads(value, self.times)

    def _is_harmless(self, function: ast.expr) -> bool:
        if self._is_clock(function):
            return True
        if isinstance(function, ast.Attribute):
            return function.attr in _METHODS or ast.unparse(function) == "__florlog__.see"
        return isinstance(function, ast.Name) and function.id in _FUNCTIONS

    def _is_clock(self, node: ast.expr) -> bool:
        if not isinstance(node, (ast.Name, ast.Attribute)) or node not in self._scopes.of:
            return False
        apart = {*HARMLESS_ORIGINS, *(f"module:{module}" for module in CLOCK_MODULES)}
        origins = self._scopes.origins(node) - apart
        return any(root_module(origin) in CLOCK_MODULES for origin in origins)

    def _read_elsewhere(self, node: ast.AST) -> Iterator[str]:
        """The times that are read by what neither binds a time nor shows something to a person."""
        if isinstance(node, ast.Call) and (node in self._calls or _shows(node)):
            return
        target = _target(node)
        if target is not None and target in self.times:
            return
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            yield ast.unparse(node)
        for child in ast.iter_child_nodes(node):
            yield from self._read_elsewhere(child)


def _bindings(nodes: list[ast.AST]) -> dict[str, list[ast.expr]]:
    """What each name and attribute is bound to, if it is bound by plain assignments only."""
    found: dict[str, list[ast.expr]] = {}
    plain: set[ast.AST] = set()
    for node in nodes:
        if (target := _target(node)) is not None:
            assert isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))
            plain.add(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if node.value is not None:
                found.setdefault(target, []).append(node.value)
    for node in nodes:
        stored = isinstance(node, (ast.Name, ast.Attribute)) and not isinstance(node.ctx, ast.Load)
        if stored and node not in plain:
            found.pop(ast.unparse(node), None)
        elif isinstance(node, ast.arg):
            found.pop(node.arg, None)
    return found


def _target(node: ast.AST) -> str | None:
    """The one name or attribute to which a statement assigns."""
    if isinstance(node, ast.Assign):
        target = node.targets[0] if len(node.targets) == 1 else None
    else:
        target = node.target if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else None
    return ast.unparse(target) if isinstance(target, (ast.Name, ast.Attribute)) else None


def _logged(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    yield from shown_values(call)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
    for mapping in call.args:
        if isinstance(mapping, ast.Dict):
            for key, value in zip(mapping.keys, mapping.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value), value


def _shows(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr in _SHOWING_METHODS
    return isinstance(function, ast.Name) and function.id == "print"
