"""What a piece of code leaves behind and what must be done even if the piece is skipped.

A validation pass changes the mode of a model (``model.eval()``), and iterating a DataLoader draws random numbers.
`Remains` walks through a piece in the order of execution, including the functions of the program that it calls by name.
It finds these *acts*, each with the object that it concerns (`florlog.source.skip.naming`).

The piece must be run if an act is done only under a condition or to an object that cannot be named.  It must also be
run if it calls an object after ``model.train()`` (a call in training mode may change the object), if it makes a call
for an unknown effect, or if it does ``x += 1`` to something that it was given.  If something is iterated only under a
condition, the replay decides.  Not seen: what functions do that are not called by name.  The fingerprints show that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from florlog.source.carry.liveness import Names
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.definitions import last_name
from florlog.source.graph.functions import Code, Function
from florlog.source.names.calls import is_log_call, loop_call
from florlog.source.names.libraries import PLAIN_METHODS
from florlog.source.names.origins import root_module
from florlog.source.names.syntax import (
    COMPREHENSIONS,
    FUNCTIONS,
    LOOPS,
    WITHS,
    blocks,
    children,
    header_parts,
)
from florlog.source.skip.acts import Act, Items, Mode
from florlog.source.skip.naming import Context, Naming, callee
from florlog.source.skip.staleness import Needed

EAGER_BUILTINS = {"all", "any", "dict", "list", "max", "min", "set", "sorted", "sum", "tuple"}
LAZY_BUILTINS = {"enumerate", "filter", "iter", "map", "reversed", "zip"}  # they read when they are iterated
ONE_BY_ONE = {"enumerate", "tqdm"}
REPORTING_METHODS = {
    "add_image", "add_scalar", "add_scalars", "add_text", "critical", "debug", "error", "info", "set_description",
    "set_postfix", "set_postfix_str", "warning",
}  # fmt: skip
JUMPS = (ast.Return, ast.Break, ast.Continue)


@dataclass
class Remains:
    """One walk over a piece.  ``bound`` are the names that the piece binds."""

    code: Code
    graph: CallGraph
    bound: Names
    acts: list[Act] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)  # named objects that are called or given to a call
    mode_calls: set[ast.Call] = field(default_factory=set)  # the calls that set a mode
    _names: Naming = field(init=False)
    # For each variable that has a mode of an object: the object's name.
    _saved_modes: dict[tuple[Context, str], str] = field(default_factory=dict)
    _open_calls: list[Function] = field(default_factory=list)
    _model_called: bool = False  # or something that may call one
    _in_training: bool = False

    def walk(self, piece: ast.AST, function: Function) -> None:
        """Find the acts of a piece.  Raises `Needed` if one of them cannot be done without it."""
        self._names = Naming(self.code, function, self.bound)
        self._statement(Context(function, None, piece), piece, certain=True)

    # -- in the order of execution -----------------------------------------------------------------

    def _block(self, at: Context, block: Iterable[ast.AST], *, certain: bool) -> None:
        for statement in block:
            self._statement(at, statement, certain=certain)
            leaving = ast.Return if isinstance(statement, LOOPS) else JUMPS
            certain = certain and not _contains(statement, leaving)

    def _statement(self, at: Context, node: ast.AST, *, certain: bool) -> None:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Match, ast.AsyncFor, ast.AsyncWith)):
            raise Needed
        if certain:
            self._save_mode(at, node)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self._check_in_place(at, node.target)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._check_effect(at, node.value, node)
        for part in header_parts(node):
            self._expression(at, part, node, certain=certain and not isinstance(node, ast.While))
        if isinstance(node, ast.For):
            self._items(
                at, node.iter, node, whole=certain and not any(_contains(part, JUMPS) for part in node.body)
            )
        straight = isinstance(node, WITHS) or (isinstance(node, ast.Try) and not node.handlers)
        for _, block in blocks(node):
            self._block(at, block, certain=certain and straight)

    def _expression(self, at: Context, node: ast.AST, statement: ast.AST, *, certain: bool) -> None:
        if isinstance(node, COMPREHENSIONS):
            for generator in node.generators:
                self._items(at, generator.iter, statement, whole=False)
        maybe = (*COMPREHENSIONS, ast.Lambda, ast.IfExp, ast.BoolOp)
        for child in children(node):
            self._expression(at, child, statement, certain=certain and not isinstance(node, maybe))
        if isinstance(node, ast.Call):
            self._call(at, node, statement, certain=certain)

    def _call(self, at: Context, call: ast.Call, statement: ast.AST, *, certain: bool) -> None:
        scopes = self.code.scopes[at.function.file]
        if is_log_call(call, scopes) or loop_call(call, scopes) is not None:
            return
        if self.graph.sets_mode(call, scopes):
            self._mode(at, call, certain=certain)
            return
        if (called := callee(self.code, self.graph, call, statement)) is not None:
            if called in self._open_calls:
                raise Needed
            self._open_calls.append(called)
            inside = Context(called, self._names.arguments(at, call, called), statement)
            self._block(inside, called.block, certain=certain and called not in self.graph.lazy)
            self._open_calls.pop()
            return
        name, origins = last_name(call.func), scopes.origins(call.func)
        if origins == {"builtin"}:
            alone = name in EAGER_BUILTINS and len(call.args) == 1
            if alone and (of := self._names.name_of(at, call.args[0])):
                self.acts.append(Items(of, whole=False))
        elif not all(map(root_module, origins)) and name not in PLAIN_METHODS:
            if self._in_training:
                raise Needed
            self._model_called = True
            self._touch(at, call)

    def _check_in_place(self, at: Context, name: ast.Name) -> None:
        """Refuse ``x += y`` if it may change an object that the code did not make, such as a tensor."""
        made = self._names.bindings(at, name)
        augmented = [
            node
            for node in ast.walk(at.function.node)
            if isinstance(node, ast.AugAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name.id
        ]
        shared = any(isinstance(value, (ast.Name, ast.Attribute, ast.Subscript)) for value in made)
        if shared or made.count("other") > len(augmented):
            raise Needed

    def _check_effect(self, at: Context, call: ast.Call, statement: ast.AST) -> None:
        """Refuse a call whose result is dropped, unless its effect is known: it is made for its effect."""
        scopes = self.code.scopes[at.function.file]
        known = self.graph.sets_mode(call, scopes) or is_log_call(call, scopes)
        if known or callee(self.code, self.graph, call, statement) is not None:
            return
        name, origins = last_name(call.func), scopes.origins(call.func)
        if origins == {"builtin"} or name in REPORTING_METHODS:
            return
        if all(map(root_module, origins)):
            if name.startswith("set_"):  # set_grad_enabled
                raise Needed
            return
        target = call.func.value if isinstance(call.func, ast.Attribute) else None
        made = self._names.bindings(at, target) if isinstance(target, ast.Name) else [""]
        if not all(isinstance(value, (ast.Call, ast.List, ast.Dict, ast.Set)) for value in made):
            raise Needed  # an object that the code did not make

    def _mode(self, at: Context, call: ast.Call, *, certain: bool) -> None:
        """Note a call that sets a mode.  Raises `Needed` if the mode or the object is not certain."""
        assert isinstance(call.func, ast.Attribute)
        of = self._names.name_of(at, call.func.value)
        if not certain or not of:
            raise Needed
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        training: bool | None = call.func.attr == "train"
        if arguments and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, bool):
            training = arguments[0].value
        elif arguments:
            saved = arguments[0]
            if not isinstance(saved, ast.Name) or self._saved_modes.get((at, saved.id)) != of:
                raise Needed
            training = None
        self.acts.append(Mode(of, training, first=not self._model_called))
        self.mode_calls.add(call)
        self._in_training = self._in_training or training is not False

    def _save_mode(self, at: Context, node: ast.AST) -> None:
        """Note ``was = model.training`` before a mode is set: ``model.train(was)`` sets this mode again."""
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            return
        name, value = node.targets[0], node.value
        if (
            not isinstance(value, ast.Attribute)
            or value.attr != "training"
            or len(self._names.bindings(at, name)) > 1
        ):
            return
        of = self._names.name_of(at, value.value)
        if not any(isinstance(act, Mode) for act in self.acts):
            self._saved_modes[at, name.id] = of

    def _touch(self, at: Context, call: ast.Call) -> None:
        pending: list[ast.AST] = [call.func, *call.args, *(keyword.value for keyword in call.keywords)]
        while pending:
            node = pending.pop()
            if isinstance(node, ast.expr) and (of := self._names.name_of(at, node)):
                self.touched.add(of)
            else:
                pending.extend(children(node))

    # -- what is iterated --------------------------------------------------------------------------

    def _items(
        self, at: Context, expr: ast.expr, statement: ast.AST, *, whole: bool, seen: Names = frozenset()
    ) -> None:
        """Note what iterating an expression reads.  Raises `Needed` if it may be a loader that cannot be named."""
        if of := self._names.name_of(at, expr):
            self.acts.append(Items(of, whole))
        elif isinstance(expr, ast.Call):
            self._items_of_call(at, expr, statement, whole=whole, seen=seen)
        elif isinstance(expr, ast.Name):
            if at.given is not None and expr.id in at.given and self._names.bindings(at, expr) == ["other"]:
                outer, argument = at.given[expr.id]
                self._items(outer, argument, at.caller, whole=whole)
                return
            if expr.id in seen:
                return
            for value in self._names.bindings(at, expr):
                if isinstance(value, str):
                    raise Needed
                self._items(at, value, statement, whole=False, seen=seen | {expr.id})
        elif isinstance(expr, ast.Subscript) and isinstance(expr.slice, ast.Slice):
            self._items(at, expr.value, statement, whole=False, seen=seen)
        elif not isinstance(expr, (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, *COMPREHENSIONS)):
            raise Needed

    def _items_of_call(
        self, at: Context, call: ast.Call, statement: ast.AST, *, whole: bool, seen: Names
    ) -> None:
        """Note what iterating the result of a call reads."""
        name, origins = last_name(call.func), self.code.scopes[at.function.file].origins(call.func)
        if "loader" in name.lower():
            raise Needed
        if name in ONE_BY_ONE and call.args:
            self._items(at, call.args[0], statement, whole=whole, seen=seen)
        elif origins == {"builtin"}:
            for argument in call.args if name in EAGER_BUILTINS | LAZY_BUILTINS else ():
                self._items(at, argument, statement, whole=False, seen=seen)
        elif not origins.isdisjoint({"def"}):
            if callee(self.code, self.graph, call, statement) not in self.graph.lazy:
                raise Needed  # it may return a loader; what a generator iterates is noted where it is called
        elif isinstance(call.func, ast.Attribute) or all(map(root_module, origins)):
            for argument in call.args:  # as for itertools.islice
                if of := self._names.name_of(at, argument):
                    self.acts.append(Items(of, whole=False))
        else:
            raise Needed


def _contains(statement: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(node, kinds) for node in ast.walk(statement))
