"""What is tracked, and how each kind of object gives its state and takes it back.

An adapter turns an object into a *tree*: nested lists, tuples and dicts whose leaves are tensors, NumPy
arrays and plain values.  `florlog.state.tree.flatten` splits a tree into tensors, which become pages, and a skeleton,
which is one encoded host value.  A tree copies the structure only; copying the tensors is the snapshot's work
(`florlog.images.snapshot`).

Each adapter's docstring says what it captures.  No adapter captures what else an object has: attributes that a
subclass adds, hooks, functions.
Random generators' adapters are in `florlog.state.random_generators`, a DataLoader's in `florlog.state.loaders`.
"""

from __future__ import annotations

import functools
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
from florlog.state import random_generators
from florlog.state.inplace import bits, overwrite, put_back
from florlog.state.left_out import NO_GRADIENTS, take_out
from florlog.state.loaders import LoaderAdapter
from florlog.state.stateful import has_state_dict
from florlog.state.tensors import dense_part
from florlog.state.tree import StateTree, flatten

_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)


class Adapter(Protocol):
    """Gives and takes the state of one tracked object."""

    def capture(self) -> StateTree:
        """The state as a tree that shares the object's tensors.  May raise whatever the object's own code raises."""

    def restore(self, tree: StateTree) -> None:
        """Put a state back, in place wherever others may hold references.  `ChangedError`: the object does not fit."""


class _Module:
    """A module: its ``state_dict`` and whatever else decides what the next iteration computes.

    That is the gradients (a boundary may lie between two accumulation steps), the train/eval flags, which parameters
    are frozen, the buffers that are not persistent, and the states of metrics.  Plain attributes of torch's own modules
    (a dropout's rate) are not captured.
    """

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
    """The attributes in which a metric like torchmetrics' keeps what it has seen: no ``state_dict`` has them."""
    states = (held := vars(module)).get("_defaults")
    if not isinstance(states, dict) or "_update_count" not in held:
        return []
    return [name for name in (*states, "_update_count", "_computed") if name in held]


class _Optimizer:
    """An optimizer's ``state_dict``: the state of each parameter, with its own dtypes, and the groups' options.

    Groups, and tensors among their options, keep their identity.  Attributes of a subclass are not captured.
    """

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
    """Any object with the pair of methods: what its ``state_dict()`` gives, and no more."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def capture(self) -> StateTree:
        return self.target.state_dict()

    def restore(self, tree: StateTree) -> None:
        self.target.load_state_dict(tree)


class _Scheduler(_Stateful):
    """A scheduler's ``state_dict`` without functions: these are code, which the script makes again, as torch has it for
    LambdaLR.
    """

    def capture(self) -> StateTree:
        return _without_functions(self.target.state_dict())


def _without_functions(state: dict[str, Any]) -> dict[str, Any]:
    held = {key: value for key, value in state.items() if not isinstance(value, _FUNCTIONS)}
    if "_schedulers" in held:  # SequentialLR, ChainedScheduler
        held["_schedulers"] = [_without_functions(inner) for inner in held["_schedulers"]]
    return held


class _Tensor:
    """A tensor's contents and, of a leaf, its gradient, restored in its own memory; not what computed it."""

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
    """A writable array's contents, restored in its own memory."""

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
    """The adapter for an object, tried once; raises `TrackError` for one whose state cannot be captured."""
    try:
        made = untried(name, target)
        tree = made.capture()
        if isinstance(made, _Module):  # what a restored image has left out is not read
            take_out({name: tree["grads"]}, NO_GRADIENTS)
        encode_value(flatten(tree, name)[0])
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


_ADAPTERS: dict[type, Callable[[Any], Adapter]] = {
    torch.nn.Module: _Module,
    torch.optim.Optimizer: _Optimizer,
    torch.optim.lr_scheduler.LRScheduler: _Scheduler,
    torch.Tensor: _Tensor,
    np.ndarray: _ArrayAdapter,
    **random_generators.ADAPTERS,
    DataLoader: LoaderAdapter,
}
"""By type, subclasses included; the first that fits.  After them: the pair of methods, and then plain values."""


def untried(name: str, target: Any) -> Adapter:
    """The adapter for an object that once could be captured; raises `TrackError` for one that has none."""
    for kind, make in _ADAPTERS.items():
        if isinstance(target, kind):
            return make(target)
    if has_state_dict(target):
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
