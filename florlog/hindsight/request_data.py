"""A request as plain data, which `florlog_wal.encode_value` takes, and back: what another process is asked to execute.

Loops and iterations are named by path and loop name.  Who reads the data finds them in the run tree that it analysed
itself; no source is analysed again.  A tree of which other loops and iterations are known than the writer knew is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from florlog_recovery import Atoms, CostModel, Loop, Node, RunTree
from florlog_wal import Path

from florlog.errors import FlorlogError
from florlog.following.earlier_runs import EarlierRun
from florlog.following.failed_images import Boundary
from florlog.following.trust import FoundValue, LoggedValue, Readings
from florlog.hindsight.request import (
    AddedLog,
    AtomGroup,
    Doubts,
    Earlier,
    PresentFile,
    PresentProgram,
    Remarks,
    Request,
    Skippable,
    WantedAtoms,
)
from florlog.hindsight.select import Chosen, Mask
from florlog.source.reach.regions import Exit
from florlog.source.skip.acts import Items, Mode
from florlog.source.skip.pieces import Piece
from florlog.source.skip.skipping import Skipped

Data: TypeAlias = dict[str, Any]


class RunChangedError(FlorlogError):
    """The log of a run is not what it was when a request was made."""

    def __init__(self) -> None:
        super().__init__("the run or the script changed during the replay: ask again")


def to_data(request: Request) -> Data:
    """A request as plain data."""
    wanted, skippable, earlier = request.wanted, request.skippable, request.earlier
    remarks, costs = request.remarks, request.costs
    return {
        "log": _size(request.tree),
        "program": _program_data(request.program),
        "added": [(log.file, log.line, log.qualname, log.names) for log in request.added],
        "chosen": _chosen_data(wanted.chosen),
        "atoms": _atoms_data(wanted.atoms),
        "exits": _grouped(
            {group: (left.file, left.line, left.points, left.share) for group, left in wanted.exits.items()}
        ),
        "reasons": _grouped(wanted.reasons),
        "readings": _readings_data(wanted.readings),
        "skipped loops": _grouped({loop: _skipped_data(what) for loop, what in skippable.loops.items()}),
        "pieces": [_piece_data(piece) for piece in skippable.pieces],
        "passing": _grouped({group: tuple(numbers) for group, numbers in skippable.passing.items()}),
        "unusable": _boundaries_data(request.unusable),
        "enterable": [loop_name(loop) for loop in request.enterable],
        "keys": dict(earlier.keys),
        "values": [found_data(value) for value in earlier.values],
        "costs": (costs.fixed, costs.bandwidth, costs.setup),
        "remarks": (remarks.images, remarks.altering, remarks.changes),
        "unasked": sorted(request.unasked),
        "runs before": [run.data for run in request.runs_before],
        "doubts": None if request.doubts is None else _doubts_data(request.doubts),
    }


def from_data(data: Data, tree: RunTree) -> Request:
    """The request of some data; raises `RunChangedError` where the run's log is not what it was."""
    if data["log"] != _size(tree):
        raise RunChangedError
    return Request(
        tree,
        _program(data["program"]),
        tuple(AddedLog(*fields) for fields in data["added"]),
        WantedAtoms(
            _chosen(data["chosen"], tree),
            _atoms(data["atoms"], tree),
            {group: Exit(*fields) for group, fields in _ungrouped(data["exits"], tree)},
            dict(_ungrouped(data["reasons"], tree)),
            _readings(*data["readings"]),
        ),
        Skippable(
            {_loop(group): Skipped(*fields) for group, fields in _ungrouped(data["skipped loops"], tree)},
            tuple(_piece(*fields) for fields in data["pieces"]),
            dict(_ungrouped(data["passing"], tree)),
        ),
        _boundaries(data["unusable"], tree),
        frozenset(loop_named(tree, *name) for name in data["enterable"]),
        Earlier(data["keys"], tuple(found_value(fields) for fields in data["values"])),
        CostModel(*data["costs"]),
        Remarks(*data["remarks"]),
        None if data["doubts"] is None else _doubts(data["doubts"], tree),
        frozenset((file, line, column) for file, line, column in data["unasked"]),
        tuple(EarlierRun(*fields) for fields in data["runs before"]),
    )


def found_data(value: FoundValue) -> tuple[Any, ...]:
    """A found value as plain data."""
    return (
        value.file, value.line, value.qualname, value.name, value.path, value.value, value.trust, value.detail,
        value.closed, value.outside, value.unsteady, value.received, value.reads_item, value.sampled, value.segment,
    )  # fmt: skip


def found_value(fields: Iterable[Any]) -> FoundValue:
    """The found value of some data."""
    return FoundValue(*fields)


# -- places in a run tree --------------------------------------------------------------------------


def loop_name(loop: Loop) -> tuple[Path, str]:
    """What names a loop execution in its run."""
    return loop.parent.path, loop.name


def loop_named(tree: RunTree, parent: Path, name: str) -> Loop:
    """The loop execution of a name; raises `RunChangedError`."""
    if (loop := _node(tree, parent).find(name)) is None:
        raise RunChangedError
    return loop


def _node(tree: RunTree, path: Path) -> Node:
    place = tree.locate(path)
    node = tree.root if not path else place and place[0].nodes.get(place[1])
    if node is None:
        raise RunChangedError
    return node


def _size(tree: RunTree) -> tuple[int, ...]:
    """How much of a run is known: loop executions, committed iterations, iterations with loops of their own."""
    loops = list(tree.loops())
    return len(loops), sum(loop.count for loop in loops), sum(len(loop.nodes) for loop in loops)


