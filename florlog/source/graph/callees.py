"""What a statement may call, by name: conservative, without types, without regard to order.

``f(x)`` reaches what ``f`` is bound to if that is a definition, and every function of that name if it is not known.
``obj.m(x)`` reaches every function named ``m``.  A call that is found neither in the program nor among builtins and
libraries may reach all groups (`florlog.source.graph.definitions`).  Library calls may run hooks; they may run object
code too if they are given something that the program calls or constructs.  Iteration, ``with`` and subscripts reach the
matching special methods, and every statement reaches the remaining ones.

Left out: threads that run while the main thread calls nothing, signal handlers, monkey-patched library functions,
``exec``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

from florlog.source.graph.definitions import Definitions, last_name, may_refer
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.libraries import PLAIN_BUILTINS, PLAIN_LIBRARIES, PLAIN_METHODS, QUIET_DECORATORS
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import COMPREHENSIONS, FUNCTIONS, WITHS, children, header_parts, walk

GraphNode: TypeAlias = Function | str  # a function or a group

ALL_GROUPS = frozenset({"hooks", "objects", "iteration", "with", "dunders", "attributes"})


class Callees:
    """What the statements of a program may call."""

    def __init__(self, code: Code, definitions: Definitions) -> None:
        self._code = code
        self._defined = definitions
        self._names_called = self._names_of_callables()

    def events(self, statement: ast.AST, file: str) -> Iterator[tuple[ast.AST, frozenset[GraphNode]]]:
        """The nodes of a statement's own part, with what each may call."""
        scopes = self._code.scopes[file]
        yield statement, self._besides_expressions(statement, file)
        called: set[ast.AST] = set(statement.bases) if isinstance(statement, ast.ClassDef) else set()
        pending: list[ast.AST] = [statement]
        if not isinstance(statement, ast.expr):
            pending = list(header_parts(statement))
        while pending:
            node = pending.pop()
            inner = self._code.function_at.get(node)
            if inner is not None:
                yield node, frozenset({inner})  # a lambda or generator expression may run right here
                pending.extend(_evaluated_outside(node))
                continue
            pending.extend(children(node))
            if isinstance(node, ast.Call):
                called.add(node.func)
                yield node, self._called(node, scopes)
            elif isinstance(node, (ast.Name, ast.Attribute)):
                yield node, self._used(node, scopes, called=node in called)
            elif isinstance(node, (ast.Subscript, ast.Starred)):
                yield node, frozenset({"iteration"})
            elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store):
                yield node, frozenset({"iteration", "hooks"})
            elif isinstance(node, COMPREHENSIONS):
                for generator in node.generators:
                    yield generator, self._iterated(generator.iter, scopes)
            elif isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom)):
                yield node, ALL_GROUPS

    def _besides_expressions(self, statement: ast.AST, file: str) -> frozenset[GraphNode]:
        """What a statement may call in addition to evaluating its expressions."""
        found: set[GraphNode] = {"dunders"}
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            found |= self._imported(statement)
        elif isinstance(statement, (ast.For, ast.AsyncFor, ast.comprehension)):
            found |= self._iterated(statement.iter, self._code.scopes[file])
        elif isinstance(statement, WITHS):
            found |= {"with", "hooks"}
        elif isinstance(statement, ast.ClassDef):
            found.add(self._code.function_at[statement])
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            for decorator in statement.decorator_list:
                if last_name(decorator) not in QUIET_DECORATORS:
                    found |= self._defined.named(last_name(decorator)) or ALL_GROUPS
        return frozenset(found)

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> set[Function]:
        words = {part for alias in statement.names for part in alias.name.split(".")}
        if isinstance(statement, ast.ImportFrom):
            words |= set((statement.module or "").split("."))
        return {module for word in words for module in self._defined.modules.get(word, ())}

    def _iterated(self, expr: ast.expr, scopes: Scopes) -> frozenset[GraphNode]:
        plain = isinstance(expr, (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set))
        is_range = isinstance(expr, ast.Call) and last_name(expr.func) == "range"
        if plain or (is_range and scopes.origins(expr.func) == {"builtin"}):  # type: ignore[attr-defined]
            return frozenset()
        return frozenset({"iteration", "hooks"})

    def _used(self, node: ast.Name | ast.Attribute, scopes: Scopes, *, called: bool) -> frozenset[GraphNode]:
        name = last_name(node)
        found: set[GraphNode] = set()
        if not called and may_refer(node, scopes):
            found |= self._defined.named(name)
        if isinstance(node, ast.Attribute):
            found |= {"attributes", *self._defined.properties.get(name, ())}
        return frozenset(found)

    def _called(self, call: ast.Call, scopes: Scopes) -> frozenset[GraphNode]:
        name = last_name(call.func)
        found: set[GraphNode] = set()
        for origin in scopes.origins(call.func):
            root = root_module(origin)
            real = origin.replace(":", ".").rpartition(".")[2] if root or origin.startswith("from:") else name
            defined = self._defined.named(real)
            if origin in ("log", "loop", "iteration", "make_run"):
                continue
            if origin == "def" or (
                (root in self._defined.local or not root) and origin.startswith(("from:", "module:"))
            ):
                found |= defined or self._undefined(real)
            elif root:
                found |= self._library_call(call, root)
            elif origin == "builtin":
                found |= set() if name in PLAIN_BUILTINS else {"iteration", "hooks"}
            else:
                found |= defined
                plain = isinstance(call.func, ast.Attribute) and name in PLAIN_METHODS
                ours = is_log_call(call, scopes) or loop_call(call, scopes) is not None
                if not plain and not ours and not (defined and self.calls_own_method(call, scopes)):
                    found |= ALL_GROUPS
        return frozenset(found)

    def _undefined(self, name: str) -> frozenset[GraphNode]:
        """What a call reaches if the program defines the name without code of its own: a class without constructor."""
        classes = [f.node for f in self._defined.classes.get(name, ())]
        library = any(
            self._defined.has_library_base(n, set()) for n in classes if isinstance(n, ast.ClassDef)
        )
        return ALL_GROUPS if library or not classes else frozenset()

    def _library_call(self, call: ast.Call, root: str) -> frozenset[GraphNode]:
        """What a library may run: hooks, and objects too if it is handed one."""
        if root in PLAIN_LIBRARIES:
            return frozenset()
        bases = {n.value for n in walk(call) if isinstance(n, ast.Attribute)}
        called = {n.func for n in walk(call) if isinstance(n, ast.Call)}
        passed = {
            last_name(n) for n in walk(call)
            if isinstance(n, (ast.Name, ast.Attribute)) and n not in bases and n not in called
        }  # fmt: skip
        return ALL_GROUPS if passed & self._names_called else frozenset({"hooks"})

    def calls_own_method(self, call: ast.Call, scopes: Scopes) -> bool:
        """Whether the call is ``self.m(...)`` in a class of the program that defines ``m``."""
        func, scope = call.func, scopes.of[call]
        while scope.parent is not None and scope.parent.kind != "class":
            scope = scope.parent
        if not (
            isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and scope.parent is not None
        ):
            return False
        arguments = scope.node.args.args if isinstance(scope.node, FUNCTIONS) else []
        return bool(arguments) and arguments[0].arg == func.value.id and func.attr in scope.parent.bound

    def _names_of_callables(self) -> set[str]:
        """The names that the program calls, iterates, or gives to objects that it constructs."""
        names = set()
        for node in self._defined.all_nodes():
            if isinstance(node, ast.Call):
                names.add(last_name(node.func))
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                if last_name(node.value.func) in self._defined.classes:
                    names.update(last_name(target) for target in node.targets)
            elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
                names.add(last_name(node.iter))
        return names - {""}


def _evaluated_outside(node: ast.AST) -> list[ast.AST]:
    """The parts of a lambda or generator expression that are evaluated where it stands."""
    if isinstance(node, ast.Lambda):
        return [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
    return [node.generators[0].iter] if isinstance(node, ast.GeneratorExp) else []
