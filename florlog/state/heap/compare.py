"""Comparing two graphs of one program: whether they describe the same state, and where they first differ.

Two graphs are walked together from the same names.  Node numbers may differ; which objects are shared must not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any

import torch
from florlog_wal import encode_value

from florlog.state.heap.capture import Graph, Ref
from florlog.state.heap.restore import steps
from florlog.state.inplace import bits


def difference(then: Graph, now: Graph, skipped: Container[tuple[str, str]] = ()) -> str:
    """The place of the first difference, "" if there is none.

    Only names that both graphs have are compared; ``skipped``: scope and name of those that are not.
    """
    return _Comparison(then, now).run(skipped)


class _Comparison:
    def __init__(self, then: Graph, now: Graph) -> None:
        self._then = then
        self._now = now
        self._pairs: dict[int, int] = {}
        self._back: dict[int, int] = {}
        self._regions: dict[int, int] = {}
        self._done: set[tuple[int, int]] = set()
        self._ahead: deque[tuple[int, int, str]] = deque()

    def run(self, skipped: Container[tuple[str, str]]) -> str:
        for scope, names in self._then.roots.items():
            others = self._now.roots.get(scope, {})
            for name, ref in names.items():
                if (
                    name in others
                    and (scope, name) not in skipped
                    and not self._same(ref, others[name], name)
                ):
                    return name
        while self._ahead:
            one, other, place = self._ahead.popleft()
            if step := self._nodes(self._then.nodes[one], self._now.nodes[other], place):
                return step
        return ""

    def _same(self, one: Ref, other: Ref, place: str) -> bool:
        """Whether two references may mean the same; nodes are looked at later."""
        if type(one) is not tuple or type(other) is not tuple or one[0] != "@" or other[0] != "@":
            return encode_value(one) == encode_value(other)
        if (
            self._pairs.setdefault(one[1], other[1]) != other[1]
            or self._back.setdefault(other[1], one[1]) != one[1]
        ):
            return False
        if (pair := (one[1], other[1])) not in self._done:
            self._done.add(pair)
            self._ahead.append((*pair, place))
        return True

    def _nodes(self, one: list[Any], other: list[Any], place: str) -> str:
        if one[:2] != other[:2] or len(one) != len(other):
            return place
        ones, others = list(steps(one)), list(steps(other))
        if len(ones) != len(others):
            return place
        for (mine, step), (theirs, name) in zip(ones, others, strict=True):
            if step != name or not self._same(mine, theirs, f"{place}{step}"):
                return f"{place}{step}"
        if one[0] in ("tensor", "array"):
            return "" if self._views(one[2], other[2]) else place
        return "" if encode_value(_own(one)) == encode_value(_own(other)) else place

    def _views(self, one: list[Any], other: list[Any]) -> bool:
        if one[1:] != other[1:] or (one[0] < 0) != (other[0] < 0):
            return False
        if one[0] == -1:
            return True
        if one[0] == -2:
            return bits(_wholes(self._then)[one[1]]) == bits(_wholes(self._now)[other[1]])
        if one[0] in self._regions:
            return bool(self._regions[one[0]] == other[0])
        self._regions[one[0]] = other[0]
        return _same_bytes(self._then.regions[one[0]], self._now.regions[other[0]])


def _own(node: list[Any]) -> list[Any]:
    """The parts of a node that are no references."""
    match node[0]:
        case "random" | "buffer" | "bytearray" | "file" | "named":
            return [part for part in node[2:4] if not isinstance(part, dict)]
        case "deque":
            return [node[4]]
        case "objects":
            return [node[1]]
    return []


def _wholes(graph: Graph) -> list[torch.Tensor]:
    return [region[1] for region in graph.regions if region[0] == "whole"]


def _same_bytes(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    if one[0] != other[0]:
        return False
    if one[0] != "bytes":
        return bool(one == other)
    mine, theirs = one[1].reshape(-1).view(torch.uint8), other[1].reshape(-1).view(torch.uint8)
    return mine.shape == theirs.shape and bool(torch.equal(mine.cpu(), theirs.cpu()))
