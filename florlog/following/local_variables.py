"""The variables of running frames in an image, and those of now compared with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    saved: SavedState, trees: dict[str, Any], stale: Collection[tuple[str, str]] = ()
) -> str:
    """The name of a variable that differs from the image, "" if none does.

    ``stale``: frames and variables, and attributes with "" for a frame, that are left aside.
    """
    attributes = {name for frame, name in stale if not frame}
    for name in variables_of(saved):
        then, now = saved.tree(f"/{name}"), trees.get(f"/{name}", {})
        for variable in then.keys() & now.keys():
            if (name.removeprefix("locals "), variable) in stale:
                continue
            if _differ(then[variable], now[variable], attributes):
                return str(variable)
    return ""


def _differ(then: Any, now: Any, aside: Collection[str]) -> bool:
    """Whether two trees differ in a leaf: which of them share memory does not matter."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() != now.keys() or any(
            _differ(then[key], now[key], aside) for key in then if key not in aside
        )
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(then) != len(now) or any(_differ(*pair, aside) for pair in zip(then, now, strict=True))
    return bits(then) != bits(now)
