"""By which names a program calls code that trains.

A function trains if it calls ``backward``, ``step``, ``partial_fit``, ..., directly or through the program's functions.
Functions are followed by the last word of their names, and where they are passed on: a parameter trains if an argument
does, and so does the variable or attribute that is assigned something that trains.  So in

    def run(fn, data):
        for x in data:
            fn(x)
    run(train_step, data)

``fn`` trains.  More names are found than train, since all things of one name are one: that only matters for what is
called inside a loop.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from florlog.source.names.syntax import FUNCTIONS, last_word, own_nodes

TRAINING_CALLS = frozenset({
    "backward", "step", "fit", "partial_fit", "train_on_batch", "zero_grad", "grad", "value_and_grad",
    "apply_gradients", "apply_updates",
})  # fmt: skip
"""The last words of what libraries call training."""


def training_names(trees: Iterable[ast.AST]) -> set[str]:
    """The names of a program's files under which something that trains is called, the libraries' included."""
    program = _Program(trees)
    found = set(TRAINING_CALLS)
    while True:
        more = {
            name for name, uses in program.uses.items() if name not in found and not uses.isdisjoint(found)
        }
        if not more:
            return found
        found |= more


def called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The last names of what is called below nodes."""
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Call) and (name := last_word(node.func)):
                yield name


class _Program:
    """``uses``: for each name, the names of which one that trains makes it a name that trains."""

    def __init__(self, trees: Iterable[ast.AST]) -> None:
        self.uses: dict[str, set[str]] = defaultdict(set)
        self._parameters: dict[str, list[list[str]]] = defaultdict(list)
        nodes = [node for tree in trees for node in ast.walk(tree)]
        for node in nodes:
            if isinstance(node, FUNCTIONS):
                self.uses[node.name].update(called(node.body))
                self._parameters[node.name].append(_parameters(node))
            elif isinstance(node, ast.ClassDef):
                self._class(node)
        for node in nodes:
            if isinstance(node, ast.Call):
                self._arguments(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self._passed(last_word(target), node.value)

    def _class(self, node: ast.ClassDef) -> None:
        """Making an instance calls ``__init__``; calling it calls ``__call__``."""
        for inner in node.body:
            if isinstance(inner, FUNCTIONS) and inner.name in ("__init__", "__call__"):
                self.uses[node.name].update(called(inner.body))
                if inner.name == "__init__":
                    self._parameters[node.name].append(_parameters(inner))

    def _arguments(self, call: ast.Call) -> None:
        for parameters in self._parameters.get(last_word(call.func), ()):
            for name, value in zip(parameters, call.args, strict=False):
                self._passed(name, value)
        for keyword in call.keywords:
            self._passed(keyword.arg or "", keyword.value)

    def _passed(self, name: str, value: ast.expr) -> None:
        """A value gets a name: a function, or what is made of one, as by ``partial`` or ``torch.compile``."""
        if not name:
            return
        for node in own_nodes([value]):
            if isinstance(node, ast.Lambda):
                self.uses[name].update(called([node.body]))
            elif (known := last_word(node)) and known != name:
                self.uses[name].add(known)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names that positional arguments get."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names
