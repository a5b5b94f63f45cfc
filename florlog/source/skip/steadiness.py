"""Whether code gives the same results in every process that runs it from the same state.

A replayed value is checked by what the recording observed after it.  If a replay leaves an iteration after the last
requested statement, it observes nothing more; then the code itself must show that the value can be trusted.

Code is *steady* if it, and the functions that it may call, use only libraries that are known to compute from their
arguments and from random generators that are part of the state.  Clocks, files, the environment, processes, threads,
identities and the order of sets are not steady, and neither is a library that is not listed.  A clock does no harm if
it is read into a variable that is used only for other such variables, recorded log calls and ``print`` (``started =
time.time()``).

Not seen: a source of this kind inside a method of an unknown object, such as a dataset that reads files; but what a
loop receives is compared by its fingerprint.  A function is assumed not to call itself from inside its own florlog
loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scopes
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
CLOCK_MODULES = {"time", "datetime"}
HARMLESS_ORIGINS = {"module:time.sleep", "from:time:sleep"}


class Steadiness:
    """Answers for statements of one program."""

    def __init__(self, code: Code, graph: CallGraph) -> None:
        self._code = code
        self._graph = graph
        self._functions: dict[Function, bool] = {}

    def steady(self, statements: Iterable[ast.AST], site: ast.AST | None) -> bool:
        """Whether statements that run one after the other are steady; ``site`` is the requested one."""
        around: set[Function] = set()
        timed: set[str] = set()  # variables that hold a time
        ordered = list(statements)
        for statement in ordered:
            function = self._code.function_of.get(statement)
            if function is None:
                return False
            around.add(function)
            scopes = self._code.scopes[function.file]
            reads = {n.id for n in _own_part(statement) if isinstance(n, ast.Name) and n.id in timed}
            clocks = self._reads_clock(statement, scopes)
            if clocks is None:
                return False
            if clocks or reads:
                if not _only_binds(statement) and (statement is site or not _only_logs(statement, scopes)):
                    return False
                timed.update(_bound(statement))
        return all(map(self._steady_function, self._graph.reached_from(ordered, around)))

    def _steady_function(self, function: Function) -> bool:
        if function not in self._functions:
            scopes = self._code.scopes[function.file]
            self._functions[function] = all(
                self._reads_clock(statement, scopes) is False
                for statement in self._code.statements_below(function.block)
            )
        return self._functions[function]

    def _reads_clock(self, statement: ast.AST, scopes: Scopes) -> bool | None:
        """Whether a statement reads a clock and is steady otherwise; None if it is not steady for another reason."""
        clock = False
        for node in _own_part(statement):
            if isinstance(node, (ast.Set, ast.SetComp, ast.Await, ast.Import, ast.ImportFrom)):
                return None
            if not isinstance(node, (ast.Name, ast.Attribute)) or node not in scopes.of:
                continue
            for origin in scopes.origins(node):
                if origin == "builtin" and getattr(node, "id", "") in UNSTEADY_BUILTINS:
                    return None
                root = root_module(origin)
                last = origin.replace(":", ".").rpartition(".")[2]
                if not root or origin in HARMLESS_ORIGINS or origin in ("module:time", "module:datetime"):
                    continue
                if root in CLOCK_MODULES:
                    clock = True
                elif (
                    root not in STEADY_LIBRARIES and root not in self._graph.local
                ) or last in UNSTEADY_NAMES:
                    return None
        return clock


def _own_part(statement: ast.AST) -> Iterator[ast.AST]:
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return iter(())
    return own_nodes([statement] if isinstance(statement, ast.expr) else header_parts(statement))


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
