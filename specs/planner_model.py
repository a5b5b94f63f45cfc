"""The redo planner's model, executable: exhaustive search over all walks of a small run tree.

`florlog_recovery.plan` computes the cheapest walk in linear time.  This module finds it by trying every edge from
every position, as ``specs/planner.md`` defines them.  Tests compare the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache

from florlog_recovery import Atoms, CostModel, Loop, Node, RunTree


@dataclass(frozen=True)
class Event:
    """One thing on the timeline: an atom, or a boundary of a loop execution."""

    kind: str  # "atom", "enter", "boundary", "exit"
    loop: Loop | None = None
    index: int = 0
    cost: float = 0.0
    share: float | None = None  # the requested part of an atom


def timeline(tree: RunTree, atoms: Atoms) -> list[Event]:
    """All events of the run in order, up to the last requested one of ``atoms``."""
    events: list[Event] = []

    def node_events(node: Node) -> None:
        wanted = atoms.segments.get(node, {})
        for segment in range(len(node.loops) + 1):
            last = segment == len(node.loops)
            cost = node.after if last else node.loops[segment].before
            events.append(Event("atom", cost=cost, share=wanted.get(segment)))
            if not last:
                loop_events(node.loops[segment])

    def loop_events(loop: Loop) -> None:
        mask = atoms.leaves.get(loop)
        events.append(Event("enter", loop))
        for index in range(loop.count + 1):
            events.append(Event("boundary", loop, index))
            if index in loop.nodes:
                node_events(loop.nodes[index])
            elif index < loop.count or (mask is not None and mask[index]):
                cost = loop.seconds[index] if index < loop.count else 0.0
                requested = mask is not None and mask[index]
                events.append(
                    Event("atom", loop, index, cost, atoms.leaf_share(loop, index) if requested else None)
                )
        events.append(Event("exit", loop))

    node_events(tree.root)
    while events and events[-1].share is None:
        events.pop()
    return events


def cheapest(
    tree: RunTree,
    atoms: Atoms,
    costs: CostModel,
    skippable: Collection[Loop] = frozenset(),
    enterable: Collection[Loop] = frozenset(),
) -> float:
    """The least cost of any walk that executes every one of ``atoms``, by exhaustive search."""
    events = timeline(tree, atoms)
    opened = {event.loop: place for place, event in enumerate(events) if event.kind == "enter"}
    closed = {event.loop: place for place, event in enumerate(events) if event.kind == "exit"}

    def restores(place: int, start: int) -> Iterator[float]:
        """The costs to the end of all ways that restore next, from inside whatever is open at ``place``.

        They may pass over the atoms from ``start`` on that are not requested.  Before the restore they may enter
        iterations blindly.
        """
        for target in range(start, len(events)):
            goal = events[target]
            if goal.share is not None:
                return
            if goal.kind != "boundary" or goal.loop is None:
                continue
            if not opened[goal.loop] < place <= closed.get(goal.loop, len(events)):
                continue
            if goal.index in goal.loop.images:
                yield costs.restore(goal.loop.images[goal.index]) + best(target + 1)
            yield from entries(target, goal)

    def entries(place: int, boundary: Event) -> Iterator[float]:
        """The costs to the end of all ways that enter the iteration after a boundary blindly."""
        assert boundary.loop is not None
        node = boundary.loop.nodes.get(boundary.index)
        if node is None or not node.loops or node.loops[0] not in enterable:
            return
        inner = node.loops[0]
        if events[place + 1].share is None and inner in opened:
            yield from (inner.before + way for way in restores(opened[inner] + 1, opened[inner] + 1))

    @cache
    def best(place: int) -> float:
        """The least cost from before event ``place`` to the end."""
        if place == len(events):
            return 0.0
        event = events[place]
        ways = list(restores(place, place))
        forced = (
            event.kind == "boundary"
            and event.loop is not None
            and event.loop.parent.loop is None
            and event.loop.order == 0
            and event.index == 0
            and 0 in event.loop.images
        )
        if not forced:
            ways.append(event.cost + best(place + 1))
        if event.kind == "enter" and event.loop is not None and event.loop in skippable and place > 1:
            end = closed.get(event.loop)
            if end is not None and all(inner.share is None for inner in events[place:end]):
                ways.append(best(end + 1))
        if event.share is not None:  # leave the atom after its requested share
            after = [0.0] if place + 1 == len(events) else list(restores(place, place + 1))
            ways.extend(event.share * event.cost + way for way in after)
        return min(ways)

    return best(0)
