"""What differs between two runs: parameters, source, environment, and the first iteration whose values differ."""

from __future__ import annotations

import difflib
from typing import Any

from florlog_wal import Path

from florlog.program.recorded_sources import recorded_sources
from florlog.program.signing import SIGNATURE
from florlog.reading.columns import RECORDED
from florlog.reading.reader import RunView
from florlog.reading.render import jsonable


def differences(first: RunView, second: RunView) -> dict[str, Any]:
    """Everything that differs, as ``florlog diff --format json`` prints it; empty parts are equal."""
    trees = [view.tree() for view in (first, second)]
    begins = trees[0].begin, trees[1].begin
    texts = [
        {_key(s.module, s.path): s.text for s in recorded_sources(view.log, tree)}
        for view, tree in zip((first, second), trees, strict=True)
    ]
    source = {
        name: list(
            difflib.unified_diff(
                texts[0].get(name, "").splitlines(), texts[1].get(name, "").splitlines(),
                f"{first.id}/{name}", f"{second.id}/{name}", lineterm="",
            )
        )
        for name in sorted(texts[0].keys() | texts[1].keys())
        if texts[0].get(name) != texts[1].get(name)
    }  # fmt: skip
    return {
        "runs": [first.id, second.id],
        "params": _changed(begins[0].params, begins[1].params),
        "environment": _changed(begins[0].environment, begins[1].environment, skip={"pid", SIGNATURE}),
        "arguments": [] if begins[0].argv == begins[1].argv else [list(begin.argv) for begin in begins],
        "source": source,
        "values": _values(first, second),
    }


def _key(module: str, path: str) -> str:
    return module if module != "__main__" else path.rpartition("/")[2]


def _changed(
    a: dict[str, Any], b: dict[str, Any], skip: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    keys = [key for key in {**a, **b} if key not in skip]
    pairs = {key: [jsonable(a.get(key)), jsonable(b.get(key))] for key in keys}
    return {
        key: pair for key, pair in pairs.items() if repr(pair[0]) != repr(pair[1]) or (key in a) != (key in b)
    }


def _values(first: RunView, second: RunView) -> dict[str, Any] | None:
    """The first iteration, in the first run's order, with a recorded value that differs; and how many there are."""
    held: list[dict[Path, dict[str, list[Any]]]] = [{}, {}]
    for table, view in zip(held, (first, second), strict=True):
        for value in view.logged():
            if value.trust == RECORDED:
                table.setdefault(value.path, {}).setdefault(value.name, []).append(jsonable(value.value))
    places = {**held[0], **held[1]}
    differing = [path for path in places if _repr(held[0].get(path)) != _repr(held[1].get(path))]
    if not differing:
        return None
    path = differing[0]
    mine, theirs = held[0].get(path, {}), held[1].get(path, {})
    names = [name for name in {**mine, **theirs} if _repr(mine.get(name)) != _repr(theirs.get(name))]
    return {
        "first": dict(path),
        "values": {name: [mine.get(name), theirs.get(name)] for name in names},
        "iterations": len(differing),
        "of": len(places),
    }


def _repr(value: Any) -> str:
    return repr(value)  # unlike ==, it separates 1 from True and 0.0 from -0.0, and a NaN equals itself
