"""Derived state: regenerated from the saved state after a restore, never stored (LWCP, ICPP 2019, section 4).

An index over embeddings, a cache, a table of neighbours can be larger than what it is made of.  Named as derived, such
an object is left out of images, and its function makes it again.  Whether that gives the same state is
checked: at a run's first image, and at its 2nd, 4th, 8th ... after that, the function is called and what it made is
compared with the state, bit for bit.  The training never sees that: the object and the random generators are
put back.  Where the two differ, or the function fails, the state is *masked*: stored in full from then on.

A function may regenerate its object in place and return None, or return the state to give it: what the object's own
``state_dict`` gives, or for a tensor, an array or a container its contents.  A derived name without an object is
something to do after a restore, and there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from florlog.state.adapters import Adapter
from florlog.state.inplace import bits
from florlog.state.random_generators import Randomness
from florlog.state.tree import StateTree, flatten, unflatten

Regenerator = Callable[[], Any]


class Derived:
    """The derived state of one run."""

    def __init__(self, random: Randomness, warn: Callable[[str, str], None]) -> None:
        self.masked: set[str] = set()
        self._functions: dict[str, Regenerator] = {}
        self._random = random
        self._warn = warn
        self._images = 0

    def add(self, name: str, function: Regenerator) -> None:
        """Regenerate ``name`` by a function."""
        self._functions[name] = function

    def omitted(self) -> set[str]:
        """The names that images leave out."""
        return self._functions.keys() - self.masked

    def check(self, tracked: dict[str, Adapter]) -> None:
        """Before an image: compare, if it is this image's turn."""
        self._images += 1
        if self._images & (self._images - 1):
            return
        for name in sorted(self.omitted() & tracked.keys()):
            if why := self._difference(name, tracked[name]):
                self.masked.add(name)
                self._warn(f"derived state {name!r} is stored in full from now on: {why}", "")

    def _difference(self, name: str, held: Adapter) -> str:
        """Why regenerating does not give the present state, "" if it does."""
        generators, before = self._random.capture(), _copied(held.capture())
        try:
            self._regenerate(name, held)
            same = bits(held.capture()) == bits(before)
            return "" if same else "its function makes another state than the one there is"
        except Exception as error:  # the user's function; the training goes on
            return f"its function failed ({type(error).__name__}: {error})"
        finally:
            held.restore(before)
            self._random.restore(generators)

    def _regenerate(self, name: str, held: Adapter | None) -> None:
        made = self._functions[name]()
        if held is not None and made is not None:
            held.restore(_like(made, held))

    def regenerate(self, tracked: dict[str, Adapter], stored: set[str]) -> None:
        """After a restore: make what the image, which has ``stored``, left out."""
        self.masked |= self._functions.keys() & stored
        for name in self._functions:
            if name not in stored:
                self._regenerate(name, tracked.get(name))


def _copied(tree: StateTree) -> StateTree:
    skeleton, tensors = flatten(tree, "")
    held = {key: tensor.clone() for key, tensor in tensors}
    return unflatten(skeleton, held.__getitem__)


def _like(made: Any, held: Adapter) -> StateTree:
    """What a function returned, as a tree that the object's adapter restores."""
    tree = held.capture()
    if isinstance(made, torch.Tensor) and isinstance(tree, dict) and tree.keys() == {"data", "grad"}:
        return {"data": made.detach(), "grad": tree["grad"]}
    if isinstance(tree, dict) and "state" in tree and "loose" in tree:  # a module's own state_dict
        return {**tree, "state": made}
    return made
