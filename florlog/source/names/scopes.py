"""The scopes of a module: which code a node belongs to, and what each name is bound to there.

The question behind it is always "is this florlog?".  The binding answers it, not the text: after ``from florlog import
log as L`` the call ``L(loss=x)`` is a log call, and after ``from math import log`` the call ``log(x)`` is not.
Bindings are collected per scope without regard to their order, so a name has a *set* of origins
(`florlog.source.names.origins`).  Values are followed through plain assignments and ``with ... as``, but not through
calls, containers or attributes of the user's objects.

Qualified names are those of ``co_qualname``, including the parts that CPython makes up (``<locals>``, ``<lambda>``,
``<listcomp>``, ...).
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from florlog.source.names.origins import FLORLOG_NAMES, OTHER, Origins, origin_of_attribute
from florlog.source.names.syntax import own_nodes, walk

COMPREHENSION_NAMES = {
    ast.ListComp: "<listcomp>", ast.SetComp: "<setcomp>", ast.DictComp: "<dictcomp>",
    ast.GeneratorExp: "<genexpr>",
}  # fmt: skip
INLINED = sys.version_info >= (3, 12)  # PEP 709: comprehensions other than generators have no frame


@dataclass(eq=False)
class Scope:
    """The names of one code object."""

    node: ast.AST
    kind: str  # "module", "function", "class", "comprehension"
    qualname: str
    parent: Scope | None
    # For each name its origins, or the expressions that were assigned to it.
    bound: dict[str, list[str | ast.expr]] = field(default_factory=dict)
    outer: dict[str, str] = field(default_factory=dict)  # name -> "global" or "nonlocal"

    def qualname_of(self, name: str) -> str:
        """The qualified name of code called ``name`` that is defined in this scope."""
        if self.kind == "module" or self.outer.get(name) == "global":
            return name
        if (
            self.parent is not None and self.qualname == self.parent.qualname
        ):  # a comprehension without a frame
            return self.parent.qualname_of(name)
        return self.qualname + (".<locals>." if self.kind == "function" else ".") + name

    def module(self) -> Scope:
        """The module's scope."""
        return self if self.parent is None else self.parent.module()

    def holder(self, name: str) -> Scope | None:
        """The scope in which a name that is read here is bound; None if the file binds it nowhere."""
        scope: Scope | None = self
        while scope is not None:
            visible = scope is self or scope.kind != "class"  # a class's names are seen in its own body alone
            if visible and scope.outer.get(name) == "global":
                module = self.module()
                return module if name in module.bound else None
            if visible and name in scope.bound and name not in scope.outer:
                return scope
            scope = scope.parent
        return None


