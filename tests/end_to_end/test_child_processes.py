"""What a process records that the script has started can be read; a command that would execute it again says no."""

from __future__ import annotations

from pathlib import Path

import pytest

import florlog

from .harness import flor, python

SCRIPT = """
import multiprocessing
import sys

import florlog


def train(width):
    with florlog.run("trial", params={"width": width}, overhead=float("inf"), resume=sys.argv[2]) as run:
        total = 0
        for epoch in run.loop("epoch", range(4)):
            total += width
            run.log(total=total)
            if sys.argv[2] == "never" and width == 8 and epoch == 2:
                raise SystemExit(3)
    return total


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=train, args=(width,)) for width in (4, 8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_run_of_a_child_is_read_and_goes_on_in_a_child(tmp_path: Path, method: str) -> None:
    script, store = tmp_path / "pool.py", tmp_path / "store"
    script.write_text(SCRIPT)
    python(store, script, method, "never")
    with florlog.open(store) as log:
        runs = {run.params["width"]: run for run in log.runs}
        assert [value.value for value in runs[4].logged()] == [4, 8, 12, 16]
        assert [value.value for value in runs[8].logged()] == [8, 16]
        killed = runs[8].id
    script.write_text(SCRIPT.replace("run.log(total=total)", "run.log(total=total, twice=2 * total)"))
    for command in (["replay", script], ["explain", script], ["audit"], ["resume", script]):
        run = [killed] if command == ["audit"] else ["--run", killed]
        refused = flor(store, *command, *run, check=False)
        assert refused.returncode == 2, command
        assert f"run {killed} can be read, and neither resumed nor replayed by a command" in refused.stderr
    script.write_text(SCRIPT)
    python(store, script, method, "auto")
    with florlog.open(store) as log:
        assert [value.value for value in log.run(killed).logged()] == [8, 16, 24, 32]