def _grouped(values: Mapping[Any, Any]) -> list[tuple[Any, list[Any]]]:
    """The values of groups of atoms, each once, with the names of its groups."""
    groups: dict[Any, list[Any]] = {}
    for group, value in values.items():
        groups.setdefault(value, []).append(_group_data(group))
    return list(groups.items())


def _ungrouped(data: Iterable[tuple[Any, list[Any]]], tree: RunTree) -> Iterable[tuple[AtomGroup, Any]]:
    return ((_group(tree, *names), value) for value, groups in data for names in groups)


def _group_data(group: AtomGroup) -> tuple[Path, str | int]:
    if isinstance(group, Loop):
        return loop_name(group)
    node, segment = group
    return node.path, segment


def _group(tree: RunTree, path: Path, part: str | int) -> AtomGroup:
    return loop_named(tree, path, part) if isinstance(part, str) else (_node(tree, path), part)


def _loop(group: AtomGroup) -> Loop:
    assert isinstance(group, Loop)
    return group


def _boundaries_data(boundaries: Iterable[Boundary]) -> list[tuple[Path, str, list[int]]]:
    loops: dict[Loop, list[int]] = {}
    for loop, index in boundaries:
        loops.setdefault(loop, []).append(index)
    return [(*loop_name(loop), sorted(indices)) for loop, indices in loops.items()]


def _boundaries(data: Iterable[tuple[Path, str, list[int]]], tree: RunTree) -> frozenset[Boundary]:
    return frozenset(
        (loop_named(tree, parent, name), index) for parent, name, indices in data for index in indices
    )


# -- parts of a request ----------------------------------------------------------------------------


def _program_data(program: PresentProgram) -> tuple[Any, ...]:
    files = {
        path: (file.recorded, file.module, dict(file.line_map), file.apart)
        for path, file in program.files.items()
    }
    loops = None if program.loops is None else {file: dict(names) for file, names in program.loops.items()}
    return program.script, files, loops, program.hands_free, dict(program.shown)


def _program(data: tuple[Any, ...]) -> PresentProgram:
    script, files, loops, hands_free, shown = data
    present = {path: PresentFile(*fields) for path, fields in files.items()}
    return PresentProgram(script, present, loops, hands_free, shown)


def _chosen_data(chosen: Chosen) -> tuple[Any, ...]:
    leaves = [
        (*loop_name(loop), mask.size, np.packbits(mask).tobytes()) for loop, mask in chosen.leaves.items()
    ]
    return [node.path for node in chosen.nodes], leaves


def _chosen(data: tuple[Any, ...], tree: RunTree) -> Chosen:
    nodes, leaves = data
    masks = {loop_named(tree, parent, name): _mask(size, bits) for parent, name, size, bits in leaves}
    return Chosen({_node(tree, path) for path in nodes}, masks)


def _mask(size: int, bits: bytes) -> Mask:
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size).astype(np.bool_)


def _atoms_data(atoms: Atoms) -> tuple[Any, ...]:
    """Segments with their shares, and innermost iterations of each share."""
    leaves = []
    for loop, mask in atoms.leaves.items():
        indices = np.flatnonzero(mask)
        shares = atoms.leaf_shares(loop, indices)
        for share in np.unique(shares):
            some = np.zeros(mask.size, dtype=np.bool_)
            some[indices[shares == share]] = True
            leaves.append((*loop_name(loop), some.size, np.packbits(some).tobytes(), float(share)))
    return [(node.path, dict(shares)) for node, shares in atoms.segments.items()], leaves


def _atoms(data: tuple[Any, ...], tree: RunTree) -> Atoms:
    segments, leaves = data
    atoms = Atoms()
    for path, shares in segments:
        for segment, share in shares.items():
            atoms.add_segment(_node(tree, path), segment, share)
    for parent, name, size, bits, share in leaves:
        atoms.add_leaves(loop_named(tree, parent, name), _mask(size, bits), share)
    return atoms


def _readings_data(readings: Readings) -> tuple[Any, ...]:
    texts = (list(part.items()) for part in (readings.unsteady, readings.outside, readings.alone))
    return *texts, readings.items


def _readings(
    unsteady: Iterable[Any],
    outside: Iterable[Any],
    alone: Iterable[Any],
    items: frozenset[LoggedValue],
) -> Readings:
    return Readings(dict(unsteady), dict(outside), dict(alone), items)


def _skipped_data(skipped: Skipped) -> tuple[Any, ...]:
    return skipped.told, skipped.stale, skipped.may_fail


def _piece_data(piece: Piece) -> tuple[Any, ...]:
    acts = tuple(
        ("mode", act.of, act.training, act.first) if isinstance(act, Mode) else ("items", act.of, act.whole)
        for act in piece.acts
    )
    place = piece.file, piece.qualname, piece.line, piece.column, piece.text
    return *place, acts, _skipped_data(piece.left)


def _piece(
    file: str, qualname: str, line: int, column: int, text: str, acts: Iterable[Any], left: Iterable[Any]
) -> Piece:
    done = tuple(Mode(*fields) if kind == "mode" else Items(*fields) for kind, *fields in acts)
    return Piece(file, qualname, line, column, text, done, Skipped(*left))


def _doubts_data(doubts: Doubts) -> tuple[Any, ...]:
    inside = [
        (loop_name(place) if isinstance(place, Loop) else (place.path, None), number)
        for place, number in doubts.inside.items()
    ]
    return doubts.changes, inside, doubts.before_end, doubts.anywhere


def _doubts(data: tuple[Any, ...], tree: RunTree) -> Doubts:
    changes, inside, before_end, anywhere = data
    places: dict[Loop | Node, int] = {
        _node(tree, path) if name is None else loop_named(tree, path, name): number
        for (path, name), number in inside
    }
    return Doubts(changes, places, before_end, anywhere)
