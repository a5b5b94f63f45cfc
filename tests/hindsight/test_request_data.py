"""A request that went to another process as data is the same there."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from florlog_recovery import Atoms, AtomSequence, Loop, Node, RunTree
from florlog_wal import RunLog, decode_value, encode_value

from florlog.hindsight.request import Request
from florlog.hindsight.request_data import RunChangedError, from_data, to_data
from florlog.hindsight.requesting import request_of
from florlog.program.stores import tree_of
from tests.end_to_end.harness import Nursery
from tests.end_to_end.programs import NESTED, PLACES, add, write
from tests.end_to_end.test_passing import PROGRAM as PASSING
from tests.run_directories import run_directory

PLAIN = """
import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for step in range(4):
        loss = model(torch.ones(2)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # STEP
    print("epoch", epoch, "loss", loss.item())
"""
CHANGED = add(NESTED, PLACES).replace("argmax(1) == y", "argmax(1) != y").replace("0.9)", "0.8)")
VALIDATED = PASSING.replace("SHUFFLE", "shuffle=False")
ASKED = {
    "every place": (NESTED, add(NESTED, PLACES), {}),
    "before the inner loop": (NESTED, add(NESTED, {"BEFORE INNER": PLACES["BEFORE INNER"]}), {"last": 2}),
    "a condition": (NESTED, add(NESTED, PLACES), {"where": "epoch >= 1 and step % 3 == 0"}),
    "changed code": (NESTED, CHANGED, {"force": True, "shown": {"a": "b"}}),
    "code to pass over": (VALIDATED, add(VALIDATED, {"STEP": "run.log(norm=model[0].weight.norm())"}), {}),
    "hands-free": (PLAIN, add(PLAIN, {"STEP": "print('norm', model.weight.norm())"}), {"first": 5}),
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recorded run of each program; the nested one was asked before."""
    found = {}
    for text in (NESTED, VALIDATED, PLAIN):
        directory = tmp_path_factory.mktemp("recorded")
        script, store = write(directory / "train.py", text), directory / "store"
        nursery.run(store, *(("florlog", "record", script) if text is PLAIN else (script,)))
        if text is NESTED:
            write(script, add(NESTED, {"AFTER INNER": PLACES["AFTER INNER"]}))
            nursery.run(store, "florlog", "replay", script, "--where", "epoch == 1")
        found[text] = store
    return found


def requested(stores: dict[str, Path], case: str) -> tuple[Request, RunTree]:
    """The request of a case, and the tree of its run as another process has it."""
    recorded, present, options = ASKED[case]
    path = stores[recorded]
    script = write(path.parent / "train.py", present)
    with RunLog.open(run_directory(path)) as store:
        request = request_of(store, tree(store), str(script), **options)
        return request, tree(store)


def tree(store: RunLog) -> RunTree:
    return tree_of(store)


def sent(request: Request, to: RunTree) -> Request:
    """What another process makes of a request."""
    return from_data(decode_value(encode_value(to_data(request))), to)


def same(one: Any, other: Any) -> bool:
    """Whether two parts of requests are equal; loops, iterations and trees are by what names them."""
    if isinstance(one, Atoms):
        return same(atoms(one), atoms(other))
    if isinstance(one, RunTree):
        return one.run == other.run
    if isinstance(one, (Loop, Node)):
        return type(one) is type(other) and named(one) == named(other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, f), getattr(other, f)) for f in fields)
    if isinstance(one, Mapping):
        held = {named(key): value for key, value in one.items()}
        others = {named(key): value for key, value in other.items()}
        return held.keys() == others.keys() and all(same(held[key], others[key]) for key in held)
    if isinstance(one, (set, frozenset)):
        return set(map(named, one)) == set(map(named, other))
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def named(key: Any) -> Any:
    """A key with the names of the loops and iterations in it."""
    if isinstance(key, Loop):
        return "loop", key.parent.path, key.name
    if isinstance(key, Node):
        return "node", key.path
    return tuple(map(named, key)) if isinstance(key, tuple) else key


def atoms(held: Atoms) -> tuple[Any, ...]:
    """What a request for atoms asks for: shares of segments, and of innermost iterations."""
    leaves = {loop: np.flatnonzero(mask) for loop, mask in held.leaves.items() if mask.any()}
    return held.segments, {
        loop: (indices, held.leaf_shares(loop, indices)) for loop, indices in leaves.items()
    }


@pytest.mark.parametrize("case", ASKED)
def test_a_request_is_the_same_after_its_way_and_so_is_each_part(stores: dict[str, Path], case: str) -> None:
    request, other = requested(stores, case)
    arrived = sent(request, other)
    assert same(request, arrived)
    assert all(arrived.tree is other and loop in set(other.loops()) for loop in arrived.wanted.atoms.leaves)
    order = AtomSequence(request.tree, request.wanted.atoms)
    draw = random.Random(case)
    for _ in range(20):
        first, stop = sorted(draw.sample(range(len(order) + 1), 2))
        part = request.limited_to(order.part(first, stop))
        arrived = sent(part, other)
        assert same(part, arrived), (first, stop)
        assert len(AtomSequence(other, arrived.wanted.atoms)) == stop - first
        assert arrived.wanted.atoms.last_index(next(other.loops())) == part.wanted.atoms.last_index(
            next(request.tree.loops())
        )


def test_the_cases_have_every_part_of_a_request(stores: dict[str, Path]) -> None:
    """Else the test above would compare nothing with nothing."""
    found = [requested(stores, case)[0] for case in ASKED]
    for name, parts in {
        "exits": [r.wanted.exits for r in found],
        "chosen nodes": [r.wanted.chosen.nodes for r in found],
        "shares": [r.wanted.atoms.shares for r in found],
        "reasons": [r.wanted.reasons for r in found],
        "loops to skip": [r.skippable.loops for r in found],
        "pieces": [r.skippable.pieces for r in found],
        "passing": [r.skippable.passing for r in found],
        "hands-free loops": [r.program.loops for r in found],
        "earlier values": [r.earlier.values for r in found],
        "keys": [r.earlier.keys for r in found],
        "changes": [r.remarks.changes for r in found],
        "doubts": [r.doubts is not None and r.doubts.inside for r in found],
    }.items():
        assert any(parts), name


def test_a_request_of_a_run_that_changed_meanwhile_is_refused(stores: dict[str, Path]) -> None:
    request, other = requested(stores, "every place")
    data = to_data(request)
    next(other.loops()).commits.append(0)
    with pytest.raises(RunChangedError, match="ask again"):
        from_data(data, other)


def test_a_worker_has_no_command_line_and_no_way_to_make_a_request() -> None:
    code = (
        "import sys, florlog.redo.worker as worker; "
        "print([m for m in sys.modules if m.startswith(('florlog.commands', 'florlog.hindsight.requesting', "
        "'florlog.hindsight.changed_code'))])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
