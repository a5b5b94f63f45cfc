"""State and values on a GPU, and commits that are held for their values; what needs a GPU is skipped without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_wal import Commit, Note

import florlog
from florlog.images.imager import digests_only, page_table
from florlog.images.snapshot import Buffers, snapshot
from florlog.recording.gpu_values import MAX_WAITING_COMMITS, Later
from florlog.recording.journal import Journal
from florlog.state.adapters import adapter
from tests.state.memory import Memory, clone_bits

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Arrival:
    """An event that happens when the test says so."""

    def __init__(self) -> None:
        self.done = False
        self.waited = 0

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.waited += 1
        self.done = True


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A run's, that has logged values which were still on a GPU."""
    with florlog.run("line", store=tmp_path / "store") as run:
        assert run._journal is not None
        run._journal.late = True
        yield run._journal


def put(journal: Journal, number: int, *values: Any) -> None:
    """A step ended."""
    named = [(1, "value", value) for value in values]
    journal.held.append((0, number, 0, named, 0.0, b"", b"", b"", False))
    journal.settle()


def written(journal: Journal) -> dict[int, list[Any]]:
    """The values of each commit that is in the log."""
    records = [entry.record for entry in journal.log.scan(1, types=(Commit,))]
    return {r.index: [value for _, _, value in r.values] for r in records if isinstance(r, Commit)}


def test_commits_keep_their_order_and_nobody_waits_for_values_on_their_way(journal: Journal) -> None:
    events = [Arrival() for _ in range(4)]
    for number, event in enumerate(events):
        put(journal, number, Later(torch.tensor(float(number)), event), number)
    put(journal, 4, 4)
    assert written(journal) == {}
    events[1].done = True
    put(journal, 5)
    assert written(journal) == {}  # the first has not arrived
    events[0].done = True
    put(journal, 6)
    assert written(journal) == {0: [0.0, 0], 1: [1.0, 1]}
    assert not any(event.waited for event in events[2:])
    journal.append(Note("test", "", {}), journal.session)
    assert list(written(journal)) == list(range(7))
    assert written(journal)[3] == [3.0, 3]
    assert events[3].waited == 1


def test_a_long_line_waits_for_its_first_only(journal: Journal) -> None:
    events = [Arrival() for _ in range(MAX_WAITING_COMMITS + 1)]
    for number, event in enumerate(events):
        put(journal, number, Later(torch.tensor(0.0), event))
    assert list(written(journal)) == [0]
    assert [event.waited for event in events] == [1] + MAX_WAITING_COMMITS * [0]


@gpu
def test_a_snapshot_from_a_gpu_is_of_its_boundary_and_the_host_does_not_wait() -> None:
    torch.cuda.synchronize()
    model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(4)]).cuda()
    expected = [clone_bits(p.cpu()) for p in model.parameters()]
    buffers = Buffers()
    tree = adapter("m", model).capture()
    snapshot({"m": tree}, buffers).wait()  # memory is pinned once
    torch.cuda._sleep(1_000_000_000)  # type: ignore[no-untyped-call]
    copy = snapshot({"m": tree}, buffers)
    assert not all(copied.query() for copied in copy.copies)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    copy.wait()
    assert [clone_bits(copy.tensors[f"m.state.{name}"]) for name, _ in model.named_parameters()] == expected
    assert all(tensor.is_pinned() for tensor in copy.tensors.values())


@gpu
def test_a_models_state_on_a_gpu_is_exact() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)).cuda()
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(4, 8, device="cuda")).square().sum().backward()
        optimizer.step()

    step()
    held = {"m": adapter("m", model), "o": adapter("o", optimizer)}
    saved = Memory().image({name: made.capture() for name, made in held.items()})
    before = page_table(snapshot({name: made.capture() for name, made in held.items()}), digests_only)
    step()
    for name, made in held.items():
        made.restore(saved.tree(name))
    assert page_table(snapshot({name: made.capture() for name, made in held.items()}), digests_only) == before


@gpu
def test_a_loss_on_a_gpu_is_logged_without_waiting_for_it(tmp_path: Path) -> None:
    loss = torch.zeros((), device="cuda")
    with florlog.run("gpu", store=tmp_path / "store", overhead=0) as run:
        for epoch in run.loop("epoch", range(2)):
            for _ in run.loop("step", range(100)):
                loss += 1
                run.log(loss=loss)
                torch.cuda.set_sync_debug_mode("error")  # type: ignore[no-untyped-call]
                run.log(again=loss)
                torch.cuda.set_sync_debug_mode("default")  # type: ignore[no-untyped-call]
            run.log(end=loss, epoch=epoch)
    with florlog.open(tmp_path / "store") as log:
        values = log.runs[-1].values("loss", "again")
        assert list(values["loss"]) == list(values["again"]) == [float(i) for i in range(1, 201)]
        assert list(log.runs[-1].values("end")["end"]) == [100.0, 200.0]
