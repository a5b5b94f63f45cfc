"""Computations that still await their backward pass: no image may be taken while a captured tensor is one."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from florlog_wal import Unencodable

_MAX_NODES = 256  # of a computation that are looked at; in all seen so far the first few decided
_saved_names: dict[type, tuple[str, ...]] = {}  # by kind of grad_fn


class Pending(Unencodable):
    """A tensor from which a backward pass may still go: its value without the computation is not its state."""

    def __init__(self, where: str) -> None:
        super().__init__("computation", where)
        self.args = (f"{where or 'it'} is a computation whose gradient is still to be computed",)


def awaits_gradient(function: Any) -> bool:
    """Whether a backward pass can still go through a tensor's ``grad_fn``.

    A pass frees the tensors that the computation saved, and reading one then raises; so does one that was overwritten,
    as by an optimizer's step.  A computation that saved none can be gone through again, so it counts as pending.
    """
    seen, ahead = {function}, deque([function])
    while ahead and len(seen) < _MAX_NODES:
        node = ahead.popleft()
        try:
            held = [getattr(node, name) for name in _saved(type(node))]
        except RuntimeError:
            return False
        if any(isinstance(part, torch.Tensor) or (isinstance(part, tuple) and part) for part in held):
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)
    return True


def _saved(kind: type) -> tuple[str, ...]:
    """The attributes of a kind of ``grad_fn`` that give saved tensors."""
    names = _saved_names.get(kind)
    if names is None:
        raw = (name.removeprefix("_raw") for name in dir(kind) if name.startswith("_raw_saved_"))
        # A function written in Python has no underscore there.
        names = _saved_names[kind] = tuple(name if hasattr(kind, name) else name[1:] for name in raw)
    return names
