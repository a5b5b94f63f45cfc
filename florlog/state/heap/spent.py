"""Attributes whose values a library no longer needs, though it still holds them: what images have in their place.

Keras prepares the iterator of the next epoch when an epoch has ended, of classes that are made inside a function, and
makes another one when that epoch begins: nobody else could make the one that waits.  Its callbacks for batches may run
in a thread, and it keeps what it waits for them with.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

_NONE: Mapping[str, Any] = {}


def spent(value: Any) -> Mapping[str, Any]:
    """The attributes of an object that are spent, with what stands in their place."""
    kind = type(value)
    asked = _SPENT.get((kind.__module__, kind.__qualname__))
    return _NONE if asked is None else asked(value)


def _between_epochs(iterator: Any) -> Mapping[str, Any]:
    """Of Keras' iterator over epochs; with ``steps_per_epoch`` one iterator goes on over several of them."""
    held = vars(iterator)
    epoch = held.get("_epoch_iterator")
    ended = epoch is None or (isinstance(epoch, types.GeneratorType) and epoch.gi_frame is None)
    return {"_current_iterator": None} if ended and held.get("steps_per_epoch") is None else _NONE


def _after_callbacks(callbacks: Any) -> Mapping[str, Any]:
    """Of Keras' callbacks, once those that run in a thread have run; one that failed stays, and is raised later."""
    futures = vars(callbacks).get("_futures")
    if not futures or any(future.exception() for future in futures):  # it waits for each
        return _NONE
    return {"_futures": []}


_SPENT: dict[tuple[str, str], Callable[[Any], Mapping[str, Any]]] = {
    ("keras.src.backend.torch.trainer", "TorchEpochIterator"): _between_epochs,
    ("keras.src.callbacks.callback_list", "CallbackList"): _after_callbacks,
}
