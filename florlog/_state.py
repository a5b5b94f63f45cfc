"""What is tracked, and how each kind of object gives its state and takes it back.

An adapter turns an object into a *tree*: nested lists, tuples and dicts whose leaves are tensors, NumPy
arrays and plain values.  `flatten` splits a tree into tensors, which become pages, and a skeleton, which
is one encoded host value.  The tree of a boundary is a copy in structure only; copying the tensors is the
snapshot's work (``_image.py``).

A module's tree holds more than its ``state_dict``: gradients (a boundary may lie between two accumulation
steps), the train/eval flags and non-persistent buffers, because all of them decide what the next
iteration computes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from florlog_wal import Unencodable, encode_value
from torch.utils.data import DataLoader

from .errors import ChangedError, TrackError

Tree = Any
"""Nested lists, tuples and dicts with tensors, arrays and plain values as leaves."""


class Adapter(Protocol):
    """Gives and takes the state of one tracked object."""

    def capture(self) -> Tree:
        """The state as a tree that shares the object's tensors."""

    def restore(self, tree: Tree) -> None:
        """Put a state back, in place wherever others may hold references."""


class _Module:
    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def _loose_buffers(self) -> dict[str, torch.Tensor]:
        kept = self.module.state_dict(keep_vars=True)
        return {name: buffer for name, buffer in self.module.named_buffers() if name not in kept}

    def capture(self) -> Tree:
        return {
            "state": dict(self.module.state_dict()),
            "loose": self._loose_buffers(),
            "grads": {n: p.grad for n, p in self.module.named_parameters() if p.grad is not None},
            "training": {name: child.training for name, child in self.module.named_modules()},
        }

    def restore(self, tree: Tree) -> None:
        self.module.load_state_dict(tree["state"])
        with torch.no_grad():
            for name, buffer in self._loose_buffers().items():
                buffer.copy_(tree["loose"][name])
            for name, parameter in self.module.named_parameters():
                saved = tree["grads"].get(name)
                parameter.grad = None if saved is None else saved.to(parameter.device)
        for name, child in self.module.named_modules():
            child.training = tree["training"][name]


class _Optimizer:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def capture(self) -> Tree:
        return self.optimizer.state_dict()

    def restore(self, tree: Tree) -> None:
        self.optimizer.load_state_dict(tree)
        # load_state_dict casts floating state to its parameter's dtype, which would lose bits.
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, saved in tree["state"].items():
            state = self.optimizer.state[parameters[number]]
            for key, value in saved.items():
                loaded = state[key]
                if isinstance(value, torch.Tensor) and loaded.dtype != value.dtype:
                    state[key] = value.to(loaded.device)


class _Stateful:
    def __init__(self, target: Any) -> None:
        self.target = target

    def capture(self) -> Tree:
        return self.target.state_dict()

    def restore(self, tree: Tree) -> None:
        self.target.load_state_dict(tree)


class _Tensor:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def capture(self) -> Tree:
        return {"data": self.tensor.detach(), "grad": self.tensor.grad}

    def restore(self, tree: Tree) -> None:
        with torch.no_grad():
            self.tensor.copy_(tree["data"])
        if self.tensor.is_leaf:
            self.tensor.grad = tree["grad"]


class _Array:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def capture(self) -> Tree:
        return self.array

    def restore(self, tree: Tree) -> None:
        self.array[...] = tree


class _TorchGenerator:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def capture(self) -> Tree:
        return self.generator.get_state()

    def restore(self, tree: Tree) -> None:
        self.generator.set_state(tree)


class _PythonRandom:
    def __init__(self, generator: random.Random) -> None:
        self.generator = generator

    def capture(self) -> Tree:
        version, words, gauss = self.generator.getstate()
        return (version, np.array(words, dtype=np.uint32), gauss)

    def restore(self, tree: Tree) -> None:
        version, words, gauss = tree
        self.generator.setstate((version, tuple(int(word) for word in words), gauss))


