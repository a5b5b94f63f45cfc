"""What all tests share: a configuration directory of their own, so that none touches the user's key."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start inherit it."""
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="florlog-config-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"], ignore_errors=True)
