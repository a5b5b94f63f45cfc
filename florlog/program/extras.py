"""Libraries that only some uses need: one line that says what to install when one is absent."""

from __future__ import annotations

import importlib
from typing import Any

from florlog.errors import FlorlogError


def need(module: str, extra: str) -> Any:
    """A module of the extra ``florlog[extra]``; raises `FlorlogError` when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise FlorlogError(f"this needs {package}: pip install 'florlog[{extra}]'") from None
