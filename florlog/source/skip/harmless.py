"""Whether code may run on a state that is not the recorded one, if an image is restored directly after it.

The image puts back all state: variables, objects, random generators.  So such code may compute and change what it
likes, except what an image does not hold.  It is *harmless* if it changes nothing outside the process (files, the
network, other processes) and shows nobody a value that depends on the state; and if it certainly runs on: it has no
jump, waits for nothing, and calls only what is listed here as harmless, or functions of the program that are.
Whether it fails cannot be seen here; a replay sees it, and goes another way.

A name is *stale* if it may hold another value than it held when recorded.  Only values without stale names may be
shown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.definitions import last_name
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.libraries import PLAIN_BUILTINS, PLAIN_METHODS
from florlog.source.names.origins import root_module
from florlog.source.names.outside import COMPUTING_LIBRARIES, FILES, NETWORK, THREADS, dotted, outside
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import COMPREHENSIONS, children, own_nodes

BUILTINS = (PLAIN_BUILTINS - {"input", "open", "print", "delattr"}) | {
    "all", "any", "bytes", "dict", "enumerate", "filter", "frozenset", "getattr", "iter", "list", "map", "max", "min",
    "reversed", "set", "setattr", "sorted", "sum", "tuple", "zip",
}  # fmt: skip
METHODS = PLAIN_METHODS | {
    "add", "buffers", "children", "cumsum", "extend", "get_last_lr", "index_select", "manual_seed", "modules",
    "named_parameters", "reset", "set_epoch", "setdefault", "state_dict", "step", "sum", "to", "type",
}  # fmt: skip
"""Methods that change at most objects of this process, whatever object they are called on."""
SHOWING = {
    "critical", "debug", "display", "error", "exception", "info", "log", "set_description", "set_description_str",
    "set_postfix", "set_postfix_str", "warn", "warning", "write",
}  # fmt: skip
"""Functions and methods that show somebody their arguments."""
LIBRARIES = COMPUTING_LIBRARIES - {"contextlib", "logging", "warnings"}
WRITING = (
    "save", "dump", "tofile", "distributed", "multiprocessing", "hub", "load", "rpc", "profiler", "jit", "compile",
)  # fmt: skip
"""What parts of a library's dotted names begin with that do more than compute."""
CONTEXTS = {
    "autocast", "enable_grad", "inference_mode", "no_grad", "set_grad_enabled", "tqdm", "trange",
}  # fmt: skip
"""What a ``with`` may enter: it changes at most what an image restores."""
COMPUTED = (
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp,
    ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.Starred, ast.Call,
    ast.keyword, ast.Lambda, ast.comprehension, *COMPREHENSIONS,
)  # fmt: skip
STEADY = (
    ast.Constant, ast.Name, ast.Tuple, ast.List, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp,
    ast.JoinedStr, ast.FormattedValue, ast.Call,
)  # fmt: skip
STEADY_BUILTINS = {"abs", "bool", "float", "int", "max", "min", "range", "round", "str", "sum"}


