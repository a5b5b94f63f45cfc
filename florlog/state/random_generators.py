"""The state of random generators: Python's, NumPy's, torch's and MLX's, given or of the whole process.

Captured is what the next draw depends on, a normal number kept for later included.  A generator of the operating
system (``random.SystemRandom``) has no state, and asking for it raises.  Those in other processes are not seen.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from florlog.state.generator_memory import GeneratorMemory, Memory, is_same
from florlog.state.tree import StateTree


class TorchGeneratorAdapter:
    """A torch generator, on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def capture(self) -> StateTree:
        return self.generator.get_state()

    def restore(self, tree: StateTree) -> None:
        self.generator.set_state(tree)


class PythonRandomAdapter:
    """A ``random.Random``; attributes of a subclass are not captured."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator

    def capture(self) -> StateTree:
        version, words, gauss = self.generator.getstate()
        return (version, np.array(words, dtype=np.uint32), gauss)

    def restore(self, tree: StateTree) -> None:
        version, words, gauss = tree
        self.generator.setstate((version, tuple(int(word) for word in words), gauss))


class NumpyGeneratorAdapter:
    """A NumPy generator, by its bit generator: two generators over one share its state.  Its seed sequence is not
    captured, so what ``spawn`` gives next is not either.
    """

    def __init__(self, generator: np.random.Generator | np.random.BitGenerator) -> None:
        self.bits: Any = generator
        if isinstance(generator, np.random.Generator):
            self.bits = generator.bit_generator

    def capture(self) -> StateTree:
        return dict(self.bits.state)

    def restore(self, tree: StateTree) -> None:
        self.bits.state = tree


class NumpyLegacyAdapter:
    """A ``numpy.random.RandomState``, with any bit generator."""

    def __init__(self, state: np.random.RandomState) -> None:
        self.state = state

    def capture(self) -> StateTree:
        return self.state.get_state(legacy=False)

    def restore(self, tree: StateTree) -> None:
        self.state.set_state(tree)


ADAPTERS: dict[type, Callable[[Any], Any]] = {
    torch.Generator: TorchGeneratorAdapter,
    random.Random: PythonRandomAdapter,
    np.random.Generator: NumpyGeneratorAdapter,
    np.random.BitGenerator: NumpyGeneratorAdapter,
    np.random.RandomState: NumpyLegacyAdapter,
}
"""The types of random generators, their subclasses included, and what captures them."""


class Randomness:
    """The RNGs that are tracked without asking: Python's, NumPy's, torch's on the CPU and each CUDA device, MLX's."""

    def __init__(self) -> None:
        python, numpy = random._inst, np.random.mtrand._rand
        self._python = PythonRandomAdapter(python)
        self._numpy = NumpyLegacyAdapter(numpy)
        self._memory = GeneratorMemory(python, numpy)
        self._captured: tuple[Memory | None, StateTree, StateTree] = None, None, None
        """The states of Python's and NumPy's, and the memory that had them."""

    def capture(self) -> StateTree:
        """The states of all of them, as one tree; it may share parts with another one, so it must not be changed."""
        memory = self._memory.now()
        if not is_same(memory, self._captured[0]):
            python, numpy = self._python.capture(), self._numpy.capture()
            # Another thread may have drawn meanwhile.
            known = memory if is_same(memory, self._memory.now()) else None
            self._captured = known, python, numpy
        _, python, numpy = self._captured
        return {
            "python": python,
            "numpy": numpy,
            "torch": torch.get_rng_state(),
            "cuda": list(torch.cuda.get_rng_state_all()) if _HAS_CUDA and torch.cuda.is_available() else [],
            "mlx": _mlx_key(),
        }

    def restore(self, tree: StateTree) -> None:
        """Set all of them to a state that `capture` gave."""
        self._python.restore(tree["python"])
        self._numpy.restore(tree["numpy"])
        torch.set_rng_state(tree["torch"])
        if tree["cuda"]:
            torch.cuda.set_rng_state_all(tree["cuda"])
        if (key := tree.get("mlx")) is not None and (mlx := sys.modules.get("mlx.core")) is not None:
            mlx.random.seed(key)


def _mlx_key() -> int | None:
    """The key of MLX's generator, which is what a seed becomes; None where MLX is not imported."""
    mlx = sys.modules.get("mlx.core")
    if mlx is None:
        return None
    high, low = mlx.random.state[0].tolist()
    return int(high << 32 | low)


_HAS_CUDA: bool = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
