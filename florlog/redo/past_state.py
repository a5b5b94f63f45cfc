"""The state at any boundary of a run: from the image there, else by redo in a process of its own.

The process runs the recorded program (`florlog.programs.recorded_program`) along the cheapest plan, stands at the
boundary, sends
the state's pages through a pipe, and is killed there: nothing behind the boundary is executed, no ``finally`` of the
script and nothing that it registered for its exit.  What it writes lies in a scratch directory
(`florlog.programs.sandbox`) that this side removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from florlog_recovery import Loop, RunTree
from florlog_wal import Path as IterationPath
from florlog_wal import Store

from florlog.errors import DivergedError, FlorlogError
from florlog.following.trust import where
from florlog.images.imager import SavedState
from florlog.program.environment import VARIABLES
from florlog.program.terminal import report
from florlog.redo.wire import receive

RECORDED = "RECORDED"


class PastState(dict[str, Any]):
    """The tracked state at a boundary: tracked name -> state dict, or what else holds the object's state.

    ``trust`` is RECORDED where an image stood there; else PROVEN, CONSISTENT or UNVERIFIED, as of a replayed value,
    and ``detail`` tells what is against more.  ``redone`` counts the innermost iterations that were re-executed.
    ``generators`` are the states of Python's, NumPy's and torch's random generators.
    """

    def __init__(self, saved: SavedState, trust: str, detail: str = "", redone: int = 0) -> None:
        super().__init__(
            {name: public(saved.tree(name)) for name in saved.names() if not name.startswith("/")}
        )
        self.generators = saved.tree("/rng")
        self.trust = trust
        self.detail = detail
        self.redone = redone


def boundary(tree: RunTree, path: IterationPath, at: Literal["start", "end"]) -> tuple[Loop, int]:
    """The boundary at an iteration's start or end; the start of an iteration that never committed counts.

    Raises `FlorlogError` when the run has no such place.
    """
    if at not in ("start", "end"):
        raise FlorlogError(f'at is "start" or "end", and got {at!r}')
    if not path:
        raise FlorlogError("state_at needs an iteration, such as epoch=3, step=17")
    outer = tree.locate(path[:-1])
    node = tree.root if not path[:-1] else outer and outer[0].nodes.get(outer[1])
    name, index = path[-1]
    loop = node.find(name) if node else None
    if loop is not None and 0 <= index < loop.count + (at == "start" and not loop.ended):
        return loop, index + (at == "end")
    within = f"; loop {name} has {loop.count} there, numbered from 0" if loop is not None else ""
    raise FlorlogError(f"run {tree.run} has no iteration {where(path)}{within}")


def state_at(store: Store, tree: RunTree, path: IterationPath, at: Literal["start", "end"]) -> PastState:
    """The state at an iteration's start or end.

    Raises `FlorlogError` when the run has no such iteration or its script fails, and `DivergedError`, which names
    the first difference, when redo does not give what was recorded.
    """
    loop, index = boundary(tree, path, at)
    image = loop.images.get(index)
    if image is not None:
        return PastState(SavedState(store, image.table), RECORDED)
    return _redone(store, tree, loop, index)


def _redone(store: Store, tree: RunTree, loop: Loop, index: int) -> PastState:
    order = {
        "store": str(store.path),
        "run": tree.run,
        "parent": [list(step) for step in loop.parent.path],
        "loop": loop.name,
        "index": index,
    }
    pages = Pages()
    for message in explored(tree, {"what": "state", **order}):
        match message:
            case ["page", bytes() as digest, bytes() as data]:
                pages[digest] = data
            case ["state", bytes() as digest, str() as trust, str() as detail, int() as redone]:
                return PastState(SavedState(pages, digest), trust, detail, redone)
    raise AssertionError  # `explored` raises where nothing comes


class Pages(dict[bytes, bytes]):
    """Pages in memory, to be read as a store's."""

    def get_page(self, digest: bytes) -> bytes:
        """The bytes of a page."""
        return self[digest]


def explored(tree: RunTree, order: dict[str, Any]) -> Iterator[list[Any]]:
    """What a process that carries out an order (`florlog.redo.explorer`) tells; it is killed when nobody asks for more.

    Raises `FlorlogError` where it fails, `DivergedError` where the recorded program does not do what it did.
    """
    for unusable in (False, True):
        with contextlib.closing(_process(tree, {**order, "unusable": unusable})) as messages:
            for message in messages:
                if message[0] == "unusable":
                    report(f"the images cannot be used, all is redone from the run's start: {message[1]}")
                    break
                yield message
            else:
                return


def _process(tree: RunTree, order: dict[str, Any]) -> Generator[list[Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="florlog-state-") as scratch,
        tempfile.TemporaryFile("w+", errors="replace") as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "florlog.redo.explorer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=tree.begin.cwd if Path(tree.begin.cwd).is_dir() else None,
            env=_variables(tree) | {"TMPDIR": scratch},
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(order).encode())
                process.stdin.close()
            while (message := receive(process.stdout)) is not None:  # type: ignore[arg-type]
                match message:
                    case ["error", str() as text]:
                        raise FlorlogError(text)
                    case ["differs", str() as text]:
                        raise DivergedError(text)
                    case ["end"]:
                        return
                yield message
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["it said nothing"]
            raise FlorlogError(f"the process that re-executed the script ended early: {said[-1]}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its loaders' workers
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()


def _variables(tree: RunTree) -> dict[str, str]:
    """The environment, with the recorded values of those variables that decide numbers."""
    held = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return held | dict(tree.begin.environment.get("variables", {}))


def public(tree: Any) -> Any:
    """A module's state as its state dict, a tensor's as the tensor; other states as they are."""
    if isinstance(tree, dict) and {"state", "loose", "grads", "training"} <= tree.keys():
        return tree["state"]
    if isinstance(tree, dict) and tree.keys() == {"data", "grad"} and isinstance(tree["data"], torch.Tensor):
        return tree["data"]
    return tree
