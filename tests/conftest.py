"""What all tests share: a configuration directory of their own, so that none touches the user's key, and a program.

An image holds the state of the program's own modules.  In a test's process these are its module and what that imports;
what other test modules hold would be captured, written and put back with it.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.harness import Nursery


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--all-cases`` and ``--drawn``."""
    parser.addoption("--all-cases", action="store_true", help="every case of tests that draw some of theirs")
    parser.addoption(
        "--drawn", metavar="SEED", help="draw the cases that this seed gives (the report's head has it)"
    )


def _seed(config: pytest.Config) -> str:
    """The same for all workers of a run."""
    given = config.getoption("--drawn") or os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if not given:
        given = f"{random.randrange(2**32)}"
        config.option.drawn = given
    return str(given)


def pytest_report_header(config: pytest.Config) -> str:
    """With which seed cases are drawn."""
    return "all cases" if config.getoption("--all-cases") else f"cases drawn with --drawn {_seed(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test with the mark ``drawn(n)`` only n cases run, and of a file with ``drawn_in_file(n)`` n of all.

    They are others each time.  Those for the wheel run always.
    """
    if config.getoption("--all-cases"):
        return
    for mark in ("drawn", "drawn_in_file"):
        _draw(config, items, mark)


def _draw(config: pytest.Config, items: list[pytest.Item], name: str) -> None:
    """Draw the cases of one of the marks."""
    cases: dict[tuple[str, str, int], list[pytest.Item]] = {}
    for item in items:
        mark = item.get_closest_marker(name)
        if mark is not None and item.get_closest_marker("wheel") is None:
            test = "" if name == "drawn_in_file" else getattr(item, "originalname", item.name)
            cases.setdefault((item.location[0], test, mark.args[0]), []).append(item)
    left: set[str] = set()
    for (file, test, count), some in cases.items():
        some.sort(key=lambda item: item.nodeid)
        chosen = random.Random(f"{_seed(config)} {file} {test}").sample(some, min(count, len(some)))
        left.update({item.nodeid for item in some} - {item.nodeid for item in chosen})
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left])
        items[:] = [item for item in items if item.nodeid not in left]


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start inherit it."""
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="florlog-config-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """A process for all tests that run programs; its children are new ones."""
    from tests.end_to_end.harness import shared_nursery  # not in an environment with the log alone

    return shared_nursery()


@pytest.fixture(scope="module", autouse=True)
def _only_this_program(request: pytest.FixtureRequest) -> Iterator[None]:
    own = {request.module.__name__, *(getattr(v, "__module__", "") for v in vars(request.module).values())}
    others = {
        name: module
        for name, module in sys.modules.items()
        if name.startswith("tests.") and name not in own and not hasattr(module, "__path__")
    }
    for name in others:
        del sys.modules[name]
    yield
    sys.modules.update(others)
