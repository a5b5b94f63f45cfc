"""The changeset of a loop: what one of its iterations may change, statement by statement.

Flor's side-effect rules (Garcia et al., PVLDB 14(4), 2020, section 3.3) read a statement's changes off its form: an
assignment changes its targets, ``obj.method(...)`` changes ``obj``, and a function that is called only for its effect
makes an estimate impossible.  The rules here trust less: a call may change what it is given, and every name that may
share a part with something changed may change too (`florlog.source.carry.frame_names`, which recording also uses to
decide what to capture).  Code that is neither in the program nor in a known library remains unknown: a function that is
kept in a variable or passed in, ``exec`` and the like, names that are looked up at run time.  Such a statement is
reported with its line.  At run time its effects are not predicted but found by comparing digests.

In addition to the names there are the hidden effects of known libraries (`HIDDEN`): ``backward`` writes gradients, an
optimizer's ``step`` writes its parameters and moments, a scheduler's ``step`` the learning rate.  A module in training
mode may update buffers and draws random numbers for dropout.  A loader draws its order.

A name is *scoped* if it is always bound again before it is read, in the next iteration and after the loop.  The other
names are the changeset proper: what a memo of the loop would have to contain.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from florlog.source.carry.frame_names import FrameNames, own_statements
from florlog.source.graph.callees import GraphNode
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.functions import Code, Function
from florlog.source.names.by_text import CHANGING_BUILTINS
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.origins import root_module
from florlog.source.names.scopes import Scope, Scopes
from florlog.source.names.syntax import FUNCTIONS, LOOPS, header_nodes, one_line

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
RANDOM_FUNCTION = re.compile(
    r"(^|\.)(rand|randn|randint|randperm|random|normal|uniform|shuffle|choice|sample|bernoulli|multinomial|dropout)"
    r"(_like|s|_)?$"
)
RANDOM_MODULES = {"random"}


@dataclass(frozen=True)
class Effect:
    """What a statement may change: names, hidden effects, and why its effects are unknown ("" if they are known)."""

    line: int
    text: str
    names: tuple[str, ...]
    hidden: tuple[str, ...]
    unknown: str


@dataclass(frozen=True)
class LoopEffects:
    """The effects of a loop's statements, and their sum: changed names that are read later, and scoped names."""

    file: str
    line: int
    recorded: bool  # whether it is a florlog loop
    changeset: tuple[str, ...]
    scoped: tuple[str, ...]
    hidden: tuple[str, ...]
    effects: tuple[Effect, ...]

    @property
    def unknown(self) -> tuple[Effect, ...]:
        """The statements whose effects are unknown."""
        return tuple(effect for effect in self.effects if effect.unknown)


def loop_effects(files: Mapping[str, str]) -> list[LoopEffects]:
    """The effects of each florlog loop of a program; of each loop if it has no florlog loops."""
    reader = _EffectReader(Code(files))
    return [reader.loop(loop, function) for loop, function in reader.loops()]


