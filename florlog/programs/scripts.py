"""Running a script as ``python SCRIPT`` runs it.

`run_as_main` gives the script what the interpreter gives it: ``sys.argv``, its own directory first on
``sys.path``, a module ``__main__`` in ``sys.modules`` with an absolute ``__file__`` and no ``__spec__`` (so
that multiprocessing's spawn finds the file again), and source lines for tracebacks.  ``SystemExit`` and
every other exception leave it unchanged: exit codes are the caller's.  The working directory stays.
On return argv, path and the caller's own ``__main__`` are as before.
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from florlog.source.edit.instrument import Instrumenter


def run_as_main(
    path: str,
    argv: Sequence[str] = (),
    *,
    instrumenter: Instrumenter | None = None,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    module: str | None = None,
    text: str | None = None,
) -> ModuleType:
    """Runs a script as ``__main__`` and returns its module.

    ``instrumenter`` compiles it; without one it runs as it is.  ``around`` is entered when ``__main__`` is in place.
    ``module`` is its name where it runs as ``python -m`` does.  ``text`` is run in the place of what the file holds.
    """
    file = str(Path(path).absolute())
    source = importlib.util.decode_source(Path(path).read_bytes()) if text is None else text
    if instrumenter is None:
        code = compile(source, file, "exec", dont_inherit=True)
    else:
        code = instrumenter.code(source, file)
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=file, __builtins__=builtins, __loader__=SourceFileLoader("__main__", file), __cached__=None
    )
    # linecache.checkcache keeps an entry without a time stamp: tracebacks show what ran, not a later edit.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    sys.argv = [path, *argv]
    sys.path[:1] = [str(Path.cwd() if module else Path(path).resolve().parent)]
    sys.modules["__main__"] = main
    try:
        if module:
            sys.argv[0] = file
        with around():
            if module:
                _place_in_package(main, module, file)
            exec(code, main.__dict__)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before
    return main


def _place_in_package(main: ModuleType, module: str, file: str) -> None:
    """Give a module what ``python -m`` gives it: its package, imported, and its spec."""
    name = f"{module}.__main__" if Path(file).name == "__main__.py" else module
    package = name.rpartition(".")[0]
    main.__package__ = package
    if package:
        importlib.import_module(package)
    main.__spec__ = ModuleSpec(name, SourceFileLoader(name, file), origin=file)
