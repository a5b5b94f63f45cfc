"""Hidden files are not there until they are shown, and nothing that a script writes is lost."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from florlog.following.hidden_files import HiddenFiles

LOOKS = {
    "exists": lambda p: os.path.exists(p),  # noqa: PTH110
    "lexists": lambda p: os.path.lexists(p),
    "isfile": lambda p: os.path.isfile(p),  # noqa: PTH113
    "access": lambda p: os.access(p, os.R_OK),
    "listdir": lambda p: os.path.basename(p) in os.listdir(os.path.dirname(p)),  # noqa: PTH119, PTH120, PTH208
    "scandir": lambda p: any(e.path == p for e in os.scandir(os.path.dirname(p))),  # noqa: PTH120
    "walk": lambda p: any(os.path.basename(p) in names for _, _, names in os.walk(os.path.dirname(p))),  # noqa: PTH119, PTH120
    "glob": lambda p: bool(glob.glob(p[:-1] + "*")),  # noqa: PTH207
    "path": lambda p: Path(p).exists(),
    "pathglob": lambda p: bool(list(Path(p).parent.rglob("ma*.bin"))),
    "open": lambda p: _works(lambda: open(p, "rb").close()),  # noqa: PTH123
    "descriptor": lambda p: _works(lambda: os.close(os.open(p, os.O_RDONLY))),
    "bytes": lambda p: _works(lambda: Path(p).read_bytes()),
    "load": lambda p: _works(lambda: torch.load(p)),
    "numpy": lambda p: _works(lambda: np.load(p, allow_pickle=False)),
}


def _works(look):  # type: ignore[no-untyped-def]
    try:
        look()
    except FileNotFoundError as error:
        return "florlog-" in str(error)
    except Exception:
        pass
    return True


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("whole", [False, True])
def test_no_way_to_look_shows_a_hidden_file(look: str, whole: bool, tmp_path: Path) -> None:
    made, kept = tmp_path / "out" / "made.bin", tmp_path / "kept.bin"
    made.parent.mkdir()
    for path in (made, kept):
        path.write_bytes(b"bytes")
    (tmp_path / "out" / "old.bin").write_bytes(b"")
    before = os.stat, os.listdir, open, torch.load, shutil._use_fd_functions  # type: ignore[attr-defined]
    with HiddenFiles({str(made.parent if whole else made)}) as hidden:
        assert LOOKS["exists"](str(kept))
        assert (tmp_path / "out" / "old.bin").exists() is not whole
        if not whole or look not in ("listdir", "scandir"):
            assert not LOOKS[look](str(made))
        hidden.show()
        assert LOOKS[look](str(made))
    assert before == (os.stat, os.listdir, open, torch.load, shutil._use_fd_functions)  # type: ignore[attr-defined]


WRITES = {
    "written": (lambda p: p.write_text("set-up"), "recorded"),
    "exclusive": (lambda p: open(p, "x").close(), "recorded"),  # noqa: PTH123
    "appended": (lambda p: open(p, "a").write("+"), "recorded+"),  # noqa: PTH123, SIM115
    "removed": (lambda p: shutil.rmtree(p.parent, ignore_errors=True), "recorded"),
    "moved": (
        lambda p: (p.with_suffix(".new").write_text("set-up"), os.replace(p.with_suffix(".new"), p)),  # noqa: PTH105
        "recorded",
    ),
    "mapped": (lambda p: np.memmap(p, np.uint8, "w+", shape=3).__setitem__(slice(None), 65), "AAA"),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("whole", [False, True])
def test_what_the_set_up_writes_in_the_place_of_a_hidden_file_leaves_the_recorded_one(
    write: str, whole: bool, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "rows.csv"
    path.parent.mkdir()
    path.write_text("recorded")
    with HiddenFiles({str(path.parent if whole else path)}):
        path.parent.mkdir(exist_ok=True)
        WRITES[write][0](path)
        assert path.exists() is (write != "removed")
    assert path.read_text() == WRITES[write][1]
    assert os.listdir(tmp_path / "out") == ["rows.csv"]  # noqa: PTH208


def test_what_is_held_open_is_new_or_is_begun_anew_comes_to_its_place(tmp_path: Path) -> None:
    out, rows = tmp_path / "out", tmp_path / "out" / "rows.csv"
    out.mkdir()
    rows.write_text("recorded")
    with HiddenFiles({str(out)}) as hidden:
        os.makedirs(out / "deep")  # noqa: PTH103
        (out / "deep" / "new.txt").write_text("new")
        with rows.open("w") as held:
            held.write("head,")
            hidden.show()
            held.write("row")
    assert rows.read_text() == "head,row"
    assert (out / "deep" / "new.txt").read_text() == "new"
    with HiddenFiles({str(rows)}) as hidden:
        rows.write_text("whole")
        hidden.show(anew=True)
    assert rows.read_text() == "whole"


def test_a_forked_child_sees_all(tmp_path: Path) -> None:
    path = tmp_path / "made.bin"
    path.write_bytes(b"")
    with HiddenFiles({str(path)}):
        assert not path.exists()
        child = os.fork()
        if child == 0:
            os._exit(0 if path.exists() and os.listdir(tmp_path) == ["made.bin"] else 1)  # noqa: PTH208
        assert os.waitpid(child, 0)[1] == 0
