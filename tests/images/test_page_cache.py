"""Where the file system refuses to write past its cache, images go through it, and the run says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from florlog_wal import Note

import florlog
from florlog.commands import main


def train(store: Path) -> None:
    weight = torch.zeros(100_000)
    with florlog.run("cached", store=store, overhead=float("inf")) as run:
        run.track(weight=weight)
        for _ in run.loop("step", range(3)):
            weight += 1


def notes(store: Path) -> list[str]:
    with florlog.open(store) as log:
        records = [entry.record for entry in log.records()]
        assert log.state_at(step=2)["weight"].sum() == 200_000
    return [note.text for note in records if isinstance(note, Note) and "O_DIRECT" in note.text]


def test_a_run_whose_pages_go_through_the_cache_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "direct")
    assert notes(tmp_path / "direct") == []
    whole = os.open

    def refusing(path: os.PathLike[str], flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        return whole(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    train(tmp_path / "cached")
    assert len(notes(tmp_path / "cached")) == 1
    for name, said in (("direct", False), ("cached", True)):
        assert main(["inspect", "tree", "--store", str(tmp_path / name)]) == 0
        assert ("images go through the page cache" in capsys.readouterr().out) is said