class Harmless:
    """Answers for the code of one program."""

    def __init__(self, code: Code, graph: CallGraph) -> None:
        self._code, self._graph = code, graph
        self._functions: dict[Function, bool] = {}
        self._shared = frozenset(
            name for scopes in code.scopes.values() for scope in scopes.inner.values() for name in scope.outer
        )

    def names_bound(self, nodes: Iterable[ast.AST]) -> set[str]:
        """The names that code may bind."""
        found = set()
        for node in own_nodes(nodes):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(
                node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
            ):
                found.add(node.name or "")
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        return found

    def is_steady(self, expr: ast.expr, stale: set[str], scopes: Scopes) -> bool:
        """Whether an expression has the recorded value although the ``stale`` names may not."""
        for node in [expr, *_below(expr)]:
            if isinstance(node, ast.Name):
                if node.id in stale or node.id in self._shared:
                    return False
            elif isinstance(node, ast.Call):
                builtin = scopes.origins(node.func) == {"builtin"}
                if not builtin or last_name(node.func) not in STEADY_BUILTINS or node.keywords:
                    return False
            elif not isinstance(node, STEADY):
                return False
        return True

    def block(self, block: Iterable[ast.AST], stale: set[str], function: Function) -> bool:
        """Whether statements that run one after the other are harmless; then ``stale`` is as it is after them."""
        return all(self._statement(statement, stale, function) for statement in block)

    def header(
        self,
        parts: Iterable[ast.AST],
        statement: ast.AST,
        stale: set[str],
        function: Function,
        call: ast.Call,
    ) -> bool:
        """Whether expressions of a statement are harmless apart from one ``call`` in them, but with its arguments."""
        return all(_Expression(self, statement, stale, function, call).holds(part) for part in parts)

    def binds(self, target: ast.expr, statement: ast.AST, stale: set[str], function: Function) -> bool:
        """Whether it is harmless to bind a target of a statement."""
        return _Expression(self, statement, stale, function).may_bind(target)

    def enters(self, item: ast.withitem, statement: ast.AST, stale: set[str], function: Function) -> bool:
        """Whether it is harmless to enter a context; then what it binds is stale."""
        expr = item.context_expr
        named = isinstance(expr, ast.Call) and last_name(expr.func) in CONTEXTS
        if not named or not _Expression(self, statement, stale, function).holds(expr):
            return False
        stale |= self.names_bound([item.optional_vars] if item.optional_vars is not None else [])
        return True

    def _statement(self, node: ast.AST, stale: set[str], function: Function) -> bool:
        expression = _Expression(self, node, stale, function)
        scopes = self._code.scopes[function.file]
        match node:
            case ast.Pass():
                return True
            case ast.Expr(value=value) | ast.Assert(test=value):
                return expression.holds(value)
            case ast.Assign(targets=targets, value=value):
                if not expression.holds(value) or not all(map(expression.may_bind, targets)):
                    return False
                bound = self.names_bound(targets)
                plain = len(targets) == 1 and isinstance(targets[0], ast.Name)
                if plain and self.is_steady(value, stale, scopes):
                    stale -= bound
                else:
                    stale |= bound
                return True
            case ast.AnnAssign(target=target, value=value):
                stale |= self.names_bound([target])
                return value is None or (expression.holds(value) and expression.may_bind(target))
            case ast.AugAssign(target=target, value=value):
                stale |= self.names_bound([target])
                return expression.holds(value) and expression.may_bind(target)
            case ast.If(test=test, body=body, orelse=orelse):
                return (
                    expression.holds(test)
                    and self._either(body, stale, function)
                    and self._either(orelse, stale, function)
                )
            case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                if (
                    node in self._code.looping
                    or not expression.holds(iterable)
                    or not expression.may_bind(target)
                ):
                    return False
                stale |= self.names_bound([target, *body])
                return self._either(body, stale, function)
            case ast.With(items=items, body=body):
                return all(self.enters(item, node, stale, function) for item in items) and self.block(
                    body, stale, function
                )
            case _:
                return False

    def _either(self, block: list[ast.stmt], stale: set[str], function: Function) -> bool:
        """A block that may run or not: what it binds is stale after it."""
        stale |= self.names_bound(block)
        return self.block(block, set(stale), function)

    def function(self, function: Function) -> bool:
        """Whether a function of the program is harmless wherever it is called."""
        if function not in self._functions:
            self._functions[function] = False  # one that calls itself may not end
            self._functions[function] = self._called(function)
        return self._functions[function]

    def _called(self, function: Function) -> bool:
        node = function.node
        if isinstance(node, (ast.Lambda, ast.GeneratorExp)):
            stale = self.names_bound([node]) | parameters(node)
            return all(_Expression(self, node, stale, function).holds(part) for part in function.block)
        if not isinstance(node, ast.FunctionDef):
            return False
        if any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in own_nodes(node.body)):
            return True  # a call of it makes a generator, and executes nothing
        stale = self.names_bound(node.body) | parameters(node)
        body = list(node.body)
        if isinstance(last := body[-1], ast.Return):
            body.pop()
            if last.value is not None and not _Expression(self, last, stale, function).holds(last.value):
                return False
        return self.block(body, stale, function)


