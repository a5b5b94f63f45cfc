"""The cheapest walk: one pass over the timeline from left to right (``specs/planner.md`` has the proof)."""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from florlog_recovery.atoms import Atoms
from florlog_recovery.costs import CostModel
from florlog_recovery.tree import Loop, Node, RunTree

Enterable: TypeAlias = Callable[[Loop], bool]
"""Whether a loop execution may be entered blindly."""


def no_loop(loop: Loop) -> bool:
    """No loop may."""
    return False


def has_images(loop: Loop) -> bool:
    """Whether there is an image in a loop, or in the first loops inside its iterations."""
    inner = (node.loops[0] for node in loop.nodes.values() if node.loops)
    return bool(loop.images) or any(map(has_images, inner))


class _Finished(Exception):  # noqa: N818 - not an error
    pass


class _Jump(enum.Enum):
    RESTORE = enum.auto()
    SKIP = enum.auto()  # the whole loop
    ENTER = enum.auto()  # an iteration, blindly


@dataclass(frozen=True, slots=True)
class _Way:
    """A way from the last requested atom to a position: its cost, and the jumps on it, the last one first."""

    cost: float
    jumps: tuple[_Way, _Jump, Loop, int] | None = None


_HERE = _Way(0.0)


class Walk:
    """Goes over the timeline once, carrying the best way to the current position; arguments as of `plan_redo`."""

    def __init__(
        self,
        atoms: Atoms,
        costs: CostModel,
        unusable: Collection[tuple[Loop, int]],
        skippable: Collection[Loop],
        enterable: Enterable,
    ) -> None:
        self.atoms = atoms
        self.skippable = skippable
        self.enterable = enterable
        self.costs = costs
        self.unusable = unusable
        self.total = 0.0
        self.jumps: dict[Loop, list[int]] = {}
        self.skips: set[Loop] = set()
        self.blind: set[tuple[Loop, int]] = set()
        self.way = _HERE
        self.hits = 0
        self.remaining = sum(len(segments) for segments in atoms.segments.values()) + sum(
            int(mask.sum()) for mask in atoms.leaves.values()
        )

    def run(self, tree: RunTree) -> None:
        """Go to the last requested atom."""
        with suppress(_Finished):
            self.node(tree.root)

    def node(self, node: Node, blind: _Way | None = None) -> None:
        """``blind``: the way to its start that does not bring its state."""
        wanted = self.atoms.segments.get(node, {})
        for segment in range(len(node.loops) + 1):
            last = segment == len(node.loops)
            self._atom(node.after if last else node.loops[segment].before, wanted.get(segment))
            if not last:
                loop = node.loops[segment]
                way = None
                if blind is not None and segment == 0 and 0 not in wanted and self._may_enter(loop):
                    way = _Way(blind.cost + loop.before, blind.jumps)
                self.loop(loop, way)

    def loop(self, loop: Loop, blind: _Way | None = None) -> None:
        """``blind``: the way to its start that does not bring its state."""
        entry, hits = self.way, self.hits
        skipped = None
        if loop in self.skippable and self._may_skip(loop):
            skipped = self.way = _Way(entry.cost, (entry, _Jump.SKIP, loop, 0))
            if blind is None or blind.cost >= entry.cost:
                return
            self.way = entry
        if self._starts_from_image(loop):
            # The set-up before the first loop gives the stack frames; the state comes from the image.
            restore = self.costs.restore(loop.images[0])
            self.way = _Way(entry.cost + restore, (entry, _Jump.RESTORE, loop, 0))
        # Where restores start as long as nothing in the loop is executed: they need no state.
        start = blind if blind is not None and blind.cost < entry.cost else entry
        images = sorted(index for index in loop.images if (loop, index) not in self.unusable)
        first = 0
        for index in sorted(loop.nodes):
            base = start if self.hits == hits else _HERE
            if first < index:
                self._leaves(loop, first, index, base, images)
                base = start if self.hits == hits else _HERE
            else:
                self._pass(loop, index, base)
            self.node(loop.nodes[index], _Way(base.cost, (base, _Jump.ENTER, loop, index)))
            first = index + 1
        if first <= loop.count:
            self._leaves(loop, first, loop.count, start if self.hits == hits else _HERE, images)
        if skipped is not None and skipped.cost <= self.way.cost:
            self.way = skipped

    def _may_enter(self, loop: Loop) -> bool:
        return has_images(loop) and self.enterable(loop)

    def _starts_from_image(self, loop: Loop) -> bool:
        """Whether a loop is the run's first, and the image before its first iteration can be restored."""
        first = loop.parent.loop is None and loop.order == 0
        return first and 0 in loop.images and (loop, 0) not in self.unusable

    def _may_skip(self, loop: Loop) -> bool:
        """Whether nothing in a loop is requested.

        The run's first loop is never skipped: it shows whether its state is the recorded one.
        """
        first = loop.parent.loop is None and loop.order == 0
        return not first and self.atoms.last_index(loop) < 0

    def _atom(self, cost: float, share: float | None) -> None:
        """Pass an atom; ``share``: the part of it that is requested, or None."""
        if share is None:
            self.way = _Way(self.way.cost + cost, self.way.jumps)
        else:
            self._hit(1, share * cost, (1.0 - share) * cost)

    def _hit(self, count: int, own: float, rest: float) -> None:
        """The way has led to ``count`` requested atoms: it is final, and the next way starts after them.

        ``own`` is the cost of their requested shares, ``rest`` the cost of the last one from there to its end.  A walk
        that runs on pays the rest; a restore spares it.
        """
        self.total += self.way.cost + own
        jumps = self.way.jumps
        while jumps is not None:
            before, how, loop, index = jumps
            if how is _Jump.SKIP:
                self.skips.add(loop)
            else:
                self.jumps.setdefault(loop, []).append(index)
            if how is _Jump.ENTER:
                self.blind.add((loop, index))
            jumps = before.jumps
        self.way = _Way(rest)
        self.hits += 1
        self.remaining -= count
        if self.remaining == 0:
            raise _Finished

    def _pass(self, loop: Loop, index: int, base: _Way) -> None:
        """Pass a boundary between two iterations that have loops, or restore there; `_leaves` without iterations."""
        if index in loop.images and (loop, index) not in self.unusable:
            restored = base.cost + self.costs.restore(loop.images[index])
            if restored <= self.way.cost:
                self.way = _Way(restored, (base, _Jump.RESTORE, loop, index))

    def _leaves(self, loop: Loop, first: int, stop: int, base: _Way, images: list[int]) -> None:
        """Walk the innermost iterations ``first`` to ``stop`` - 1; ``base``: the way from which restores start.

        ``images``: the loop's usable ones, in order.  Only a resume requests the iteration ``loop.count``, which
        the log does not have yet.
        """
        usable = images[bisect_left(images, first) : bisect_right(images, stop)]
        mask = self.atoms.leaves.get(loop)
        if mask is None and not usable:
            self.way = _Way(self.way.cost + sum(loop.seconds[first:stop]), self.way.jumps)
            return
        run = _LeafRun(loop, first, stop, usable, self.costs)
        wanted = run.none if mask is None else np.flatnonzero(mask[first:stop]) + first
        if mask is not None and stop == loop.count and mask[stop]:
            wanted = np.append(wanted, stop)
        if wanted.size:
            self.way = run.reach(self.way, first, int(wanted[0]), base)
            costs = run.own(wanted)
            own = costs * self.atoms.leaf_shares(loop, wanted)
            seconds, restored = run.between(wanted, costs - own)
            self.jumps.setdefault(loop, []).extend(restored)
            self._hit(wanted.size, seconds + float(own.sum()), float(costs[-1] - own[-1]))
            first, base = int(wanted[-1]) + 1, _HERE
        if first <= stop:
            self.way = run.reach(self.way, first, stop, base)


