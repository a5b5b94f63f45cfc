"""Adopting modules of frameworks: their functions that have the training's loops are run as a part of the program.

An adopted module is imported as always.  Then the functions of its excerpt (`florlog.source.edit.excerpt`) get the code
of the excerpt, rewritten and instrumented as the program's files are.  After the program they have their own again.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import xxhash

from florlog.bridges.hooks import HOOKS
from florlog.bridges.manifests import MANIFESTS, REFUSED, LoopManifest, LoopModule
from florlog.errors import FlorlogError, SourceChangedError
from florlog.program.environment import ADOPTED
from florlog.program.process import Adopted, this_process
from florlog.program.terminal import reason, report, warn
from florlog.programs.finders import AfterImport
from florlog.source.edit.excerpt import calls_that_tell, excerpt, is_excerpt_of
from florlog.source.edit.instrument import CALLED_NAMES, Instrumenter
from florlog.source.names.excerpts import Origin, clock_keys, excerpt_of, functions_of_excerpt


@dataclass(frozen=True, slots=True)
class Adoptions:
    """What is known of the frameworks that a program uses."""

    modules: Mapping[str, Adopted]
    """By path, what of a framework's modules is part of the program."""
    hooked: Mapping[str, str]
    """Frameworks whose source is not known -> their version: their loops are recorded by hooks."""


def adoptions(texts: Iterable[str], own: Collection[str] = ()) -> Adoptions:
    """The frameworks that a program with these texts uses.

    ``own``: its files.  A framework that is among them, as one that is edited next to the program, is a part of it as
    the others are, unless it is a known version.

    Says in a line what is not recorded, or not as it should be, where a module's text is not a known one.
    """
    trees = [ast.parse(text) for text in texts]
    for module in sorted({module for tree in trees for module in _imported(tree)} & REFUSED.keys()):
        report(f"the loops of {module} are not recorded: {REFUSED[module]}. Write the loop in the script")
    return _of_manifests((m for m in MANIFESTS if any(_uses(tree, m) for tree in trees)), own)


def adoptions_of(framework: str) -> Adoptions:
    """One framework, as `adoptions`."""
    return _of_manifests(manifest for manifest in MANIFESTS if manifest.framework == framework)


