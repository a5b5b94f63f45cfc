"""Whether code gives the same results in every process that starts it from the same state.

A value is checked by what the recording observed after it.  Where a replay leaves an iteration behind the
last requested statement, nothing is; then the code itself must vouch for the value, and it is *steady* if all
it and the functions that it may call use are names of libraries known to compute from their arguments and from
the random generators that are part of the state.  Clocks, files, the environment, processes, threads, identities
and the order of sets are not; nor is any library that is not listed.

A clock that is read into a variable which goes into nothing but other such variables, recorded log calls and
``print`` (``started = time.time()``) does no harm.

Not seen: objects that hide such a source behind a method of an unknown object, as a dataset that reads files
does; what a loop receives is compared by its fingerprint.  A function is taken not to call itself out of its own
florlog loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call
from florlog.source.names.scopes import Scopes, root_module
from florlog.source.names.syntax import FUNCTIONS, header_parts, own_nodes

STEADY_LIBRARIES = {
    "abc", "argparse", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "florlog", "fractions",
    "functools", "hashlib", "heapq", "itertools", "json", "logging", "math", "numpy", "operator", "random", "re",
    "scipy", "sklearn", "statistics", "string", "torch", "torchvision", "tqdm", "textwrap", "typing", "warnings",
    "zlib",
}  # fmt: skip
UNSTEADY_NAMES = {
    "SystemRandom", "default_rng", "fromfile", "initial_seed", "load", "loadtxt", "memmap", "multiprocessing",
    "seed",
}  # fmt: skip
UNSTEADY_BUILTINS = {
    "eval", "exec", "frozenset", "globals", "hash", "id", "input", "open", "set", "vars",
}  # fmt: skip
CLOCKS = {"time", "datetime"}
HARMLESS = {"module:time.sleep", "from:time:sleep"}


class Steadiness:
    """Answers for statements of one program."""

    def __init__(self, code: Code, graph: CallGraph) -> None:
        self._code = code
        self._graph = graph
        self._functions: dict[Function, bool] = {}

    def steady(self, statements: Iterable[ast.AST], site: ast.AST | None) -> bool:
        """Whether statements that run one after the other are steady; ``site`` is the one asked for."""
        around: set[Function] = set()
        timed: set[str] = set()  # variables that hold a time
        ordered = list(statements)
        for statement in ordered:
            function = self._code.function_of.get(statement)
            if function is None:
                return False
            around.add(function)
            scopes = self._code.scopes[function.file]
            reads = {n.id for n in _own(statement) if isinstance(n, ast.Name) and n.id in timed}
            clocks = self._unsteady(statement, scopes)
            if clocks is None:
                return False
            if clocks or reads:
                if not _only_binds(statement) and (statement is site or not _only_tells(statement, scopes)):
                    return False
                timed.update(_bound(statement))
        return all(map(self._steady_function, self._graph.reached_from(ordered, around)))

    def _steady_function(self, function: Function) -> bool:
        if function not in self._functions:
            scopes = self._code.scopes[function.file]
            self._functions[function] = all(
                self._unsteady(statement, scopes) is False
                for statement in self._code.statements_below(function.block)
            )
        return self._functions[function]

    def _unsteady(self, statement: ast.AST, scopes: Scopes) -> bool | None:
        """False: steady; True: it reads a clock and is steady otherwise; None: neither."""
        clock = False
        for node in _own(statement):
            if isinstance(node, (ast.Set, ast.SetComp, ast.Await, ast.Import, ast.ImportFrom)):
                return None
            if not isinstance(node, (ast.Name, ast.Attribute)) or node not in scopes.of:
                continue
            for origin in scopes.origins(node):
                if origin == "builtin" and getattr(node, "id", "") in UNSTEADY_BUILTINS:
                    return None
                root = root_module(origin)
                last = origin.replace(":", ".").rpartition(".")[2]
                if not root or origin in HARMLESS or origin in ("module:time", "module:datetime"):
                    continue
                if root in CLOCKS:
                    clock = True
                elif (
                    root not in STEADY_LIBRARIES and root not in self._graph.local
                ) or last in UNSTEADY_NAMES:
                    return None
        return clock


def _own(statement: ast.AST) -> Iterator[ast.AST]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return iter(())
    return own_nodes([statement] if isinstance(statement, ast.expr) else header_parts(statement))


def _only_binds(statement: ast.AST) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return bool(targets) and all(isinstance(target, ast.Name) for target in targets)


def _bound(statement: ast.AST) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _only_tells(statement: ast.AST, scopes: Scopes) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    return is_log_call(call, scopes) or (isinstance(call.func, ast.Name) and call.func.id == "print")
