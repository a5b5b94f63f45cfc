"""Lightning, under either name: a `Callback` without state, which is the first.

What `self.log` was given is read from ``trainer.logged_metrics``, where Lightning has computed it: after a batch, after
an evaluation, and when the next epoch begins.  To read it earlier would compute metrics of an epoch, which several
processes do together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import BoundArguments
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops
from florlog.bridges.hooks.attaching import News, callback, first_of, module

_NAMES = (
    "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end",
    "on_validation_batch_start", "on_validation_batch_end", "on_validation_end",
    "on_test_batch_start", "on_test_batch_end", "on_test_end",
)  # fmt: skip


@contextmanager
def attached(loops: HookedLoops, trainer: Any, call: BoundArguments) -> Iterator[None]:
    """Within, a Trainer has hooks."""
    ours = any(kind.__module__.startswith("lightning.") for kind in type(trainer).__mro__)
    base = module("lightning.pytorch" if ours else "pytorch_lightning").Callback
    with first_of(trainer, callback(loops, base, _Hooks(loops, trainer), _NAMES)):
        yield


class _Hooks:
    def __init__(self, loops: HookedLoops, trainer: Any) -> None:
        self._loops = loops
        self._trainer = trainer
        self._news = News({})

    def _tell(self) -> None:
        if not self._trainer.sanity_checking:
            self._loops.told(self._news.of(self._trainer.logged_metrics))

    def on_train_epoch_start(self, *_: Any) -> None:
        self._tell()
        self._loops.began("epoch")

    def on_train_batch_start(self, *_: Any) -> None:
        if self._loops.is_open("step"):
            self._tell()
        self._loops.began("step")

    def on_train_batch_end(self, *_: Any) -> None:
        self._tell()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._loops.ended("step")

    def on_train_end(self, *_: Any) -> None:
        self._tell()
        self._loops.ended("epoch")

    def on_validation_batch_start(self, *_: Any) -> None:
        self._loops.began("val")

    def on_validation_batch_end(self, *_: Any) -> None:
        self._tell()

    def on_validation_end(self, *_: Any) -> None:
        self._loops.ended("val")
        self._tell()

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end
