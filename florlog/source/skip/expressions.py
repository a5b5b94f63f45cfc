"""How marks flow through the expressions of one function: what they read from the tables, and what they add."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from florlog.source.graph.functions import Function
from florlog.source.names.origins import root_module
from florlog.source.names.outside import (
    CLOCK,
    CLOCK_METHODS,
    ENTROPY,
    FILES,
    READING_METHODS,
    SEEDED,
    Read,
    dotted,
)
from florlog.source.names.syntax import COMPREHENSIONS, FUNCTIONS, children
from florlog.source.names.telling import only_tells
from florlog.source.skip.marks import (
    CONTAINERS,
    MUTATORS,
    NONE,
    NUMBERS_OF_TEXTS,
    ORDER_FREE,
    SET_METHODS,
    TEXT_BUILTINS,
    TEXT_LIBRARIES,
    TEXT_METHODS,
    Marks,
)

if TYPE_CHECKING:
    from florlog.source.skip.noise import Key, Noise


class Expressions:
    """Evaluates the expressions of a function by the tables of its program."""

    def __init__(self, noise: Noise, function: Function) -> None:
        self._noise = noise
        self._function = function
        self._statement: ast.AST = function.node
        self._scopes = noise.scopes(function)

    def stand_at(self, statement: ast.AST) -> None:
        """What is evaluated next is part of a statement."""
        self._statement = statement

    def value(self, node: ast.AST) -> Marks:
        """The marks of an expression's value."""
        match node:
            case ast.Constant(value=str() as key) if key.endswith(self._noise.clock_keys or "\0"):
                return Marks(Read(CLOCK, f"{key!r}", self._function.file, node.lineno))
            case ast.Constant():
                return NONE
            case ast.Attribute(attr=key) if key.endswith(self._noise.clock_keys or "\0"):
                return Marks(Read(CLOCK, f"{key!r}", self._function.file, node.lineno))
            case ast.Name() | ast.Attribute():
                return self._named(node)
            case ast.Call():
                return self._call(node)
            case ast.NamedExpr(target=target, value=value):
                marks = self.value(value)
                self._bind(target, marks)
                return marks
            case ast.Set(elts=elts):
                numbers = all(isinstance(e, ast.Constant) and isinstance(e.value, int) for e in elts)
                return self._values(elts).without_order() | Marks(unordered=not numbers and self._counts)
            case ast.Lambda(body=body):
                return self.value(body)
            case ast.Compare() | ast.UnaryOp() | ast.BoolOp():
                return self._values(children(node)).without_order()
            case ast.JoinedStr():
                return self._in_order(self._values(children(node)), node).iterated().as_text()
            case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod(), right=right):
                return self.value(right).as_text()
            case ast.Starred() | ast.FormattedValue() | ast.Subscript():
                return self._in_order(self._values(children(node)), node).iterated()
            case ast.Yield() | ast.YieldFrom():
                marks = self._values(children(node))
                self._noise.add(self._function, marks)
                return NONE
        if isinstance(node, COMPREHENSIONS):
            return self._comprehension(node)
        return self._values(children(node))

    @property
    def _counts(self) -> bool:
        return not self._noise.same_hashes

    def _values(self, nodes: Iterable[ast.AST]) -> Marks:
        found = NONE
        for node in nodes:
            found |= self.value(node)
        return found

    def _in_order(self, marks: Marks, node: ast.AST) -> Marks:
        return marks.ordered("the order of a set", self._function.file, getattr(node, "lineno", 0))

    def _named(self, node: ast.Name | ast.Attribute, *, field: bool = True) -> Marks:
        origins = self._noise.origins(node, self._scopes)
        found = self._source(node, (dotted(o, getattr(node, "id", "")) for o in origins))
        for origin in origins:
            if self._noise.is_local(origin):
                found |= self._noise.of_global(origin.replace(":", ".").rpartition(".")[2])
        if isinstance(node, ast.Name):
            key = self._key(node)
            return found if key is None else found | self._noise.of(key)
        if all(map(root_module, origins)) and origins:
            return found
        if f".{node.attr}".endswith(self._noise.clock_keys or "\0"):
            found |= Marks(Read(CLOCK, f".{node.attr}", self._function.file, node.lineno))
        if field:
            found |= self._noise.of(node.attr)
        return found | self.value(node.value).without_order()

    def _called(self, node: ast.expr) -> Marks:
        """The marks of what is called: a field that holds data alone is not."""
        if isinstance(node, ast.Attribute) and node.attr in self._noise.data_fields:
            return self._named(node, field=False)
        return self.value(node)

    def _source(self, node: ast.expr, names: Iterable[str]) -> Marks:
        names = [name for name in names if name]
        kind = self._noise.reads(names, self._statement, self._function)
        if not kind:
            return NONE
        return Marks(Read(kind, names[0].removeprefix("builtins."), self._function.file, node.lineno))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> Marks:
        found = NONE
        for generator in node.generators:
            iterated = self.value(generator.iter)
            found |= iterated.iterated()
            self._bind(generator.target, iterated.without_order().iterated())
            found |= self._values(generator.ifs).without_order()
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        found |= self._values(parts).without_order()
        return found | Marks(unordered=isinstance(node, ast.SetComp) and self._counts)

    def _call(self, call: ast.Call) -> Marks:
        called = call.func
        origins = self._noise.origins(called, self._scopes)
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        arguments: list[ast.expr] = [*call.args, *(k.value for k in call.keywords)]
        given = self._values(arguments)
        found = self._called(called)
        line = call.lineno
        names = {dotted(origin, name) for origin in origins}
        if names & SEEDED and all(isinstance(a, ast.Constant) and a.value is None for a in arguments):
            found |= Marks(Read(ENTROPY, min(names & SEEDED), self._function.file, line))
        if "builtin" in origins:
            return self._builtin(name, arguments, given, line)
        if isinstance(called, ast.Attribute) and not (origins and all(map(root_module, origins))):
            holder = self.value(called.value)
            if holder.unordered and name in SET_METHODS:
                return (found | given).without_order() | Marks(unordered=True)
            found |= self._in_order(holder, call)
            if name in MUTATORS or (name.endswith("_") and not name.startswith("_")):
                self._change(called.value, given)
        functions = (
            [] if all(map(self._is_foreign, origins)) and origins else list(self._noise.functions(name))
        )
        for function in functions:
            self._enter(
                function, call, bound=isinstance(called, ast.Attribute) or function.name == "__init__"
            )
            found |= self._noise.of(function)
        found |= Marks(given=self._noise.given_by(name))
        if origins and all(origin == "def" or self._noise.is_local(origin) for origin in origins):
            return found  # what it is given flows through its parameters
        if name in CLOCK_METHODS and not functions and not any(map(root_module, origins)):
            found |= Marks(Read(CLOCK, f".{name}()", self._function.file, line))
        if name in TEXT_METHODS:
            return self._in_order(found | given, call).as_text()
        given = self._computed(name, names, given)
        if name in NUMBERS_OF_TEXTS:
            found = found.from_text()
        if not functions:
            given = self._in_order(given, call)
            unknown = not any(map(root_module, origins)) and name in READING_METHODS
            if unknown and self._noise.is_repeated(self._statement, self._function):
                found |= Marks(Read(FILES, f".{name}()", self._function.file, line))
        return found | given.without_order()

    @staticmethod
    def _computed(name: str, names: set[str], given: Marks) -> Marks:
        """What of its arguments reaches the result of a call of something that is not the program's.

        A name that an object is given decides nothing that the object computes.  What tells people values keeps it:
        images do not contain such objects, so their names are those of this process.
        """
        roots = {dotted.partition(".")[0] for dotted in names if dotted}
        if not roots:
            return given if hasattr(str, name) and name not in NUMBERS_OF_TEXTS else given.from_text()
        if roots <= TEXT_LIBRARIES or all(map(only_tells, names)):
            return given
        made = name[:1].isupper() and not roots & (sys.stdlib_module_names | {"numpy"})
        return given.without_text() if made else given.from_text()

    def _is_foreign(self, origin: str) -> bool:
        return bool(root_module(origin)) and not self._noise.is_local(origin)

    def _builtin(self, name: str, arguments: list[ast.expr], given: Marks, line: int) -> Marks:
        found = self._source_builtin(name, line) | given
        if name in TEXT_BUILTINS:
            return found.ordered(f"{name}() of a set", self._function.file, line).as_text()
        if name not in CONTAINERS:
            found = found.from_text()
        if name in ("set", "frozenset"):
            numbers = all(isinstance(a, ast.Call) and getattr(a.func, "id", "") == "range" for a in arguments)
            return found.without_order() | Marks(unordered=bool(arguments) and not numbers and self._counts)
        if name in ORDER_FREE:
            return found.without_order()
        return found.ordered(f"{name}() of a set", self._function.file, line)

    def _source_builtin(self, name: str, line: int) -> Marks:
        kind = self._noise.reads([f"builtins.{name}"], self._statement, self._function)
        return Marks(Read(kind, name, self._function.file, line)) if kind else NONE

    def _enter(self, function: Function, call: ast.Call, *, bound: bool) -> None:
        """The arguments of a call reach the parameters of a function, and what it puts into them comes back."""
        node = function.node
        if not isinstance(node, FUNCTIONS):
            return
        scope, arguments = self._noise.scopes(function).inner[node], node.args
        parameters = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
        method = isinstance(self._noise.owner(function), ast.ClassDef) and not static
        if method and bound and parameters:
            first = parameters.pop(0)
            if isinstance(call.func, ast.Attribute) and function.name != "__init__":
                self._change(call.func.value, self._noise.changed((scope, first)))
        rest = arguments.vararg.arg if arguments.vararg else None
        extra = arguments.kwarg.arg if arguments.kwarg else None
        known = {*parameters, *(a.arg for a in arguments.kwonlyargs)}
        pairs = [(parameters[i] if i < len(parameters) else rest, a) for i, a in enumerate(call.args)]
        pairs += [(k.arg if k.arg in known else extra, k.value) for k in call.keywords]
        for parameter, argument in pairs:
            if parameter is not None:
                key = scope, parameter
                if (marks := self.value(argument)) != NONE:
                    self._noise.add(key, marks)
                self._change(argument, self._noise.changed(key))

    # -- what holds values --------------------------------------------------------------------------

    def _bind(self, target: ast.AST, marks: Marks) -> None:
        match target:
            case ast.Name() | ast.Attribute():
                if marks != NONE and (key := self._key(target)) is not None:
                    self._noise.add(key, marks)
            case ast.Subscript(value=value):
                self._change(value, marks | self.value(target.slice).without_order())
            case ast.Starred(value=value):
                self._bind(value, marks)
            case ast.Tuple(elts=elts) | ast.List(elts=elts):
                for inner in elts:
                    self._bind(inner, marks)

    def _bind_name(self, name: str, near: ast.AST, marks: Marks) -> None:
        scope = self._scopes.of.get(near)
        if scope is not None and (holder := scope.holder(name)) is not None and marks != NONE:
            self._noise.add((holder, name), marks)

    def _change(self, held: ast.AST, marks: Marks) -> None:
        """Something was put into what an expression holds."""
        marks = marks.without_order()
        if marks == NONE:
            return
        while isinstance(held, (ast.Subscript, ast.Starred, ast.Call)):
            held = held.func if isinstance(held, ast.Call) else held.value
        if (key := self._key(held)) is not None:
            self._noise.change(key, marks)

    def _key(self, node: ast.AST) -> Key | None:
        if isinstance(node, ast.Attribute):
            return node.attr
        if isinstance(node, ast.Name) and (scope := self._scopes.of.get(node)) is not None:
            holder = scope.holder(node.id)
            return None if holder is None else (holder, node.id)
        return None
