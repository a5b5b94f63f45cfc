"""The numbers of a state under a name, for conditions: ``norm(state['model'])``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from florlog.errors import FlorlogError
from florlog.state.leaves import named_leaves


class StateElements:
    """All numbers of the leaves at a name or below it; raises `FlorlogError` where there are none."""

    def __init__(self, state: Mapping[str, Any], name: str) -> None:
        self._name = name
        tracked = name.partition(".")[0]
        leaves = dict(named_leaves(state[tracked], tracked)) if tracked in state else {}
        self._tensors = [
            held.flatten()
            for leaf, value in leaves.items()
            if (leaf == name or leaf.startswith(f"{name}.")) and (held := _numbers(value)) is not None
        ]
        if not self._tensors:
            known = list(leaves) or list(state)
            listed = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
            raise FlorlogError(f"the state has no numbers under {name!r}: it has {listed}")

    def single(self) -> Any:
        """The number, where there is just one; else raises ValueError."""
        if sum(tensor.numel() for tensor in self._tensors) != 1:
            raise ValueError(
                f"state[{self._name!r}] is more than one number: put it into norm, min, max or mean"
            )
        return next(tensor for tensor in self._tensors if tensor.numel()).item()

    def reduce(self, function: str) -> Any:
        """One number, or truth, of all: isfinite if all are, isnan and isinf if any is; in double precision."""
        match function:
            case "isfinite":
                return all(bool(torch.isfinite(tensor).all()) for tensor in self._tensors)
            case "isnan":
                return any(bool(torch.isnan(tensor).any()) for tensor in self._tensors)
            case "isinf":
                return any(bool(torch.isinf(tensor).any()) for tensor in self._tensors)
            case "abs":
                return abs(self.single())
        parts = [tensor.double() for tensor in self._tensors if tensor.numel()]
        if not parts:
            raise ValueError(f"state[{self._name!r}] is empty")
        match function:
            case "norm":
                return torch.stack([torch.linalg.vector_norm(part) for part in parts]).norm().item()
            case "min" | "max":
                return getattr(torch.stack([getattr(part, function)() for part in parts]), function)().item()
            case "mean":
                return sum(part.sum().item() for part in parts) / sum(part.numel() for part in parts)
        raise AssertionError(function)


def _numbers(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (
            None if value.is_complex() else value.to_dense() if value.layout is not torch.strided else value
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value))
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return torch.tensor(value, dtype=torch.float64)
    return None
