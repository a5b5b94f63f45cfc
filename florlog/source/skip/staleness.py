"""Where stale values go: values that may differ from the recording because a loop was not run.

This is a forward pass over a function, from the loop on or from calls that return stale values.  Logging or printing a
stale value does no harm, because the log has the recorded one.  Assigning it to a plain name does no harm either; that
name is stale from then on.  Such a statement may fail (an empty list is concatenated, a count of zero is the divisor).
That does no harm, as its result is stale anyway, so it is allowed to fail if the loop was skipped
(`Staleness.may_fail`).

Any other use means that the loop is needed: a condition, a call that may keep or change something, an added statement.
Jumps are not followed: a name is stale after a loop or a ``try`` if it was stale anywhere inside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from florlog.source.carry.liveness import Names
from florlog.source.graph.functions import Function
from florlog.source.names.calls import is_log_call
from florlog.source.names.libraries import PLAIN_BUILTINS
from florlog.source.names.origins import root_module
from florlog.source.names.outside import COMPUTING_LIBRARIES
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, LOOPS, WITHS, header_parts

LineNumbers = Mapping[str, frozenset[int]]
"""File -> lines."""

CHANGING_METHODS = {
    "add", "append", "appendleft", "apply_", "backward", "clear", "discard", "dump", "extend", "extendleft", "fill",
    "insert", "load_state_dict", "pop", "popitem", "put", "register_buffer", "register_forward_hook", "remove",
    "requires_grad_", "reset", "reverse", "save", "savefig", "send", "setdefault", "shuffle", "sort", "step", "update",
    "write", "writelines",
}  # fmt: skip
FUNCTIONAL_BUILTINS = PLAIN_BUILTINS - {"delattr", "input", "open"} | {
    "all", "any", "dict", "enumerate", "filter", "list", "map", "max", "min", "reversed", "sorted", "sum", "tuple",
    "zip",
}  # fmt: skip


class Needed(Exception):  # noqa: N818 - an answer
    """Something that is asked for depends on the loop or piece, or may depend on it."""


class Staleness:
    """One pass over a function, from a loop that is not run or from calls that return stale values.

    ``source`` is the loop or the calling statement.  ``written`` are the names that the loop binds, ``exposed`` those
    that it reads before it binds them, and ``given`` the calls whose values are stale.
    """

    def __init__(
        self, function: Function, scopes: Scopes, added: LineNumbers, source: ast.AST, written: Names,
        exposed: Names, given: frozenset[ast.AST],
    ) -> None:  # fmt: skip
        self._file, self._scopes = function.file, scopes
        self._added = added.get(function.file, frozenset())
        self._source, self._given = source, given
        self._written, self._exposed = written, exposed
        self._open: list[set[str]] = []  # for each loop and try around: names that were stale anywhere in it
        self.everything: Names = frozenset()
        self.logged: set[tuple[str, int]] = set()
        self.may_fail: set[tuple[int, int]] = set()  # statements, by line and column
        self.returned = False

    def block(self, block: Iterable[ast.AST], stale: Names) -> Names:
        """The names that are stale after a block, given those that are stale before it."""
        for statement in block:
            stale = self._statement(statement, stale)
            self.everything |= stale
            for around in self._open:
                around |= stale
        return stale

    def _statement(self, node: ast.AST, stale: Names) -> Names:
        if node is self._source and not self._given:
            self._refuse_if(stale & self._exposed)  # the loop may be run the next time
            return stale | self._written
        if isinstance(node, LOOPS):
            return self._loop(node, stale)
        if isinstance(node, (ast.Try, ast.TryStar)):
            around = set(stale)
            self._open.append(around)
            ended = self.block(node.body, stale)
            self._open.pop()
            ended = self.block(node.orelse, ended)
            for handler in node.handlers:
                ended |= self.block(handler.body, frozenset(around))
            return self.block(node.finalbody, ended | frozenset(around))
        if isinstance(node, (ast.If, *WITHS)):
            self._refuse_if(self._uses(header_parts(node), stale))
            if isinstance(node, ast.If):
                return self.block(node.body, stale) | self.block(node.orelse, stale)
            return self.block(node.body, stale)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom)):
            return stale
        if self._uses([node], stale):
            return self._using(node, stale)
        return stale - self._bound(node) if isinstance(node, (ast.Assign, ast.AnnAssign)) else stale

    def _using(self, node: ast.AST, stale: Names) -> Names:
        """A simple statement that reads something stale."""
        assert isinstance(node, ast.stmt)
        self._refuse_if(node.lineno in self._added)
        self.may_fail.add((node.lineno, node.col_offset))
        if isinstance(node, ast.Return):
            assert node.value is not None
            self._check_value(node.value, stale)
            self.returned = True
            return stale
        if isinstance(node, ast.Expr):
            call = node.value
            if call in self._given and not self._uses(ast.iter_child_nodes(call), stale):
                return stale  # what it returns is dropped
            known = isinstance(call, ast.Call) and (self._logs(call) or self._prints(call))
            self._refuse_if(not known)
            assert isinstance(call, ast.Call)
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                self._check_value(argument, stale)
            if self._logs(call):
                lines = range(call.lineno, (call.end_lineno or call.lineno) + 1)
                self.logged.update((self._file, line) for line in lines)
            return stale
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target)]
            plain = (ast.Name, ast.Tuple, ast.List, ast.expr_context)
            self._refuse_if(not all(isinstance(name, plain) for name in names))
            self._check_value(node.value, stale)
            bound = self._bound(node)
            self._refuse_if(any(self._scopes.of[n].outer.get(n.id) for n in names if isinstance(n, ast.Name)))
            return stale | bound
        raise Needed

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, stale: Names) -> Names:
        around = set(stale)
        self._open.append(around)
        while True:
            before = frozenset(around)
            header = [node.test] if isinstance(node, ast.While) else [node.iter]
            self._refuse_if(self._uses(header, before))
            bound = frozenset[str]() if isinstance(node, ast.While) else self._bound(node.target)
            around |= self.block(node.body, before - bound)
            if frozenset(around) == before:
                break
        self._open.pop()
        return self.block(node.orelse, frozenset(around)) | frozenset(around)

    @staticmethod
    def _refuse_if(condition: object) -> None:
        if condition:
            raise Needed

    def _uses(self, nodes: Iterable[ast.AST], stale: Names) -> bool:
        """Whether code reads a stale name, or contains a call that returns a stale value."""
        for part in nodes:
            for node in ast.walk(part):
                if node in self._given:
                    return True
                if isinstance(node, ast.AugAssign):
                    node = node.target
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    continue
                if isinstance(node, ast.Name) and node.id in stale:
                    return True
        return False

    @staticmethod
    def _bound(node: ast.AST) -> Names:
        return frozenset(
            n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )

    def _logs(self, call: ast.Call) -> bool:
        return is_log_call(call, self._scopes)

    def _prints(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Name) and call.func.id == "print"

    def _check_value(self, value: ast.expr, stale: Names) -> None:
        """Refuse an expression that may do more with a stale value than compute something from it."""
        for node in ast.walk(value):
            if isinstance(node, (ast.NamedExpr, ast.Lambda, ast.Yield, ast.YieldFrom, ast.Await)):
                raise Needed
            if not isinstance(node, ast.Call):
                continue
            if node in self._given:
                self._refuse_if(self._uses(ast.iter_child_nodes(node), stale))
                continue
            if any(self._uses([part], stale) for part in [*node.args, *(k.value for k in node.keywords)]):
                origins = self._scopes.origins(node.func)
                builtin = origins == {"builtin"} and getattr(node.func, "id", "") in FUNCTIONAL_BUILTINS
                library = all(root_module(o) in COMPUTING_LIBRARIES - {"florlog"} for o in origins)
                named = isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING_METHODS
                self._refuse_if(named or not (builtin or library))
            elif self._uses([node.func], stale):
                self._refuse_if(
                    not isinstance(node.func, ast.Attribute) or node.func.attr in CHANGING_METHODS
                )
