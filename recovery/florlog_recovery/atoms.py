"""The atoms (segments of iterations) that must be executed, and how far.

A requested atom has a *share*: the part of its cost up to the place after the last requested statement.  A walk that
needs no more of the iteration leaves it there.  A share of 1 is the whole atom.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from florlog_recovery.tree import Loop, Node, RunTree


class Atoms:
    """A set of atoms of one run tree, each with its share: the requested atoms.

    Innermost iterations are kept as a mask over their loop execution, segments of other iterations in a
    dict.  So all steps of a long run are a few arrays.
    """

    def __init__(self) -> None:
        self.segments: dict[Node, dict[int, float]] = {}  # segment -> share
        self.leaves: dict[Loop, npt.NDArray[np.bool_]] = {}
        self.shares: dict[Loop, npt.NDArray[np.float64]] = {}  # only where one is below 1
        self._last_index: dict[Loop, int] = {}

    def add_segment(self, node: Node, segment: int, share: float = 1.0) -> None:
        """Add one segment of an iteration that has loops, or of the run; of two shares the larger counts.

        Raises ValueError if the iteration has no such segment.
        """
        if not 0 <= segment <= len(node.loops):
            raise ValueError(f"iteration {node.path} has no segment {segment}")
        shares = self.segments.setdefault(node, {})
        shares[segment] = max(share, shares.get(segment, 0.0))
        self._reach(node)

    def add_leaves(
        self, loop: Loop, indices: Iterable[int] | npt.NDArray[np.bool_], share: float = 1.0
    ) -> None:
        """Add innermost iterations of a loop execution, given by index or by a mask over its iterations."""
        size = loop.count + 1  # one more: the iteration with which a resume continues
        mask = self.leaves.setdefault(loop, np.zeros(size, dtype=np.bool_))
        added = np.zeros(size, dtype=np.bool_)
        if isinstance(indices, np.ndarray):
            added[: len(indices)] = indices
        else:
            added[list(indices)] = True
        if share < 1.0 or loop in self.shares:
            shares = self.shares.setdefault(loop, np.where(mask, 1.0, 0.0))
            shares[added] = np.maximum(shares[added], share)
        mask |= added
        found = np.flatnonzero(mask)
        if found.size:
            self._mark(loop, int(found[-1]))
            self._reach(loop.parent)

    def _mark(self, loop: Loop, index: int) -> None:
        self._last_index[loop] = max(index, self._last_index.get(loop, -1))

    def _reach(self, node: Node) -> None:
        while node.loop is not None:
            self._mark(node.loop, node.index)
            node = node.loop.parent

    def last_index(self, loop: Loop) -> int:
        """The last iteration of ``loop`` with a requested atom in it, or -1."""
        return self._last_index.get(loop, -1)

    def indices(self, loop: Loop) -> list[int]:
        """The iterations of ``loop`` with a requested atom in them, in order."""
        mask = self.leaves.get(loop)
        found = set() if mask is None else set(np.flatnonzero(mask).tolist())
        return sorted(found | {index for index, node in loop.nodes.items() if self.within(node)})

    def within(self, node: Node) -> bool:
        """Whether a requested atom lies in the iteration or in one inside it."""
        return node in self.segments or any(loop in self._last_index for loop in node.loops)

    def last_segment(self, node: Node) -> tuple[int, bool]:
        """Where the last requested atom of an iteration lies: segment, or loop execution (True), number."""
        segment = max(self.segments.get(node, ()), default=-1)
        order = max((loop.order for loop in node.loops if loop in self._last_index), default=-1)
        return (order, True) if order >= segment and order >= 0 else (segment, False)

    def leaf_shares(self, loop: Loop, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The shares of requested innermost iterations, one for each of ``indices``."""
        shares = self.shares.get(loop)
        return np.ones(indices.size) if shares is None else shares[indices]

    def leaf_share(self, loop: Loop, index: int) -> float:
        """The share of one requested innermost iteration."""
        shares = self.shares.get(loop)
        return 1.0 if shares is None else float(shares[index])

    def __bool__(self) -> bool:
        return bool(self.segments) or bool(self._last_index)


def boundary_atoms(boundaries: Iterable[tuple[Loop, int]]) -> Atoms:
    """The atoms that lead a walk to boundaries: the one after each boundary, with a share of 0.

    Raises ValueError for a boundary that its loop does not have.
    """
    atoms = Atoms()
    leaves: dict[Loop, list[int]] = {}
    for loop, index in boundaries:
        if not 0 <= index <= loop.count:
            raise ValueError(f"loop {loop.name} has no boundary {index}")
        if index in loop.nodes:
            atoms.add_segment(loop.nodes[index], 0, 0.0)
        else:
            leaves.setdefault(loop, []).append(index)
    for loop, indices in leaves.items():
        atoms.add_leaves(loop, indices, 0.0)
    return atoms


def resume_atoms(tree: RunTree) -> tuple[Atoms, Node, int | Loop]:
    """The first atom that the log does not have: there a killed run continues.

    Returns it as `Atoms`, and its place: the open iteration, and its segment or the loop execution whose next
    iteration it is.
    """
    atoms = Atoms()
    node = tree.root
    while (loop := next((loop for loop in node.loops if not loop.ended), None)) is not None:
        inner = loop.nodes.get(loop.count)
        if inner is None:
            atoms.add_leaves(loop, [loop.count])
            return atoms, node, loop
        node = inner
    atoms.add_segment(node, len(node.loops))
    return atoms, node, len(node.loops)
