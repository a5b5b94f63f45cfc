"""Which function of a program may call which: edges from statements to functions, and what reaches what.

`florlog.source.graph.callees` says what one statement may call.  Groups of functions that run unseen are nodes of the
graph with members, so that there are few edges.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

from florlog.source.graph.callees import Callees, GraphNode
from florlog.source.graph.definitions import Definitions
from florlog.source.graph.functions import Code, Function
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scopes


class CallGraph:
    """Edges from statements to functions and groups."""

    def __init__(self, code: Code) -> None:
        self._code = code
        definitions = Definitions(code)
        self.local = definitions.local  # words in the names of the program's own modules
        self.lazy = definitions.lazy  # functions that are called now and run later
        self._members = definitions.members
        self._of_statement = Callees(code, definitions)
        self._callees: dict[ast.AST, list[tuple[ast.AST, frozenset[GraphNode]]]] = {}
        self._callers: dict[GraphNode, set[Function]] = defaultdict(set)
        for function in code.functions:
            for statement in code.statements_below(function.block):
                for callee in self.callees(statement):
                    self._callers[callee].add(function)

    def callees(self, statement: ast.AST) -> frozenset[GraphNode]:
        """What a statement's own part may call: its header if it has blocks, else all of it."""
        return frozenset().union(*(callees for _, callees in self.events(statement)))

    def events(self, statement: ast.AST) -> list[tuple[ast.AST, frozenset[GraphNode]]]:
        """The nodes of a statement's own part that may call something, each with what it may call."""
        if statement not in self._callees:
            events = self._of_statement.events(statement, self._file_of(statement))
            self._callees[statement] = [event for event in events if event[1]]
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
        """Whether a function may be called at a place where its name does not stand."""
        return any(function in members for members in self._members.values())

    def sets_mode(self, call: ast.AST, scopes: Scopes) -> bool:
        """Whether a call has the form of ``model.eval()`` or ``model.train()`` and is no method of the program.

        By its name alone such a call would reach a function ``train`` of the program.
        """
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return False
        most = {"eval": 0, "train": 1}.get(call.func.attr, -1)
        if len(call.args) + len(call.keywords) > most or self._of_statement.calls_own_method(call, scopes):
            return False
        return not all(map(root_module, scopes.origins(call.func)))

    def reached_from(
        self, statements: Iterable[ast.AST], without: set[Function], *, modes: bool = True
    ) -> set[Function]:
        """The functions that statements may run by any chain of calls outside florlog loops and ``without``.

        If ``modes``, a call that sets a mode (`sets_mode`) may also run a function of that name.
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

    def _file_of(self, part: ast.AST) -> str:
        if (function := self._code.function_of.get(part)) is not None:
            return function.file
        return next(file for file, scopes in self._code.scopes.items() if part in scopes.of)
