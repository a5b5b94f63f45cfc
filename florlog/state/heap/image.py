"""A graph as an image keeps it: one tree whose references are plain data and whose regions are tensors."""

from __future__ import annotations

from typing import Any

import torch

from florlog.state.heap.graph import Graph, Node
from florlog.state.heap.memory import View
from florlog.state.tree import Skeleton, flatten

Flattened = tuple[Skeleton, list[tuple[str, torch.Tensor]]]


def flattened(graph: Graph, prefix: str) -> Flattened:
    """The graph as `florlog.state.tree.flatten` gives trees; keys of tensors start with ``prefix``.

    The nodes are one plain value: walking them as a tree would take longer than capturing them.
    """
    tensors: list[tuple[str, torch.Tensor]] = []
    regions: list[Skeleton] = []
    for number, (kind, *rest) in enumerate(graph.regions):
        if kind == "bytes":
            key = f"{prefix}.{number}"
            tensors.append((key, rest[0]))
            regions.append(("u", [("v", kind), ("t", key)]))
        elif kind == "whole":
            skeleton, parts = flatten(rest[0], f"{prefix}.{number}")
            tensors.extend(parts)
            regions.append(("u", [("v", kind), skeleton]))
        else:
            regions.append(("v", (kind, *rest)))
    plain = {
        "roots": graph.roots,
        "nodes": list(map(_plain, graph.nodes)),
        "missing": graph.missing,
        "gone": graph.gone,
    }
    pairs: list[tuple[Skeleton, Skeleton]] = [
        (("v", "graph"), ("v", plain)),
        (("v", "regions"), ("l", regions)),
    ]
    return ("d", pairs), tensors


def graph_of(tree: dict[str, Any]) -> Graph:
    """The graph that `flattened` took apart, from the tree that `florlog.state.tree.unflatten` gives."""
    plain = tree["graph"]
    nodes = list(map(_node, plain["nodes"]))
    return Graph(plain["roots"], nodes, tree["regions"], plain["missing"], plain["gone"])


def _plain(node: Node) -> tuple[Any, ...]:
    own = node.own
    if isinstance(own, View):
        own = (
            own.region, own.first, own.dtype, own.shape, own.strides, own.flag, own.device, own.conjugate, own.negative,
        )  # fmt: skip
    return (node.kind, node.name, own, node.refs, node.attributes)


def _node(plain: tuple[Any, ...]) -> Node:
    node = Node(*plain)
    if node.kind in ("tensor", "array"):
        node.own = View(*node.own)
    return node
