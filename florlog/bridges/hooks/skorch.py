"""skorch: a `Callback` that is the first of ``net.callbacks_``.

What the history has of a batch or an epoch is told when the next one begins: other callbacks write there too, after
this one.  The training's batches and those of the validation are two loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import BoundArguments
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops
from florlog.bridges.hooks.attaching import callback, module


class _Callbacks(list[tuple[str, Any]]):
    """The callbacks of a net with ours, which a pickled or copied net does not have."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return list, (self[1:],)


@contextmanager
def attached(loops: HookedLoops, net: Any, call: BoundArguments) -> Iterator[None]:
    """Within, a `skorch.NeuralNet` that is initialized has hooks."""
    base = module("skorch.callbacks").Callback
    hooks = _Hooks(loops)
    names = ("on_epoch_begin", "on_batch_begin", "on_epoch_end")
    before = net.callbacks_
    net.callbacks_ = ours = _Callbacks([("florlog", callback(loops, base, hooks, names)), *before])
    try:
        yield
    finally:
        if net.callbacks_ is ours:
            net.callbacks_ = before
        loops.guarded(hooks.end)()


class _Hooks:
    def __init__(self, loops: HookedLoops) -> None:
        self._loops = loops
        self._epoch: Mapping[str, Any] = {}
        self._batch: Mapping[str, Any] = {}
        self._training = True
        self._trained = False  # the epoch, to its end

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.end()
        self._loops.began("epoch")
        self._epoch = net.history[-1]

    def on_batch_begin(self, net: Any, *, training: bool = False, **_: Any) -> None:
        self._tell_batch()
        if training is not self._training:
            self._loops.ended("batch")
        self._loops.began("batch")
        self._batch, self._training = net.history[-1]["batches"][-1], training

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self._tell_batch()
        self._loops.ended("batch")
        self._trained = True

    def _tell_batch(self) -> None:
        self._loops.told(self._batch)
        self._batch = {}

    def end(self) -> None:
        """An epoch that was trained to its end is over, also where a callback then stops the training."""
        if self._trained:
            self._loops.told({name: value for name, value in self._epoch.items() if name != "batches"})
            self._loops.between("epoch")
            self._trained = False
