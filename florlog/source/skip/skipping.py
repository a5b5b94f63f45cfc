"""Which loops a replay may skip, because nothing that is asked for depends on what they compute.

A validation pass often computes only a number that is logged.  Whether that is so is decided in two steps.

What does the loop's body *write*?  Allowed are the names that it binds and local containers that it fills.  A body is
not skipped if it, or a function of the program that it may call, writes into anything else: an attribute, a global, an
object that it was given, a file.  It is not skipped either if it draws from the generators of Python or NumPy, because
no iteration's fingerprint contains their state.

Where do the written values *flow*?  `florlog.source.skip.staleness` follows them through the function, and through its
callers if it returns such a value.  A use that may do more than compute, log or print keeps the loop from being
skipped.

It is assumed, not shown, that a call of an object (``model(x)``) leaves no trace in the object.  The fingerprints after
the loop and the next image show it (`florlog.following.checks`).  A name that a nested function uses may be read
anywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from florlog.source.carry.frame_names import FrameNames
from florlog.source.carry.liveness import NOTHING, Names
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function, LoopCode
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS
from florlog.source.skip.staleness import CHANGING_METHODS, LineNumbers, Needed, Staleness

REFUSED_BUILTINS = {
    "open", "exec", "eval", "setattr", "delattr", "input", "globals", "locals", "next", "vars",
}  # fmt: skip
NEW_OBJECTS = (
    ast.List,
    ast.Dict,
    ast.Set,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
    ast.Call,
    ast.Constant,
    ast.BinOp,
)


@dataclass(frozen=True)
class Skipped:
    """What differs from the recording after a loop or a piece that was skipped."""

    told: frozenset[tuple[str, int]] = frozenset()  # recorded log statements: file, line
    stale: frozenset[tuple[str, str]] = frozenset()  # variables: qualified name of their code, name
    may_fail: frozenset[tuple[str, int, int]] = frozenset()  # statements that read them: file, line, column


@dataclass
class Flow:
    """Where values flow: the fields of `Skipped` while they are being collected."""

    logged: set[tuple[str, int]] = field(default_factory=set)
    may_fail: set[tuple[str, int, int]] = field(default_factory=set)
    stale: set[tuple[str, str]] = field(default_factory=set)


class Skipping:
    """Answers for the loops of one program.  ``added`` are the lines that the recording does not have.

    `florlog.source.skip.pieces` asks the same for plain loops and calls.
    """

    def __init__(self, code: Code, graph: CallGraph, added: LineNumbers) -> None:
        self._code, self._graph, self.added = code, graph, added
        self._clean: dict[Function, bool] = {}
        self.asked = frozenset(self._names_asked())

    def skipped(self, loop: LoopCode) -> Skipped | None:
        """What becomes stale if a loop is skipped; None if it must be run."""
        statement = loop.body
        if not isinstance(statement, ast.For) or not loop.call.certain or statement.orelse:
            return None
        flow = Flow()
        try:
            written = self.written(statement, loop.function)
            self._check_calls(statement, loop.function)
            self.check_called(statement.body)
            self.follow(loop.function, statement, written, frozenset(), flow, set())
        except Needed:
            return None
        return Skipped(frozenset(flow.logged), frozenset(flow.stale), frozenset(flow.may_fail))

    # -- what a body writes ------------------------------------------------------------------------

    def written(self, loop: ast.For, function: Function) -> Names:
        """The names that a loop writes.  Raises `Needed` if it may write into anything else."""
        scopes = self._code.scopes[function.file]
        names = written_by(loop.target)
        if any(
            not isinstance(n, (ast.Name, ast.Tuple, ast.List, ast.expr_context))
            for n in ast.walk(loop.target)
        ):
            raise Needed
        nodes = [node for part in loop.body for node in ast.walk(part)]
        filled = self.writes([*nodes, *ast.walk(loop.iter)], scopes)
        for node in ast.walk(function.node):  # an object that is filled may be known by another name already
            read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in filled
            if read and node.lineno < loop.lineno:  # type: ignore[attr-defined]
                raise Needed
        return frozenset(names | filled | self._bound(nodes, scopes))

    def _check_calls(self, loop: ast.For, function: Function) -> None:
        """Refuse a loop whose calls set a mode or may change something that an added statement reads."""
        nodes = [node for part in loop.body for node in ast.walk(part)]
        scopes = self._code.scopes[function.file]
        if self._names_given_to_calls(nodes, scopes) & self.asked - self.tracked:
            raise Needed
        if any(self._graph.sets_mode(node, scopes) for node in nodes):
            raise Needed

    def _bound(self, nodes: Iterable[ast.AST], scopes: Scopes) -> set[str]:
        bound = set()
        for node in nodes:
            if isinstance(
                node, (ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Import, ast.ImportFrom)
            ):
                raise Needed
            if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Global, ast.Nonlocal)):
                raise Needed
            if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
                if node.id in scopes.of[node].outer:
                    raise Needed
                bound.add(node.id)
        return bound

    def _names_given_to_calls(self, nodes: Iterable[ast.AST], scopes: Scopes) -> Names:
        """The names of objects that are called, or given to calls.  Their state may have changed."""
        found: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Call) and not self._of_florlog(node, scopes):
                origins = scopes.origins(node.func)
                if origins <= {"builtin", "def"} or all(map(root_module, origins)):
                    continue
                parts = [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
                found.update(n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name))
        return frozenset(found)

    def writes(self, nodes: Iterable[ast.AST], scopes: Scopes) -> set[str]:
        """The local objects that code writes into.  Raises `Needed` if it may write into anything else."""
        filled = set()
        for node in nodes:
            target: ast.expr | None = None
            if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(
                node.ctx, (ast.Store, ast.Del)
            ):
                target = node.value
            elif isinstance(node, ast.Call) and not self._of_florlog(node, scopes):
                target = self._changed_by(node, scopes)
            if target is None:
                continue
            if not isinstance(target, ast.Name) or not self._is_new(target, scopes):
                raise Needed
            filled.add(target.id)
        return filled

    def _of_florlog(self, call: ast.Call, scopes: Scopes) -> bool:
        return is_log_call(call, scopes) or loop_call(call, scopes) is not None

    def _changed_by(self, call: ast.Call, scopes: Scopes) -> ast.expr | None:
        """The object that a call changes, judged by the call's name."""
        for origin in scopes.origins(call.func):
            root = root_module(origin)
            if root in ("random", "secrets") or (root == "numpy" and ".random" in origin):
                raise Needed
            if origin == "builtin" and getattr(call.func, "id", "") in REFUSED_BUILTINS:
                raise Needed
            last = origin.rpartition(".")[2]
            if root and (last in CHANGING_METHODS or last.endswith("_")):
                raise Needed  # torch.save, nn.init.zeros_
        if any(keyword.arg == "out" for keyword in call.keywords):
            raise Needed
        if not isinstance(call.func, ast.Attribute):
            return None
        name = call.func.attr
        library = any(map(root_module, scopes.origins(call.func)))
        in_place = name.endswith("_") and not name.startswith("_")
        return call.func.value if not library and (name in CHANGING_METHODS or in_place) else None

    def _is_new(self, name: ast.Name, scopes: Scopes) -> bool:
        """Whether a local name refers to an object that its own function made."""
        scope = scopes.of[name]
        holder = scope.holder(name.id)
        if holder is None or (holder.kind == "module" and scope.kind != "module") or name.id in scope.outer:
            return False
        return all(isinstance(value, NEW_OBJECTS) for value in holder.bound[name.id])

    def check_called(self, block: Iterable[ast.AST]) -> set[Function]:
        """The program's functions that a block may call.  Raises `Needed` if one writes into what it did not make."""
        found = self._graph.reached_from(list(self._statements(block)), set(), modes=False)
        if not all(map(self._is_clean, found)):
            raise Needed
        return found

    def _statements(self, block: Iterable[ast.AST]) -> Iterator[ast.AST]:
        """The statements of a block, including those of florlog loops in it."""
        for part in block:
            for node in ast.walk(part):
                if node in self._code.function_of:
                    yield node

    def _is_clean(self, function: Function) -> bool:
        """Whether a function of the program writes only into what it made itself."""
        if function not in self._clean:
            self._clean[function] = True  # for a call of itself
            nodes = [node for part in function.block for node in ast.walk(part)]
            scopes = self._code.scopes[function.file]
            clean = not any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in nodes)
            if isinstance(function.node, (ast.Module, ast.ClassDef)):
                clean = False
            try:
                self.writes(nodes, scopes)
            except Needed:
                clean = False
            self._clean[function] = clean
        return self._clean[function]

    # -- where it flows ----------------------------------------------------------------------------

    def follow(
        self, function: Function, source: ast.AST, written: Names, given: frozenset[ast.AST], flow: Flow,
        seen: set[ast.AST],
    ) -> None:  # fmt: skip
        """Follow the names that a loop wrote, or the values that the calls ``given`` returned."""
        if source in seen:
            return
        seen.add(source)
        scopes = self._code.scopes[function.file]
        if not isinstance(function.node, (*FUNCTIONS, ast.Module)):
            raise Needed
        frame = FrameNames(scopes, scopes.inner.get(function.node, scopes.root))
        exposed = NOTHING
        if isinstance(source, ast.For) and not given:
            exposed = frame.read_first([source])
        stale = Staleness(function, scopes, self.added, source, written, exposed, given)
        stale.block(function.block, frozenset())
        if stale.everything & frame.captured:
            raise Needed
        flow.logged |= stale.logged
        flow.may_fail.update((function.file, *place) for place in stale.may_fail)
        flow.stale.update((function.qualname, name) for name in stale.everything)
        if stale.returned:
            for caller, statement in self._calls(function):
                given = frozenset(n for n, callees in self._graph.events(statement) if function in callees)
                self.follow(caller, statement, frozenset(), given, flow, seen)

    def _calls(self, function: Function) -> list[tuple[Function, ast.AST]]:
        """The statements that call a function."""
        if self._graph.may_be_called_unseen(function):
            raise Needed
        return [
            (caller, statement)
            for statement, caller in self._code.function_of.items()
            if any(function in callees for _, callees in self._graph.events(statement))
        ]

    @cached_property
    def tracked(self) -> Names:
        """The names of objects that the program gives to ``run.track``."""
        return frozenset(
            name.id if isinstance(name, ast.Name) else name.attr
            for tree in self._code.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "track"
            for keyword in node.keywords
            if isinstance(name := keyword.value, (ast.Name, ast.Attribute))
        )

    def _names_asked(self) -> Iterator[str]:
        for file, tree in self._code.trees.items():
            for node in ast.walk(tree):
                if not isinstance(node, ast.Name | ast.Attribute) or node.lineno not in self.added.get(
                    file, ()
                ):
                    continue
                if isinstance(node, ast.Name):
                    yield node.id
                elif isinstance(node.value, ast.Name) and node.value.id == "self":
                    yield node.attr


def written_by(target: ast.expr) -> Names:
    """The plain names in a loop's target."""
    return frozenset(node.id for node in ast.walk(target) if isinstance(node, ast.Name))
