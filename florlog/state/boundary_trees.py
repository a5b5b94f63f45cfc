"""The state at a boundary as trees, before it is copied or compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from florlog.state.heap.image import Flattened
from florlog.state.left_out import Gradients

HEAP = "/heap"
"""The name of the graph of all mutable state that the program's names reach."""
SETTINGS = "/settings"
"""The name of the process's settings that the program has changed."""
ENVIRONMENT = "/environment"
"""The name of the variables of the environment that the program has changed: restored, and not compared."""
SEAL = "/seal"
"""The name of the signature of all that an image holds besides tensors."""


States: TypeAlias = Callable[[Gradients], "Trees"]
"""Gives the trees of the tracked names, and of what else an image has, as they are now, without these gradients."""


class Trees(dict[str, Any]):
    """The trees of a boundary by name, and ``flat``, what `florlog.state.tree.flatten` makes of each.

    `HEAP` has a `florlog.state.heap.capture.Graph` and no tree.
    """

    def __init__(self, trees: dict[str, Any], flat: dict[str, Flattened]) -> None:
        super().__init__(trees)
        self.flat = flat
