"""Which loops of a program are its training, and what they are called.

A loop is taken when a pass of it may train: something below its body calls ``backward``, ``step``,
``partial_fit``, ..., directly or through functions of the program, which are followed by name.  So are loops
over something that is named like a loader.  In a program without any of these, the loops are taken that print or log
values (`florlog.source.edit.rewrite.shows_values`).

The choice is a function of the recorded text alone, so a replay makes it again from the recording and carries
it to the present text by line.  A loop is called after its target: ``for epoch in ...`` is ``epoch``, a target
that is unpacked is ``step``, a ``while`` is ``pass``.  The excerpt of a framework's module names its loops itself
(`florlog.source.edit.excerpt`).

Not taken, with the reason in `Choice.not_taken`: a loop that yields (its consumer runs part of each pass),
``async for``, ``while ... else``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from florlog.source.edit.cell_text import executed
from florlog.source.edit.rewrite import shows_values
from florlog.source.names.excerpts import excerpt_of, loops_of_excerpt
from florlog.source.names.syntax import FUNCTIONS, LOOPS, own_nodes, parse

_TRAINING_CALLS = {"backward", "step", "partial_fit", "train_on_batch", "zero_grad"}
_LOADER_NAMES = re.compile(r"loader|batches|\bdl\b|_dl\b", re.IGNORECASE)


LoopStatement: TypeAlias = ast.For | ast.AsyncFor | ast.While


@dataclass(frozen=True)
class Choice:
    """``loops``: file -> line -> name; ``not_taken``: a line for each training loop that cannot be taken."""

    loops: dict[str, dict[int, str]]
    not_taken: tuple[str, ...]


def choose(texts: Mapping[str, str]) -> Choice:
    """The loops of the training in a program's files; ``texts``: path -> text.  Raises `SourceError`."""
    trees = {file: parse(executed(text), file) for file, text in texts.items()}
    training = _training_functions(trees.values())
    adopted = {file for file, text in texts.items() if excerpt_of(text) is not None}
    chosen: dict[str, dict[int, str]] = {}
    not_taken: list[str] = []
    for is_wanted in (partial(_trains, training=training), _shows):
        for file, tree in trees.items():
            if file in adopted:
                continue
            for loop in _loops(tree):
                if not is_wanted(loop):
                    continue
                if why := _obstacle(loop):
                    not_taken.append(f"{Path(file).name}:{loop.lineno} {why}")
                else:
                    chosen.setdefault(file, {})[loop.lineno] = _name(loop)
        if chosen:
            break
    chosen |= {file: loops_of_excerpt(texts[file]) for file in adopted}
    return Choice(chosen, tuple(dict.fromkeys(not_taken)))


def _trains(loop: LoopStatement, training: set[str]) -> bool:
    """Whether a pass of a loop may train; ``training``: the functions in which something trains."""
    if any(name in _TRAINING_CALLS or name in training for name in _called(loop.body)):
        return True
    return not isinstance(loop, ast.While) and bool(_LOADER_NAMES.search(ast.unparse(loop.iter)))


def _shows(loop: LoopStatement) -> bool:
    """Whether a pass of a loop may print or log values."""
    nodes = (node for statement in loop.body for node in ast.walk(statement))
    return any(isinstance(node, ast.Call) and shows_values(node) for node in nodes)


def _loops(tree: ast.AST) -> Iterator[LoopStatement]:
    return (node for node in ast.walk(tree) if isinstance(node, LOOPS))


def _called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The last names of what is called below nodes."""
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute):
                    yield node.func.attr
                elif isinstance(node.func, ast.Name):
                    yield node.func.id


def _training_functions(trees: Iterable[ast.AST]) -> set[str]:
    """The names of the program's functions that call something that trains, directly or not."""
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
        more = {name for name, called in calls.items() if called & (_TRAINING_CALLS | found)} - found
        if not more:
            return found
        found |= more


def _obstacle(loop: LoopStatement) -> str:
    """Why a loop cannot be taken, "" if it can."""
    if isinstance(loop, ast.AsyncFor):
        return "is asynchronous"
    if isinstance(loop, ast.While) and loop.orelse:
        return "is a while with an else"
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(loop.body)):
        return "yields to its consumer"
    return ""


def _name(loop: LoopStatement) -> str:
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
