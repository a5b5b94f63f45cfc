"""Importing a program's local modules with instrumented code.

A finder is a context manager: inside its ``with`` block it comes before the usual finders, and modules that were loaded
through it stay as they are afterwards.  It keeps no byte-code files: instrumented code must never be found by an
ordinary run.

Not covered: zip archives, and modules imported before the block.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from florlog.source.edit.instrument import Instrumenter


class _Finder(MetaPathFinder):
    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.meta_path.remove(self)


class LocalModuleFinder(_Finder):
    """Finds modules as usual, and instruments those of a program.

    ``files`` are the absolute paths of the program's files.  ``places`` are the files of modules, by name, that are
    loaded from there wherever ``sys.path`` leads; they are instrumented as well.
    """

    def __init__(
        self, files: Collection[str], instrumenter: Instrumenter, places: Mapping[str, str] | None = None
    ) -> None:
        self._files = files
        self._instrumenter = instrumenter
        self._places = places or {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self._places.get(fullname)
        if place is not None:
            package = [str(Path(place).parent)] if Path(place).name == "__init__.py" else None
            return self._instrumented(fullname, place, package)
        spec = PathFinder.find_spec(fullname, path, target) or self._of_others(fullname, path, target)
        if spec is None or spec.origin is None or type(spec.loader) is not SourceFileLoader:
            return None
        if str(Path(spec.origin).absolute()) not in self._files:
            return None
        return self._instrumented(fullname, spec.origin, spec.submodule_search_locations)

    def _of_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        """What other finders find, such as those of editable installs."""
        for finder in sys.meta_path:
            if finder is not self and finder is not PathFinder and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None

    def _instrumented(self, name: str, file: str, package: list[str] | None) -> ModuleSpec | None:
        loader = _InstrumentingLoader(name, file, self._instrumenter)
        return importlib.util.spec_from_file_location(
            name, file, loader=loader, submodule_search_locations=package
        )


class RecordedFinder(_Finder):
    """Finds modules in recorded texts, under the paths that they had; ``modules``: name -> path and text."""

    def __init__(self, modules: Mapping[str, tuple[str, str]], instrumenter: Instrumenter) -> None:
        self._modules = modules
        self._instrumenter = instrumenter

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        file, text = self._modules[fullname]
        loader = _RecordedLoader(fullname, file, self._instrumenter, text)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


class AfterImport(_Finder):
    """Finds modules of libraries as usual; ``done`` is called with each of ``names`` when its code has run."""

    def __init__(self, names: Collection[str], done: Callable[[ModuleType], None]) -> None:
        self._names = names
        self._done = done

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _FollowedLoader(spec.loader, self._done)
        return spec


class _FollowedLoader(Loader):
    def __init__(self, usual: SourceFileLoader, done: Callable[[ModuleType], None]) -> None:
        self._usual = usual
        self._done = done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._usual
        self._usual.exec_module(module)
        self._done(module)


class _InstrumentingLoader(SourceFileLoader):
    """Loads a module, instrumented, from its file."""

    def __init__(self, fullname: str, path: str, instrumenter: Instrumenter) -> None:
        super().__init__(fullname, path)
        self._instrumenter = instrumenter

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self._instrumenter.code(importlib.util.decode_source(self.get_data(path)), path)


class _RecordedLoader(_InstrumentingLoader):
    """Loads a module, instrumented, from a text that its file may no longer hold."""

    def __init__(self, fullname: str, path: str, instrumenter: Instrumenter, text: str) -> None:
        super().__init__(fullname, path, instrumenter)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return self._instrumenter.code(self._text, self.get_filename(fullname))

    def get_source(self, fullname: str) -> str:
        return self._text
