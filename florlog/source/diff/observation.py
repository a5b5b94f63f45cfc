"""Whether added code only observes, or does something that the recorded code may notice.

The form of the code decides.  Three forms change an object or a name of the recorded code: a call of a method that is
known to change its object (`CHANGING_METHODS`, and in-place operations of tensors, whose names end in ``_``), a store
into an object, and an assignment to a name.  Other changes, such as a called function that changes its argument, are
not seen here, but they show in the fingerprints, as all changes do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from florlog.source.diff.source_diff import SourceDiff
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, one_line, own_nodes, parse

CHANGING_METHODS = {
    "add", "append", "appendleft", "backward", "clear", "discard", "eval", "extend", "insert", "load_state_dict",
    "manual_seed", "partial_fit", "pop", "popitem", "remove", "reverse", "seed", "setdefault", "shuffle", "sort",
    "step", "train", "update", "zero_grad",
}  # fmt: skip


def changing(old: str, diff: SourceDiff, file: str) -> Iterator[tuple[int, str]]:
    """The added statements that may change something of the recorded code: line, and what they do."""
    recorded = _bound(Scopes(parse(old, file)))
    for added in diff.added:
        own = _comprehension_targets(added.node)
        for node in own_nodes([added.node]):
            if isinstance(added.node, (*FUNCTIONS, ast.ClassDef)):
                break
            if node not in own and (what := _change(node, recorded)):
                yield getattr(node, "lineno", added.line), f"`{one_line(added.node)}` {what}"
                break


def _bound(scopes: Scopes) -> set[str]:
    every = {scopes.root, *scopes.inner.values()}
    return {name for scope in every for name in scope.bound}


def _comprehension_targets(node: ast.AST) -> set[ast.AST]:
    """The names that comprehensions bind, which are their own."""
    comprehensions = [part for part in ast.walk(node) if isinstance(part, ast.comprehension)]
    return {name for part in comprehensions for name in ast.walk(part.target) if isinstance(name, ast.Name)}


def _change(node: ast.AST, recorded: set[str]) -> str:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name, base = node.func.attr, _base(node.func.value)
        in_place = name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
        if base in recorded and (name in CHANGING_METHODS or in_place) and not _is_copy(node.func.value):
            return f"changes {base} with .{name}()"
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        if (base := _base(node)) in recorded:
            return f"stores into {base}"
    elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and node.id in recorded:
        return f"assigns {node.id}, a name of the recorded code"
    return ""


def _base(node: ast.AST) -> str:
    """The name at the root of ``name.a[0].b()``."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_copy(node: ast.AST) -> bool:
    """Whether an expression makes a new object: ``x.clone().mul_(2)`` changes a copy."""
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
        "clone",
        "copy",
        "deepcopy",
        "norm",
    )
