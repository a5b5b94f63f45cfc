"""Objects of PyTorch Lightning whose state lies in files: the writer of a ``CSVLogger``, and ``ModelCheckpoint``.

The writer adds rows to its table and begins it anew when a process starts; so an image has the table, and putting
it back writes it.  A ``ModelCheckpoint`` gives a file another name where one of that name exists; so an image has the
names that there were, and putting it back moves those aside that came later.  In a replay both happen where all files
of a replay go.

Files that are not local are left as they are.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk
from florlog.state.heap.kinds.objects import OBJECT

ASIDE = ".executed-again"
"""What is added to the name of a checkpoint of an iteration that is executed again."""


class _Table(Kind):
    """``refs``: the bytes of the writer's file, None where there is no file."""

    name = "lightning table"

    def take(self, walk: Walk, value: Any) -> Node:
        file = _local(value.metrics_file_path)
        held = None
        if file is not None and file.is_file():
            held = np.frombuffer(file.read_bytes(), np.uint8).copy()
            walk.memory.always_stored(held)
        return Node(self.name, walk.class_name(value), None, [walk.ref(held)], walk.attributes(value))

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".metrics_file",))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return OBJECT.make(build, node, live)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes)
        file, content = _local(held.metrics_file_path), build.value(node.refs[0])
        if file is None:
            return
        if content is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_bytes() != content.tobytes():
            made = file.with_name(f"{file.name}.part")
            made.write_bytes(content.tobytes())
            made.replace(file)


class _Checkpoints(Kind):
    """``own``: the names of the checkpoints in its directory, None where that is not known."""

    name = "lightning checkpoints"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(self.name, walk.class_name(value), _names(value), (), walk.attributes(value))

    def compared(self, node: Node) -> Any:
        return None  # a replay does not see those that were removed since

    def make(self, build: Build, node: Node, live: Any) -> Any:
        return OBJECT.make(build, node, live)

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes)
        now, directory = _names(held), _local(held.dirpath)
        if node.own is None or now is None or directory is None:
            return
        for name in now:
            if name not in node.own:
                (directory / name).replace(directory / f"{name}{ASIDE}")
        for name in node.own:
            aside = directory / f"{name}{ASIDE}"
            if name not in now and aside.exists():
                aside.replace(directory / name)


def _local(path: Any) -> Path | None:
    """A path in the local file system; None for any other."""
    return None if not isinstance(path, str | os.PathLike) or "://" in str(path) else Path(path)


def _names(checkpoint: Any) -> list[str] | None:
    directory = _local(checkpoint.dirpath)
    if directory is None:
        return None
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(checkpoint.FILE_EXTENSION))


_TABLE, _CHECKPOINTS = _Table(), _Checkpoints()
LIGHTNING = (_TABLE, _CHECKPOINTS)
_CLASSES: dict[str, Kind] = {
    f"{package}.{name}": kind
    for name, packages, kind in (
        ("loggers.csv_logs._ExperimentWriter", ("lightning.fabric", "lightning_fabric"), _TABLE),
        (
            "callbacks.model_checkpoint.ModelCheckpoint",
            ("lightning.pytorch", "pytorch_lightning"),
            _CHECKPOINTS,
        ),
    )
    for package in packages
}


@functools.cache
def lightning_kind(kind: Any) -> Kind | None:
    """The kind of the objects of one of Lightning's classes, or of one derived from it, that has state in files."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return next((_CLASSES[name] for name in names if name in _CLASSES), None)
