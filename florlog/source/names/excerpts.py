"""Excerpts of libraries' modules: a text that shows a few functions of a module (`florlog.source.edit.excerpt`)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from florlog.source.names.syntax import FUNCTIONS

MARK = "florlog_unseen"
_HEAD = re.compile(rf"^import {MARK}; .*# florlog: excerpt of (\S+) (\S+) (\S+)$")
_HEAD_SAYS = ("clock_keys", "told")
_LOOP = re.compile(r"  # florlog: loop (\w+)$")

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Origin:
    """What an excerpt is of; ``digest``: the xxh3-128 of the module's bytes."""

    module: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.module} {self.version} {self.digest}"


def excerpt_of(text: str) -> Origin | None:
    """What a text is an excerpt of; None for any other text."""
    found = _HEAD.search(text.partition("\n")[0])
    return None if found is None else Origin(*found.groups())


def clock_keys(tree: ast.Module) -> tuple[str, ...]:
    """How the keys end under which an excerpt's module keeps what it read from the clock; () for any other tree."""
    return tuple(map(str, _said(tree, "clock_keys", ())))


def told(tree: ast.Module) -> dict[int, str]:
    """The calls of an excerpt that tell values: line -> the variable with their mapping; {} for any other tree."""
    return {int(line): str(name) for line, name in _said(tree, "told", {}).items()}


def _said(tree: ast.Module, what: str, otherwise: Any) -> Any:
    """What the head of an excerpt says under a name; ``otherwise`` for any other tree."""
    for node in tree.body[: len(_HEAD_SAYS) + 1]:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"{MARK}.{what}":
            return ast.literal_eval(node.value)
    return otherwise


def is_excerpt(tree: ast.Module) -> bool:
    """Whether a tree is that of an excerpt."""
    return any(
        isinstance(node, ast.Import) and node.lineno == 1 and node.names[0].name == MARK
        for node in tree.body[:1]
    )


def loops_of_excerpt(text: str) -> dict[int, str]:
    """The recorded loops of an excerpt: line -> name."""
    return {
        number: found[1]
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _LOOP.search(line)) is not None
    }


def functions_of_excerpt(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """The functions of an excerpt's tree, with their qualified names."""
    pending: list[tuple[str, Sequence[ast.stmt]]] = [("", tree.body)]
    while pending:
        prefix, body = pending.pop()
        for node in body:
            if isinstance(node, FUNCTIONS):
                yield f"{prefix}{node.name}", node
            elif isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}.", node.body))
