"""Which gradients an image leaves out: those that are computed anew before anything reads them.

Two things must say so.  The program's code: after the boundary, ``zero_grad()`` comes before anything that reads a
gradient (`florlog.source.carry.gradients`).  And what was seen: between the last image and this one the gradient was
removed and another one made, so nothing adds to it across steps.

Both are guesses about what comes.  A wrong one is found where the gradient is read (`florlog.state.left_out`); then
images without gradients are not used, and so every `COMPLETE_EVERY`-th image has them all.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from florlog.following.outside import present_texts
from florlog.following.stack import OpenLoop
from florlog.source.carry.gradients import cleared_before_read
from florlog.state.left_out import Gradients
from florlog.state.user_code import is_user_file

COMPLETE_EVERY = 8
"""Of so many images one has all gradients."""


class GradientLives:
    """What was seen of the gradients of one run's tracked modules."""

    def __init__(self, files: Callable[[], Iterable[str]]) -> None:
        """``files``: those of the program that are loaded."""
        self._seen: dict[tuple[str, str], weakref.ref[torch.Tensor]] = {}
        self._images = 0
        self._files = files
        self._cleared: dict[Any, bool] = {}

    def dead(self, loop: OpenLoop, objects: Mapping[str, Any], *, end: bool) -> Gradients:
        """The gradients that an image at a boundary leaves out; asked once for each image.

        ``objects``: what is tracked; ``end``: whether the boundary is the loop's end.
        """
        seen: dict[tuple[str, str], weakref.ref[torch.Tensor]] = {}
        found: dict[str, list[str]] = {}
        for tracked, module in objects.items():
            if not isinstance(module, torch.nn.Module):
                continue
            for name, parameter in module.named_parameters():
                if (gradient := parameter.grad) is None:
                    continue
                key = (tracked, name)
                if key in self._seen and self._seen[key]() is None:
                    found.setdefault(tracked, []).append(name)
                seen[key] = weakref.ref(gradient)
        self._seen = seen
        if not found or not self._is_cleared(loop, end=end):
            return {}
        self._images += 1
        return {} if self._images % COMPLETE_EVERY == 0 else found

    def _is_cleared(self, loop: OpenLoop, *, end: bool) -> bool:
        stack = tuple(place for place in loop.stack if is_user_file(place[0]))
        files = {file for file, _, _ in stack}.union(self._files())
        key = (stack, frozenset(files), end)
        if key not in self._cleared:
            texts = present_texts(sorted(files))
            self._cleared[key] = bool(stack) and cleared_before_read(texts, stack, end=end)
        return self._cleared[key]
