"""The types of the public interface, as mypy shows them to a user.

mypy keeps what it read of the libraries in its own cache of the checkout: without that each run takes a minute.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


PROGRAMS = Path(__file__).parent / "programs"
EXPECTED = re.compile(r"# expected: ([a-z, -]+)$")
REPORTED = re.compile(r"(\w+)\.py:(\d+): error: .*\[([a-z-]+)\]$")


@pytest.fixture(scope="module")
def report() -> str:
    """What ``mypy --strict`` says about both programs."""
    pytest.importorskip("mypy")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "wal", ROOT / "recovery")))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
         "--no-error-summary", "--no-pretty",
         str(PROGRAMS / "correct.py"), str(PROGRAMS / "mistakes.py")],
        cwd=ROOT, env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


def errors(report: str, program: str) -> list[tuple[int, str]]:
    """Line and code of each error in a program."""
    found = (REPORTED.search(line) for line in report.splitlines())
    return sorted((int(m[2]), m[3]) for m in found if m is not None and m[1] == program)


def test_every_line_of_the_report_is_about_the_programs(report: str) -> None:
    outside = [line for line in report.splitlines() if "error:" in line and not REPORTED.search(line)]
    assert outside == []
    assert {m[1] for m in map(REPORTED.search, report.splitlines()) if m} == {"mistakes"}


def test_a_program_that_follows_the_documentation_has_no_type_errors(report: str) -> None:
    assert errors(report, "correct") == [], report


def test_each_mistake_is_reported_on_its_line(report: str) -> None:
    lines = (PROGRAMS / "mistakes.py").read_text(encoding="utf-8").splitlines()
    marked = [(number, EXPECTED.search(line)) for number, line in enumerate(lines, 1)]
    expected = [(number, code) for number, found in marked if found for code in found[1].split(", ")]
    assert len(expected) > 10
    assert errors(report, "mistakes") == expected, report
