"""Whether code gives the same results in every process that runs it from the same state.

A replayed value is checked by what the recording observed after it.  If a replay leaves an iteration after the last
requested statement, it observes nothing more; then the code itself must show that the value can be trusted.

Code is *steady* if it, and the functions that it may call, use only libraries that are known to compute from their
arguments and from random generators that are part of the state.  The outside sources (`florlog.source.names.outside`)
are not steady, and neither is a library that is not listed.  A source does no harm if it is read into a variable that
is used only for other such variables, recorded log calls and ``print`` (``started = time.time()``); whether a value is
logged from such a variable is the question of `florlog.source.skip.noise`.

Not seen: a source of this kind inside a method of an unknown object, such as a dataset that reads files; but what a
loop receives is compared by its fingerprint.  A function is assumed not to call itself from inside its own florlog
loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import COMPUTED_NAME, is_log_call, logged_values, told
from florlog.source.names.origins import root_module
from florlog.source.names.outside import COMPUTING_LIBRARIES, HASHES, SEEDED, Read, dotted, outside
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, header_parts, own_nodes, walk
from florlog.source.names.telling import only_tells

UNKNOWN = "is not found in the source"
"""The answer for code that analysis does not find."""
UNKNOWN_BUILTINS = {"eval", "exec", "globals", "vars"}


class Steadiness:
    """Answers for statements of one program; ``same_hashes``: sets are in the order of the recording."""

    def __init__(self, code: Code, graph: CallGraph, *, same_hashes: bool) -> None:
        self._code = code
        self._graph = graph
        self._same_hashes = same_hashes
        self._functions: dict[Function, str] = {}

    def unsteady(self, statements: Iterable[ast.AST], site: ast.AST | None, name: str = "") -> str:
        """What else than state statements read that run one after the other, "" if they are steady.

        ``site`` is the requested one, and ``name`` a value that it logs: then its other values do not count.
        """
        around: set[Function] = set()
        carrying: set[str] = set()  # variables that hold what was read
        ordered = list(statements)
        for statement in ordered:
            function = self._code.function_of.get(statement)
            if function is None:
                return UNKNOWN
            around.add(function)
            scopes = self._code.scopes[function.file]
            aside = _other_values(statement, name, scopes) if statement is site and name else frozenset()
            part = [node for node in _own_part(statement) if node not in aside]
            used = {n.id for n in part if isinstance(n, ast.Name) and n.id in carrying}
            read = self._read(part, function)
            if read or used:
                if not _only_binds(statement) and (statement is site or not _only_logs(statement, scopes)):
                    return read or f"uses {min(used)}, which holds what was read from outside"
                carrying.update(_bound(statement))
        called = self._graph.reached_from(ordered, around)
        return next(filter(None, map(self._unsteady_function, sorted(called, key=lambda f: f.qualname))), "")

    def _unsteady_function(self, function: Function) -> str:
        if function not in self._functions:
            statements = self._code.statements_below(function.block)
            read = (self._read(list(_own_part(statement)), function) for statement in statements)
            self._functions[function] = next(filter(None, read), "")
        return self._functions[function]

    def _read(self, nodes: list[ast.AST], function: Function) -> str:
        """What the nodes of a statement read that is not steady, "" if they are steady."""
        scopes = self._code.scopes[function.file]
        passed = {part for node in nodes for part in _told(node, scopes)}
        for node in nodes:
            if node in passed:
                continue
            line = getattr(node, "lineno", 0)
            if isinstance(node, (ast.Set, ast.SetComp)) and not self._same_hashes:
                return str(Read(HASHES, "a set", function.file, line))
            if isinstance(node, (ast.Await, ast.Import, ast.ImportFrom)):
                return f"imports or awaits (line {line})"
            if not isinstance(node, (ast.Name, ast.Attribute)) or node not in scopes.of:
                continue
            for origin in scopes.origins(node):
                name = dotted(origin, getattr(node, "id", ""))
                if origin == "builtin" and getattr(node, "id", "") in UNKNOWN_BUILTINS:
                    return f"calls {name} (line {line})"
                if name in ("builtins.set", "builtins.frozenset") and not self._same_hashes:
                    return str(Read(HASHES, "a set", function.file, line))
                kind = outside(name)
                if kind and "." in name and not (kind == HASHES and self._same_hashes):
                    return str(Read(kind, name, function.file, line))
                root = root_module(origin)
                if name in SEEDED - {"random.Random"} and name.startswith("numpy"):
                    continue
                if root and root not in COMPUTING_LIBRARIES and root not in self._graph.local:
                    return f"uses {name}, of which it is not known what it reads (line {line})"
        return ""


def _own_part(statement: ast.AST) -> Iterator[ast.AST]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return iter(())
    return own_nodes([statement] if isinstance(statement, ast.expr) else header_parts(statement))


def _other_values(statement: ast.AST, name: str, scopes: Scopes) -> frozenset[ast.AST]:
    """The code of what a statement logs under other names."""
    calls = [n for n in _own_part(statement) if isinstance(n, ast.Call) and is_log_call(n, scopes)]
    return frozenset(
        part
        for call in calls
        for logged, code in logged_values(call)
        if logged not in (name, COMPUTED_NAME)
        for part in walk(code)
    )


def _told(node: ast.AST, scopes: Scopes) -> Iterator[ast.AST]:
    """What a statement calls to tell its values, if that is a library's and only passes them on."""
    called = told(node) if isinstance(node, ast.Call) else None
    if isinstance(called, (ast.Name, ast.Attribute)) and all(
        only_tells(dotted(origin, getattr(called, "id", ""))) for origin in scopes.origins(called)
    ):
        while isinstance(called, ast.Attribute):
            yield called
            called = called.value
        if isinstance(called, ast.Name):
            yield called


def _only_binds(statement: ast.AST) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return bool(targets) and all(isinstance(target, ast.Name) for target in targets)


def _bound(statement: ast.AST) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _only_logs(statement: ast.AST, scopes: Scopes) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    return is_log_call(call, scopes) or (isinstance(call.func, ast.Name) and call.func.id == "print")
