"""Recording the loops of frameworks whose source is not known: by their public hooks (``specs/adoption.md``).

The public methods that train or evaluate are wrapped, of a class that is imported already or will be.  A call of one
attaches hooks to its object, for as long as it takes.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops, hooked_loops
from florlog.bridges.hooks import HOOKS
from florlog.bridges.hooks.attaching import Hooks
from florlog.program.terminal import reason, warn
from florlog.programs.finders import AfterImport

_Method = Callable[..., Any]


@contextmanager
def hooking(frameworks: Mapping[str, str]) -> Iterator[None]:
    """Within, calls of the frameworks' training have hooks, also of those that are imported within.

    ``frameworks``: name -> version.
    """
    if not frameworks:
        yield
        return
    methods = _Methods(frameworks)
    with AfterImport(methods.modules, methods.wrap):
        try:
            for name in methods.modules:
                if name in sys.modules:
                    methods.wrap(sys.modules[name])
            yield
        finally:
            methods.put_back()


class _Methods:
    """The methods that are wrapped."""

    def __init__(self, frameworks: Mapping[str, str]) -> None:
        self.modules = {
            HOOKS[name].module: (f"{name} {version}", HOOKS[name]) for name, version in frameworks.items()
        }
        self._before: list[tuple[type, str, Any]] = []
        self._hooked: list[Any] = []

    def wrap(self, module: ModuleType) -> None:
        """Wrap the methods of a module's class; without it nothing is recorded."""
        framework, hooks = self.modules[module.__name__]
        try:
            kind = getattr(module, hooks.kind)
            for name in hooks.methods:
                made = self._wrapped(getattr(kind, name), framework, hooks)
                self._before.append((kind, name, vars(kind).get(name)))
                setattr(kind, name, made)
        except Exception as error:
            warn(f"the loops of {framework} are not recorded: {reason(error)}")

    def put_back(self) -> None:
        """Give the classes their own methods."""
        for kind, name, method in reversed(self._before):
            if method is None:
                delattr(kind, name)
            else:
                setattr(kind, name, method)
        self._before.clear()

    def _wrapped(self, method: _Method, framework: str, hooks: Hooks) -> _Method:
        @functools.wraps(method)
        def called(itself: Any, /, *args: Any, **kwargs: Any) -> Any:
            loops = None
            if not any(itself is held for held in self._hooked):  # as in an evaluation that a training calls
                loops = hooked_loops(framework)
            if loops is None:
                return method(itself, *args, **kwargs)
            self._hooked.append(itself)
            try:
                return _call(method, loops, hooks, itself, args, kwargs)
            finally:
                self._hooked.pop()

        return called


def _call(
    method: _Method,
    loops: HookedLoops,
    hooks: Hooks,
    itself: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call a method of an object that has hooks meanwhile."""
    try:
        call = inspect.signature(method).bind(itself, *args, **kwargs)
        attached = hooks.attach(loops, itself, call)
        attached.__enter__()
    except Exception as error:  # also where the arguments are wrong, as the method itself says then
        loops.fail(error)
        return method(itself, *args, **kwargs)

    try:
        result = method(*call.args, **call.kwargs)
    except BaseException:
        with loops.harmless():
            attached.__exit__(None, None, None)
        loops.left()
        raise
    with loops.harmless():
        attached.__exit__(None, None, None)
    loops.close()
    return result
