"""The changeset of a loop: what one of its iterations may change, statement by statement.

Flor's side-effect rules (Garcia et al., PVLDB 14(4), 2020, section 3.3) read a statement's changes off its form: an
assignment changes its targets, ``obj.method(...)`` changes ``obj``, and a function called for its effect alone makes
an estimate impossible.  Here the rules take less on trust: what is given to a call may be changed by it, and so may
every name that may share a part with something changed (`florlog.source.carry.liveness`, which is also what recording
captures by).  What remains unknown is code that is neither in the program nor of a known library: a function kept
in a variable or handed in, ``exec`` and the like, names looked up at run time.  Such a statement is named with its
line; at run time its effects are compared by digests, not foreseen.

Added to names is what the libraries are known to do out of sight (`HIDDEN`): ``backward`` writes gradients, an
optimizer's ``step`` the parameters it was made from and its moments, a scheduler's the learning rate; a module in
training may update buffers and draws random numbers for dropout; a loader draws its order.

A name is *scoped* if nothing before the next binding reads it, neither in the next iteration nor behind the loop; the
others are the changeset proper, what a memo of the loop has to hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from florlog.source.carry.liveness import _FrameNames
from florlog.source.graph.callgraph import CallGraph, GraphNode
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.scopes import Scope, Scopes, root_module
from florlog.source.names.syntax import FUNCTIONS, LOOPS, blocks, header_nodes, one_line

HIDDEN = {
    "backward": "gradients",
    "zero_grad": "gradients",
    "step": "parameters, moments or learning rate",
    "load_state_dict": "state",
    "partial_fit": "fitted attributes",
    "fit": "fitted attributes",
    "train": "mode",
    "eval": "mode",
    "manual_seed": "random numbers",
    "seed": "random numbers",
}
RANDOM = re.compile(
    r"(^|\.)(rand|randn|randint|randperm|random|normal|uniform|shuffle|choice|sample|bernoulli|multinomial|dropout)"
    r"(_like|s|_)?$"
)
LOOKED_UP = {"exec", "eval", "globals", "locals", "vars", "setattr", "delattr", "__import__"}
RANDOM_MODULES = {"random"}


@dataclass(frozen=True)
class Effect:
    """What a statement may change: own names, what is out of sight, and why more cannot be known ("" if it can)."""

    line: int
    text: str
    names: tuple[str, ...]
    hidden: tuple[str, ...]
    unknown: str


@dataclass(frozen=True)
class LoopEffects:
    """The effects of a loop: of its statements, and their sum, the names that are carried apart from scoped ones."""

    file: str
    line: int
    recorded: bool  # whether it is a loop of florlog
    changeset: tuple[str, ...]
    scoped: tuple[str, ...]
    hidden: tuple[str, ...]
    effects: tuple[Effect, ...]

    @property
    def unknown(self) -> tuple[Effect, ...]:
        """The statements of which more cannot be known."""
        return tuple(effect for effect in self.effects if effect.unknown)


def loop_effects(files: Mapping[str, str]) -> list[LoopEffects]:
    """The effects of every loop of a program's florlog loops; of all its loops where it has none."""
    reader = _Reader(Code(files))
    return [reader.loop(loop, function) for loop, function in reader.loops()]


