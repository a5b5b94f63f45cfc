"""A hint file has what was written, or says that it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from florlog_wal import WalError

import florlog
from florlog.commands import main
from florlog.program.hint_file import read_hint, write_hint

VALUE = [("a", 1, 2.5, None), {"b": (3,)}]


def test_it_has_what_was_written_last(tmp_path: Path) -> None:
    for value in (VALUE, [], VALUE):
        write_hint(tmp_path / "hint", value)
        assert read_hint(tmp_path / "hint", 1000) == value
    assert [path.name for path in tmp_path.iterdir()] == ["hint"]


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hint"
    write_hint(path, VALUE)
    whole = path.read_bytes()
    places = [(at, bit) for at in range(len(whole)) for bit in range(8)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at, bit in places]
    for data in (*flipped, *(whole[:length] for length in range(len(whole)))):
        path.write_bytes(data)
        with pytest.raises((ValueError, WalError)):
            read_hint(path, 1000)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"x" * 10_000])
def test_a_damaged_catalogue_changes_no_answer(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        with florlog.run("listed", store=tmp_path, params={"index": index}) as run:
            run.log(x=index)
    assert main(["runs", "--store", str(tmp_path), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["last"] for row in rows] == [{"x": 0}, {"x": 1}, {"x": 2}]
    (tmp_path / "catalogue").write_bytes(content)
    (tmp_path / "restores").write_bytes(content)
    assert main(["runs", "--store", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows
    with florlog.run("listed", store=tmp_path) as run:
        assert run.id