_Floats: TypeAlias = npt.NDArray[np.float64]
_Ints: TypeAlias = npt.NDArray[np.int64]


class _LeafRun:
    """Innermost iterations in a row, as arrays over their boundaries ``first`` to ``stop``."""

    none: _Ints = np.zeros(0, dtype=np.int64)

    def __init__(self, loop: Loop, first: int, stop: int, images: list[int], costs: CostModel) -> None:
        self.loop = loop
        self.first = first
        seconds = np.frombuffer(loop.seconds, dtype=np.float64)[first:stop] if loop.count else np.zeros(0)
        self.upto: _Floats = np.concatenate(([0.0], np.cumsum(seconds)))  # cost from `first` to a boundary
        self.images: _Ints = np.array(images, dtype=np.int64)
        # The cost of reaching boundary b by restoring at p is restore(p) - upto(p) + upto(b).  The best p for every b
        # is the running minimum of the first two terms.
        restore = np.array([costs.restore(loop.images[int(i)]) for i in self.images], dtype=np.float64)
        gain = restore - self.upto[self.images - first]
        least: _Floats = np.minimum.accumulate(gain) if gain.size else gain
        self.least = np.concatenate(([np.inf], least))
        fresh = np.flatnonzero(gain == least) if gain.size else self.none
        at = np.searchsorted(fresh, np.arange(gain.size), side="right") - 1
        self.best = np.concatenate(([-1], self.images[fresh[at]] if gain.size else self.none))

    def _cost(self, boundaries: _Ints) -> _Floats:
        result: _Floats = self.upto[boundaries - self.first]
        return result

    def own(self, indices: _Ints) -> _Floats:
        """Cost of executing each of these iterations; 0 for the one that is not in the log yet."""
        after = np.minimum(indices + 1 - self.first, self.upto.size - 1)
        result: _Floats = self.upto[after] - self._cost(indices)
        return result

    def reach(self, way: _Way, start: int, target: int, base: _Way) -> _Way:
        """The best way to boundary ``target``: by running on from ``start``, or by a restore after ``base``.

        Of two ways of equal cost it is the restore, which re-executes less.
        """
        ahead = float(self.upto[target - self.first] - self.upto[start - self.first])
        found = int(np.searchsorted(self.images, target, side="right"))
        restored = base.cost + float(self.least[found] + self.upto[target - self.first])
        if restored <= way.cost + ahead:
            return _Way(restored, (base, _Jump.RESTORE, self.loop, int(self.best[found])))
        return _Way(way.cost + ahead, way.jumps)

    def between(self, wanted: _Ints, rests: _Floats) -> tuple[float, list[int]]:
        """Cost of going from each of ``wanted`` to the next, and the restores on the way.

        A walk that runs on first pays the rest of the iteration.  A restore at or before the last executed iteration
        never wins, because running on costs no more.
        """
        later, before = wanted[1:], wanted[:-1]
        ahead = self._cost(later) - self._cost(before + 1) + rests[:-1]
        found = np.searchsorted(self.images, later, side="right")
        restored = self.least[found] + self._cost(later)
        jumps = self.best[found[restored <= ahead]]
        return float(np.minimum(ahead, restored).sum()), [int(i) for i in jumps]
