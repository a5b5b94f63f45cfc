"""Which image comes next after one that failed, and what a process hands itself when it starts over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from florlog_recovery import Image, Loop

from florlog.following.failed_images import instead, without
from tests.recovery.test_plan import one_loop

IMAGES = 32


def test_images_with_the_same_defect_are_given_up_after_a_few_attempts() -> None:
    tree, loop = one_loop(IMAGES)
    loop.images = {index: Image(index + 1, b"", 0, 0.0) for index in range(IMAGES)}
    dropped: frozenset[tuple[Loop, int]] = frozenset()
    tried = []
    while len(dropped) < IMAGES:
        newest = max(index for index in loop.images if (loop, index) not in dropped)
        tried.append(newest)
        dropped = without(tree, dropped, (loop, newest), again=len(tried) > 1, from_there_on=False)
    assert tried == [31, 30, 14, 6, 2, 0]
    assert instead(tree, dropped) == "all is redone from the run's start, without an image"


def test_what_comes_after_an_image_that_led_elsewhere_is_not_used_either() -> None:
    tree, loop = one_loop(6)
    loop.images = {index: Image(index + 1, b"", 0, 0.0) for index in range(6)}
    alone = without(tree, (), (loop, 3), again=False, from_there_on=False)
    assert {index for _, index in alone} == {3}
    later = without(tree, alone, (loop, 2), again=False, from_there_on=True)
    assert {index for _, index in later} == {2, 3, 4, 5}
    assert instead(tree, later) == "an earlier one is used"


PROGRAM = """
import os
import subprocess
import sys

import florlog
from florlog.program import restart

print(os.getpid(), restart.message(), restart.VARIABLE in os.environ, os.environ.get("MINE"), os.getcwd(), sys.argv[1:])
print("not flushed", end=" ", file=sys.stdout)
if not restart.message():
    os.environ["MINE"] = "1"
    os.chdir("/")
    restart.start_over({"run": "r", "unusable": [1, 2]})
print(flush=True)
code = "from florlog.program import restart; print(restart.message())"
text = '{"process": 1, "message": {"a": 1}}'
subprocess.run([sys.executable, "-c", code], env={**os.environ, restart.VARIABLE: text})
"""


def test_a_process_that_starts_over_finds_its_message_and_all_else_as_it_was(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, script.name, "--an", "argument"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    first, second, third, of_another = done.stdout.splitlines()
    process = first.split()[0]
    assert first == f"{process} {{}} False None {tmp_path} ['--an', 'argument']"
    message = {"run": "r", "unusable": [1, 2]}
    assert second == f"not flushed {process} {message} False None {tmp_path} ['--an', 'argument']"
    assert third == "not flushed "
    assert of_another == "{}"  # a message counts in the process alone that wrote it
