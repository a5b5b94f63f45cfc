"""When florlog was imported, without the time that it took to import more of itself afterwards.

A run keeps how long its program took from the import of florlog to the run's beginning: a replay has to do that
again.  What florlog imports when it is first used is no part of it, because a replay has imported that already.
"""

from __future__ import annotations

import gc
import time
from importlib import import_module
from types import ModuleType

_imported_at = time.perf_counter()


def load(module: str) -> ModuleType:
    """A module of florlog, imported if it is not yet; the time that this takes is not the program's."""
    global _imported_at
    began, collecting = time.perf_counter(), gc.isenabled()
    gc.disable()  # nothing of an import is garbage, and a collection goes through all that the program has
    try:
        return import_module(module)
    finally:
        if collecting:
            gc.enable()
        _imported_at += time.perf_counter() - began


def seconds_since_import() -> float:
    """Seconds that the program has taken since it imported florlog."""
    return time.perf_counter() - _imported_at
