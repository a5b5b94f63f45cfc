"""pytorch-ignite: handlers of an engine's events, the last of each.

What handlers of ``GET_BATCH_STARTED`` and ``EPOCH_STARTED`` print is outside the step, and outside the epoch.  The
output of a step is a value where it is a number, or has numbers under names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import BoundArguments
from numbers import Number
from typing import Any

from florlog.bridges.hooked_loops import HookedLoops
from florlog.bridges.hooks.attaching import News, module


@contextmanager
def attached(loops: HookedLoops, engine: Any, call: BoundArguments) -> Iterator[None]:
    """Within, an `ignite.engine.Engine` has hooks."""
    events = module("ignite.engine").Events
    hooks = _Hooks(loops)
    with ExitStack() as detaching:
        for name, hook in {
            "EPOCH_STARTED": hooks.epoch_started,
            "DATALOADER_STOP_ITERATION": hooks.data_ended,
            "GET_BATCH_COMPLETED": hooks.got_batch,
            "ITERATION_STARTED": hooks.iteration_started,
            "ITERATION_COMPLETED": hooks.iteration_completed,
            "EPOCH_COMPLETED": hooks.epoch_completed,
            "TERMINATE": hooks.ended,
            "COMPLETED": hooks.ended,
        }.items():
            detaching.enter_context(engine.add_event_handler(events[name], loops.guarded(hook)))
        yield


class _Hooks:
    def __init__(self, loops: HookedLoops) -> None:
        self._loops = loops
        self._news = News({})

    def epoch_started(self, engine: Any) -> None:
        self._loops.began("epoch")
        self._news = News(engine.state.metrics)

    def data_ended(self, engine: Any) -> None:
        """The pass that begins the data anew does nothing else; it is one of the engine's loop."""
        self._loops.began("step")
        self._loops.between("step")

    def got_batch(self, engine: Any) -> None:
        self._loops.began("step")

    def iteration_started(self, engine: Any) -> None:
        if not self._loops.is_open("step"):  # an engine without data gets no batches
            self._loops.began("step")

    def iteration_completed(self, engine: Any) -> None:
        self._loops.told(_numbers(engine.state.output) | self._news.of(engine.state.metrics))
        self._loops.between("step")

    def epoch_completed(self, engine: Any) -> None:
        self._loops.ended("step")
        self._loops.told(self._news.of(engine.state.metrics))
        self._loops.between("epoch")

    def ended(self, engine: Any) -> None:
        self._loops.ended("epoch")


def _numbers(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items() if _is_number(value)}
    return {"output": output} if _is_number(output) else {}


def _is_number(value: Any) -> bool:
    size = getattr(value, "numel", None)
    return isinstance(value, Number) or (callable(size) and size() == 1)
