"""Loop-carried variables: what a loop's body changes in its function and a later iteration reads.

Tracked objects are only a part of the state; ``best = max(best, accuracy)`` lives in a local variable.
When an image is taken, all mutable state is captured that names reach (`florlog.state.heap`): what is tracked, the
variables of the running frames, the globals of the program's modules.  Of names that hold values, which have to be
bound anew to change, those count that source analysis finds to be carried at that place
(`florlog.source.carry.carried.carried_names`), and the globals that functions use (`shared_names` there).  When the
image is restored they are put back into the running frame, as a debugger would.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from florlog.errors import ImageError
from florlog.program.environment import is_own, main_script, module_file
from florlog.program.import_roots import user_modules
from florlog.program.process import this_process
from florlog.source.carry.carried import carried_names, names_by_text, shared_names
from florlog.source.carry.loop_bindings import bound_in_loop
from florlog.state.codes import codes_around, codes_of_modules
from florlog.state.cpython import can_write_variables, frame_of, writable_variables
from florlog.state.heap.capture import Graph, capture
from florlog.state.heap.graph import TRACKED
from florlog.state.heap.memory import Constants
from florlog.state.heap.restore import restore
from florlog.state.heap.rules import ATOMS, is_constant
from florlog.state.user_code import is_user_file

IsAdded = Callable[[Any], bool]
"""Whether something was made by code that the recorded program does not have."""
LOOPS = "loops"
"""The scope of what open loops run over: a list that no variable holds is reached from there."""


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of the program.  ``used``: globals that its functions use; ``whole``: any other may change as well."""

    module: ModuleType
    used: frozenset[str]
    whole: bool

    @property
    def scope(self) -> str:
        """The name of its scope."""
        return f"module {self.module.__name__}"


