"""What a statement may call, by name: conservative, flow-insensitive, without types.

``f(x)`` reaches what ``f`` is bound to if that is a definition, every function of that name if it is
not known; ``obj.m(x)`` reaches every function named ``m``.  A call resolved neither in the program nor to
a builtin or a library may reach any *object* code: every ``forward`` and ``__call__``, every method of a
class with a base from a library (frameworks call those), every special method, and every *hook*.  Hooks are
functions that are referenced without being called, lambdas, generators, coroutines and functions under
unknown decorators: they run at a time that the call graph does not know.  Library calls may run hooks, and
object code when they are handed something that the program calls or constructs.  Iteration, ``with`` and
subscripts reach the matching special methods, every statement the remaining ones.

Classes of callees are *groups*, nodes of the graph with members, so that edges stay few.  Left out: threads
that run while the main thread calls nothing, signal handlers, monkey-patched library functions, ``exec``.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TypeAlias

from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.libraries import (
    ATTRIBUTES,
    CONSTRUCTORS,
    ITERATION,
    PLAIN_BUILTINS,
    PLAIN_LIBRARIES,
    PLAIN_METHODS,
    PROPERTIES,
    QUIET_DECORATORS,
    WITH,
)
from florlog.source.names.scopes import Origins, Scopes, root_module
from florlog.source.names.syntax import (
    COMPREHENSIONS,
    FUNCTIONS,
    WITHS,
    children,
    header_parts,
    own_nodes,
    walk,
)

GraphNode: TypeAlias = Function | str  # a function or a group

UNKNOWN = frozenset({"hooks", "objects", "iteration", "with", "dunders", "attributes"})


class CallGraph:
    """Edges from statements to functions and groups, and who may reach a function."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self.local = {
            part for file in code.trees for part in (PurePath(file).stem, PurePath(file).parent.name)
        }
        self._modules: dict[str, list[Function]] = defaultdict(list)  # by the last word of their names
        for file, tree in code.trees.items():
            path = PurePath(file)
            words = {path.stem, path.parent.name, ""} if path.stem == "__init__" else {path.stem}
            for word in words:
                self._modules[word].append(code.function_at[tree])
        self._named: dict[str, list[Function]] = defaultdict(list)
        self._properties: dict[str, list[Function]] = defaultdict(list)
        self._classes: dict[str, list[Function]] = defaultdict(list)
        self.lazy: set[Function] = set()  # called now, run later: generators, coroutines
        for function in code.functions:
            self._index(function)
        self._callable_names = self._names_of_callables()
        self._members: dict[str, set[Function]] = defaultdict(set)
        for function in code.functions:
            for group in self._groups(function):
                self._members[group].add(function)
        self._callees: dict[ast.AST, list[tuple[ast.AST, frozenset[GraphNode]]]] = {}
        self._members["hooks"] |= self._referenced()
        self._callers: dict[GraphNode, set[Function]] = defaultdict(set)
        for function in code.functions:
            for statement in code.statements_below(function.block):
                for callee in self.callees(statement):
                    self._callers[callee].add(function)

    def callees(self, statement: ast.AST) -> frozenset[GraphNode]:
        """What executing a statement's own part (its header, if it has blocks) may call."""
        return frozenset().union(*(callees for _, callees in self.events(statement)))

    def events(self, statement: ast.AST) -> list[tuple[ast.AST, frozenset[GraphNode]]]:
        """The nodes of a statement's own part that may call something, and what."""
        if statement not in self._callees:
            self._callees[statement] = [e for e in self._events(statement, self._file_of(statement)) if e[1]]
        return self._callees[statement]

    def reaching(self, function: Function) -> frozenset[GraphNode]:
        """The functions and groups that may run a function outside their own florlog loops, and itself."""
        found: set[GraphNode] = set()
        pending: list[GraphNode] = [function]
        while pending:
            node = pending.pop()
            if node in found:
                continue
            found.add(node)
            pending.extend(self._callers.get(node, ()))
            pending.extend(group for group, members in self._members.items() if node in members)
        return frozenset(found)

    def may_be_called_unseen(self, function: Function) -> bool:
        """Whether a function may be called where its name does not stand."""
        return any(function in members for members in self._members.values())

    def sets_mode(self, call: ast.AST, scopes: Scopes) -> bool:
        """Whether a call has the form of ``model.eval()`` or ``model.train()``, and is no method of the program's own.

        By its name alone it would reach a function ``train`` of the program.
        """
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return False
        most = {"eval": 0, "train": 1}.get(call.func.attr, -1)
        if len(call.args) + len(call.keywords) > most or self._on_self(call, scopes):
            return False
        return not all(map(root_module, scopes.origins(call.func)))

    def reached_from(
        self, statements: Iterable[ast.AST], without: set[Function], *, modes: bool = True
    ) -> set[Function]:
        """The functions that statements may run, by any chain of calls outside florlog loops and ``without``.

        ``modes``: calls that set a mode (`sets_mode`) may run what has their name.
        """
        found: set[Function] = set()
        seen: set[GraphNode] = set(without)
        pending = [callee for statement in statements for callee in self._called_by(statement, modes)]
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, str):
                pending.extend(self._members.get(node, ()))
                continue
            found.add(node)
            for statement in self._code.statements_below(node.block):
                pending.extend(self._called_by(statement, modes))
        return found

    def _called_by(self, statement: ast.AST, modes: bool) -> frozenset[GraphNode]:
        if modes:
            return self.callees(statement)
        scopes = self._code.scopes[self._file_of(statement)]
        return frozenset().union(
            *(callees for node, callees in self.events(statement) if not self.sets_mode(node, scopes))
        )

    # -- the groups --------------------------------------------------------------------------------

    def _file_of(self, part: ast.AST) -> str:
        if (function := self._code.function_of.get(part)) is not None:
            return function.file
        return next(file for file, scopes in self._code.scopes.items() if part in scopes.of)

    def _index(self, function: Function) -> None:
        node = function.node
        if isinstance(node, ast.ClassDef):
            self._classes[node.name].append(function)
        elif isinstance(node, FUNCTIONS):
            self._named[node.name].append(function)
            if {last_name(d) for d in node.decorator_list} & PROPERTIES:
                self._properties[node.name].append(function)
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
        framework = isinstance(owner, ast.ClassDef) and self._has_library_base(owner, set())
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

    def _has_library_base(self, node: ast.ClassDef, seen: set[ast.AST]) -> bool:
        if node in seen:
            return False
        seen.add(node)
        for base in node.bases:
            name = last_name(base)
            inner = [f.node for f in self._classes.get(name, ())]
            if name != "object" and not inner:
                return True
            if any(self._has_library_base(n, seen) for n in inner if isinstance(n, ast.ClassDef)):
                return True
        return bool(node.keywords)

    def _all_nodes(self) -> Iterator[ast.AST]:
        for tree in self._code.trees.values():
            yield from walk(tree)

    def _referenced(self) -> set[Function]:
        """Functions whose name is used other than by calling it, and constructors of classes used so."""
        found: set[Function] = set()
        every = [f for f in self._code.functions if isinstance(f.node, FUNCTIONS)]
        quiet: set[ast.AST] = set()
        for node in self._all_nodes():
            if isinstance(node, ast.Call):
                quiet.add(node.func)
                if _finds_by_name(node.func):
                    strings = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    if strings:
                        found.update(f for text in strings for f in self._named.get(str(text), ()))
                    elif not self._is_parsed(node) and not _is_library(self._origins_of_first(node)):
                        found.update(every)
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
                    and self._may_refer(node, self._code.scopes[file])
                ):
                    name = last_name(node)
                    found.update(self._definitions(name).difference(self._properties.get(name, ())))
        return found

    @staticmethod
    def _may_refer(node: ast.Name | ast.Attribute, scopes: Scopes) -> bool:
        """Whether a name, of a variable or an attribute, may stand for a definition of that name.

        A parameter or an assigned variable does not: what it holds was referred to where it came from.
        """
        scope = scopes.of.get(node)
        holder = scope.holder(node.id) if isinstance(node, ast.Name) and scope is not None else None
        if holder is None or holder.kind == "class":
            return True
        return any(isinstance(value, str) and value != "other" for value in holder.bound[last_name(node)])

    def _is_parsed(self, call: ast.Call) -> bool:
        """Whether a call is ``vars(args)`` of command line arguments: no function is among them."""
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

    def _names_of_callables(self) -> set[str]:
        """Names that the program calls as functions of unknown origin, or gives to what it constructs."""
        names = set()
        for node in self._all_nodes():
            if isinstance(node, ast.Call):
                names.add(last_name(node.func))
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                if last_name(node.value.func) in self._classes:
                    names.update(last_name(target) for target in node.targets)
            elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
                names.add(last_name(node.iter))
        return names - {""}

    def _definitions(self, name: str) -> set[Function]:
        found = set(self._named.get(name, ()))
        for owner in self._classes.get(name, ()):
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
            for inner in self._classes.get(last_name(base), ()):
                found |= self._constructors(inner, seen)
        return found

    # -- the edges ---------------------------------------------------------------------------------

    def _events(self, statement: ast.AST, file: str) -> Iterator[tuple[ast.AST, frozenset[GraphNode]]]:
        scopes = self._code.scopes[file]
        yield statement, self._own(statement, file)
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
                yield node, UNKNOWN

    def _own(self, statement: ast.AST, file: str) -> frozenset[GraphNode]:
        """What a statement does beside evaluating its expressions."""
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
                    found |= self._definitions(last_name(decorator)) or UNKNOWN
        return frozenset(found)

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> set[Function]:
        words = {part for alias in statement.names for part in alias.name.split(".")}
        if isinstance(statement, ast.ImportFrom):
            words |= set((statement.module or "").split("."))
        return {module for word in words for module in self._modules.get(word, ())}

    def _iterated(self, expr: ast.expr, scopes: Scopes) -> frozenset[GraphNode]:
        plain = isinstance(expr, (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set))
        is_range = isinstance(expr, ast.Call) and last_name(expr.func) == "range"
        if plain or (is_range and scopes.origins(expr.func) == {"builtin"}):  # type: ignore[attr-defined]
            return frozenset()
        return frozenset({"iteration", "hooks"})

    def _used(self, node: ast.Name | ast.Attribute, scopes: Scopes, *, called: bool) -> frozenset[GraphNode]:
        name = last_name(node)
        found: set[GraphNode] = set()
        if not called and self._may_refer(node, scopes):
            found |= self._definitions(name)
        if isinstance(node, ast.Attribute):
            found |= {"attributes", *self._properties.get(name, ())}
        return frozenset(found)

    def _called(self, call: ast.Call, scopes: Scopes) -> frozenset[GraphNode]:
        name = last_name(call.func)
        found: set[GraphNode] = set()
        for origin in scopes.origins(call.func):
            root = root_module(origin)
            real = origin.replace(":", ".").rpartition(".")[2] if root or origin.startswith("from:") else name
            defined = self._definitions(real)
            if origin in ("log", "loop", "iteration", "make_run"):
                continue
            if origin == "def" or (
                (root in self.local or not root) and origin.startswith(("from:", "module:"))
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
                if not plain and not ours and not (defined and self._on_self(call, scopes)):
                    found |= UNKNOWN
        return frozenset(found)

    def _undefined(self, name: str) -> frozenset[GraphNode]:
        """What calling a local name reaches that has no code of its own: a class without constructor."""
        classes = [f.node for f in self._classes.get(name, ())]
        library = any(self._has_library_base(n, set()) for n in classes if isinstance(n, ast.ClassDef))
        return UNKNOWN if library or not classes else frozenset()

    def _library_call(self, call: ast.Call, root: str) -> frozenset[GraphNode]:
        """A library runs hooks; objects too if it is handed one."""
        if root in PLAIN_LIBRARIES:
            return frozenset()
        bases = {n.value for n in walk(call) if isinstance(n, ast.Attribute)}
        called = {n.func for n in walk(call) if isinstance(n, ast.Call)}
        passed = {
            last_name(n) for n in walk(call)
            if isinstance(n, (ast.Name, ast.Attribute)) and n not in bases and n not in called
        }  # fmt: skip
        return UNKNOWN if passed & self._callable_names else frozenset({"hooks"})

    def _on_self(self, call: ast.Call, scopes: Scopes) -> bool:
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


def _finds_by_name(function: ast.AST) -> bool:
    """Whether a call may give any function of the program; ``model.eval()`` is none of these."""
    name = last_name(function)
    if isinstance(function, ast.Attribute) and last_name(function.value) not in ("builtins", "__builtins__"):
        return name in ("getattr", "methodcaller")
    return name in ("getattr", "methodcaller", "globals", "locals", "vars", "eval", "exec")


def _evaluated_outside(node: ast.AST) -> list[ast.AST]:
    """What of a lambda or generator expression is evaluated where it stands."""
    if isinstance(node, ast.Lambda):
        return [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
    return [node.generators[0].iter] if isinstance(node, ast.GeneratorExp) else []


def _is_library(origins: Origins) -> bool:
    return bool(origins) and all(map(root_module, origins))


def last_name(node: ast.AST) -> str:
    """The last name of a name, attribute, call or subscript: what it is called by."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return last_name(node.value) if isinstance(node, ast.Subscript) else ""
