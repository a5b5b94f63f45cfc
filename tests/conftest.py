"""What all tests share: a configuration directory of their own, so that none touches the user's key, and a program.

An image holds the state of the program's own modules.  In a test's process these are its module and what that imports;
what other test modules hold would be captured, written and put back with it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start inherit it."""
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="florlog-config-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"], ignore_errors=True)


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
