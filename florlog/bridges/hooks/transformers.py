"""transformers: a `TrainerCallback`, which is the first.

A step begins with the first batch of its accumulation group, ``micro``.  No hook comes before the batches of an
evaluation, so what they print is in the step around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import BoundArguments
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops
from florlog.bridges.hooks.attaching import callback, first_of, module


@contextmanager
def attached(loops: HookedLoops, trainer: Any, call: BoundArguments) -> Iterator[None]:
    """Within, a `transformers.Trainer` has hooks."""
    base = module("transformers.trainer_callback").TrainerCallback
    names = ("on_epoch_begin", "on_step_begin", "on_substep_end", "on_epoch_end", "on_log")
    with first_of(trainer.callback_handler, callback(loops, base, _Hooks(loops), names)):
        yield


class _Hooks:
    def __init__(self, loops: HookedLoops) -> None:
        self._loops = loops

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._loops.began("epoch")

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._loops.began("step")
        self._loops.began("micro")

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self._loops.began("micro")

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self._loops.ended("step")

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        if logs is not None and "train_runtime" in logs:  # the summary, after the last epoch
            self._loops.ended("epoch")
        self._loops.told(logs or {})
