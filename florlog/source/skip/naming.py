"""Which function a call runs, and what an object inside it is called where the call stands.

An object is *named* by an expression that gives the same object where a piece begins: a variable, an attribute or a
constant subscript of one, or a parameter of a called function that was given such an object.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from florlog.source.carry.liveness import Names
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.definitions import last_name
from florlog.source.graph.functions import Code, Function
from florlog.source.names.libraries import QUIET_DECORATORS
from florlog.source.names.syntax import FUNCTIONS


@dataclass(frozen=True, eq=False)
class Context:
    """A function that the analysis walks through, with the arguments that it was given and the calling statement.

    ``given`` is None for the function that contains the piece.
    """

    function: Function
    given: Mapping[str, tuple[Context, ast.expr]] | None
    caller: ast.AST


class Naming:
    """Names of objects where a piece of ``function`` begins.  The piece binds the names ``bound``."""

    def __init__(self, code: Code, function: Function, bound: Names) -> None:
        scopes = code.scopes[function.file]
        self._code, self._bound = code, bound
        self._where = scopes.inner.get(function.node, scopes.root)

    def bindings(self, at: Context, name: ast.Name) -> list[str | ast.expr]:
        """What a variable is bound to, as in `Scope.bound`."""
        holder = self._code.scopes[at.function.file].of[name].holder(name.id)
        return ["other"] if holder is None else holder.bound[name.id]

    def name_of(self, at: Context, expr: ast.expr) -> str:
        """An expression for the same object where the piece begins; "" if there is none."""
        if isinstance(expr, ast.Attribute):
            base = self.name_of(at, expr.value)
            return f"{base}.{expr.attr}" if base else ""
        if isinstance(expr, ast.Subscript) and isinstance(expr.slice, ast.Constant):
            base = self.name_of(at, expr.value)
            return f"{base}[{expr.slice.value!r}]" if base else ""
        if not isinstance(expr, ast.Name):
            return ""
        holder = self._code.scopes[at.function.file].of[expr].holder(expr.id)
        if holder is None or holder.kind in ("comprehension", "class"):
            return ""
        if at.given is not None and holder.node is at.function.node:
            outer, argument = at.given.get(expr.id, (at, None))
            if argument is None or holder.bound[expr.id] != ["other"]:  # or bound again
                return ""
            return self.name_of(outer, argument)
        visible = self._where.holder(expr.id) is holder
        return expr.id if visible and expr.id not in self._bound else ""

    def arguments(self, at: Context, call: ast.Call, called: Function) -> dict[str, tuple[Context, ast.expr]]:
        """What the parameters of a called function are given, as far as it is known."""
        node = called.node
        assert isinstance(node, FUNCTIONS)
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        given = list(call.args)
        if isinstance(self._code.function_of[node].node, ast.ClassDef):
            unbound = {last_name(decorator) for decorator in node.decorator_list} & {
                "classmethod",
                "staticmethod",
            }
            if isinstance(call.func, ast.Attribute) and not unbound:
                given.insert(0, call.func.value)
            else:
                names = []
        if any(isinstance(argument, ast.Starred) for argument in given):
            names = []
        arguments = {name: (at, argument) for name, argument in zip(names, given, strict=False)}
        return arguments | {keyword.arg: (at, keyword.value) for keyword in call.keywords if keyword.arg}


def callee(code: Code, graph: CallGraph, call: ast.Call, statement: ast.AST) -> Function | None:
    """The function or generator of the program that a call in a statement certainly runs; None if there is none."""
    if graph.sets_mode(call, code.scopes[code.function_of[statement].file]):
        return None
    called = next((functions for node, functions in graph.events(statement) if node is call), frozenset())
    if len(called) != 1:
        return None
    (function,) = called
    if isinstance(function, str) or not isinstance(function.node, ast.FunctionDef):
        return None
    quiet = all(last_name(decorator) in QUIET_DECORATORS for decorator in function.node.decorator_list)
    return function if quiet and function.name == last_name(call.func) else None
