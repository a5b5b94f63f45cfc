"""Comparing two graphs of one program: whether they describe the same state, and where they first differ.

Two graphs are walked together from the same names.  Node numbers may differ; which objects are shared must not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from florlog_wal import encode_value

from florlog.state.heap.dtypes import dtype_of
from florlog.state.heap.graph import Graph, Node, Ref, is_node
from florlog.state.heap.kinds import KINDS
from florlog.state.heap.kinds.data import WITHOUT_GRADIENT
from florlog.state.heap.memory import WHOLE, View
from florlog.state.inplace import bits


def difference(
    then: Graph,
    now: Graph,
    skipped: Container[tuple[str, str]] = (),
    aside: Container[str] = (),
    clocks: tuple[str, ...] = (),
) -> str:
    """The place of the first difference, "" if there is none.

    Only names that both graphs have are compared; ``skipped``: scope and name of those that are not; ``aside``: the
    attributes that are not, of whatever object; ``clocks``: how the keys of mappings end whose numbers are not,
    and how the names of attributes do, after a dot.
    """
    return _Comparison(then, now, aside, clocks).run(skipped)


class _Comparison:
    def __init__(self, then: Graph, now: Graph, aside: Container[str], clocks: tuple[str, ...]) -> None:
        self._aside = aside
        self._clocks = clocks
        self._then = then
        self._now = now
        self._pairs: dict[int, int] = {}
        self._back: dict[int, int] = {}
        self._regions: dict[int, int] = {}
        self._ahead: deque[tuple[int, int, str]] = deque()

    def run(self, skipped: Container[tuple[str, str]]) -> str:
        for scope, names in self._then.roots.items():
            others = self._now.roots.get(scope, {})
            for name, ref in names.items():
                wanted = name in others and (scope, name) not in skipped
                if wanted and not self._same(ref, others[name], name):
                    return name
        while self._ahead:
            one, other, place = self._ahead.popleft()
            if found := self._node(self._then.nodes[one], self._now.nodes[other], place):
                return found
        return ""

    def _same(self, one: Ref, other: Ref, place: str) -> bool:
        """Whether two references may mean the same; nodes are looked at later."""
        if type(one) is tuple and type(other) is tuple and one[0] == other[0] == "id":
            return self._same(("@", one[1]), ("@", other[1]), place)
        if not (is_node(one) and is_node(other)):
            return bool(type(one) is type(other) and encode_value(one) == encode_value(other))
        if one[1] in self._pairs or other[1] in self._back:
            return bool(self._pairs.get(one[1]) == other[1])
        self._pairs[one[1]] = other[1]
        self._back[other[1]] = one[1]
        self._ahead.append((one[1], other[1], place))
        return True

    def _node(self, one: Node, other: Node, place: str) -> str:
        if any(WITHOUT_GRADIENT in (node.attributes or ()) for node in (one, other)):
            one, other = _without_gradient(one), _without_gradient(other)
        if (one.kind, one.name, len(one.refs)) != (other.kind, other.name, len(other.refs)):
            return place
        if one.kind == "dict" and place.endswith(_HOOKS):
            one, other = _values(one), _values(other)
        if one.kind == "dict" and self._clocks:
            one, other = _without(one, self._clocks), _without(other, self._clocks)
        kind = KINDS[one.kind]
        if tuple not in map(type, chain(one.refs, other.refs)):
            if encode_value(list(one.refs)) != encode_value(list(other.refs)):
                pairs = zip(kind.steps(one), one.refs, other.refs, strict=True)
                return next((f"{place}{step}" for step, a, b in pairs if not self._same(a, b, "")), place)
        else:
            for mine, theirs, step in zip(one.refs, other.refs, kind.steps(one), strict=True):
                if not self._same(mine, theirs, f"{place}{step}"):
                    return f"{place}{step}"
        mine, theirs = one.attributes or {}, other.attributes or {}
        for name in sorted(mine.keys() | theirs.keys()):
            step = f"{place}.{name}"
            if name in self._aside or (name == "id" and one.name == _HANDLE):
                continue
            if f".{name}".endswith(self._clocks) and float is type(mine.get(name)) is type(theirs.get(name)):
                continue
            if name not in mine or name not in theirs or not self._same(mine[name], theirs[name], step):
                return step
        if isinstance(one.own, View):
            return "" if self._views(one.own, other.own) else place
        return "" if encode_value(kind.compared(one)) == encode_value(kind.compared(other)) else place

    def _views(self, one: View, other: View) -> bool:
        if replace(one, region=0) != replace(other, region=0) or min(one.region, 0) != min(other.region, 0):
            return False
        if one.region == WHOLE:
            return bits(_wholes(self._then)[one.first]) == bits(_wholes(self._now)[other.first])
        if one.region < 0:
            return True
        if self._regions.setdefault(one.region, other.region) != other.region:
            return False
        return _same_bytes(self._then.regions[one.region], self._now.regions[other.region], _span(one))


_HOOKS = ("hooks", "hooks_with_kwargs", "hooks_always_called")
_HANDLE = "torch.utils.hooks:RemovableHandle"


def _values(hooks: Node) -> Node:
    """A mapping of hooks without their numbers, which differ once added code has registered one."""
    keys = [None if type(key) is int else key for key in hooks.refs[hooks.own :: 2]]
    pairs = [part for pair in zip(keys, hooks.refs[hooks.own + 1 :: 2], strict=True) for part in pair]
    return replace(hooks, refs=[*hooks.refs[: hooks.own], *pairs])


def _without_gradient(tensor: Node) -> Node:
    """A tensor, compared with one whose gradient was left out."""
    attributes = {name: ref for name, ref in (tensor.attributes or {}).items() if name != WITHOUT_GRADIENT}
    return replace(tensor, refs=(None,), attributes=attributes)


def _without(mapping: Node, clocks: tuple[str, ...]) -> Node:
    """A mapping in which the numbers under such keys are None."""
    refs = list(mapping.refs)
    for place in range(mapping.own, len(refs), 2):
        key = refs[place]
        if isinstance(key, str) and key.endswith(clocks) and type(refs[place + 1]) is float:
            refs[place + 1] = None
    return replace(mapping, refs=refs)


def _wholes(graph: Graph) -> list[torch.Tensor]:
    return [region[1] for region in graph.regions if region[0] == "whole"]


def _span(view: View) -> slice:
    """The bytes of a region from a view's lowest element to its highest: what else a storage has may be anything."""
    if view.device == "numpy":
        size, unit = dtype_of(view.dtype).itemsize, 1
    else:
        size = unit = getattr(torch, view.dtype).itemsize
    steps = [(count - 1) * stride * unit for count, stride in zip(view.shape, view.strides, strict=True)]
    return slice(
        view.first + sum(step for step in steps if step < 0),
        view.first + sum(step for step in steps if step > 0) + size,
    )


def _same_bytes(one: tuple[Any, ...], other: tuple[Any, ...], span: slice) -> bool:
    if one[0] != other[0]:
        return False
    if one[0] != "bytes":
        return bool(one == other)
    mine, theirs = one[1].reshape(-1).view(torch.uint8), other[1].reshape(-1).view(torch.uint8)
    return mine.shape == theirs.shape and bool(torch.equal(mine[span].cpu(), theirs[span].cpu()))
