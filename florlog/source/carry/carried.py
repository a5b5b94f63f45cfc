"""The names that a loop carries: what an image must contain so that a frame can go on from it.

An image of the tracked state is not the whole state of a run: a script also keeps plain variables (a best loss, a list
of losses, a counter).  If a frame stands at some point when an image is taken, a name must be captured if

* it may *differ* from what the straight code before the point made of it.  That is so if it is rebound inside the
  outermost loop around the point, or if the object that it names may be changed there.  Without a loop, anywhere up to
  the point counts.
* and it is *live*: it may be read later.  Names that a nested function uses are always live and may always change.  For
  a module these are the globals that its functions use.

Both err towards more names (`florlog.source.carry.frame_names`, `florlog.source.carry.liveness`).  A name that is bound
only by ``import`` or ``def`` is left out unless something is stored into it.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from florlog.source.carry.frame_names import FrameNames
from florlog.source.carry.liveness import NOTHING, Names
from florlog.source.names.by_text import BINDING_BUILTINS
from florlog.source.names.scopes import Scopes
from florlog.source.names.syntax import FUNCTIONS, parse, walk


def carried_names(source: str | ast.Module, qualname: str, firstlineno: int, line: int) -> Names:
    """The names to capture in a frame that stands at a line of a code object.

    ``qualname`` and ``firstlineno`` are those of the code object.  Code without statements (a lambda, a comprehension)
    carries nothing.  Raises `LookupError` if the source has no such code object.
    """
    frame = _frame(source, qualname, firstlineno)
    return NOTHING if frame is None else frame.carried(line)


def shared_names(source: str) -> Names:
    """The globals of a module that its functions use."""
    frame = _frame(source, "<module>", 1)
    return NOTHING if frame is None else frame.captured - frame.definitions


def names_by_text(source: str) -> bool:
    """Whether a module may bind names that its code does not show, by ``globals()``, ``exec`` and the like."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id in BINDING_BUILTINS or (node.func.id == "vars" and not node.args))
        for node in walk(scopes_of(source).root.node)
    )


@lru_cache(maxsize=256)
def _frame(source: str | ast.Module, qualname: str, firstlineno: int) -> FrameNames | None:
    if qualname.endswith(">") and qualname != "<module>":
        return None
    scopes = scopes_of(source)
    if qualname == "<module>":
        return FrameNames(scopes, scopes.root)
    for node, scope in scopes.inner.items():
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and scope.qualname == qualname:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == firstlineno:
                return FrameNames(scopes, scope)
    raise LookupError(f"no code {qualname} at line {firstlineno}")


@lru_cache(maxsize=64)
def scopes_of(source: str | ast.Module) -> Scopes:
    """The scopes of a module; kept for the modules that were asked for last."""
    return Scopes(parse(source, "<source>") if isinstance(source, str) else source)
