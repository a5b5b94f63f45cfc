"""Files that a replay moves between the directory for temporary files, which it shares, and the user's directories."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from florlog.following.sandbox import FileOverlay


@pytest.mark.parametrize(("module", "name"), [(shutil, "move"), (os, "replace"), (os, "rename")])
def test_a_file_that_is_made_in_the_temporary_directory_is_moved_into_the_scratch(
    tmp_path: Path, module: ModuleType, name: str
) -> None:
    kept = tmp_path / "last.ckpt"
    kept.write_text("recorded")
    with FileOverlay():
        move = getattr(module, name)
        for content in ("one", "two"):
            descriptor, made = tempfile.mkstemp()
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
            move(made, str(kept))
            assert kept.read_text() == content
            assert not Path(made).exists()
        kept.unlink()
        descriptor, made = tempfile.mkstemp()
        os.close(descriptor)
        move(made, str(kept))
        assert kept.read_text() == ""
    assert kept.read_text() == "recorded"


def test_a_file_of_the_user_that_is_moved_into_the_temporary_directory_stays(tmp_path: Path) -> None:
    kept = tmp_path / "last.ckpt"
    kept.write_text("recorded")
    made = Path(tempfile.mkdtemp())
    try:
        with FileOverlay():
            kept.replace(made / "moved")
            assert (made / "moved").read_text() == "recorded"
            assert not kept.exists()
        assert kept.read_text() == "recorded"
    finally:
        shutil.rmtree(made)
