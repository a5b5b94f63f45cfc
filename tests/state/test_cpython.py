"""CPython's insides are as florlog takes them to be: here, and in the other interpreters on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from florlog.state import cpython, cpython_generators, cpython_holders
from florlog.state.cpython import can_move, frame_of, generator_module, writable_variables

ALL = """
import runpy, sys
checks = runpy.run_path(sys.argv[1])["CHECKS"]
print(len(checks), *[check.__wrapped__.__name__ for check in checks if not check()])
"""


@pytest.mark.parametrize(
    "check",
    [*cpython.CHECKS, *cpython_generators.CHECKS, *cpython_holders.CHECKS],
    ids=lambda check: check.__wrapped__.__name__,
)
def test_a_check_passes_here(check: Callable[[], bool]) -> None:
    assert check()


@pytest.mark.parametrize(
    "module", [cpython, cpython_generators, cpython_holders], ids=lambda module: module.__name__
)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_all_checks_pass_in_other_interpreters(version: str, module: Any) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    command = [found[-1], "-I", "-c", ALL, module.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(module.CHECKS))]


def test_an_enumerate_beyond_a_machine_word_is_not_moved() -> None:
    counter = enumerate("ab", sys.maxsize + 5)
    assert not can_move(counter)
    assert not cpython.move_enumerate(counter, 1)
    assert next(counter) == (sys.maxsize + 5, "a")


def test_a_variable_that_is_not_assigned_keeps_its_value() -> None:
    kept, changed = [1], "before"
    frame = frame_of(test_a_variable_that_is_not_assigned_keeps_its_value.__code__)
    assert frame is not None
    with writable_variables(frame) as variables:
        variables["changed"] = "after"
    assert (kept, changed) == ([1], "after")


def test_code_that_does_not_run_has_no_frame() -> None:
    assert frame_of(generator_module.__code__) is None


def test_a_generator_is_its_modules_before_and_after_its_end() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    generator: Any = numbers()
    assert generator_module(generator) == __name__
    assert list(generator) == [1]
    assert generator.gi_frame is None
    assert generator_module(generator) == __name__


def test_a_generator_of_code_without_a_module_is_nobodys_after_its_end() -> None:
    names: dict[str, Any] = {"__name__": "made"}
    exec(compile("def numbers(): yield 1", "<made>", "exec"), names)
    generator = names["numbers"]()
    assert generator_module(generator) == "made"
    assert list(generator) == [1]
    assert generator_module(generator) == ""
