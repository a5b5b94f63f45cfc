"""Which names, attributes and functions of a program hold what was read from outside, or the items of a loop.

After ``started = time.time()``, the name ``started`` is *noise*.  So is ``elapsed`` if it is computed from ``started``,
an attribute that holds it, the result of a function that returns it, and a name that is bound under a condition that
depends on it.  A value that is logged from noise differs from the recorded run's, even if everything else was equal.

The marks are a fixpoint over all code of the program; the order of statements does not count.  Names are kept apart by
scope, attributes only by name.  What the set-up reads from files and the environment is not noise: images contain what
comes of it.  A set is noise where its order is used, unless hashes are as they were when recorded (``same_hashes``).
The item of a florlog loop has a fingerprint; `Marks.item` says which values come from the item directly, and not
through the training's state.

Not seen: an object that gets a second name other than by ``a = b``, and what library objects keep of their arguments.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import COMPUTED_NAME, is_log_call, logged_values
from florlog.source.names.excerpts import clock_keys
from florlog.source.names.origins import Origins, root_module
from florlog.source.names.outside import HASHES, INPUTS, Read, outside
from florlog.source.names.scopes import Scope, Scopes
from florlog.source.names.syntax import FUNCTIONS, blocks, walk
from florlog.source.skip.data_fields import data_fields
from florlog.source.skip.flow import Flow
from florlog.source.skip.marks import NONE, Marks

Key = tuple[Scope, str] | str | Function
"""A name in its scope, an attribute, or what a function returns."""

MAX_PASSES = 20
ITERATION = ("__getitem__", "__getitems__", "__iter__", "__next__")


class Noise:
    """The marks of one program."""

    def __init__(self, code: Code, graph: CallGraph, *, same_hashes: bool) -> None:
        self._code = code
        self._graph = graph
        self._same_hashes = same_hashes
        self._marks: dict[Key, Marks] = {}
        self._globals: dict[str, Marks] = {}  # global names, of all modules together
        self._changed_in_place: dict[Key, Marks] = {}
        self._control: dict[ast.AST, Marks] = {}  # statement -> what decides whether it runs
        self._origins: dict[ast.expr, Origins] = {}
        self._named: dict[str, list[Function]] = {}
        for function in code.functions:
            self._named.setdefault(function.name, []).append(function)
        self.clock_keys = tuple(key for tree in code.trees.values() for key in clock_keys(tree))
        self.data_fields = data_fields(code.trees.values())
        self._repeated = self._repeated_functions()
        self._grown = True
        for _ in range(MAX_PASSES):
            if not self._grown:
                break
            self._grown = False
            for function in code.functions:
                Flow(self, function).run()

    def at(self, function: Function, line: int, names: Iterable[str]) -> Marks:
        """The marks of what a log statement at a line of a function logs under these names."""
        found = NONE
        reading = Flow(self, function)
        for statement in _statements(function):
            first, last = getattr(statement, "lineno", 0), getattr(statement, "end_lineno", 0)
            if not first <= line <= last or any(blocks(statement)):
                continue
            found |= self._control.get(statement, NONE)
            reading.stand_at(statement)
            calls = [
                n
                for n in walk(statement)
                if isinstance(n, ast.Call) and is_log_call(n, self.scopes(function))
            ]
            logged = [value for call in calls for value in _logged(call, set(names))]
            expressions: list[ast.AST] = [*logged] or [statement]
            for expression in expressions:
                found |= reading.value(expression).ordered("set", function.file, line)
        return found

    def carriers(self) -> frozenset[tuple[str, str]]:
        """The variables that carry noise, by their code's qualified name, and the attributes, with "" for that.

        What was read from files, the environment or the network is the same each time, and does not count.
        """
        noisy = [
            key
            for key, marks in self._marks.items()
            if marks.outside is not None and marks.outside.kind not in INPUTS
        ]
        variables = {(key[0].qualname, key[1]) for key in noisy if isinstance(key, tuple)}
        return frozenset(variables | {("", key) for key in noisy if isinstance(key, str)})

    # -- tables ------------------------------------------------------------------------------------

    def of(self, key: Key) -> Marks:
        """What is known of a key."""
        return self._marks.get(key, NONE)

    def add(self, key: Key, marks: Marks) -> None:
        """A key has these marks, too."""
        before = self._marks.get(key, NONE)
        after = before | marks
        if after != before:
            self._marks[key] = after
            self._grown = True
        if isinstance(key, tuple) and key[0].kind == "module":
            self._globals[key[1]] = self._globals.get(key[1], NONE) | after

    def change(self, key: Key, marks: Marks) -> None:
        """What a key holds was changed in place."""
        self.add(key, marks)
        before = self._changed_in_place.get(key, NONE)
        if before | marks != before:
            self._changed_in_place[key] = before | marks
            self._grown = True

    def changed(self, key: Key) -> Marks:
        """The marks of what was put into the object that a key holds."""
        return self._changed_in_place.get(key, NONE)

    def decided(self, statement: ast.AST, control: Marks) -> None:
        """What decides whether a statement runs."""
        self._control[statement] = self._control.get(statement, NONE) | control

    def of_global(self, name: str) -> Marks:
        """What is known of a name of some module of the program."""
        return self._globals.get(name, NONE)

    def origins(self, node: ast.expr, scopes: Scopes) -> Origins:
        """The origins of an expression."""
        if node not in self._origins:
            self._origins[node] = scopes.origins(node) if node in scopes.of else frozenset()
        return self._origins[node]

    def functions(self, name: str) -> Iterator[Function]:
        """The functions of a name; of a class its constructor."""
        for function in self._named.get(name, ()):
            if isinstance(function.node, ast.ClassDef):
                wanted = {f"{function.qualname}.__init__", f"{function.qualname}.__call__"}
                yield from (f for f in self._named.get("__init__", ()) if f.qualname in wanted)
            elif isinstance(function.node, FUNCTIONS):
                yield function

    def is_local(self, origin: str) -> bool:
        """Whether an imported name is one of the program's own modules'."""
        return root_module(origin) in self._graph.local or origin.startswith("from:.")

    def reads(self, names: Iterable[str], statement: ast.AST, function: Function) -> str:
        """What one of these dotted names reads, as far as it is noise at a statement; "" if nothing."""
        for name in names:
            kind = outside(name)
            if not kind or (kind == HASHES and self._same_hashes):
                continue
            if kind not in INPUTS or self.is_repeated(statement, function):
                return kind
        return ""

    def given_by(self, name: str) -> Read | None:
        """What the items depend on that objects of a class give to a loop over them."""
        for function in self._named.get(name, ()):
            methods = {f"{function.qualname}.{method}" for method in ITERATION}
            for code in (code for method in ITERATION for code in self._named.get(method, ())):
                if code.qualname in methods and (read := self.of(code).outside) is not None:
                    return read
        return None

    def owner(self, function: Function) -> ast.AST:
        """The definition that a function stands in."""
        outer = self._code.function_of.get(function.node)
        return function.node if outer is None else outer.node

    @property
    def same_hashes(self) -> bool:
        """Whether sets are in the order of the recording."""
        return self._same_hashes

    def is_florlog_loop(self, statement: ast.AST) -> bool:
        """Whether a ``for`` receives the items of a florlog loop."""
        return statement in self._code.looping

    def scopes(self, function: Function) -> Scopes:
        """The scopes of a function's file."""
        return self._code.scopes[function.file]

    # -- what an iteration may run -------------------------------------------------------------------

    def is_repeated(self, statement: ast.AST, function: Function) -> bool:
        """Whether an iteration of a florlog loop may run a statement."""
        return function in self._repeated or self._code.own_loop_body(statement)

    def _repeated_functions(self) -> set[Function]:
        bodies: list[ast.AST] = []
        for loop in self._code.loops:
            pending: list[ast.AST] = list(loop.body.body) if loop.body is not None else []
            while pending:
                statement = pending.pop()
                bodies.append(statement)
                for _, inner in blocks(statement):
                    pending.extend(inner)
        return self._graph.reached_from([b for b in bodies if b in self._code.function_of], set())


def _statements(function: Function) -> Iterator[ast.AST]:
    pending = list(function.block)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for _, inner in blocks(node):
                pending.extend(inner)


def _logged(call: ast.Call, names: set[str]) -> list[ast.expr]:
    """The expressions that a log call logs under these names."""
    logged = logged_values(call)
    chosen = [code for name, code in logged if name in names]
    if len(chosen) == len(names):
        return chosen
    return [*chosen, *(code for name, code in logged if name == COMPUTED_NAME)]