class _EffectReader:
    def __init__(self, code: Code) -> None:
        self._code = code
        self._graph = CallGraph(code)
        self._frames: dict[Scope, FrameNames] = {}
        self._hidden_effects: dict[Function, set[str]] = {}
        self._hidden_below_calls: dict[frozenset[GraphNode], set[str]] = {}
        self._run_names: dict[Function, set[str]] = {}

    def loops(self) -> Iterator[tuple[ast.stmt, Function]]:
        """The loops to report, in the order of the text, the script's first."""
        loops = [(s, f) for s, f in self._code.function_of.items() if isinstance(s, LOOPS)]
        chosen = [(s, f) for s, f in loops if s in self._code.looping] or loops
        files = list(self._code.trees)
        chosen.sort(key=lambda item: (files.index(item[1].file), item[0].lineno))
        yield from ((s, f) for s, f in chosen if isinstance(s, ast.stmt))

    def loop(self, loop: ast.stmt, function: Function) -> LoopEffects:
        """What one iteration of a loop may change."""
        frame = self._frame(function)
        changed = frame.changed_by(loop) - self._names_of_runs(function)
        kept = changed & frame.live_around(loop)
        inside = [loop, *own_statements(loop.body)]  # type: ignore[attr-defined]
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

    def _frame(self, function: Function) -> FrameNames:
        scopes = self._code.scopes[function.file]
        scope = scopes.inner.get(function.node, scopes.root)
        if scope not in self._frames:
            self._frames[scope] = FrameNames(scopes, scope)
        return self._frames[scope]

    def _effect(self, statement: ast.stmt, function: Function) -> Effect:
        scopes = self._code.scopes[function.file]
        frame = self._frame(function)
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            return Effect(statement.lineno, one_line(statement), (statement.name,), (), "")
        names: set[str] = set()
        is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        if not (is_call and is_log_call(statement.value, scopes)):  # type: ignore[attr-defined]
            for node in header_nodes(statement):
                names |= {
                    _changed_part(node, name) for name in frame.changes(node) - self._names_of_runs(function)
                }
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

    def _names_of_runs(self, function: Function) -> set[str]:
        """The names of florlog's runs, which are no state of the script."""
        if function in self._run_names:
            return self._run_names[function]
        scopes = self._code.scopes[function.file]
        scope = scopes.inner.get(function.node, scopes.root)
        self._run_names[function] = {
            name
            for name, bindings in scope.bound.items()
            if bindings
            and all(isinstance(b, ast.expr) and scopes.origins(b) == {"run"} for b in bindings)
        }  # fmt: skip
        return self._run_names[function]

    @staticmethod
    def _calls(statement: ast.stmt) -> bool:
        return any(isinstance(node, ast.Call) for node in header_nodes(statement))

    def _hidden_below(self, statement: ast.stmt) -> set[str]:
        """The hidden effects of the functions that a statement may call."""
        called = self._graph.callees(statement)
        if called not in self._hidden_below_calls:
            reached = self._graph.reached_from([statement], set())
            self._hidden_below_calls[called] = set().union(*map(self._hidden_in, reached))
        return self._hidden_below_calls[called]

    def _hidden_in(self, function: Function) -> set[str]:
        if function not in self._hidden_effects:
            scopes = self._code.scopes[function.file]
            self._hidden_effects[function] = {
                text
                for statement in self._code.statements_below(function.block)
                for text in self._hidden(statement, scopes)
            }
        return self._hidden_effects[function]

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
                RANDOM_FUNCTION.search(name)
                or any(root_module(origin) in RANDOM_MODULES for origin in origins)
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
                if origins == {"builtin"} and function.id in CHANGING_BUILTINS:
                    return f"{function.id} may change anything"
                if "other" in origins and isinstance(statement, ast.Expr) and statement.value is node:
                    return f"{function.id} is called for its effect, but the source does not show which function it is"
            elif not isinstance(function, (ast.Attribute, ast.Lambda)):
                return f"the source does not show what {ast.unparse(function)} is"
        return ""


def _changed_part(node: ast.AST, name: str) -> str:
    """A changed name, or the part of it that a store changes, such as ``model.rate``."""
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        text = ast.unparse(node)
        return text if text.startswith(name) else name
    return name


def _is_data(expr: ast.expr, scopes: Scopes) -> bool:
    """Whether an iterable may be a data loader: anything except a literal or ``range``."""
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
    """Whether the called object is of an unknown kind.  A model is one."""
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
    """The lines of a loop's source, each with what it may change next to it, and a summary."""
    lines = text.expandtabs().splitlines()
    notes: dict[int, list[str]] = {}
    for effect in loop.effects:
        parts = [", ".join(effect.names)] if effect.names else []
        parts += [f"[{', '.join(effect.hidden)}]"] if effect.hidden else []
        parts += [f"unknown: {effect.unknown}"] if effect.unknown else []
        notes.setdefault(effect.line, []).append(" ".join(parts))
    last = max(notes)
    shown = lines[loop.line - 1 : last]
    indent = min((len(line) - len(line.lstrip()) for line in shown if line.strip()), default=0)
    width = min(70, max(len(line) - indent for line in shown))
    for number, line in enumerate(shown, loop.line):
        note = "; ".join(filter(None, notes.get(number, ())))
        row = f"{number:>5}  {line[indent:]:<{width}}"
        yield f"{row}  | {note}" if note else row.rstrip()
    yield f"       changes: {', '.join(loop.changeset) or 'nothing that is read later'}"
    if loop.hidden:
        yield f"       hidden effects: {', '.join(loop.hidden)}"
    if loop.scoped:
        yield f"       scoped: {', '.join(loop.scoped)}"
    for effect in loop.unknown:
        yield f"       unknown: line {effect.line}: `{effect.text}`: {effect.unknown}"
