"""Boosters and their data: objects of XGBoost and LightGBM, whose state lies in memory of a library in C++.

Their attributes are not their state.  A booster is taken by its library's own serialisation where training goes on
from that bit for bit, and refused by name where it does not: XGBoost keeps random generators, and LightGBM the scores
of its training data, that neither gives out.  Data are read and not computed: the set-up makes them again, and other
ones are refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from xxhash import xxh3_64_hexdigest

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk

_STEADY_OBJECTIVES = ("binary:", "count:", "multi:", "reg:", "survival:")
"""How the names of XGBoost's objectives begin that keep nothing from one round to the next; those of rankings do."""
_SAMPLING = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")
_FIELDS = ("label", "weight", "base_margin")
_GIVEN = frozenset(
    {"label", "weight", "group", "position", "init_score", "params", "reference", "used_indices"}
)
"""The attributes of LightGBM's data that say what it is made with."""


class _XgboostBooster(Kind):
    """``refs``: its serialisation, with the settings that were changed since it was made."""

    name = "xgboost booster"

    def take(self, walk: Walk, value: Any) -> Node:
        if why := _unsteady(json.loads(value.save_config())["learner"]):
            return walk.opaque(value, why)
        held = value.__getstate__()
        data = np.frombuffer(bytes(held.pop("handle")), np.uint8).copy()
        walk.memory.always_stored(data)
        return Node(self.name, walk.class_name(value), None, [walk.ref(data)], walk.attributes(value, held))

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".__getstate__()",))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        made = kind.__new__(kind)
        made.handle = None
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        kind = build.kind_named(node.name)
        read = kind.__new__(kind)
        read.__setstate__({"handle": bytearray(build.value(node.refs[0]))})
        held.handle, read.handle = read.handle, held.handle  # the other one is freed with what was there
        build.put(held, node.attributes, frozenset({"handle"}))


def _unsteady(learner: dict[str, Any]) -> str:
    """Why training does not go on from what XGBoost serialises as it would have, "" where it does."""
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree":
        return f"from what XGBoost saves of a {booster['name']!r} booster, training would go on differently"
    if (objective := learner["objective"]["name"]) and not objective.startswith(_STEADY_OBJECTIVES):
        return f"from what XGBoost saves with the objective {objective!r}, training would go on differently"
    for name in _SAMPLING:
        if float(booster["tree_train_param"][name]) != 1:
            share = booster["tree_train_param"][name]
            return f"it draws samples ({name}={share}), and XGBoost does not give out its random generator"
    if (
        booster["gbtree_train_param"]["process_type"] != "default"
        or learner["generic_param"]["device"] != "cpu"
    ):
        return "only new trees that are grown on the CPU are known to go on exactly"
    return ""


class _XgboostData(Kind):
    """``own``: the numbers of rows and columns, and a digest of labels, weights and margins.  Features are not read."""

    name = "xgboost data"
    described_as = "training data"

    def take(self, walk: Walk, value: Any) -> Node:
        return Node(self.name, walk.class_name(value), _digest_of(value))

    def refusal(self, node: Node, live: Any) -> str:
        return "" if _digest_of(live) == node.own else "has other rows, labels or weights now"

    def fill(self, build: Build, node: Node, held: Any) -> None:
        """Nothing is left to fill."""


def _digest_of(data: Any) -> tuple[int, int, str]:
    fields = [np.ascontiguousarray(data.get_float_info(name)).tobytes() for name in _FIELDS]
    return data.num_row(), data.num_col(), xxh3_64_hexdigest(b"".join(fields))


class _LightgbmBooster(Kind):
    """One that is trained no further; ``refs``: its text, which has every bit of its trees."""

    name = "lightgbm booster"

    def take(self, walk: Walk, value: Any) -> Node:
        if vars(value).get("train_set") is not None:
            return walk.opaque(
                value, "LightGBM does not give out the scores and random draws with which training goes on"
            )
        held = {name: part for name, part in vars(value).items() if name != "_handle"}
        data = np.frombuffer(value.model_to_string(num_iteration=-1).encode(), np.uint8).copy()
        walk.memory.always_stored(data)
        return Node(self.name, walk.class_name(value), None, [walk.ref(data)], walk.attributes(value, held))

    def steps(self, node: Node) -> Iterator[str]:
        return iter((".model_to_string()",))

    def make(self, build: Build, node: Node, live: Any) -> Any:
        kind = build.kind_named(node.name)
        made = kind.__new__(kind)
        made._handle = None
        return made

    def fill(self, build: Build, node: Node, held: Any) -> None:
        kind = build.kind_named(node.name)
        read = kind(model_str=build.value(node.refs[0]).tobytes().decode())
        held._handle, read._handle = read._handle, held._handle
        build.put(held, node.attributes, frozenset({"_handle"}))


class _LightgbmData(Kind):
    """Labels, weights, parameters.  Its features are not read: the live ones stay.

    ``own``: a digest of what LightGBM was given, None of one that is not constructed.  A live one that is not yet is
    constructed: the next use would do it with parameters of its own.
    """

    name = "lightgbm data"
    described_as = "training data"
    rank = 2

    def take(self, walk: Walk, value: Any) -> Node:
        if value._predictor is not None:
            return walk.opaque(value, "its scores begin with those of another model")
        held = {name: vars(value)[name] for name in _GIVEN}
        return Node(self.name, walk.class_name(value), _given_to(value), (), walk.attributes(value, held))

    def compared(self, node: Node) -> Any:
        return node.own is None

    def refusal(self, node: Node, live: Any) -> str:
        held = _given_to(live)
        return "" if held is None or node.own in (None, held) else "has other labels or weights now"

    def fill(self, build: Build, node: Node, held: Any) -> None:
        build.put(held, node.attributes, frozenset(vars(held)) - _GIVEN)
        if node.own is not None:
            held.construct()


def _given_to(data: Any) -> str | None:
    if data._handle is None:
        return None
    fields = (data.get_field(name) for name in ("label", "weight", "init_score", "group"))
    return xxh3_64_hexdigest(b"|".join(b"" if field is None else field.tobytes() for field in fields))


BOOSTERS: dict[str, Kind] = {
    "xgboost.core:Booster": _XgboostBooster(),
    "xgboost.core:DMatrix": _XgboostData(),
    "lightgbm.basic:Booster": _LightgbmBooster(),
    "lightgbm.basic:Dataset": _LightgbmData(),
}
"""By the name of their class: the libraries are not imported for that."""


@functools.cache
def booster_kind(kind: Any) -> Kind | None:
    """The kind for a class of these libraries or a subclass of one, None for any other."""
    names = (f"{base.__module__}:{base.__qualname__}" for base in kind.__mro__)
    return next((BOOSTERS[name] for name in names if name in BOOSTERS), None)
