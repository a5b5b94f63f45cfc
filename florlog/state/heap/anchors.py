"""Where the bytes of a graph's regions go: the live memory of each, or new memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import xxhash

from florlog.errors import ImageError
from florlog.state.heap.graph import Graph
from florlog.state.heap.kinds.base import MISSING
from florlog.state.heap.memory import View, flat_memory, is_read_only


class Anchors:
    """The memory of each region, as flat bytes.  Raises `ImageError` where data of the set-up is not as it was."""

    def __init__(self, graph: Graph, live: Sequence[Any], place: Callable[[int], str]) -> None:
        self.memory: dict[int, torch.Tensor] = {}
        self._graph = graph
        self._place = place
        self._views = [
            (number, node.own)
            for number, node in enumerate(graph.nodes)
            if isinstance(node.own, View) and node.own.region >= 0
        ]
        self._anchor(live)
        self._check_constants()
        self._live = set(self.memory)
        self._make()

    def _size(self, region: int) -> int:
        kind, held, *_ = self._graph.regions[region]
        return int(held.nbytes if kind == "bytes" else held)

    def _anchor(self, live: Sequence[Any]) -> None:
        used: set[int] = set()
        for number, view in self._views:
            if live[number] is MISSING or view.region in self.memory:
                continue
            if self._graph.regions[view.region][0] == "bytes" and is_read_only(live[number]):
                continue
            memory = flat_memory(live[number])
            if memory is None:
                continue
            start, held, first = memory
            if held.nbytes == self._size(view.region) and first == view.first and start not in used:
                self.memory[view.region] = held
                used.add(start)

    def _check_constants(self) -> None:
        for number, view in self._views:
            kind, _, *digest = self._graph.regions[view.region]
            if kind != "constant":
                continue
            if view.region not in self.memory:
                raise ImageError(f"{self._place(number)} is data of the set-up that is not there any more")
            if xxhash.xxh3_128_digest(self.memory[view.region].numpy().data) != digest[0]:
                raise ImageError(f"{self._place(number)} holds other data than when it was recorded")

    def _make(self) -> None:
        for _, view in self._views:
            if view.region not in self.memory:
                device = "cpu" if view.device == "numpy" else view.device
                made = torch.zeros(self._size(view.region), dtype=torch.uint8, device=device)
                self.memory[view.region] = made
                self._copy(view.region)

    def fill(self) -> None:
        """Give live memory its bytes."""
        for region in self._live:
            self._copy(region)

    def _copy(self, region: int) -> None:
        kind, held, *_ = self._graph.regions[region]
        if kind == "bytes":
            with torch.no_grad():
                self.memory[region].copy_(held.reshape(-1).view(torch.uint8))
