"""A forked child records nothing; the hook for that is there from the first run on, not from the import on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOOKS = """
import os, sys
registered, register = [], os.register_at_fork

def watched(**hooks):
    registered.append(sys._getframe(1).f_globals["__name__"])
    register(**hooks)

os.register_at_fork = watched
import florlog
import florlog.images.snapshot
assert [name for name in registered if name.startswith("florlog.")] == []
for _ in range(2):
    child = None
    with florlog.run("one", store=sys.argv[1]) as run:
        for step in run.loop("step", range(3)):
            if step == 1:
                child = os.fork()
            run.log(**{"child" if child == 0 else "step": step})
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
assert registered.count("florlog.recording.session") == 1
print(*(view.values()["step"].tolist() for view in florlog.open(sys.argv[1]).runs))
"""


def test_importing_florlog_leaves_forks_alone_and_a_child_records_nothing(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(HOOKS)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("[0, 1, 2] [0, 1, 2]\n", 0), done.stderr
