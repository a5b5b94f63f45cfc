"""From added statements to atoms: which iterations are asked for, and what of them has to be executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from florlog_recovery import Atoms, Loop, Node, RunTree

from florlog.following.trust import FoundValue
from florlog.hindsight.added_code import AddedCode
from florlog.hindsight.known_answers import Known
from florlog.hindsight.request import AtomGroup, WantedAtoms
from florlog.hindsight.select import Chosen, IterationSelection, Mask, outermost
from florlog.source.reach.regions import Exit, Location

KnownAt = Mapping[Location, Known]
"""What earlier replays found of each added statement."""


def chosen_iterations(
    tree: RunTree, code: AddedCode, selection: IterationSelection, first: int | None, last: int | None
) -> Chosen:
    """The iterations that are selected and in which an added statement may run; of those the first and last few."""
    nodes = {node for node in _nodes(tree) if code.in_node(node) and selection.node(node)}
    leaves: dict[Loop, Mask] = {}
    for loop in tree.loops():
        if code.in_leaves(loop) and (mask := selection.leaves(loop)).any():
            leaves[loop] = mask
    return Chosen(*outermost(tree, nodes, leaves, first, last))


def wanted(tree: RunTree, code: AddedCode, chosen: Chosen, known: KnownAt) -> WantedAtoms:
    """What has to be executed for iterations that are asked for: what is not known of them."""
    atoms = Atoms()
    exits: dict[AtomGroup, Exit] = {}
    reasons: dict[AtomGroup, tuple[str, ...]] = {}
    for node in chosen.nodes:
        sites = [site for site in code.names if node not in known[site].nodes]
        for segment in code.in_node(node, sites):
            left = None if node.loop is None else code.exit(node.loop, node, segment)
            atoms.add_segment(node, segment, 1.0 if left is None else left.share)
            if left is not None:
                exits[node, segment] = left
            asked = [site for site in sites if segment in code.in_node(node, [site])]
            reasons[node, segment] = _names(code, asked)
    for loop, selected in chosen.leaves.items():
        sites = code.in_leaves(loop)
        mask = selected & ~np.logical_and.reduce([known[site].mask(loop) for site in sites])
        if not mask.any():
            continue
        left = code.exit(loop, None, 0)
        atoms.add_leaves(loop, mask, 1.0 if left is None else left.share)
        if left is not None:
            exits[loop] = left
        reasons[loop] = _names(code, sites)
    return WantedAtoms(chosen, atoms, exits, reasons, code.readings(tree))


def unasked_statements(code: AddedCode, chosen: Chosen, known: KnownAt) -> frozenset[Location]:
    """The added statements that nothing asks for: none of the iterations that are asked for executes them."""
    left = set(code.names)
    for node in chosen.nodes:
        left -= {site for site in left if node not in known[site].nodes and code.in_node(node, [site])}
    for loop, selected in chosen.leaves.items():
        sites = left.intersection(code.in_leaves(loop))
        left -= {site for site in sites if (selected & ~known[site].mask(loop)).any()}
    return frozenset(left)


def answered(tree: RunTree, chosen: Chosen, known: KnownAt) -> Iterator[FoundValue]:
    """The values that earlier replays found for iterations that are asked for."""
    for site, found in known.items():
        for path, values in found.values.items():
            if chosen.holds(tree, path) and found.holds(tree, path):
                for name, value, trust, detail in values:
                    yield FoundValue(site.file, site.line, site.qualname, name, path, value, trust, detail)


def _names(code: AddedCode, sites: list[Location]) -> tuple[str, ...]:
    return tuple(name for site in sites for name in code.names[site])


def _nodes(tree: RunTree) -> Iterator[Node]:
    yield tree.root
    for loop in tree.loops():
        yield from (node for node in loop.nodes.values() if node.committed)