class Scopes(ast.NodeVisitor):
    """The scopes of one module: ``of[node]`` is the scope in which a node is evaluated."""

    def __init__(self, tree: ast.Module) -> None:
        self.root = Scope(tree, "module", "<module>", None)
        self.of: dict[ast.AST, Scope] = {}
        self.inner: dict[ast.AST, Scope] = {}  # function, lambda, class, comprehension -> the scope it opens
        self._current = self.root
        self._nonlocal: list[tuple[Scope, str, str | ast.expr]] = []  # bindings of names declared nonlocal
        self.visit(tree)
        for scope, name, origin in self._nonlocal:  # now that all outer functions are known
            if (holder := scope.holder(name)) is not None:
                holder.bound[name].append(origin)

    def visit(self, node: ast.AST) -> None:
        self.of[node] = self._current
        super().visit(node)

    def origins(self, expr: ast.expr, scope: Scope | None = None) -> Origins:
        """Where the value of an expression comes from, as far as bindings tell."""
        return self._origins(expr, scope or self.of[expr], frozenset())

    def _origins(self, expr: ast.expr, scope: Scope, seen: frozenset[tuple[str, int]]) -> Origins:
        if isinstance(expr, ast.Name):
            return self._name_origins(expr.id, scope, seen)
        if isinstance(expr, ast.Attribute):
            base = self._origins(expr.value, scope, seen)
            return frozenset(origin_of_attribute(origin, expr.attr) for origin in base)
        if isinstance(expr, ast.Call):
            base = self._origins(expr.func, scope, seen)
            return frozenset("run" if origin == "make_run" else "other" for origin in base)
        if isinstance(expr, ast.NamedExpr):
            return self._origins(expr.value, scope, seen)
        if isinstance(expr, ast.IfExp):
            return self._origins(expr.body, scope, seen) | self._origins(expr.orelse, scope, seen)
        return OTHER

    def _name_origins(self, name: str, scope: Scope, seen: frozenset[tuple[str, int]]) -> Origins:
        holder = scope.holder(name)
        if holder is None:
            return frozenset({"builtin"}) if hasattr(builtins, name) else OTHER
        key = (name, id(holder))
        if key in seen:
            return frozenset()
        found: set[str] = set()
        for binding in holder.bound[name]:
            if isinstance(binding, str):
                found.add(binding)
            else:
                found |= self._origins(binding, self.of.get(binding, holder), seen | {key})
        return frozenset(found) or OTHER

    # -- building ----------------------------------------------------------------------------------

    def _binding_scope(self, name: str) -> Scope:
        scope = self._current
        while scope.kind == "comprehension" and name not in scope.bound and scope.parent is not None:
            scope = scope.parent  # an assignment expression binds in the enclosing function
        return scope

    def _bind(self, name: str, origin: str | ast.expr) -> None:
        scope = self._binding_scope(name)
        scope.bound.setdefault(name, []).append(origin)
        if scope.outer.get(name) == "global":
            scope.module().bound.setdefault(name, []).append(origin)
        elif scope.outer.get(name) == "nonlocal":
            self._nonlocal.append((scope, name, origin))

    def _make_local(self, name: str) -> None:
        """Note a name that gets no value here but belongs to this scope all the same."""
        scope = self._binding_scope(name)
        scope.bound.setdefault(name, [])
        if scope.outer.get(name) == "global":
            scope.module().bound.setdefault(name, [])

    def _declare(self, body: Iterable[ast.AST]) -> None:
        """Note ``global`` and ``nonlocal``, which count for the whole scope wherever they stand in it."""
        for node in own_nodes(body):
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                word = "global" if isinstance(node, ast.Global) else "nonlocal"
                self._current.outer.update(dict.fromkeys(node.names, word))

    def _bind_target(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, "other" if value is None else value)
            return
        pairs = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
        if pairs and len(target.elts) == len(value.elts):  # type: ignore[union-attr,attr-defined]
            for inner, item in zip(target.elts, value.elts, strict=True):  # type: ignore[union-attr,attr-defined]
                self._bind_target(inner, item)
            return
        for node in walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._bind(node.id, "other")

    def _open(self, node: ast.AST, kind: str, qualname: str) -> Scope:
        scope = Scope(node, kind, qualname, self._current)
        self.inner[node] = scope
        self._current = scope
        return scope

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        self._visit_all((*arguments.defaults, *arguments.kw_defaults))
        name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
        outside = self._current
        self._open(node, "function", outside.qualname_of(name))
        self.of[arguments] = self._current
        for argument in _arguments(arguments):
            self.of[argument] = self._current
            self._bind(argument.arg, "other")
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self._declare(body)
        self._visit_all(body)
        self._current = outside

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind(node.name, "def")
        self._visit_all(node.decorator_list)
        self._visit_all((node.returns, *(argument.annotation for argument in _arguments(node.args))))
        self._function(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815
    visit_Lambda = _function  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, "def")
        self._visit_all((*node.decorator_list, *node.bases, *node.keywords))
        outside = self._current
        self._open(node, "class", outside.qualname_of(node.name))
        self._declare(node.body)
        self._visit_all(node.body)
        self._current = outside

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)
        outside = self._current
        own_frame = isinstance(node, ast.GeneratorExp) or not INLINED
        name = outside.qualname_of(COMPREHENSION_NAMES[type(node)]) if own_frame else outside.qualname
        scope = self._open(node, "comprehension", name)
        for generator in node.generators:
            self.of[generator] = scope
            for target in walk(generator.target):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    scope.bound[target.id] = ["other"]
        for index, generator in enumerate(node.generators):
            self.visit(generator.target)
            if index:
                self.visit(generator.iter)
            self._visit_all(generator.ifs)
        self._visit_all((node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,))
        self._current = outside

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            self._bind(alias.asname or whole, "florlog" if whole == "florlog" else f"module:{whole}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            origin = FLORLOG_NAMES.get(alias.name, "other") if module == "florlog" else ""
            self._bind(alias.asname or alias.name, origin or f"from:{module}:{alias.name}")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind_target(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind_target(node.target, node.value)
        elif node.simple and self._current.kind == "function":  # elsewhere the name is looked up further out
            self._make_local(node.target.id)  # type: ignore[union-attr]
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Del):
            self._make_local(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind_target(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._bind_target(node.target, None)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind_target(node.target, None)
        self.generic_visit(node)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._bind_target(node.optional_vars, node.context_expr)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name, "other")
        self.generic_visit(node)

    def _capture(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self._bind(name, "other")
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _capture  # noqa: N815


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    every = (
        *arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg,
    )  # fmt: skip
    return [argument for argument in every if argument is not None]
