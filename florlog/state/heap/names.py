"""Constants and code by their names, so that another process finds them."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Iterable
from typing import Any

from xxhash import xxh3_64_hexdigest

from florlog.errors import ImageError
from florlog.state.codes import codes_in


def constant_name(value: Any) -> str:
    """``module:qualified name`` of a class, function or module; the text of another constant."""
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.BuiltinFunctionType):
        module, shown = getattr(value, "__module__", None) or "", str(getattr(value, "__name__", ""))
        if getattr(sys.modules.get(module), shown, None) is value:  # torch.sum is a method of a hidden class
            return f"{module}:{shown}"
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}:{name}" if isinstance(name, str) else repr(value)


def constant(name: str) -> Any:
    """What `constant_name` named.  Raises `ImageError` where it is not to be found."""
    module, _, qualname = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
    except (ImportError, ValueError):
        raise ImageError(f"{name} is not to be found") from None
    inside = found
    try:
        for part in qualname.split(".") if qualname else ():
            found = getattr(found, part)
    except AttributeError:
        found = _class_inside(inside, qualname)
        if found is None:
            raise ImageError(f"{name} is not to be found") from None
    return found


def _class_inside(module: Any, qualname: str) -> type | None:
    """The class in another class's body that calls itself so; None if there is none, or several.

    ``Item = NamedTuple("Item", ...)`` in a class's body does not know where it is.
    """
    around = [
        part
        for part in vars(module).values()
        if isinstance(part, type) and part.__module__ == module.__name__
    ]
    found = {
        part
        for outer in around
        for part in vars(outer).values()
        if isinstance(part, type) and (part.__module__, part.__qualname__) == (module.__name__, qualname)
    }
    return found.pop() if len(found) == 1 else None


def function_name(value: types.FunctionType) -> str:
    """``module:qualified name`` of a function's code, whatever `functools.wraps` calls it; see `code_name`."""
    return f"{value.__globals__.get('__name__')}:{code_name(value.__code__)}"


@functools.lru_cache(maxsize=4096)
def code_name(code: types.CodeType) -> str:
    """The qualified name of code; that of a lambda has a digest of what it does, as several have one name.

    The line is no part of it: lines move when statements are added.
    """
    if code.co_name not in ("<lambda>", "<genexpr>"):
        return code.co_qualname
    constants = [c.co_code if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return f"{code.co_qualname}@{xxh3_64_hexdigest(repr((code.co_code, code.co_names, constants)).encode())}"


def codes_by_name(codes: Iterable[tuple[str, types.CodeType]]) -> dict[str, list[types.CodeType]]:
    """Code and all code inside it, by the name of its functions; ``codes``: modules' names with their code."""
    found: dict[str, list[types.CodeType]] = {}
    for module, code in codes:
        for inner in codes_in(code):
            known = found.setdefault(f"{module}:{code_name(inner)}", [])
            if inner not in known:
                known.append(inner)
    return found


def code_around(name: str) -> list[types.CodeType]:
    """The code in which a local function is made: that of the function or class that its module still has."""
    module, _, qualname = name.partition(":")
    try:
        outer = inspect.unwrap(constant(f"{module}:{qualname.partition('.<locals>')[0]}"))
    except (ImageError, ValueError):
        return []
    code = getattr(getattr(outer, "__func__", outer), "__code__", None)
    return [code] if isinstance(code, types.CodeType) else []