def _of_manifests(manifests: Iterable[LoopManifest], own: Collection[str] = ()) -> Adoptions:
    modules: dict[str, Adopted] = {}
    hooked: dict[str, str] = {}
    for manifest in manifests:
        if _file_of(HOOKS[manifest.framework].module) is None:  # it is not installed
            continue
        adopted = _adopted(manifest)
        modules |= adopted
        if not adopted and not any(_file_of(module.name) in own for module in manifest.modules):
            hooked[manifest.framework] = _installed(manifest.framework)
            report(_only_hooked(manifest, hooked[manifest.framework]))
    return Adoptions(modules, hooked)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level modules that a program imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def _uses(tree: ast.Module, manifest: LoopManifest) -> bool:
    imported, named, all_imported, words = False, False, False, set()
    suffixes = tuple(manifest.classes)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= any(a.name.partition(".")[0] in manifest.imported_by for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            from_it = not node.level and (node.module or "").partition(".")[0] in manifest.imported_by
            imported |= from_it
            named |= any(alias.name.endswith(suffixes) for alias in node.names)
            all_imported |= from_it and any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            named |= node.attr.endswith(suffixes)
        elif isinstance(node, ast.Name):
            words.add(node.id)
    return imported and (named or (all_imported and any(word.endswith(suffixes) for word in words)))


def _file_of(module: str) -> str | None:
    """Where an installed module lies; nothing is imported."""
    path: Sequence[str] | None = None
    parts = module.split(".")
    spec: ModuleSpec | None = None
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec.origin if spec is not None and isinstance(spec.loader, SourceFileLoader) else None


def _adopted(manifest: LoopManifest) -> dict[str, Adopted]:
    """What is adopted of a framework, by path: all modules of its manifest, or none where a text is not known."""
    files = [_file_of(module.name) for module in manifest.modules]
    data = [b"" if file is None else Path(file).read_bytes() for file in files]
    digests = [xxhash.xxh3_128_hexdigest(text) for text in data]
    versions = {module.known.get(digest) for module, digest in zip(manifest.modules, digests, strict=True)}
    version = versions.pop()
    if version is None or versions:
        return {}
    return {
        str(file): _excerpt(manifest, module, text.decode(), Origin(module.name, version, digest))
        for module, file, text, digest in zip(manifest.modules, files, data, digests, strict=True)
    }


def _only_hooked(manifest: LoopManifest, installed: str) -> str:
    known = sorted({version for module in manifest.modules for version in module.known.values()})
    why = "is not as it was published" if installed in known else f"is not known (known: {', '.join(known)})"
    return (
        f"{manifest.framework} {installed} {why}: its loops are recorded by its hooks, for reading. A run that has "
        "such loops cannot be resumed or replayed: no images are taken"
    )


def _excerpt(manifest: LoopManifest, module: LoopModule, text: str, origin: Origin) -> Adopted:
    tells = calls_that_tell(text, module.told)
    made = excerpt(text, origin, module.functions, manifest.clocks, tells)
    return Adopted(module.name, made, manifest.clocks)


def check_adopted(facts: Mapping[str, Any]) -> None:
    """Raise `SourceChangedError` where modules that a run had adopted are others now; ``facts``: its environment."""
    for module, (version, digest) in facts.get(ADOPTED, {}).items():
        file = _file_of(module)
        if file is None or xxhash.xxh3_128_hexdigest(Path(file).read_bytes()) != digest:
            raise _other(Origin(module, version, digest))


def _other(recorded: Origin) -> SourceChangedError:
    names = {module.name: manifest.framework for manifest in MANIFESTS for module in manifest.modules}
    framework = names.get(recorded.module, recorded.module.partition(".")[0])
    return SourceChangedError(
        f"the run was recorded with {framework} {recorded.version}, and {_installed(framework)} is installed, with "
        f"another {recorded.module}: install {framework}=={recorded.version}"
    )


def adopted_again(texts: Mapping[str, str]) -> dict[str, Adopted]:
    """What a recorded program with these texts had adopted, by path.

    Raises `SourceChangedError` where the module is another one now, and `FlorlogError` where a text is no excerpt of
    it: nothing that is not installed is executed.
    """
    found = {}
    for path, text in texts.items():
        if (origin := excerpt_of(text)) is None:
            continue
        file = _file_of(origin.module)
        data = b"" if file is None else Path(file).read_bytes()
        if xxhash.xxh3_128_hexdigest(data) != origin.digest:
            raise _other(origin)
        if not is_excerpt_of(text, data.decode()):
            raise FlorlogError(
                f"what the run has of {origin.module} is not what that module has: it is not executed"
            )
        found[path] = Adopted(origin.module, text, clock_keys(ast.parse(text)))
    return found


def _installed(framework: str) -> str:
    try:
        return importlib.metadata.version(framework)
    except importlib.metadata.PackageNotFoundError:
        return "without a version"


@contextmanager
def adopting(modules: Mapping[str, Adopted], instrumenter: Instrumenter) -> Iterator[None]:
    """Within, the functions of adopted modules have the instrumented code; ``modules``: by path.

    Modules that are imported within get it then.
    """
    if not modules:
        yield
        return
    functions = _Functions(modules, instrumenter)
    with this_process.adopting(modules), AfterImport(functions.files, functions.adopt):
        try:
            for adopted in modules.values():
                if adopted.module in sys.modules:
                    functions.adopt(sys.modules[adopted.module])
            yield
        finally:
            functions.put_back()


class _Functions:
    """The functions of adopted modules, and the code that each had."""

    def __init__(self, modules: Mapping[str, Adopted], instrumenter: Instrumenter) -> None:
        self.files = {adopted.module: (path, adopted.text) for path, adopted in modules.items()}
        self._instrumenter = instrumenter
        self._before: list[tuple[FunctionType, CodeType]] = []

    def adopt(self, module: ModuleType) -> None:
        """Give a module's functions the excerpt's code; a recording goes on without where that fails."""
        try:
            self._replace(module)
        except Exception as error:
            if this_process.role is not None:
                raise
            self.put_back()
            warn(f"the loops of {module.__name__} are not recorded: {reason(error)}")

    def _replace(self, module: ModuleType) -> None:
        """Raises `FlorlogError` where functions are not the module's own."""
        file, text = self.files[module.__name__]
        code = self._instrumenter.code(text, file)
        for name, (where, imported) in CALLED_NAMES.items():
            setattr(module, name, getattr(importlib.import_module(where), imported))
        for qualname, _ in functions_of_excerpt(ast.parse(text)):
            function = _function(module, qualname)
            made = _code_of(code, qualname.split("."))
            if function is None or made is None or function.__code__.co_freevars != made.co_freevars:
                raise FlorlogError(f"{module.__name__}:{qualname} is not what its source says")
            self._before.append((function, function.__code__))
            function.__code__ = made

    def put_back(self) -> None:
        """Give all functions their own code."""
        for function, code in reversed(self._before):
            function.__code__ = code
        self._before.clear()


def _function(module: ModuleType, qualname: str) -> FunctionType | None:
    """A function of a module, without its decorators."""
    found: object = module
    for part in qualname.split("."):
        found = vars(found).get(part)
    framework = module.__name__.partition(".")[0]
    pending, seen = [found], set()
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if hasattr(found, "__wrapped__"):
            pending.append(found.__wrapped__)
        elif isinstance(found, FunctionType):
            if (found.__module__, found.__qualname__) == (module.__name__, qualname):
                return found
            if found.__module__.partition(".")[0] == framework:
                # A decorator of the framework's without functools.wraps has the function in a variable.
                pending += [cell.cell_contents for cell in found.__closure__ or ()]
    return None


def _code_of(code: CodeType, parts: Sequence[str]) -> CodeType | None:
    """The code of a function in the code of its module."""
    inner: CodeType | None = code
    for part in parts:
        codes = () if inner is None else inner.co_consts
        inner = next((held for held in codes if isinstance(held, CodeType) and held.co_name == part), None)
    return inner
