"""Settings of the process that the script may change while it runs: precision, threads, the environment.

They belong to no object.  An image has those that differ from what they were when the run was opened, as a script
sets most of them once, before.
"""

from __future__ import annotations

import decimal
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_LIBRARIES = ("_", "CUDA", "KMP", "NCCL", "OMP", "PYTORCH", "TORCH", "TRITON")
"""How the variables begin that libraries set for their own process, addresses among them."""
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "default dtype": (
        lambda: str(torch.get_default_dtype()).removeprefix("torch."),
        lambda name: torch.set_default_dtype(getattr(torch, name)),
    ),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda held: torch.use_deterministic_algorithms(held[0], warn_only=held[1]),
    ),
    "anomaly detection": (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "cudnn": (
        lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        lambda held: _set(torch.backends.cudnn, benchmark=held[0], deterministic=held[1]),
    ),
    "numpy errors": (lambda: dict(np.geterr()), lambda held: np.seterr(**held)),
    "numpy printing": (
        lambda: {key: held for key, held in np.get_printoptions().items() if _is_plain(held)},
        lambda held: np.set_printoptions(**held),
    ),
    "decimal": (
        lambda: (decimal.getcontext().prec, decimal.getcontext().rounding),
        lambda held: _set(decimal.getcontext(), prec=held[0], rounding=held[1]),
    ),
}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_LIBRARIES)}


def _set(target: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(target, name, value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


class Settings:
    """The process's settings, compared with those at the moment at which this object is made."""

    def __init__(self) -> None:
        self._before = {name: get() for name, (get, _) in _SETTINGS.items()}
        self._environment = _environment()

    def capture(self) -> dict[str, Any]:
        """The settings that have changed since, by name."""
        return {name: now for name, (get, _) in _SETTINGS.items() if (now := get()) != self._before[name]}

    def environment(self) -> dict[str, str | None]:
        """The variables of the environment that have changed since, None for those deleted."""
        before, now = self._environment, _environment()
        if now == before:
            return {}
        names = sorted(now.keys() | before.keys())
        return {name: now.get(name) for name in names if now.get(name) != before.get(name)}

    def restore(self, settings: dict[str, Any], environment: dict[str, str | None]) -> None:
        """Set what `capture` and `environment` gave, and all else as it was when this object was made."""
        for name, (get, put) in _SETTINGS.items():
            wanted = settings.get(name, self._before[name])
            if get() != wanted:
                put(wanted)
        held: dict[str, str | None] = {**self._environment, **environment}
        for name in _environment().keys() | held.keys():
            if (value := held.get(name)) is None:
                os.environ.pop(name, None)
            elif os.environ.get(name) != value:
                os.environ[name] = value
