"""The leaves of a state, named by the way to them: ``model.fc.weight``, ``optimizer.param_groups.0.lr``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names and leaves of nested mappings, lists and tuples, in order; an empty one of these is a leaf."""
    if isinstance(tree, Mapping) and tree:
        pairs: Any = tree.items()
    elif type(tree) in (list, tuple) and tree:
        pairs = enumerate(tree)
    else:
        yield name, tree
        return
    for key, item in pairs:
        yield from named_leaves(item, f"{name}.{key}" if name else str(key))