class Carried:
    """Finds, captures and restores the carried variables of running frames, and globals."""

    def __init__(self) -> None:
        self._names: dict[tuple[CodeType, int], frozenset[str]] = {}
        self._modules: dict[str, _Module] = {}
        self._imported: set[str] = set()  # the modules that there were when the user's were looked up
        self._in_loop: dict[tuple[CodeType, int], frozenset[str]] = {}
        self._seen: dict[str, set[str]] = {}  # names that earlier captures have met, by scope
        self._constants = Constants()
        self.missing: Mapping[str, str] = {}
        """What the last capture could not take: place -> what it is and why."""
        self.missing_at_start: Mapping[str, str] = {}
        """What could not be taken before the first loop, where it is as the set-up makes it."""

    def _carried(self, code: CodeType, line: int) -> frozenset[str]:
        key = (code, line)
        if key not in self._names:
            file, at = this_process.notebook.placed(code.co_filename, line)
            text = this_process.text_of(file)
            # What a running closure shares with code that has returned is not in the analysed scope.
            free = frozenset(code.co_freevars) - {"__class__"}
            first = this_process.notebook.first_line(code)
            self._names[key] = carried_names(text, code.co_qualname, first, at) | free
        return self._names[key]

    def _shared(self) -> list[_Module]:
        """The user's modules."""
        if len(self._imported) != len(sys.modules):
            script = main_script()
            for name, module in user_modules(sys.modules.keys() - self._imported):
                if (
                    name == "__mp_main__"
                ):  # `multiprocessing`'s name for what was the main module when it was imported
                    continue
                file = module_file(module) if name != "__main__" else script
                if not file or (file != script and not is_user_file(file)) or is_own(name):
                    continue
                if all(module is not known.module for known in self._modules.values()):
                    text = this_process.text_of(file)
                    whole = name != "__main__" or names_by_text(text)
                    self._modules[name] = _Module(module, shared_names(text), whole=whole)
            self._imported = set(sys.modules)
        return list(self._modules.values())

    def capture(
        self,
        places: Mapping[CodeType, int | None],
        objects: Mapping[str, Any],
        tracked: Iterable[torch.Tensor],
        *,
        iterables: Mapping[str, Any],
        left: Collection[int] = (),
        gradients: Collection[int] = (),
        fresh: bool = False,
        is_added: IsAdded | None = None,
    ) -> Graph:
        """The graph of what the running frames, the program's modules and the tracked objects reach.

        ``places`` are code objects and the lines at which they are; None stands for the line that the frame executes.
        ``objects`` are tracked, and the bytes of the tensors ``tracked`` are kept elsewhere; ``iterables``: what open
        loops run over; ``left``: ids of objects that are left as they are; ``gradients``: of those left out;
        ``fresh``: no loop has run yet, so whatever cannot
        be captured is as the set-up makes it; ``is_added`` as of `florlog.state.heap.capture`.  Raises
        `florlog.state.pending.Pending`.
        """
        found, present = self._roots(places)
        roots = {TRACKED: objects, LOOPS: iterables, **found}
        graph = capture(
            roots, tracked, left=left, gradients=gradients, constants=self._constants, is_added=is_added
        )
        self._constants.close()
        for scope, names in roots.items():
            seen = self._seen.setdefault(scope, set())
            graph.gone[scope] = sorted(seen.difference(present.get(scope, seen)))
            seen.update(names)
        if fresh:
            self.missing_at_start = dict(graph.missing)
            graph.missing.clear()
        self.missing = graph.missing
        return graph

    def files(self) -> list[str]:
        """The files of the program's modules that are loaded."""
        return [module_file(shared.module) or main_script() for shared in self._shared()]

    def _roots(
        self, places: Mapping[CodeType, int | None]
    ) -> tuple[dict[str, Mapping[str, Any]], dict[str, Collection[str]]]:
        """The names of frames and modules from which state is reached, by scope; and all names that are bound there."""
        roots: dict[str, Mapping[str, Any]] = {}
        present: dict[str, Collection[str]] = {}
        bound: dict[str, set[str]] = {}
        carried: dict[str, set[str]] = {}
        for code, line in places.items():
            frame = frame_of(code)
            if frame is None:
                continue
            at = frame.f_lineno if line is None else line
            scope, variables = _scope(code), frame.f_locals
            carried.setdefault(scope, set()).update(self._carried(code, at))
            bound.setdefault(scope, set()).update(self._bound(code, at) - carried[scope])
            present[scope] = variables.keys()
            roots[scope] = _of_program({
                name: value
                for name, value in variables.items()
                if name in carried[scope] or (name not in bound[scope] and not _is_value(value))
            })  # fmt: skip
        for shared in self._shared():
            scope = shared.scope
            wanted, unwanted = shared.used | carried.get(scope, set()), bound.get(scope, set())
            present[scope] = vars(shared.module).keys()
            roots[scope] = _of_program({
                name: value
                for name, value in vars(shared.module).items()
                if name in wanted or (name not in unwanted and (shared.whole or not _is_value(value)))
            })  # fmt: skip
        return roots, present

    def _made_anew(self, places: Mapping[CodeType, int | None]) -> dict[str, set[str]]:
        """The names, by scope, that the loops at these places bind anew before anything reads them."""
        found: dict[str, set[str]] = {}
        for code, line in places.items():
            if (frame := frame_of(code)) is not None:
                at = frame.f_lineno if line is None else line
                found.setdefault(_scope(code), set()).update(self._bound(code, at) - self._carried(code, at))
        for shared in self._shared():
            if shared.scope in found:
                found[shared.scope] -= shared.used
        return found

    def _bound(self, code: CodeType, line: int) -> frozenset[str]:
        """The names that the loop at a line binds in its body: what is not carried there is not needed again."""
        key = (code, line)
        if key not in self._in_loop:
            file, at = this_process.notebook.placed(code.co_filename, line)
            self._in_loop[key] = bound_in_loop(this_process.text_of(file), at)
        return self._in_loop[key]

    def line_of(self, place: str) -> str:
        """Where the name with which a place begins is first bound, as text: `` (train.py:12)``."""
        for shared in self._shared():
            file = getattr(shared.module, "__file__", None) or main_script()
            if (line := binding(file, 1, place)) > 1:
                return f" ({Path(file).name}:{line})"
        return ""

    def restore(
        self,
        places: Mapping[CodeType, int | None],
        graph: Graph,
        objects: Mapping[str, Any],
        iterables: Mapping[str, Any],
        is_added: IsAdded | None = None,
        *,
        stale: bool = False,
    ) -> Mapping[str, Any]:
        """Put a graph back into the running frames, modules and objects; what is tracked in it, by name.

        ``stale``: the code before the place has not run on the state that is put back.  A name that is bound anew there
        before it is read is in no image, and holds nothing then: what it held is of another state.  Raises `ImageError`
        where the graph cannot be put back.
        """
        frames = {_scope(code): frame for code in places if (frame := frame_of(code)) is not None}
        if frames and not can_write_variables():
            raise ImageError("this Python does not let the variables of a running function be set")
        modules = {shared.scope: shared.module for shared in self._shared()}
        live: dict[str, Mapping[str, Any]] = {TRACKED: objects, LOOPS: iterables}
        live |= {scope: frame.f_locals for scope, frame in frames.items()}
        live |= {scope: vars(module) for scope, module in modules.items()}
        codes = [
            (str(frame.f_globals.get("__name__")), code)
            for frame in frames.values()
            for code in codes_around(frame)
        ]
        found = restore(graph, live, [*codes, *codes_of_modules(modules.values())], is_added)
        old = self._made_anew(places) if stale else {}
        for scope, names in found.items():
            gone = {*graph.gone.get(scope, ())}
            gone |= {
                name
                for name in old.get(scope, set()) - names.keys()
                if not isinstance(live[scope].get(name), (FunctionType, type, ModuleType))
            }
            self._seen.setdefault(scope, set()).update(gone)
            if scope in modules:
                vars(modules[scope]).update(names)
                for name in gone:
                    vars(modules[scope]).pop(name, None)
            elif scope in frames:
                with writable_variables(frames[scope]) as variables:
                    variables.update(names)
                    # A running function's variable cannot be unbound in every Python.
                    variables.update(dict.fromkeys(gone & variables.keys()))
        return found.get(TRACKED, {})


def _scope(code: CodeType) -> str:
    """The name of the scope of a running frame."""
    if code.co_qualname == "<module>":
        return "module __main__"
    return f"frame {code.co_qualname}"


def _is_value(value: Any) -> bool:
    """Whether a value is one that a name has to be bound to anew in order to change."""
    return type(value) in ATOMS or isinstance(value, torch.Tensor)


def _of_program(held: Mapping[str, Any]) -> dict[str, Any]:
    """Names without those of the interpreter and those of libraries' own code."""
    return {
        name: value
        for name, value in sorted(held.items())
        if not (name.startswith("__") and name.endswith("__")) and not is_constant(value)
    }


def binding(file: str, first: int, place: str) -> int:
    """The line, from ``first`` on, that first binds the variable with which a place begins; ``first`` if none does."""
    name = re.split(r"[.\[]", place)[0]
    try:
        tree = ast.parse(this_process.text_of(file))
    except SyntaxError:
        return first
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
        or (isinstance(node, ast.arg) and node.arg == name)
    ]
    return min((line for line in lines if line >= first), default=first)
