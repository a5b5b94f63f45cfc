"""Images that store tensors as differences: how small they are, and that they come back bit for bit."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_wal import CheckpointBegin, CheckpointEnd, RunLog, gc, page_digest
from florlog_wal.deltas import MAX_DEPTH
from torch import nn

import florlog
from florlog.images.imager import Imager, SavedState
from tests.images.test_image import begin
from tests.run_directories import run_directory
from tests.state.memory import clone_bits

IMAGES = 2 * MAX_DEPTH + 3  # chains end twice


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(2000, 64), nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def frozen_layers() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = classifier()
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def bfloat16() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = classifier().to(torch.bfloat16)
    return model, torch.optim.SGD(model.parameters(), lr=1e-5)


def bfloat16_adamw() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layers = nn.Embedding(4096, 64), nn.Flatten(), nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 10)
    model = nn.Sequential(*layers).to(torch.bfloat16)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5)


def sparse_rows() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50_000, 32, sparse=True), nn.Flatten(), nn.Linear(256, 10))
    return model, torch.optim.SGD(model.parameters(), lr=1e-2)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, items: int) -> None:
    for _ in range(3):
        loss = nn.functional.cross_entropy(
            model(torch.randint(0, items, (32, 8))).float(), torch.arange(32) % 10
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def images(store: Path) -> Iterator[tuple[CheckpointBegin, CheckpointEnd]]:
    with RunLog.open(run_directory(store)) as log:
        for entry in log.scan(types=[CheckpointEnd]):
            end: Any = entry.record
            start: Any = log.record(end.begin).record
            yield start, end


def digests(tensors: Iterable[torch.Tensor]) -> list[bytes]:
    return [page_digest(clone_bits(tensor)) for tensor in tensors]


@pytest.mark.parametrize("make", [frozen_layers, bfloat16, bfloat16_adamw, sparse_rows])
def test_fine_tuning_writes_half_of_torch_save_at_most_and_every_image_is_exact(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    model, optimizer = make()
    store = tmp_path / "store"
    saves, states = [], []
    with florlog.run("tuning", store=store, overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for _ in run.loop("step", range(IMAGES)):
            states.append(digests(model.parameters()))
            train(model, optimizer, model[0].num_embeddings)
            file = io.BytesIO()
            torch.save([model.state_dict(), optimizer.state_dict()], file)
            saves.append(len(file.getvalue()))
    ends = [end for _, end in images(store)]
    assert len(ends) == IMAGES + 1
    assert sum(end.written_bytes for end in ends[1:]) <= 0.5 * sum(saves)

    def exact() -> int:
        seen = 0
        with RunLog.open(run_directory(store)) as log:
            for start, end in images(store):
                if start.index < IMAGES:
                    held = SavedState(log, end.table).tree("model")["state"]
                    names = [name for name, _ in model.named_parameters()]
                    assert digests(held[name] for name in names) == states[start.index]
                    seen += 1
        return seen

    assert exact() == IMAGES
    report = gc(
        run_directory(store), redo_bound=1e9
    )  # the last image may be a difference from others, which go
    assert report.images >= IMAGES - 1
    assert exact() == 1  # the first; the last is the end of the loop
    with RunLog.open(run_directory(store)) as log:
        end = next(end for start, end in images(store) if start.index == IMAGES)
        held = SavedState(log, end.table).tree("model")["state"]
        assert all(clone_bits(held[name]) == clone_bits(p) for name, p in model.named_parameters())


def test_a_resumed_recording_stores_differences_from_the_image_that_it_goes_on_from(tmp_path: Path) -> None:
    table = torch.randn(2000, 64)
    with RunLog.open(tmp_path / "store", mode="w") as store:
        session = begin(store)

        def image(imager: Imager) -> CheckpointEnd:
            copy = imager.snapshot({"x": table})
            imager.persist(copy, store.append(CheckpointBegin(0, 0), session=session), 0.0)
            imager.close()
            (*_, last) = store.scan(types=[CheckpointEnd])
            assert isinstance(last.record, CheckpointEnd)
            return last.record

        first = image(Imager(store, session, lambda stopped: None, lambda why: None))
        table[5] += 1
        resumed = Imager(store, session, lambda stopped: None, lambda why: None)
        resumed.lineages.go_on(SavedState(store, first.table).table)
        end = image(resumed)
        assert end.written_bytes < table.nbytes / 50
        assert torch.equal(SavedState(store, end.table).tree("x"), table)
