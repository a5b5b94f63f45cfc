"""Loop-carried variables: what a loop's body changes in its function and a later iteration reads.

Tracked objects are only a part of the state; ``best = max(best, accuracy)`` lives in a local variable.
When an image is taken, the names that source analysis finds to be carried at that place
(`florlog.source.carry.carried.carried_names`) are captured, and so are the globals that functions of the user's
modules use (`shared_names` there) and the plain attributes of tracked modules.  `florlog.state.object_capture` decides
what of their values is state.  When the image is restored they are put back into the running frame, as a debugger
would.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Collection, Container, Iterable, Mapping
from types import CodeType, FrameType, ModuleType
from typing import Any

from florlog.errors import ImageError
from florlog.program.environment import is_own, main_script
from florlog.program.process import this_process
from florlog.source.carry.carried import carried_names, shared_names
from florlog.state.cpython import can_write_variables, frame_of, writable_variables
from florlog.state.object_capture import ObjectCapture
from florlog.state.object_restore import MISSING, ObjectRestore
from florlog.state.user_code import is_user_file


def call_stack(frame: FrameType, outermost: CodeType | None) -> tuple[tuple[str, str, int], ...]:
    """Source positions from ``frame`` outwards, up to the frame that runs ``outermost``."""
    stack = []
    current: FrameType | None = frame
    while current is not None:
        code = current.f_code
        file, line = this_process.notebook.placed(code.co_filename, current.f_lineno)
        stack.append((file, code.co_qualname, line))
        if code is outermost:
            break
        if outermost is None and code.co_name == "<module>":
            break
        current = current.f_back
    return tuple(stack)


class Carried:
    """Finds, captures and restores the carried variables of running frames, and globals."""

    def __init__(self) -> None:
        self._names: dict[tuple[CodeType, int], frozenset[str]] = {}
        self._modules: dict[str, tuple[ModuleType, frozenset[str], frozenset[str]]] = {}
        self._imported: set[str] = set()  # the modules that there were when the user's were looked up
        self.untaken: dict[str, tuple[str, str, int]] = {}
        """What the last capture had to leave out: place -> type, file, first line of the code that binds the name."""

    def _carried(self, code: CodeType, line: int) -> frozenset[str]:
        key = (code, line)
        if key not in self._names:
            file, at = this_process.notebook.placed(code.co_filename, line)
            text = "".join(linecache.getlines(file))
            # What a running closure shares with code that has returned is not in the analysed scope.
            free = frozenset(code.co_freevars) - {"__class__"}
            first = this_process.notebook.first_line(code)
            self._names[key] = carried_names(text, code.co_qualname, first, at) | free
        return self._names[key]

    def _shared(self) -> list[tuple[ModuleType, frozenset[str], frozenset[str]]]:
        """The user's modules, with the globals that their functions use and those that they bind."""
        if len(self._imported) != len(sys.modules):
            for name in sys.modules.keys() - self._imported:
                module = sys.modules[name]
                file = getattr(module, "__file__", None) if name != "__main__" else main_script()
                if not isinstance(file, str) or not file or is_own(name) or not is_user_file(file):
                    continue
                if all(module is not known for known, _, _ in self._modules.values()):
                    names = shared_names("".join(linecache.getlines(file)))
                    if names[0]:
                        self._modules[name] = (module, *names)
            self._imported = set(sys.modules)
        return list(self._modules.values())

    def capture(
        self,
        places: Mapping[CodeType, int | None],
        objects: Mapping[str, Any],
        storages: Container[int],
        *,
        fresh: bool = False,
        only: Mapping[str, Collection[str]] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The carried variables by frame; ``places`` are code objects and the lines at which they are.

        None stands for the line that the frame executes.  ``objects`` are tracked elsewhere, as are tensors that
        share memory with ``storages``; ``fresh``: no loop has run yet.
        ``only`` gives the names to capture by frame, instead of those that analysis finds.
        """
        walk = ObjectCapture({id(target): name for name, target in objects.items()}, storages, fresh=fresh)
        found: dict[str, dict[str, Any]] = {}
        held = {name: walk.capture(target, f"tracked {name}") for name, target in objects.items()}
        found["locals tracked"] = {name: tree for name, tree in held.items() if tree[-1] is not None}
        self.untaken = {place: (kind, "", 0) for place, kind in walk.untaken.items()}
        at_module_level: set[str] = set()
        for code, line in places.items():
            frame = frame_of(code)
            if frame is None:
                continue
            names = self._carried(code, frame.f_lineno if line is None else line)
            if code.co_qualname == "<module>":
                at_module_level |= names
            key = f"locals {code.co_qualname}"
            found[key] = _captured(walk, frame.f_locals, names if only is None else only.get(key, ()))
            self._note(walk, code.co_filename, code.co_firstlineno)
        for module, names, bound in self._shared():
            left = names - at_module_level if module.__name__ == "__main__" else names
            key = f"locals module {module.__name__}"
            if only is not None:
                left = frozenset(only.get(key, ()))
            found[key] = _captured(walk, vars(module), left & bound)
            self._note(walk, getattr(module, "__file__", None) or main_script(), 1)
            found[key] |= _captured(walk, vars(module), left - bound, data=True)
        return found

    def _note(self, walk: ObjectCapture, file: str, first: int) -> None:
        """Note what the walk has left out since the last call: names bound in a file from line ``first`` on."""
        for place in walk.untaken.keys() - self.untaken.keys():
            self.untaken[place] = (walk.untaken[place], file, first)

    def restore(
        self,
        places: Iterable[CodeType],
        saved: Mapping[str, dict[str, Any]],
        objects: Mapping[str, Any],
        storages: Container[int],
    ) -> None:
        """Put captured variables back into the running frames.  Raises `ImageError` where that is impossible."""
        walk = ObjectRestore(objects)
        for name, tree in saved.get("locals tracked", {}).items():
            walk.restore(objects.get(name), tree, f"tracked {name}")
        for code in places:
            frame = frame_of(code)
            values = saved.get(f"locals {code.co_qualname}")
            if frame is not None and values:
                if not can_write_variables():
                    raise ImageError("this Python does not let the variables of a running function be set")
                with writable_variables(frame) as variables:
                    _put(walk, variables, values)
        for module, _, _ in self._shared():
            values = saved.get(f"locals module {module.__name__}")
            if values:
                _put(walk, vars(module), values)


def binding(file: str, first: int, place: str) -> int:
    """The line, from ``first`` on, that first binds the variable with which a place begins; ``first`` if none does."""
    name = re.split(r"[.\[]", place)[0]
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return first
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
        or (isinstance(node, ast.arg) and node.arg == name)
    ]
    return min((line for line in lines if line >= first), default=first)


def _captured(
    walk: ObjectCapture, variables: Mapping[str, Any], names: Iterable[str], *, data: bool = False
) -> dict[str, Any]:
    found = {
        name: walk.capture(variables[name], name, data=data) for name in sorted(names) if name in variables
    }
    return {name: tree for name, tree in found.items() if tree is not None}


def _put(walk: ObjectRestore, variables: Any, values: Mapping[str, Any]) -> None:
    for name, tree in values.items():
        made = walk.restore(variables.get(name, MISSING), tree, name)
        if made is not MISSING:
            variables[name] = made
