"""A replay goes past code that it need not run: a whole loop, or a piece of an iteration.

What the code would have left is done in its place: random numbers drawn, modes of modules set.  Where that is not all
that it would have left, nothing is changed, and the code is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from florlog_wal import Commit
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader

from florlog.following.stack import OpenLoop
from florlog.recording.entry_state import entry_state, restore_entry
from florlog.recording.fingerprints import rng_fingerprint
from florlog.source.skip.acts import Act, Items, Mode
from florlog.state.cursors import can_restart, draw
from florlog.state.iterables import holds_still
from florlog.state.random_generators import Randomness


class PassingOver:
    """For one run; ``objects`` are those that it tracks, ``sampled`` gives the fingerprint of their parameters."""

    def __init__(self, objects: Mapping[str, Any], random: Randomness, sampled: Callable[[], bytes]) -> None:
        self._objects = objects
        self._random = random
        self._sampled = sampled

    def skip(self, loop: OpenLoop, last: Commit) -> str:
        """Go to the end of a loop without running it, drawing what its data draw; ``last``: its last commit.

        Returns "" when that is done.  Where a fingerprint of that commit is not the one now, nothing is changed, and
        the answer says what differs.
        """
        cursor = loop.cursor
        if cursor is None or loop.recorded is None or not can_restart(cursor.iterable):
            return "its data cannot be passed over"
        if any(map(_has_buffers, self._in_training())):
            return "a model with buffers is in training mode"
        before = entry_state(cursor.iterable, self._random)
        cursor.seek(last.index + 1)
        why = ""
        if rng_fingerprint() != last.rng:
            why = "it draws random numbers"
        elif last.state and self._sampled() != last.state:
            why = "it changes parameters"
        elif not loop.recorded.left:
            try:
                cursor.next()  # a sampler may draw once more after the last item
                why = "it has more items than were recorded"
            except StopIteration:
                pass
        if why:
            restore_entry(before, cursor.iterable, self._random)
            cursor.rewind()
        return why

    def pass_over(self, acts: Sequence[Act], objects: Sequence[Any]) -> str:
        """Do ``acts``, the lasting effects of a piece of code, in its place; each has its object in ``objects``.

        Returns "" when that is done.  Where it cannot be done, nothing is changed, and the answer says why.
        """
        calm: set[torch.nn.Module] = set()
        before: dict[torch.nn.Module, bool] = {}
        for act, target in zip(acts, objects, strict=True):
            if isinstance(act, Items):
                whole = act.whole and isinstance(target, DataLoader) and can_restart(target)
                if not whole and not holds_still(target):
                    return "its data cannot be passed over"
            elif not isinstance(target, torch.nn.Module):
                return "it sets the mode of something unknown"
            else:
                before[target] = target.training
                if act.first and act.training is False:
                    calm.update(target.modules())
        rest = (child for child in self._in_training() if child not in calm)
        if any(_has_buffers(child) or isinstance(child, _DropoutNd) for child in rest):
            return "a model that training changes is in training mode"
        for act, target in zip(acts, objects, strict=True):
            if isinstance(act, Mode):
                training = before[target] if act.training is None else act.training
                target.train() if training else target.eval()
            elif isinstance(target, DataLoader):
                draw(target)
        return ""

    def _in_training(self) -> Iterator[torch.nn.Module]:
        """The parts of what is tracked that are in training mode."""
        for target in self._objects.values():
            if isinstance(target, torch.nn.Module):
                yield from (child for child in target.modules() if child.training)


def _has_buffers(module: torch.nn.Module) -> bool:
    """Whether a module in training mode may change by a call, as a batch normalisation changes its averages."""
    return any(True for _ in module.buffers(recurse=False))
