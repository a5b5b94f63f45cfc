"""Which loops of a program are its training.

A loop is taken when a pass of it may train: something below its body calls ``backward``, ``step``,
``partial_fit``, ..., directly or through functions of the program (`florlog.source.edit.training_names`).  So are loops
over a generator that trains, and over something that is named like a loader.  In a program without any of these, the
loops are taken that print or log values (`florlog.source.names.telling`).

The choice is a function of the recorded text alone, so a replay makes it again from the recording and carries
it to the present text by line.  `florlog.source.edit.loop_names` says what the loops are called; the excerpt of a
framework's module names its loops itself (`florlog.source.edit.excerpt`).

Not taken, with the reason in `Choice.not_taken`: a loop that yields (its consumer runs part of each pass),
``async for``, ``while ... else`` where the ``else`` leaves or goes on with a loop around it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from florlog.source.edit.cell_text import executed
from florlog.source.edit.loop_names import LoopStatement, loop_names
from florlog.source.edit.rewrite import logged_names, rewritable_else
from florlog.source.edit.training_names import called, training_names
from florlog.source.names.excerpts import excerpt_of, loops_of_excerpt
from florlog.source.names.syntax import FUNCTIONS, LOOPS, own_nodes, parse_as_written
from florlog.source.names.telling import telling

_LOADER_NAMES = re.compile(r"loader|batches|\bdl\b|_dl\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """``loops``: file -> line -> name; ``not_taken``: a line for each training loop that cannot be taken."""

    loops: dict[str, dict[int, str]]
    not_taken: tuple[str, ...]


def choose(texts: Mapping[str, str]) -> Choice:
    """The loops of the training in a program's files; ``texts``: path -> text.  Raises `SourceError`."""
    adopted = [file for file, text in texts.items() if excerpt_of(text) is not None]
    own = {file: executed(text) for file, text in texts.items() if file not in adopted}
    trees = {file: parse_as_written(text, file) for file, text in own.items()}
    training = training_names(trees.values())
    generators = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and node.name in training and _yields(node.body)
    }
    logged = {name for file, text in own.items() for name in logged_names(text, file)}
    not_taken: list[str] = []
    for is_wanted in (partial(_trains, training=training, generators=generators), _shows):
        wanted = {file: [loop for loop in _loops(tree) if is_wanted(loop)] for file, tree in trees.items()}
        chosen = {file: [loop for loop in loops if not _obstacle(loop)] for file, loops in wanted.items()}
        not_taken += [
            f"{Path(file).name}:{loop.lineno} {why}"
            for file, loops in wanted.items()
            for loop in loops
            if (why := _obstacle(loop))
        ]
        if any(chosen.values()):
            break
    return Choice(
        {
            file: {loop.lineno: name for loop, name in loop_names(trees[file], loops, logged).items()}
            for file, loops in chosen.items()
            if loops
        }
        | {file: loops_of_excerpt(texts[file]) for file in adopted},
        tuple(dict.fromkeys(not_taken)),
    )


def _trains(loop: LoopStatement, training: Collection[str], generators: Collection[str]) -> bool:
    """Whether a pass of a loop may train; ``training``: names that train; ``generators``: those of generators."""
    if any(name in training for name in called(loop.body)):
        return True
    if isinstance(loop, ast.While):
        return any(name in training for name in called([loop.test]))
    return any(name in generators for name in called([loop.iter])) or bool(
        _LOADER_NAMES.search(ast.unparse(loop.iter))
    )


def _shows(loop: LoopStatement) -> bool:
    """Whether a pass of a loop may print or log values."""
    nodes = (node for statement in loop.body for node in ast.walk(statement))
    return any(isinstance(node, ast.Call) and telling(node) for node in nodes)


def _loops(tree: ast.AST) -> Iterator[LoopStatement]:
    return (node for node in ast.walk(tree) if isinstance(node, LOOPS))


def _yields(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(body))


def _obstacle(loop: LoopStatement) -> str:
    """Why a loop cannot be taken, "" if it can."""
    if isinstance(loop, ast.AsyncFor):
        return "is asynchronous"
    if isinstance(loop, ast.While) and not rewritable_else(loop):
        return "is a while whose else leaves a loop around it"
    return "yields to its consumer" if _yields(loop.body) else ""