class _NumpyGenerator:
    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def capture(self) -> Tree:
        return dict(self.generator.bit_generator.state)

    def restore(self, tree: Tree) -> None:
        self.generator.bit_generator.state = tree


class _NumpyState:
    def __init__(self, state: np.random.RandomState) -> None:
        self.state = state

    def capture(self) -> Tree:
        return tuple(self.state.get_state(legacy=True))

    def restore(self, tree: Tree) -> None:
        self.state.set_state(tree)


class _Loader:
    """A DataLoader has no state between two epochs but that of its generators."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.generators = loader_generators(loader)

    def capture(self) -> Tree:
        return [generator.get_state() for generator in self.generators]

    def restore(self, tree: Tree) -> None:
        for generator, state in zip(self.generators, tree, strict=True):
            generator.set_state(state)


class _Container:
    """A list, dict, set or deque of plain values: its contents are replaced, its identity stays."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def capture(self) -> Tree:
        return self.container

    def restore(self, tree: Tree) -> None:
        refill(self.container, tree)


class _Constant:
    """An immutable value: nobody can change it through its name, so it is only compared."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def capture(self) -> Tree:
        return self.value

    def restore(self, tree: Tree) -> None:
        if encode_value(tree) != encode_value(self.value):
            raise ChangedError(
                f"tracked value {self.name!r} was {tree!r} when recorded and is {self.value!r} now"
            )


def loader_generators(loader: DataLoader[Any]) -> list[torch.Generator]:
    """The generators that a DataLoader draws its order from, other than torch's default."""
    found: list[torch.Generator] = []
    sources = [loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    for source in sources:
        generator = getattr(source, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not known for known in found):
            found.append(generator)
    return found


def refill(container: Any, contents: Any) -> None:
    """Give a mutable container the contents of another of its type."""
    if isinstance(container, list):
        container[:] = contents
    elif isinstance(container, (dict, set)):
        container.clear()
        container.update(contents)
    else:
        container.clear()
        container.extend(contents)


def adapter(name: str, target: Any) -> Adapter:
    """The adapter for an object; raises `TrackError` for one whose state cannot be captured."""
    known: list[tuple[Any, Callable[[Any], Adapter]]] = [
        (torch.nn.Module, _Module),
        (torch.optim.Optimizer, _Optimizer),
        (torch.Tensor, _Tensor),
        (np.ndarray, _Array),
        (torch.Generator, _TorchGenerator),
        (random.Random, _PythonRandom),
        (np.random.Generator, _NumpyGenerator),
        (np.random.RandomState, _NumpyState),
    ]
    for kind, make in known:
        if isinstance(target, kind):
            return make(target)
    if callable(getattr(target, "state_dict", None)) and callable(getattr(target, "load_state_dict", None)):
        return _Stateful(target)
    if isinstance(target, DataLoader):
        return _Loader(target)
    try:
        encode_value(target)
    except Unencodable:
        raise TrackError(
            f"cannot track {name!r}: a {type(target).__name__} has no state_dict()/load_state_dict() and is "
            "no tensor, array, RNG or plain value; give it these two methods, or track what it consists of"
        ) from None
    if isinstance(target, (list, dict, set, deque)):
        return _Container(target)
    return _Constant(name, target)


class Randomness:
    """The RNGs that are tracked without asking: Python's, NumPy's, torch's on the CPU and each CUDA device."""

    def __init__(self) -> None:
        self._python = _PythonRandom(random._inst)
        self._numpy = _NumpyState(np.random.mtrand._rand)

    def capture(self) -> Tree:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "python": self._python.capture(),
            "numpy": self._numpy.capture(),
            "torch": torch.get_rng_state(),
            "cuda": list(cuda),
        }

    def restore(self, tree: Tree) -> None:
        self._python.restore(tree["python"])
        self._numpy.restore(tree["numpy"])
        torch.set_rng_state(tree["torch"])
        if tree["cuda"]:
            torch.cuda.set_rng_state_all(tree["cuda"])
