"""Keras, with any backend: a `Callback`, which is the first.

The mappings of logs are read when the next step or epoch begins: callbacks after this one may write to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import BoundArguments
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops
from florlog.bridges.hooks.attaching import callback, first_of, module

_NAMES = (
    "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end", "on_train_end",
    "on_test_begin", "on_test_batch_begin", "on_test_end",
)  # fmt: skip


@contextmanager
def attached(loops: HookedLoops, model: Any, call: BoundArguments) -> Iterator[None]:
    """Within, a call of a `keras.Model` has hooks."""
    callbacks = module("keras").callbacks
    hooks = _Hooks(loops)
    made = callback(loops, callbacks.Callback, hooks, _NAMES)
    given = call.arguments.get("callbacks")
    if isinstance(given, callbacks.CallbackList):
        with first_of(given, made):
            yield
    else:
        several = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        call.arguments["callbacks"] = [made, *several]
        yield


class _Hooks:
    def __init__(self, loops: HookedLoops) -> None:
        self._loops = loops
        self._step: Mapping[str, Any] = {}
        self._epoch: Mapping[str, Any] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._end_epoch()
        self._loops.began("epoch")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._tell_step()
        self._loops.began("step")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step = logs or {}

    def on_test_begin(self, logs: Any = None) -> None:
        self._end_steps()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._loops.began("val")

    def on_test_end(self, logs: Any = None) -> None:
        self._loops.ended("val")
        if not self._loops.is_open("epoch"):  # else the epoch has them
            self._loops.told(logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_steps()
        self._epoch = logs or {}

    def on_train_end(self, logs: Any = None) -> None:
        self._end_epoch()
        self._loops.ended("epoch")

    def _tell_step(self) -> None:
        self._loops.told(self._step)
        self._step = {}

    def _end_steps(self) -> None:
        self._tell_step()
        self._loops.ended("step")

    def _end_epoch(self) -> None:
        self._loops.told(self._epoch)
        self._epoch = {}
