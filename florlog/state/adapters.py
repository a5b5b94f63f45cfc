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

import functools
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Container
from typing import Any, Protocol

import numpy as np
import torch
from florlog_wal import Unencodable, encode_value
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.data import DataLoader

from florlog.errors import ChangedError, TrackError
from florlog.state.cursors import keeps_workers, start_workers
from florlog.state.cursors import loader_generators as loader_generators
from florlog.state.inplace import bits, overwrite, put_back
from florlog.state.tree import StateTree, dense_part, flatten

"""Nested lists, tuples and dicts with tensors, arrays and plain values as leaves."""

_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)


class Adapter(Protocol):
    """Gives and takes the state of one tracked object."""

    def capture(self) -> StateTree:
        """The state as a tree that shares the object's tensors."""

    def restore(self, tree: StateTree) -> None:
        """Put a state back, in place wherever others may hold references."""


class _Module:
    def __init__(self, module: torch.nn.Module) -> None:
        lazy = (UninitializedParameter, UninitializedBuffer)
        if any(isinstance(tensor, lazy) for tensor in [*module.parameters(), *module.buffers()]):
            raise _Refused("it has lazy parameters without a shape: run a batch through it first")
        self.module = module

    def _loose_buffers(self, kept: Container[str]) -> dict[str, torch.Tensor]:
        return {name: buffer for name, buffer in self.module.named_buffers() if name not in kept}

    def capture(self) -> StateTree:
        state = dict(self.module.state_dict())
        parameters, modules = list(self.module.named_parameters()), list(self.module.named_modules())
        return {
            "state": state,
            "loose": self._loose_buffers(state),
            "grads": {name: grad for name, p in parameters if (grad := p.grad) is not None},
            "frozen": [name for name, p in parameters if not p.requires_grad],
            "training": {name: child.training for name, child in modules},
            "metrics": {
                name: {attribute: vars(child)[attribute] for attribute in _metric(child)}
                for name, child in modules
                if _metric(child)
            },
        }

    def restore(self, tree: StateTree) -> None:
        self._load(tree["state"])
        for name, buffer in self._loose_buffers(self.module.state_dict(keep_vars=True)).items():
            overwrite(buffer, tree["loose"][name])
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in tree["frozen"])
            saved = tree["grads"].get(name)
            parameter.grad = None if saved is None else saved.to(parameter.device)
        for name, child in self.module.named_modules():
            child.training = tree["training"][name]
            for attribute, value in tree["metrics"].get(name, {}).items():
                setattr(child, attribute, put_back(vars(child).get(attribute), value))

    def _load(self, saved: StateTree) -> None:
        """`load_state_dict`, except for expanded tensors, into which torch does not copy."""
        live = self.module.state_dict()
        state = OrderedDict(saved)
        for name, tensor in live.items():
            if isinstance(tensor, torch.Tensor) and dense_part(tensor) is not tensor:
                overwrite(tensor, state[name])
                del state[name]
        state._metadata = live._metadata  # type: ignore[attr-defined]
        self.module.load_state_dict(state, strict=len(state) == len(saved))


def _metric(module: torch.nn.Module) -> list[str]:
    """The attributes in which a metric keeps what it has seen, as torchmetrics' do: no ``state_dict`` has them."""
    held = vars(module)
    states = held.get("_defaults")
    if not isinstance(states, dict) or "_update_count" not in held:
        return []
    return [name for name in (*states, "_update_count", "_computed") if name in held]


