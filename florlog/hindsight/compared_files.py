"""A recorded program next to the present one, file by file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from florlog_recovery import RunTree
from florlog_wal import RunLog

from florlog.errors import SourceChangedError
from florlog.program.environment import is_hands_free
from florlog.program.recorded_sources import SourceFile, recorded_sources
from florlog.programs.adoption import adopted_again
from florlog.programs.permission import is_own
from florlog.source.diff.source_diff import SourceDiff, compare
from florlog.source.edit.rewrite import Rewrite, statements
from florlog.source.names.syntax import read_as


@dataclass(frozen=True, slots=True)
class Compared:
    """A file as it was recorded and as it is now."""

    recorded: str  # its path when recorded
    present: str
    module: str
    old: str
    new: str
    diff: SourceDiff


def compared(
    log: RunLog, tree: RunTree, script: str, present: Mapping[str, str] | None = None
) -> list[Compared]:
    """Every recorded file of a run, compared with what ``script`` and the modules around it are now.

    ``present``: recorded path -> where the file is now, if that is known.  Raises `SourceChangedError` where a recorded
    file is gone.
    """
    found = []
    hands_free = is_hands_free(tree.begin.environment)
    sources = recorded_sources(log, tree)
    adopted = adopted_again({source.path: source.text for source in sources})
    local = [source for source in sources if source.path not in adopted]
    places = present_paths(log, tree, local, script, present or {})
    for source in sources:
        if source.path in adopted:
            same = compare(source.text, source.text, filename=source.path)
            found.append(Compared(source.path, source.path, source.module, source.text, source.text, same))
            continue
        path = places[source.path]
        try:
            new = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceChangedError(
                f"{path} was part of the recording and cannot be read: {error}"
            ) from None
        with read_in(statements if hands_free else None):
            diff = compare(source.text, new, filename=path)
        found.append(Compared(source.path, path, source.module, source.text, new, diff))
    return found


def read_in(how: Rewrite | None) -> AbstractContextManager[None]:
    """Within, trees are read as a hands-free recording has them; as they are for None."""
    return nullcontext() if how is None else read_as(how)


def present_paths(
    log: RunLog,
    tree: RunTree,
    sources: Iterable[SourceFile],
    script: str,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Where each recorded file of a run is now, by recorded path; ``script`` may be a copy in another place.

    Of a run that somebody else may have made, the recorded paths are not looked at: a module is the one that the script
    itself would import.
    """
    found = dict(known or {})
    missing = [source for source in sources if source.path not in found]
    own = any(source.module != "__main__" for source in missing) and is_own(log, tree)
    for source in missing:
        if source.module == "__main__":
            found[source.path] = script
        elif own:
            found[source.path] = _moved_path(source.path, tree.begin.script, script)
        else:
            found[source.path] = _imported_path(source.module, script)
    return found


def _imported_path(module: str, script: str) -> str:
    """Where a script, started by its path or from the working directory, finds a local module."""
    around = [Path(script).parent, *Path(script).parent.parents]
    here = Path.cwd()
    roots = around[: around.index(here) + 1] if here in around else around[:1]
    names = module.split(".")
    if all(name.isidentifier() for name in names):
        for root in roots:
            stem = root.joinpath(*names)
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file():
                    return str(path)
    return f"the module {module!a}"  # which cannot be read, as the caller reports


def _moved_path(recorded: str, recorded_script: str, script: str) -> str:
    """Where a recorded file is now, when the script may be a copy in another place."""
    relative = os.path.relpath(recorded, Path(recorded_script).parent)
    moved = Path(os.path.normpath(Path(script).parent / relative))
    return str(moved) if moved.exists() else recorded
