"""Whether added code only observes: what it does that the recorded code may notice.

Found by form: a call of a method that is known to change its object (`CHANGING`, and in-place operations of tensors,
whose names end in ``_``), a store into an object, and an assignment to a name, where the object or name is the
recorded code's own.  What is not seen here (a called function that changes its argument) shows in the fingerprints, as
does everything that is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from florlog.source.diff.source_diff import SourceDiff
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, one_line, own_nodes, parse

CHANGING = {
    "add", "append", "appendleft", "backward", "clear", "discard", "eval", "extend", "insert", "load_state_dict",
    "manual_seed", "partial_fit", "pop", "popitem", "remove", "reverse", "seed", "setdefault", "shuffle", "sort",
    "step", "train", "update", "zero_grad",
}  # fmt: skip


def changing(old: str, diff: SourceDiff, file: str) -> Iterator[tuple[int, str]]:
    """Added statements that may change what the recorded code has, with the line and what they do."""
    known = _bound(Scopes(parse(old, file)))
    for added in diff.added:
        for node in own_nodes([added.node]):
            if isinstance(added.node, (*FUNCTIONS, ast.ClassDef)):
                break
            if what := _change(node, known):
                yield getattr(node, "lineno", added.line), f"`{one_line(added.node)}` {what}"
                break


def _bound(scopes: Scopes) -> set[str]:
    every = {scopes.root, *scopes.inner.values()}
    return {name for scope in every for name in scope.bound}


def _change(node: ast.AST, known: set[str]) -> str:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name, base = node.func.attr, _base(node.func.value)
        in_place = name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
        if base in known and (name in CHANGING or in_place) and not _is_fresh(node.func.value):
            return f"changes {base} by .{name}()"
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        if (base := _base(node)) in known:
            return f"stores into {base}"
    elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and node.id in known:
        return f"binds {node.id}, which the recorded code binds"
    return ""


def _base(node: ast.AST) -> str:
    """The name at the root of ``name.a[0].b()``."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_fresh(node: ast.AST) -> bool:
    """``x.clone().mul_(2)`` changes a copy."""
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
        "clone",
        "copy",
        "deepcopy",
        "norm",
    )
