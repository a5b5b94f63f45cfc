"""Fingerprints: what they notice, and which commits have which."""

from __future__ import annotations

import ast
import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from florlog_wal import Commit
from torch.utils.data import DataLoader, TensorDataset

import florlog
from florlog.recording.fingerprints import StateFingerprint, item_fingerprint


def commits(store: Path, overhead: float, steps: int = 40) -> list[Commit]:
    """The innermost commits of a run over items of tensors."""
    model = torch.nn.Linear(2, 1)
    data = DataLoader(TensorDataset(torch.rand(steps, 2), torch.arange(steps)), 1)
    with florlog.run("prints", store=store, overhead=overhead) as run:
        run.track(model=model)
        for x, _ in run.loop("step", data):
            with torch.no_grad():
                model.bias += model(x).sum() + torch.rand(())
            run.log(bias=model.bias)
    with florlog.open(store) as log:
        return [entry.record for entry in log.records() if isinstance(entry.record, Commit)]


def test_each_commit_has_all_fingerprints_when_time_does_not_matter(tmp_path: Path) -> None:
    found = commits(tmp_path / "store", math.inf)
    assert len(found) == 40
    for part in ("rng", "data", "state"):
        assert len({getattr(commit, part) for commit in found} - {b""}) == 40, part


def test_steps_without_time_for_more_have_them_at_the_loops_ends(tmp_path: Path) -> None:
    found = commits(tmp_path / "store", 0.0)
    assert [number for number, commit in enumerate(found) if commit.data] == [0]
    assert [number for number, commit in enumerate(found) if commit.rng] == [0, 39]
    assert [number for number, commit in enumerate(found) if commit.state] == [0, 39]


@pytest.mark.parametrize("place", [0, 1])
def test_an_items_fingerprint_notices_other_inputs_and_other_labels(place: int) -> None:
    item = [torch.rand(8, 3), torch.arange(8)]
    before = item_fingerprint(item)
    assert item_fingerprint([part.clone() for part in item]) == before
    item[place] = item[place].clone() + 1
    assert item_fingerprint(item) != before


@pytest.mark.parametrize(
    "item",
    [
        torch.rand(4, 4).T, torch.rand(4).bfloat16(), torch.rand(3, requires_grad=True),
        {"a": [torch.arange(3).numpy()[::2]]}, (torch.rand(64, 64).numpy().T,),
    ],
)  # fmt: skip
def test_any_item_of_arrays_has_one_or_is_left_alone(item: object) -> None:
    assert len(item_fingerprint(item)) in (0, 16)
    assert item_fingerprint(item) == item_fingerprint(item)


def test_the_states_fingerprint_follows_the_last_parameter_that_is_trained() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    model[1].requires_grad_(False)
    prints = StateFingerprint()
    assert prints.digest() == b""
    prints.watch("model", model)
    before = prints.digest()
    with torch.no_grad():
        model[1].bias += 1
    assert prints.digest() == before
    with torch.no_grad():
        model[0].bias += 1
    changed = prints.digest()
    assert changed != before
    model[0].bias.data = model[0].bias.detach() + 1  # other memory
    assert prints.digest() not in (before, changed)


def test_the_states_fingerprint_depends_on_what_is_watched_and_not_on_what_was() -> None:
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    then, now = StateFingerprint(), StateFingerprint()
    then.watch("model", one)
    before = then.digest()
    then.watch("kept", one)
    assert then.digest() == before  # one parameter, once
    then.watch("model", other)
    for name, module in {"kept": one, "model": other}.items():
        now.watch(name, module)
    assert then.digest() == now.digest() != before
    then.watch("kept", one)  # it stays in its place
    assert then.digest() == now.digest()
    with torch.no_grad():
        one.bias += 1
    changed = then.digest()
    assert changed == now.digest() != before
    then.forget("model")
    then.forget("kept")
    assert then.digest() == b""


PLAIN = [
    0,
    1,
    -1,
    1 << 80,
    1.0,
    -0.0,
    "",
    "1",
    "a" * 500,
    "a" * 501,
    b"1",
    True,
    None,
    (),
    (1,),
    (1, "1"),
    ("1", 1),
]


def test_small_plain_items_have_fingerprints_and_different_ones_different_prints() -> None:
    prints = [item_fingerprint(item) for item in PLAIN]
    assert all(prints)
    assert len(set(prints)) == len(prints)
    again = [item_fingerprint(ast.literal_eval(repr(item))) for item in PLAIN]  # other objects, not interned
    assert again == prints


def test_items_of_a_range_need_no_fingerprint(tmp_path: Path) -> None:
    with florlog.run("plain", store=tmp_path / "store", overhead=math.inf) as run:
        for _ in run.loop("range", range(3)):
            pass
        for _ in run.loop("list", [0, 1, 2]):
            pass
    with florlog.open(tmp_path / "store") as log:
        found = [entry.record.data for entry in log.records() if isinstance(entry.record, Commit)]
    assert found[:3] == [b"", b"", b""]
    assert len(set(found[3:6])) == 3


WHOLE = [
    torch.rand(512, 512), torch.arange(7), [torch.rand(8, 3), torch.arange(8)], {"x": np.ones(3), "y": [1, "a"]},
    "text" * 500, b"bytes", 3, 2.5, None, (1, ("a", 2)), np.float32(3), np.array(["a", "b"]), torch.rand(4, 4).T,
    torch.zeros(0), torch.rand(3).bfloat16(), [], {"nested": {"deep": [torch.tensor(1)]}},
]  # fmt: skip


@pytest.mark.parametrize("item", WHOLE, ids=lambda item: type(item).__name__)
def test_an_item_of_up_to_a_mebibyte_is_digested_as_a_whole(item: object) -> None:
    assert len(item_fingerprint(item)) == 16
    assert item_fingerprint(copy.deepcopy(item)) == item_fingerprint(item)


def test_the_digest_of_a_whole_item_notices_each_element_and_the_form() -> None:
    item = torch.zeros(1000)
    before = item_fingerprint([item, "a"])
    for place in range(0, 1000, 37):
        other = item.clone()
        other[place] = 1e-30
        assert item_fingerprint([other, "a"]) != before
    others = [
        [item, "b"],
        (item, "a"),
        [item],
        [item.view(10, 100), "a"],
        [item.double(), "a"],
        [item.numpy(), "b"],
    ]
    assert len({item_fingerprint(other) for other in others} | {before}) == len(others) + 1


@pytest.mark.parametrize(
    "item", [torch.rand(1 << 19), [torch.rand(3), object()], ["a" * (2 << 20), torch.rand(3)]]
)
def test_what_is_larger_or_cannot_be_read_as_a_whole_is_sampled_and_shows_it(item: object) -> None:
    assert len(item_fingerprint(item)) == 8


@pytest.mark.parametrize("item", [object(), [object()], {1, 2}, torch.rand(3, device="meta")])
def test_what_has_no_numbers_to_sample_has_no_fingerprint(item: object) -> None:
    assert item_fingerprint(item) == b""
