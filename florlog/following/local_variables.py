"""The variables of running frames in an image, and those of now compared with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from florlog.images.imager import SavedState
from florlog.state.inplace import bits

Variables = Mapping[str, Collection[str]]
"""Frame -> names of variables."""


def variables_of(saved: SavedState) -> Variables:
    """The variables that an image has."""
    names = (name for name in saved.names() if name.startswith("/locals"))
    return {name.removeprefix("/"): saved.tree(name).keys() for name in names}


def local_difference(
    saved: SavedState,
    trees: dict[str, Any],
    stale: Collection[tuple[str, str]] = (),
    holds_time: Callable[[str], bool] = lambda variable: False,
) -> str:
    """The name of a variable that differs from the image, "" if none does.

    ``stale`` frames and variables do not count, and neither do variables of which ``holds_time`` is true.
    """
    for name in variables_of(saved):
        then, now = saved.tree(f"/{name}"), trees.get(f"/{name}", {})
        for variable in then.keys() & now.keys():
            if (name.removeprefix("locals "), variable) in stale:
                continue
            if _differ(then[variable], now[variable]) and not holds_time(variable):
                return str(variable)
    return ""


def _differ(then: Any, now: Any) -> bool:
    """Whether two trees differ in a leaf: which of them share memory does not matter."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() != now.keys() or any(_differ(then[key], now[key]) for key in then)
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(then) != len(now) or any(_differ(*pair) for pair in zip(then, now, strict=True))
    return bits(then) != bits(now)
