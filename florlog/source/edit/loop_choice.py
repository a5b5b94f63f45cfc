"""Which loops of a program are its training, and what they are called.

A loop is taken when a pass of it may train: something below its body calls ``backward``, ``step``,
``partial_fit``, ..., directly or through functions of the program, which are followed by name.  So are loops
over something named as a loader.  A program without any of these has the loops taken that tell values
(`reading.spoken`).

The choice is a function of the recorded text alone, so a replay makes it again from the recording and carries
it to the present text by line.  A loop is called after its target: ``for epoch in ...`` is ``epoch``, a target
that is unpacked is ``step``, a ``while`` is ``pass``.

Not taken, and said so: a loop that yields (its body is left to a consumer), ``async for``, ``while ... else``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from florlog.source.edit.cell_text import executed
from florlog.source.edit.rewrite import spoken
from florlog.source.names.syntax import FUNCTIONS, LOOPS, own_nodes, parse

_TRAINS = {"backward", "step", "partial_fit", "train_on_batch", "zero_grad"}
_DATA = re.compile(r"loader|batches|\bdl\b|_dl\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """The loops taken, file -> line -> name, and what was not understood, a line each."""

    loops: dict[str, dict[int, str]]
    left: tuple[str, ...]


def choose(texts: Mapping[str, str]) -> Choice:
    """The loops of the training in a program's files."""
    trees = {file: parse(executed(text), file) for file, text in texts.items()}
    training = _training_functions(trees.values())
    taken: dict[str, dict[int, str]] = {}
    left: list[str] = []
    for wanted in (_Trains(training), _Tells()):
        for file, tree in trees.items():
            for loop in _loops(tree):
                if not wanted(loop):
                    continue
                if why := _obstacle(loop):
                    left.append(f"{Path(file).name}:{loop.lineno} {why}")
                else:
                    taken.setdefault(file, {})[loop.lineno] = _name(loop)
        if taken:
            break
    return Choice(taken, tuple(dict.fromkeys(left)))


class _Trains:
    def __init__(self, functions: set[str]) -> None:
        self._functions = functions

    def __call__(self, loop: ast.For | ast.AsyncFor | ast.While) -> bool:
        if any(name in _TRAINS or name in self._functions for name in _called(loop.body)):
            return True
        return not isinstance(loop, ast.While) and bool(_DATA.search(ast.unparse(loop.iter)))


class _Tells:
    def __call__(self, loop: ast.For | ast.AsyncFor | ast.While) -> bool:
        nodes = (node for statement in loop.body for node in ast.walk(statement))
        return any(isinstance(node, ast.Call) and spoken(node) for node in nodes)


def _loops(tree: ast.AST) -> Iterator[ast.For | ast.AsyncFor | ast.While]:
    return (node for node in ast.walk(tree) if isinstance(node, LOOPS))


def _called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute):
                    yield node.func.attr
                elif isinstance(node.func, ast.Name):
                    yield node.func.id


def _training_functions(trees: Iterable[ast.AST]) -> set[str]:
    """The names of functions of the program below which something trains."""
    calls: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                calls.setdefault(node.name, set()).update(_called(node.body))
            elif isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, FUNCTIONS) and inner.name == "__init__":
                        calls.setdefault(node.name, set()).update(_called(inner.body))
    found: set[str] = set()
    while True:
        more = {name for name, called in calls.items() if called & (_TRAINS | found)} - found
        if not more:
            return found
        found |= more


def _obstacle(loop: ast.For | ast.AsyncFor | ast.While) -> str:
    if isinstance(loop, ast.AsyncFor):
        return "is asynchronous"
    if isinstance(loop, ast.While) and loop.orelse:
        return "is a while with an else"
    if any(isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)) for node in own_nodes(loop.body)):
        return "yields to what consumes it"
    return ""


def _name(loop: ast.For | ast.AsyncFor | ast.While) -> str:
    if isinstance(loop, ast.While):
        return "pass"
    target = loop.target
    if isinstance(target, (ast.Tuple, ast.List)):
        first = target.elts[0] if target.elts else target
        counts = isinstance(loop.iter, ast.Call) and ast.unparse(loop.iter.func).endswith("enumerate")
        target = first if counts else target
    if isinstance(target, ast.Name) and target.id.strip("_"):
        return target.id
    return "step"
