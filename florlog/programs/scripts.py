"""Running a script as ``python SCRIPT`` runs it, and importing its local modules, instrumented or not.

`run_as_main` gives the script what the interpreter gives it: ``sys.argv``, its own directory first on
``sys.path``, a module ``__main__`` in ``sys.modules`` with an absolute ``__file__`` and no ``__spec__`` (so
that multiprocessing's spawn finds the file again), and source lines for tracebacks.  ``SystemExit`` and
every other exception leave it unchanged: exit codes are the caller's.  The working directory stays.
On return argv, path and the caller's own ``__main__`` are as before.

`LocalModuleFinder` stands before the usual finders and hands out the same modules with instrumented code.
It keeps no byte-code files: instrumented code must never be found by an ordinary run.

`RecordedFinder` hands out modules as they were recorded, whatever their files hold now.

Not covered: zip archives, and modules imported before a finder's install.
"""

from __future__ import annotations

import builtins
import importlib.util
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from florlog.source.edit.instrument import instrument


def run_as_main(
    path: str,
    argv: Sequence[str] = (),
    *,
    instrumented: bool = False,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    module: str | None = None,
    text: str | None = None,
) -> ModuleType:
    """Runs a script as ``__main__`` and returns its module.

    ``around`` is entered when ``__main__`` is in place; ``module`` is its name where it runs as ``python -m`` does;
    ``text`` is run in the place of what the file holds now.
    """
    file = str(Path(path).absolute())
    source = importlib.util.decode_source(Path(path).read_bytes()) if text is None else text
    code = instrument(source, file).code if instrumented else compile(source, file, "exec", dont_inherit=True)
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
            _place_in_package(main, module, file)
        with around():
            exec(code, main.__dict__)
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before
    return main


def _place_in_package(main: ModuleType, module: str, file: str) -> None:
    """What ``python -m`` gives a module: its package, imported, and its spec."""
    name = f"{module}.__main__" if Path(file).name == "__main__.py" else module
    package = name.rpartition(".")[0]
    if package:
        importlib.import_module(package)
    main.__package__ = package
    main.__spec__ = ModuleSpec(name, SourceFileLoader(name, file), origin=file)


def below(*directories: str) -> Callable[[str], bool]:
    """A predicate for `LocalModuleFinder.install`: files under the given directories."""
    roots = tuple(Path(directory).resolve() for directory in directories)
    return lambda file: any(Path(file).resolve().is_relative_to(root) for root in roots)


class InstrumentingLoader(SourceFileLoader):
    """Loads a module from its source text with its florlog loops wrapped; no byte-code files."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return instrument(importlib.util.decode_source(self.get_data(path)), path).code


class LocalModuleFinder(MetaPathFinder):
    """Finds modules as usual, but those that it has a place for; what the predicate accepts is instrumented."""

    def __init__(self, predicate: Callable[[str], bool], places: Mapping[str, str]) -> None:
        self._predicate = predicate
        self._places = places

    @classmethod
    def install(
        cls, predicate: Callable[[str], bool], places: Mapping[str, str] | None = None
    ) -> LocalModuleFinder:
        """Puts a finder before all others; ``predicate`` gets the absolute file name of a module.

        ``places``: the files of modules, by name, that are to be taken wherever ``sys.path`` leads.
        """
        finder = cls(predicate, places or {})
        sys.meta_path.insert(0, finder)
        return finder

    def uninstall(self) -> None:
        """Takes the finder out again; modules loaded through it stay as they are."""
        sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self._places.get(fullname)
        if place is not None:
            package = [str(Path(place).parent)] if Path(place).name == "__init__.py" else None
            return self._instrumented(fullname, place, package)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        if not self._predicate(spec.origin):
            return None
        return self._instrumented(fullname, spec.origin, spec.submodule_search_locations)

    @staticmethod
    def _instrumented(name: str, file: str, package: list[str] | None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(
            name, file, loader=InstrumentingLoader(name, file), submodule_search_locations=package
        )


class RecordedLoader(SourceFileLoader):
    """Loads a module, instrumented, from a text that its file may no longer hold."""

    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return instrument(self._text, self.get_filename(fullname)).code

    def get_source(self, fullname: str) -> str:
        return self._text


class RecordedFinder(MetaPathFinder):
    """Finds modules in recorded texts, under the paths that they had; ``modules``: name -> path and text."""

    def __init__(self, modules: Mapping[str, tuple[str, str]]) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        file, text = self._modules[fullname]
        return importlib.util.spec_from_file_location(
            fullname, file, loader=RecordedLoader(fullname, file, text)
        )
