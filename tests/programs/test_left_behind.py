"""A thread that a replayed script has left behind can do nothing with files once the replay has ended."""

from __future__ import annotations

import threading
from pathlib import Path

from florlog.following.sandbox import FileOverlay


def test_a_thread_of_a_replay_that_has_ended_writes_no_file(tmp_path: Path) -> None:
    ended, errors = threading.Event(), []

    def write() -> None:
        ended.wait()
        for act in ((tmp_path / "late.txt").touch, (tmp_path / "mine.txt").unlink):
            try:
                act()
            except OSError as error:
                errors.append(str(error))

    (tmp_path / "mine.txt").touch()
    with FileOverlay():
        thread = threading.Thread(target=write)
        thread.start()
    ended.set()
    thread.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]
    assert len(errors) == 2
    assert all("has ended" in error for error in errors)


def test_others_use_files_as_before(tmp_path: Path) -> None:
    stop = threading.Event()
    with FileOverlay():
        thread = threading.Thread(target=stop.wait)
        thread.start()
    (tmp_path / "file.txt").write_text("here")
    (tmp_path / "file.txt").rename(tmp_path / "other.txt")
    assert (tmp_path / "other.txt").read_text() == "here"
    stop.set()
    thread.join()
