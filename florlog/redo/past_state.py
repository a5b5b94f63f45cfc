"""The state at any boundary of a run: from the image there, else by redo in a process of its own.

The process runs the recorded program along the cheapest plan, stands at the boundary, sends the state's pages through
a pipe, and is killed there (`florlog.redo.boundary_visit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from florlog_recovery import Loop, RunTree
from florlog_wal import PageEntry, RunLog, entry_bytes
from florlog_wal import Path as IterationPath

from florlog.errors import FlorlogError
from florlog.following.trust import where
from florlog.hindsight.request_data import loop_name
from florlog.images.imager import SavedState
from florlog.programs.permission import Trust
from florlog.redo.boundary_visit import answers, order_of

RECORDED = "RECORDED"


class PastState(dict[str, Any]):
    """The tracked state at a boundary: tracked name -> state dict, or what else holds the object's state.

    ``trust`` is RECORDED where an image stood there; else PROVEN, CONSISTENT or UNVERIFIED, as of a replayed value,
    and ``detail`` says what is against more.  ``redone`` counts the innermost iterations that were re-executed.
    ``generators`` are the states of Python's, NumPy's and torch's random generators.
    """

    def __init__(self, saved: SavedState, trust: str, detail: str = "", redone: int = 0) -> None:
        super().__init__(
            {name: public(saved.tree(name)) for name in saved.names() if not name.startswith("/")}
        )
        self.generators = saved.tree("/rng")
        self.trust = trust
        self.detail = detail
        self.redone = redone


def boundary(tree: RunTree, path: IterationPath, at: Literal["start", "end"]) -> tuple[Loop, int]:
    """The boundary at an iteration's start or end; the start of an iteration that never committed counts.

    Raises `FlorlogError` when the run has no such place.
    """
    if at not in ("start", "end"):
        raise FlorlogError(f'at is "start" or "end", and got {at!r}')
    if not path:
        raise FlorlogError("state_at needs an iteration, such as epoch=3, step=17")
    outer = tree.locate(path[:-1])
    node = tree.root if not path[:-1] else outer and outer[0].nodes.get(outer[1])
    name, index = path[-1]
    loop = node.find(name) if node else None
    if loop is not None and 0 <= index < loop.count + (at == "start" and not loop.ended):
        return loop, index + (at == "end")
    within = f"; loop {name} has {loop.count} there, numbered from 0" if loop is not None else ""
    raise FlorlogError(f"run {tree.run} has no iteration {where(path)}{within}")


def state_at(
    log: RunLog, tree: RunTree, path: IterationPath, at: Literal["start", "end"], trust: Trust
) -> PastState:
    """The state at an iteration's start or end; ``trust``: whose code may be executed where there is no image.

    Raises `FlorlogError` when the run has no such iteration or its script fails, `UntrustedRunError` when its script
    may not be executed, and `DivergedError`, which names the first difference, when redo does not give what was
    recorded.
    """
    loop, index = boundary(tree, path, at)
    image = loop.images.get(index)
    if image is not None:
        return PastState(SavedState(log, image.table), RECORDED)
    return _redone(log, tree, loop, index, trust)


def _redone(log: RunLog, tree: RunTree, loop: Loop, index: int, trusted: Trust) -> PastState:
    order = order_of(log, tree, trusted, loop=loop_name(loop), index=index)
    pages = Pages()
    for message in answers(tree, "florlog.redo.state_worker", order):
        match message:
            case ["page", bytes() as digest, bytes() as data]:
                pages[digest] = data
            case ["state", bytes() as digest, str() as trust, str() as detail, int() as redone]:
                return PastState(SavedState(pages, digest), trust, detail, redone)
    raise AssertionError  # `answers` raises where nothing comes


class Pages(dict[bytes, bytes]):
    """Pages in memory, to be read as a store's."""

    def get_page(self, digest: bytes) -> bytes:
        """The bytes of a page."""
        return self[digest]

    def read_entries(self, entries: Sequence[PageEntry]) -> list[memoryview]:
        """The bytes of each entry; raises `florlog_wal.CorruptValue` where they are more or fewer than it says."""
        return [memoryview(entry_bytes(self.get_page, entry)) for entry in entries]


def public(tree: Any) -> Any:
    """A module's state as its state dict, a tensor's as the tensor; other states as they are."""
    if isinstance(tree, dict) and {"state", "loose", "grads", "training"} <= tree.keys():
        return tree["state"]
    if isinstance(tree, dict) and tree.keys() == {"data", "grad"} and isinstance(tree["data"], torch.Tensor):
        return tree["data"]
    return tree