class _Expression:
    """Answers for the expressions of one statement; ``entered``: a call of which only the arguments are looked at."""

    def __init__(
        self,
        harmless: Harmless,
        statement: ast.AST,
        stale: set[str],
        function: Function,
        entered: ast.Call | None = None,
    ) -> None:
        self._harmless, self._stale, self._entered = harmless, stale, entered
        self._scopes = harmless._code.scopes[function.file]
        self._graph = harmless._graph
        self._called = dict(harmless._graph.events(statement))

    def may_bind(self, target: ast.expr) -> bool:
        """Whether a target is a name or in an object of this process that images hold."""
        if isinstance(target, ast.Name):
            return True
        if isinstance(target, (ast.Tuple, ast.List)):
            return all(map(self.may_bind, target.elts))
        if isinstance(target, ast.Starred):
            return self.may_bind(target.value)
        base = target.value if isinstance(target, (ast.Attribute, ast.Subscript)) else target
        if isinstance(target, ast.Subscript) and not self.holds(target.slice):
            return False
        known = self._calls_harmless(target) and self.holds(base)
        return known and not any(map(root_module, self._scopes.origins(base)))

    def holds(self, node: ast.AST) -> bool:
        """Whether it is harmless to evaluate an expression."""
        if not isinstance(node, COMPUTED):
            return isinstance(node, ast.expr_context | ast.operator | ast.unaryop | ast.boolop | ast.cmpop)
        if not self._calls_harmless(node) or (isinstance(node, ast.Call) and not self._call(node)):
            return False
        return isinstance(node, ast.Lambda) or all(map(self.holds, children(node)))

    def _calls_harmless(self, node: ast.AST) -> bool:
        """Whether the program's functions are harmless that evaluating a node may call by name."""
        if node is self._entered or self._graph.sets_mode(node, self._scopes):
            return True
        called = self._called.get(node, frozenset())
        return all(self._harmless.function(callee) for callee in called if isinstance(callee, Function))

    def _call(self, call: ast.Call) -> bool:
        if call is self._entered or is_log_call(call, self._scopes):
            return True
        if loop_call(call, self._scopes) is not None:
            return False
        name = last_name(call.func)
        origins = self._scopes.origins(call.func)
        if origins == {"builtin"}:
            if name == "setattr":
                return bool(call.args) and not any(map(root_module, self._scopes.origins(call.args[0])))
            return self._shows_nothing_stale(call) if name == "print" else name in BUILTINS
        roots = set(map(root_module, origins))
        if origins == {"def"} or (roots and roots <= self._graph.local):
            return any(isinstance(callee, Function) for callee in self._called.get(call, ()))
        if "" not in roots and not roots & {"logging", "warnings"}:
            shown = name in SHOWING and roots == {"tqdm"}
            return (shown and self._shows_nothing_stale(call)) or all(
                self._computes(dotted(o, name)) for o in origins
            )
        if name in SHOWING:
            return self._shows_nothing_stale(call)
        in_place = name.endswith("_") and not name.startswith("_")  # of tensors
        return isinstance(call.func, ast.Attribute) and (name in METHODS or in_place or self._is_own(call))

    def _is_own(self, call: ast.Call) -> bool:
        """Whether a method is one of the program's and of nothing else, as far as names tell."""
        called = self._called.get(call, frozenset())
        return bool(called) and all(isinstance(callee, Function) for callee in called)

    def _computes(self, name: str) -> bool:
        parts = name.split(".")
        return (
            parts[0] in LIBRARIES
            and outside(name) not in (FILES, NETWORK, THREADS)
            and not any(part.startswith(WRITING) for part in parts)
        )

    def _shows_nothing_stale(self, call: ast.Call) -> bool:
        shown = [*call.args, *(keyword.value for keyword in call.keywords)]
        return all(self._harmless.is_steady(value, self._stale, self._scopes) for value in shown)


def parameters(node: ast.FunctionDef | ast.Lambda | ast.GeneratorExp) -> set[str]:
    """The names that are bound when code is entered: by arguments, or by what a generator expression goes over."""
    if isinstance(node, ast.GeneratorExp):
        return {n.id for part in node.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)}
    return {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}


def _below(node: ast.AST) -> list[ast.AST]:
    found = children(node)
    for inner in found:
        found += children(inner)
    return found