class _Reader:
    def __init__(self, code: Code) -> None:
        self._code = code
        self._graph = CallGraph(code)
        self._frames: dict[Scope, _FrameNames] = {}
        self._out_of_sight: dict[Function, set[str]] = {}
        self._below: dict[frozenset[GraphNode], set[str]] = {}
        self._runs: dict[Function, set[str]] = {}

    def loops(self) -> Iterator[tuple[ast.stmt, Function]]:
        """The loops to tell of, in the order of the text, the script first."""
        every = [(s, f) for s, f in self._code.function_of.items() if isinstance(s, LOOPS)]
        chosen = [(s, f) for s, f in every if s in self._code.looping] or every
        files = list(self._code.trees)
        chosen.sort(key=lambda item: (files.index(item[1].file), item[0].lineno))
        yield from ((s, f) for s, f in chosen if isinstance(s, ast.stmt))

    def loop(self, loop: ast.stmt, function: Function) -> LoopEffects:
        """What an iteration of a loop may change."""
        frame = self._frame(function)
        changed = frame.changed_by(loop) - self._ours(function)
        kept = changed & frame.live_around(loop)
        inside = [loop, *_statements(loop.body)]  # type: ignore[attr-defined]
        effects = tuple(self._effect(statement, function) for statement in inside)
        hidden = dict.fromkeys(text for effect in effects for text in effect.hidden)
        return LoopEffects(
            function.file,
            loop.lineno,
            loop in self._code.looping,
            tuple(sorted(kept)),
            tuple(sorted(changed - kept)),
            tuple(hidden),
            effects,
        )

    def _frame(self, function: Function) -> _FrameNames:
        scopes = self._code.scopes[function.file]
        scope = scopes.inner.get(function.node, scopes.root)
        if scope not in self._frames:
            self._frames[scope] = _FrameNames(scopes, scope)
        return self._frames[scope]

    def _effect(self, statement: ast.stmt, function: Function) -> Effect:
        scopes = self._code.scopes[function.file]
        frame = self._frame(function)
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            return Effect(statement.lineno, one_line(statement), (statement.name,), (), "")
        names: set[str] = set()
        told = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        if not (told and is_log_call(statement.value, scopes)):  # type: ignore[attr-defined]
            for node in header_nodes(statement):
                names |= {_precisely(node, name) for name in frame.changes(node) - self._ours(function)}
        hidden = set(self._hidden(statement, scopes))
        if hidden or self._calls(statement):
            hidden |= self._hidden_below(statement)
        return Effect(
            statement.lineno,
            one_line(statement),
            tuple(sorted(names)),
            tuple(sorted(hidden)),
            self._unknown(statement, scopes),
        )

    def _ours(self, function: Function) -> set[str]:
        """Names of florlog's own objects: a run is no state of the script."""
        if function in self._runs:
            return self._runs[function]
        scopes = self._code.scopes[function.file]
        scope = scopes.inner.get(function.node, scopes.root)
        self._runs[function] = {
            name
            for name, bindings in scope.bound.items()
            if bindings
            and all(isinstance(b, ast.expr) and scopes.origins(b) == {"run"} for b in bindings)
        }  # fmt: skip
        return self._runs[function]

    @staticmethod
    def _calls(statement: ast.stmt) -> bool:
        return any(isinstance(node, ast.Call) for node in header_nodes(statement))

    def _hidden_below(self, statement: ast.stmt) -> set[str]:
        """What the functions do out of sight that a statement may run."""
        called = self._graph.callees(statement)
        if called not in self._below:
            reached = self._graph.reached_from([statement], set())
            self._below[called] = set().union(*map(self._hidden_in, reached))
        return self._below[called]

    def _hidden_in(self, function: Function) -> set[str]:
        if function not in self._out_of_sight:
            scopes = self._code.scopes[function.file]
            self._out_of_sight[function] = {
                text
                for statement in self._code.statements_below(function.block)
                for text in self._hidden(statement, scopes)
            }
        return self._out_of_sight[function]

    def _hidden(self, statement: ast.AST, scopes: Scopes) -> Iterator[str]:
        if isinstance(statement, (ast.For, ast.AsyncFor)) and _is_data(statement.iter, scopes):
            yield "random numbers"
        for node in header_nodes(statement):
            if not isinstance(node, ast.Call) or node not in scopes.of:
                continue
            name = _last_name(node.func)
            if isinstance(node.func, ast.Attribute) and name in HIDDEN:
                yield HIDDEN[name]
            origins = scopes.origins(node.func)
            if any(root_module(origin) in ("torch", "numpy", "random") for origin in origins) and (
                RANDOM.search(name) or any(root_module(origin) in RANDOM_MODULES for origin in origins)
            ):
                yield "random numbers"
            if _is_module_call(node, scopes):
                yield "buffers"
                yield "random numbers"

    def _unknown(self, statement: ast.stmt, scopes: Scopes) -> str:
        for node in header_nodes(statement):
            if not isinstance(node, ast.Call) or node not in scopes.of:
                continue
            if is_log_call(node, scopes) or loop_call(node, scopes) is not None:
                continue
            function = node.func
            if isinstance(function, ast.Name):
                origins = scopes.origins(function)
                if origins == {"builtin"} and function.id in LOOKED_UP:
                    return f"{function.id} may change anything"
                if "other" in origins and isinstance(statement, ast.Expr) and statement.value is node:
                    return f"{function.id} is called for its effect, and what it is cannot be told"
            elif not isinstance(function, (ast.Attribute, ast.Lambda)):
                return f"what {ast.unparse(function)} is cannot be told"
        return ""


