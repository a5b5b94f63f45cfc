"""The functions and classes that a program defines, by name, and which of them run unseen.

Some code runs where its name does not stand.  It is collected in *groups*:

``hooks``
    functions that are referenced without being called, lambdas, generators, coroutines and functions under unknown
    decorators.  They run at a time that the call graph does not know.
``objects``
    every ``forward`` and ``__call__``, and every method of a class with a base from a library, because frameworks call
    those.
``iteration``, ``with``, ``attributes``, ``dunders``
    special methods.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePath

from florlog.source.graph.functions import Code, Function
from florlog.source.names.libraries import (
    ATTRIBUTES,
    CONSTRUCTORS,
    ITERATION,
    PROPERTIES,
    QUIET_DECORATORS,
    WITH,
)
from florlog.source.names.origins import Origins, root_module
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, children, own_nodes, walk


class Definitions:
    """The definitions of a program and the groups that they belong to."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self.local = {
            part for file in code.trees for part in (PurePath(file).stem, PurePath(file).parent.name)
        }
        self.modules: dict[str, list[Function]] = defaultdict(list)  # by the last word of their names
        for file, tree in code.trees.items():
            path = PurePath(file)
            words = {path.stem, path.parent.name, ""} if path.stem == "__init__" else {path.stem}
            for word in words:
                self.modules[word].append(code.function_at[tree])
        self._functions: dict[str, list[Function]] = defaultdict(list)
        self.properties: dict[str, list[Function]] = defaultdict(list)
        self.classes: dict[str, list[Function]] = defaultdict(list)
        self.lazy: set[Function] = set()  # called now, run later: generators, coroutines
        for function in code.functions:
            self._index(function)
        self.members: dict[str, set[Function]] = defaultdict(set)  # of each group
        for function in code.functions:
            for group in self._groups(function):
                self.members[group].add(function)
        self.members["hooks"] |= self._referenced()

    def named(self, name: str) -> set[Function]:
        """The functions of a name; for a class, its constructors."""
        found = set(self._functions.get(name, ()))
        for owner in self.classes.get(name, ()):
            found |= self._constructors(owner, set())
        return found

    def _constructors(self, owner: Function, seen: set[Function]) -> set[Function]:
        if owner in seen or not isinstance(owner.node, ast.ClassDef):
            return set()
        seen.add(owner)
        found = {
            self._code.function_at[n]
            for n in owner.node.body
            if isinstance(n, FUNCTIONS) and n.name in CONSTRUCTORS
        }
        for base in owner.node.bases:
            for inner in self.classes.get(last_name(base), ()):
                found |= self._constructors(inner, seen)
        return found

    def has_library_base(self, node: ast.ClassDef, seen: set[ast.AST]) -> bool:
        """Whether a class has a base, at any distance, that the program does not define; ``seen`` is filled."""
        if node in seen:
            return False
        seen.add(node)
        for base in node.bases:
            name = last_name(base)
            inner = [f.node for f in self.classes.get(name, ())]
            if name != "object" and not inner:
                return True
            if any(self.has_library_base(n, seen) for n in inner if isinstance(n, ast.ClassDef)):
                return True
        return bool(node.keywords)

    def _index(self, function: Function) -> None:
        node = function.node
        if isinstance(node, ast.ClassDef):
            self.classes[node.name].append(function)
        elif isinstance(node, FUNCTIONS):
            self._functions[node.name].append(function)
            if {last_name(d) for d in node.decorator_list} & PROPERTIES:
                self.properties[node.name].append(function)
        yields = (ast.Yield, ast.YieldFrom)
        inside = own_nodes(children(node)) if isinstance(node, (*FUNCTIONS, ast.Lambda)) else ()
        if isinstance(node, (ast.AsyncFunctionDef, ast.GeneratorExp)) or any(
            isinstance(n, yields) for n in inside
        ):
            self.lazy.add(function)

    def _groups(self, function: Function) -> Iterator[str]:
        node, name = function.node, function.name
        if function in self.lazy or isinstance(node, ast.Lambda):
            yield "hooks"
        if not isinstance(node, FUNCTIONS):
            return
        if any(last_name(d) not in QUIET_DECORATORS for d in node.decorator_list):
            yield "hooks"
        owner = self._code.function_of[node].node
        framework = isinstance(owner, ast.ClassDef) and self.has_library_base(owner, set())
        if name in ("forward", "__call__") or (framework and name not in CONSTRUCTORS):
            yield "objects"
        if name in ITERATION:
            yield "iteration"
        elif name in WITH:
            yield "with"
        elif name in ATTRIBUTES:
            yield "attributes"
        elif name.startswith("__") and name.endswith("__") and name not in {*CONSTRUCTORS, "__call__"}:
            yield "dunders"

    def all_nodes(self) -> Iterator[ast.AST]:
        """The nodes of all files."""
        for tree in self._code.trees.values():
            yield from walk(tree)

    def _referenced(self) -> set[Function]:
        """The functions whose name is used without calling it, and the constructors of classes whose name is."""
        found: set[Function] = set()
        all_functions = [f for f in self._code.functions if isinstance(f.node, FUNCTIONS)]
        quiet: set[ast.AST] = set()
        for node in self.all_nodes():
            if isinstance(node, ast.Call):
                quiet.add(node.func)
                if _finds_by_name(node.func):
                    strings = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    if strings:
                        found.update(f for text in strings for f in self._functions.get(str(text), ()))
                    elif not self._is_vars_of_arguments(node) and not _is_library(
                        self._origins_of_first(node)
                    ):
                        found.update(all_functions)
            elif isinstance(node, ast.ClassDef):
                quiet.update(node.bases)
            elif isinstance(node, (*FUNCTIONS, ast.AnnAssign, ast.arg)):
                annotation = node.returns if isinstance(node, FUNCTIONS) else node.annotation
                quiet.update(walk(annotation) if annotation else ())
                quiet.update(node.decorator_list if isinstance(node, FUNCTIONS) else ())
        for file, tree in self._code.trees.items():
            for node in walk(tree):
                if (
                    isinstance(node, (ast.Name, ast.Attribute))
                    and isinstance(node.ctx, ast.Load)
                    and node not in quiet
                    and may_refer(node, self._code.scopes[file])
                ):
                    name = last_name(node)
                    found.update(self.named(name).difference(self.properties.get(name, ())))
        return found

    def _is_vars_of_arguments(self, call: ast.Call) -> bool:
        """Whether a call is ``vars(args)`` of command line arguments, which contain no function."""
        if last_name(call.func) != "vars" or not call.args or not isinstance(call.args[0], ast.Name):
            return False
        scopes = next(s for s in self._code.scopes.values() if call in s.of)
        name = call.args[0].id
        holder = scopes.of[call].holder(name)
        made = [] if holder is None else holder.bound[name]
        return bool(made) and all(
            isinstance(value, ast.Call) and last_name(value.func) == "parse_args" for value in made
        )

    def _origins_of_first(self, call: ast.Call) -> Origins:
        if not call.args:
            return frozenset()
        scopes = next(s for s in self._code.scopes.values() if call in s.of)
        return scopes.origins(call.args[0])


def may_refer(node: ast.Name | ast.Attribute, scopes: Scopes) -> bool:
    """Whether a variable or an attribute may be the definition of that name.

    A parameter or an assigned variable is not: its value was referred to where it came from.
    """
    scope = scopes.of.get(node)
    holder = scope.holder(node.id) if isinstance(node, ast.Name) and scope is not None else None
    if holder is None or holder.kind == "class":
        return True
    return any(isinstance(value, str) and value != "other" for value in holder.bound[last_name(node)])


def _finds_by_name(function: ast.AST) -> bool:
    """Whether a call may return any function of the program.  ``model.eval()`` does not."""
    name = last_name(function)
    if isinstance(function, ast.Attribute) and last_name(function.value) not in ("builtins", "__builtins__"):
        return name in ("getattr", "methodcaller")
    return name in ("getattr", "methodcaller", "globals", "locals", "vars", "eval", "exec")


def _is_library(origins: Origins) -> bool:
    return bool(origins) and all(map(root_module, origins))


def last_name(node: ast.AST) -> str:
    """The last word of a name, attribute, call or subscript, by which the thing is called; "" for other nodes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return last_name(node.value) if isinstance(node, ast.Subscript) else ""
