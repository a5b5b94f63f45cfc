"""Which loops a run may enter blindly: on a state that is not the recorded one.

An image inside an iteration can only be restored where the stack frames around it are, so the code of the iteration up
to the loop with the image has to run: ``model.train()``, a call of ``train_epoch``, its first statements.  Where all of
it is harmless (`florlog.source.skip.harmless`) it may run on any state, as the image replaces it.  Then there is no
need for the state at the iteration's start, which may be the newest image of hundreds of iterations before it.

The way from the iteration's start to the loop must be certain, and the same on any state: statements one after the
other, ``with``, an ``if`` whose condition has no stale name, and calls of functions of the program.  Items of the
loop around must be known by their number alone.

Images contain what the recorded source reads later.  So nothing that was added may read a name that was bound on the
way and is stale.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from florlog.source.carry.liveness import Names
from florlog.source.graph.callgraph import CallGraph
from florlog.source.graph.definitions import last_name
from florlog.source.graph.functions import Code, Function, LoopCode
from florlog.source.names.syntax import is_while_test, own_nodes
from florlog.source.skip.harmless import Harmless, parameters
from florlog.source.skip.naming import Context, Naming, callee

NUMBERED = {"range", "trange"}
PASSES = "__florlog__.passes"
"""What a while loop runs over where it is rewritten (`florlog.source.edit.rewrite`)."""
SHOWN = {"enumerate", "tqdm"}
"""Calls around an iterable whose items have the same numbers."""
LAZY = SHOWN | {"zip"}
"""Calls whose result begins to iterate when it is iterated, or that florlog sees through."""

Frame = tuple[str, str, int]
"""File, qualified name, line."""


@dataclass
class _Place:
    """Where the way to a loop is: a block of a function, and what is stale there."""

    function: Function
    block: Sequence[ast.AST]
    stale: set[str]


class Entering:
    """Answers for the loops of one program.  ``asked``: the names in added code."""

    def __init__(self, code: Code, graph: CallGraph, asked: Names) -> None:
        self._code, self._graph, self._asked = code, graph, asked
        self._harmless = Harmless(code, graph)

    def may_enter(self, around: LoopCode, stack: Sequence[Frame]) -> bool:
        """Whether a loop in an iteration of another one may be entered blindly.

        ``stack``: the frames from the loop's call outwards, up to the one that runs the iteration.
        """
        if not isinstance(around.body, ast.For) or not around.call.certain or not _is_numbered(around):
            return False
        target = around.body.target
        stale = self._harmless.names_bound(around.body.body) - self._harmless.names_bound([target])
        if not self._harmless.binds(target, around.body, stale, around.function):
            return False
        tests, block = _without_test(around.body.body)
        place = _Place(around.function, block, stale)
        bound = self._harmless.names_bound(tests)  # stale names that the way binds, or would have bound
        for number, frame in enumerate(reversed(stack)):
            at_goal = number == len(stack) - 1
            statement = self._reach(place, frame, bound, at_goal=at_goal)
            if statement is None:
                return False
            if at_goal:
                return self._enters(statement, place) and not bound & self._asked
            called = self._called(statement, place, tuple(reversed(stack))[number + 1])
            if called is None:
                return False
            place = called
            assert isinstance(place.function.node, ast.FunctionDef)
            bound |= place.stale & parameters(place.function.node)
        return False

    def _reach(self, place: _Place, frame: Frame, bound: set[str], *, at_goal: bool) -> ast.AST | None:
        """The statement of a frame, ``at_goal`` the loop; None where the way there is not harmless or not certain."""
        if self._code.function(*frame) is not place.function:
            return None
        statement: ast.AST | None = self._code.statement(place.function, frame[2])
        if at_goal and (loop := self._code.loop(*frame)) is not None:
            statement = loop.body  # a while loop's test is on the same line
        if statement is None:
            return None
        around = [owner for owner, _ in self._code.enclosing(statement)][::-1]
        inner: list[ast.AST] = [*around, statement]
        inner = inner[next((i for i, node in enumerate(inner) if node in place.block), len(inner)) :]
        for owner, following in pairwise(inner):
            if not self._pass(place, owner, bound) or not self._go_in(place, owner, following):
                return None
        return statement if inner and self._pass(place, statement, bound) else None

    def _pass(self, place: _Place, statement: ast.AST, bound: set[str]) -> bool:
        """Go through the statements of the present block before one of them."""
        if statement not in place.block:
            return False
        before = place.block[: list(place.block).index(statement)]
        harmless = self._harmless.block(before, place.stale, place.function)
        bound |= self._harmless.names_bound(before) & place.stale
        return harmless

    def _go_in(self, place: _Place, owner: ast.AST, following: ast.AST) -> bool:
        """Go into the block of a statement that contains the next one."""
        scopes = self._code.scopes[place.function.file]
        if isinstance(owner, ast.With):
            place.block = owner.body
            return all(
                self._harmless.enters(item, owner, place.stale, place.function) for item in owner.items
            )
        if isinstance(owner, ast.If):
            place.block = owner.body if following in owner.body else owner.orelse
            return self._harmless.is_steady(owner.test, place.stale, scopes)
        return False

    def _enters(self, statement: ast.AST, place: _Place) -> bool:
        """Whether it is harmless to evaluate what a loop runs over."""
        found = next((loop for loop in self._code.loops if loop.body is statement), None)
        if found is None or not isinstance(statement, ast.For) or not found.call.certain:
            return False
        made = any(  # by a property of the program
            isinstance(callee, Function)
            for node, callees in self._graph.events(statement)
            if isinstance(node, ast.Attribute) and node is not found.call.node.func
            for callee in callees
        )
        return (not made and _is_restartable(statement.iter, found)) and self._harmless.header(
            [statement.iter], statement, place.stale, place.function, found.call.node
        )

    def _called(self, statement: ast.AST, place: _Place, frame: Frame) -> _Place | None:
        """The beginning of the function that a statement calls next; None where that is not certain or not harmless."""
        if not isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return)):
            return None
        goal = self._code.function(*frame)
        calls = [
            node
            for node in own_nodes([statement])
            if isinstance(node, ast.Call) and callee(self._code, self._graph, node, statement) is goal
        ]
        if goal is None or len(calls) != 1 or not isinstance(goal.node, ast.FunctionDef):
            return None
        if any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)) for node in own_nodes(goal.node.body)):
            return None
        value: ast.AST | None = statement.value
        if value is None or not self._harmless.header(
            [value], statement, place.stale, place.function, calls[0]
        ):
            return None
        scopes = self._code.scopes[place.function.file]
        naming = Naming(self._code, place.function, frozenset())
        given = naming.arguments(Context(place.function, None, statement), calls[0], goal)
        steady = {
            name for name, (_, expr) in given.items() if self._harmless.is_steady(expr, place.stale, scopes)
        }
        if not (calls[0].args or calls[0].keywords):
            steady |= parameters(goal.node) - set(given)  # defaults
        bound = self._harmless.names_bound(goal.node.body)
        return _Place(goal, goal.node.body, (parameters(goal.node) - steady) | bound)


def _without_test(body: list[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """What a pass of a while loop begins with and does not execute where it is entered blindly: its test; the rest.

    A pass that was recorded shows that the test was true.  A loop in the test, or in an ``else``, is on no way.
    """
    if body and is_while_test(body[0]):
        return body[:1], body[1:]
    return [], body


def _iterable(loop: LoopCode) -> ast.expr | None:
    """What a florlog loop is given to run over."""
    call = loop.call.node
    given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "iterable")]
    return given[0] if given else None


def _is_restartable(expr: ast.expr, loop: LoopCode) -> bool:
    """Whether what a loop runs over is an object that a restore can set back, and no iterator made on the way.

    An iterator has taken what it runs over already: the order of a shuffle, the arguments of a generator.
    """
    if isinstance(expr, ast.Attribute):
        return _is_restartable(expr.value, loop)
    if not isinstance(expr, ast.Call):
        return isinstance(expr, ast.Name)
    if expr is loop.call.node:
        inner = _iterable(loop)
        return inner is not None and _is_restartable(inner, loop)
    name = last_name(expr.func)
    if ast.unparse(expr.func) == PASSES:
        return True
    return name in NUMBERED or (name in LAZY and all(_is_restartable(part, loop) for part in expr.args[:2]))


def _is_numbered(loop: LoopCode) -> bool:
    """Whether the items of a loop are known by their number alone."""
    body = loop.body
    assert isinstance(body, ast.For)
    expr: ast.expr = body.iter
    while isinstance(expr, ast.Call):
        inner = _iterable(loop) if expr is loop.call.node else next(iter(expr.args), None)
        if expr is not loop.call.node and last_name(expr.func) not in SHOWN:
            return last_name(expr.func) in NUMBERED or ast.unparse(expr.func) == PASSES
        if inner is None:
            return False
        expr = inner
    return False