def _precisely(node: ast.AST, name: str) -> str:
    """A changed name, or the part of it that a store names."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        text = ast.unparse(node)
        return text if text.startswith(name) else name
    return name


def _statements(block: Iterable[ast.AST]) -> Iterator[ast.stmt]:
    for node in block:
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for _, inner in blocks(node):
                yield from _statements(inner)


def _is_data(expr: ast.expr, scopes: Scopes) -> bool:
    """Whether what is iterated may be a loader: anything but a literal or ``range``."""
    if (
        isinstance(expr, ast.Call)
        and (call := loop_call(expr, scopes)) is not None
        and len(call.node.args) > 1
    ):
        expr = call.node.args[1]
    if isinstance(expr, ast.Call) and _last_name(expr.func) in ("range", "enumerate"):
        return _last_name(expr.func) == "enumerate" and bool(expr.args) and _is_data(expr.args[0], scopes)
    return not isinstance(expr, (ast.Constant, ast.List, ast.Tuple))


def _is_module_call(call: ast.Call, scopes: Scopes) -> bool:
    """Whether the called object is of unknown kind, as a model is."""
    if not isinstance(call.func, ast.Name):
        return False
    holder = scopes.of[call].holder(call.func.id)
    if holder is None:
        return False
    return not any(binding == "def" or (isinstance(binding, str) and root_module(binding)) for binding in
                   holder.bound[call.func.id])  # fmt: skip


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def report(loop: LoopEffects, text: str) -> Iterator[str]:
    """A loop's source with what each line may change beside it."""
    lines = text.expandtabs().splitlines()
    beside: dict[int, list[str]] = {}
    for effect in loop.effects:
        said = [", ".join(effect.names)] if effect.names else []
        said += [f"[{', '.join(effect.hidden)}]"] if effect.hidden else []
        said += [f"not known: {effect.unknown}"] if effect.unknown else []
        beside.setdefault(effect.line, []).append(" ".join(said))
    last = max(beside)
    shown = lines[loop.line - 1 : last]
    indent = min((len(line) - len(line.lstrip()) for line in shown if line.strip()), default=0)
    width = min(70, max(len(line) - indent for line in shown))
    for number, line in enumerate(shown, loop.line):
        said_here = "; ".join(filter(None, beside.get(number, ())))
        row = f"{number:>5}  {line[indent:]:<{width}}"
        yield f"{row}  | {said_here}" if said_here else row.rstrip()
    yield f"       changes: {', '.join(loop.changeset) or 'nothing that is read later'}"
    if loop.hidden:
        yield f"       out of sight: {', '.join(loop.hidden)}"
    if loop.scoped:
        yield f"       scoped: {', '.join(loop.scoped)}"
    for effect in loop.unknown:
        yield f"       not known: line {effect.line}: `{effect.text}`: {effect.unknown}"