class _Optimizer:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def capture(self) -> StateTree:
        return self.optimizer.state_dict()

    def restore(self, tree: StateTree) -> None:
        groups = self.optimizer.param_groups
        self.optimizer.load_state_dict(tree)
        # load_state_dict casts floating state to its parameter's dtype, which would lose bits.
        numbers = [number for group in tree["param_groups"] for number in group["params"]]
        parameters = [p for group in groups for p in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in tree["state"]:
                self.optimizer.state[parameter] = _uncast(
                    self.optimizer.state[parameter], tree["state"][number]
                )
        # A step compiled or captured with a tensor as its rate reads that tensor, not the one that replaces it.
        for group, loaded in zip(groups, self.optimizer.param_groups, strict=True):
            for key, value in loaded.items():
                held = group.get(key)
                if isinstance(value, torch.Tensor) and isinstance(held, torch.Tensor):
                    overwrite(held, value)
                else:
                    group[key] = value
        self.optimizer.param_groups = groups


def _uncast(loaded: Any, saved: Any) -> Any:
    """The saved state with its own dtypes, on the devices to which it was loaded."""
    if isinstance(saved, torch.Tensor):
        return saved.to(loaded.device)
    if isinstance(saved, dict):
        return {key: _uncast(loaded[key], item) for key, item in saved.items()}
    if isinstance(saved, (list, tuple, deque)):
        return type(saved)(_uncast(*pair) for pair in zip(loaded, saved, strict=True))
    return saved


class _Stateful:
    def __init__(self, target: Any) -> None:
        self.target = target

    def capture(self) -> StateTree:
        return self.target.state_dict()

    def restore(self, tree: StateTree) -> None:
        self.target.load_state_dict(tree)


class _Scheduler(_Stateful):
    """A scheduler's functions are code: the script makes them again, as torch has it for LambdaLR."""

    def capture(self) -> StateTree:
        return _without_functions(self.target.state_dict())


def _without_functions(state: dict[str, Any]) -> dict[str, Any]:
    held = {key: value for key, value in state.items() if not isinstance(value, _FUNCTIONS)}
    if "_schedulers" in held:  # SequentialLR, ChainedScheduler
        held["_schedulers"] = [_without_functions(inner) for inner in held["_schedulers"]]
    return held


class _Tensor:
    def __init__(self, tensor: torch.Tensor) -> None:
        if tensor.requires_grad and not tensor.is_leaf:
            raise _Refused("it is the result of a computation that autograd follows: track its detach()")
        self.tensor = tensor

    def capture(self) -> StateTree:
        return {"data": self.tensor.detach(), "grad": self.tensor.grad if self.tensor.is_leaf else None}

    def restore(self, tree: StateTree) -> None:
        overwrite(self.tensor, tree["data"])
        if self.tensor.is_leaf:
            self.tensor.grad = None if tree["grad"] is None else tree["grad"].to(self.tensor.device)


class _ArrayAdapter:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        if not array.flags.writeable:
            raise _Refused("it is read-only, so its state could not be put back")
        self.array = array

    def capture(self) -> StateTree:
        return self.array

    def restore(self, tree: StateTree) -> None:
        if tree.shape != self.array.shape or tree.dtype != self.array.dtype:
            raise ChangedError(
                f"a tracked array was {tree.dtype}{tree.shape} when recorded and is "
                f"{self.array.dtype}{self.array.shape} now"
            )
        self.array[...] = tree


class _TorchGenerator:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def capture(self) -> StateTree:
        return self.generator.get_state()

    def restore(self, tree: StateTree) -> None:
        self.generator.set_state(tree)


class _PythonRandom:
    def __init__(self, generator: random.Random) -> None:
        self.generator = generator

    def capture(self) -> StateTree:
        version, words, gauss = self.generator.getstate()
        return (version, np.array(words, dtype=np.uint32), gauss)

    def restore(self, tree: StateTree) -> None:
        version, words, gauss = tree
        self.generator.setstate((version, tuple(int(word) for word in words), gauss))


class _NumpyGenerator:
    def __init__(self, generator: np.random.Generator | np.random.BitGenerator) -> None:
        self.bits: Any = generator
        if isinstance(generator, np.random.Generator):
            self.bits = generator.bit_generator

    def capture(self) -> StateTree:
        return dict(self.bits.state)

    def restore(self, tree: StateTree) -> None:
        self.bits.state = tree


class _NumpyState:
    def __init__(self, state: np.random.RandomState) -> None:
        self.state = state

    def capture(self) -> StateTree:
        return self.state.get_state(legacy=False)

    def restore(self, tree: StateTree) -> None:
        self.state.set_state(tree)


class _Loader:
    """A DataLoader has no state between two epochs but that of its generators, and its data set's own, and workers.

    Its place within an epoch is its loop's (`_data`).  torchdata's loader is not asked for its ``state_dict``, because
    before it has begun it would begin, and draw random numbers that it would have drawn later.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader: Any = loader

    def capture(self) -> StateTree:
        dataset = self.loader.dataset
        return {
            "generators": [generator.get_state() for generator in loader_generators(self.loader)],
            "dataset": dataset.state_dict() if _is_stateful(dataset) else None,
            "workers": keeps_workers(self.loader),
        }

    def restore(self, tree: StateTree) -> None:
        for generator, state in zip(loader_generators(self.loader), tree["generators"], strict=True):
            generator.set_state(state)
        if tree["dataset"] is not None:
            self.loader.dataset.load_state_dict(tree["dataset"])
        if tree["workers"]:
            start_workers(self.loader)


class _ValueAdapter:
    """A plain value, or a container of values, tensors and arrays; mutable ones keep their identity."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def capture(self) -> StateTree:
        return self.value

    def restore(self, tree: StateTree) -> None:
        if put_back(self.value, tree) is not self.value and bits(tree) != bits(self.value):
            raise ChangedError(
                f"tracked value {self.name!r} was {tree!r} when recorded and is {self.value!r} now"
            )


class _Refused(Exception):  # noqa: N818 - becomes a TrackError, which names the object
    pass


def adapter(name: str, target: Any) -> Adapter:
    """The adapter for an object; raises `TrackError` for one whose state cannot be captured."""
    try:
        made = _adapter(name, target)
        skeleton, _ = flatten(made.capture(), name)
        encode_value(skeleton)
    except TrackError:
        raise
    except (_Refused, Unencodable) as error:
        why = str(error) if isinstance(error, _Refused) else f"its state holds a {error.type_name}"
        where = error.where if isinstance(error, Unencodable) else ""
        place = f" at {where}" if where not in ("", name) else ""
        raise TrackError(f"cannot track {name!r} ({type(target).__name__}): {why}{place}") from None
    except Exception as error:
        raise TrackError(
            f"cannot track {name!r} ({type(target).__name__}): taking its state failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    return made


def _adapter(name: str, target: Any) -> Adapter:
    known: list[tuple[Any, Callable[[Any], Adapter]]] = [
        (torch.nn.Module, _Module),
        (torch.optim.Optimizer, _Optimizer),
        (torch.optim.lr_scheduler.LRScheduler, _Scheduler),
        (torch.Tensor, _Tensor),
        (np.ndarray, _ArrayAdapter),
        (torch.Generator, _TorchGenerator),
        (random.Random, _PythonRandom),
        ((np.random.Generator, np.random.BitGenerator), _NumpyGenerator),
        (np.random.RandomState, _NumpyState),
    ]
    for kind, make in known:
        if isinstance(target, kind):
            return make(target)
    if isinstance(target, DataLoader):
        return _Loader(target)
    if _is_stateful(target):
        return _Stateful(target)
    made = _ValueAdapter(name, target)
    try:
        flatten(target, name)
    except Unencodable as error:
        if error.where == name:
            raise TrackError(
                f"cannot track {name!r}: a {type(target).__name__} has no state_dict()/load_state_dict() and is "
                "no tensor, array, RNG or plain value; give it these two methods, register its type, or track "
                "what it consists of"
            ) from None
        raise
    return made


def _is_stateful(target: Any) -> bool:
    return callable(getattr(target, "state_dict", None)) and callable(
        getattr(target, "load_state_dict", None)
    )


class Randomness:
    """The RNGs that are tracked without asking: Python's, NumPy's, torch's on the CPU and each CUDA device."""

    def __init__(self) -> None:
        self._python = _PythonRandom(random._inst)
        self._numpy = _NumpyState(np.random.mtrand._rand)

    def capture(self) -> StateTree:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "python": self._python.capture(),
            "numpy": self._numpy.capture(),
            "torch": torch.get_rng_state(),
            "cuda": list(cuda),
        }

    def restore(self, tree: StateTree) -> None:
        self._python.restore(tree["python"])
        self._numpy.restore(tree["numpy"])
        torch.set_rng_state(tree["torch"])
        if tree["cuda"]:
            torch.cuda.set_rng_state_all(tree["cuda"])
