"""What is tracked and lies wholly in the graph of objects: once that is put back, only its tensors' bytes are missing.

``load_state_dict()`` gives an optimizer new tensors, so the graph has to be put back once more after it.  Here the
bytes are copied into the tensors that are there.  That is right for modules, optimizers and schedulers as torch makes
them: they have nothing that is not an attribute, and their ``state_dict()`` shares its tensors with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from florlog_wal import encode_value
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.lr_scheduler import LRScheduler

from florlog.state.adapters import Adapter
from florlog.state.left_out import NO_GRADIENTS, take_out
from florlog.state.tree import Skeleton, flatten

_OWN: dict[type, tuple[str, ...]] = {
    torch.nn.Module: (
        "state_dict", "load_state_dict", "_save_to_state_dict", "_load_from_state_dict", "get_extra_state",
        "set_extra_state",
    ),
    torch.optim.Optimizer: ("state_dict", "load_state_dict"),
    LRScheduler: ("state_dict", "load_state_dict"),
}  # fmt: skip
"""The methods that a class may not have of its own, by kind."""
_HARMLESS = (_NormBase._load_from_state_dict,)
"""Of torch's own methods those that only read what an older version has saved."""
_HOOKS = (
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks", "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)  # fmt: skip
_SHARED_TAGS = frozenset("vtwludom")
"""Of a skeleton: those of which `flatten` gives tensors that share the object's memory."""

Tensors = Callable[[Sequence[str]], Mapping[str, torch.Tensor]]


def lies_in_graph(target: Any) -> bool:
    """Whether all that an object's ``state_dict()`` gives is in its attributes and in those of its parts."""
    if isinstance(target, torch.nn.Module):
        return all(_is_own(module, torch.nn.Module) for module in target.modules())
    return any(isinstance(target, kind) and _is_own(target, kind) for kind in _OWN)


def _is_own(target: Any, kind: type) -> bool:
    """Whether an object gives and takes its state as torch's own class ``kind`` does."""
    if isinstance(target, torch.jit.ScriptModule):  # it is in C++
        return False
    held, made = vars(target), type(target)
    for name in _OWN[kind]:
        method = getattr(made, name)
        if name in held or (method is not getattr(kind, name) and method not in _HARMLESS):
            return False
    return not any(held.get(name) for name in _HOOKS)


def fill(made: Adapter, name: str, encoded: bytes, tensors: Tensors) -> bool:
    """Copy the bytes of an object's tensors from an image; False, and nothing is changed, if it is not as it was.

    ``encoded``: the skeleton that the image has of it, encoded; ``tensors`` gives the image's tensors of some keys.
    """
    tree = made.capture()
    if isinstance(tree, dict) and "grads" in tree:
        take_out({name: tree["grads"]}, NO_GRADIENTS)
    skeleton, live = flatten(tree, name)
    if not _is_shared(skeleton) or encode_value(skeleton) != encoded:
        return False
    saved = tensors([key for key, _ in live])
    pairs = [(tensor, saved[key]) for key, tensor in live]
    if any(one.dtype != other.dtype or one.shape != other.shape for one, other in pairs):
        return False
    with torch.no_grad():
        for one, other in pairs:
            one.copy_(other)
    return True


def _is_shared(skeleton: Skeleton) -> bool:
    """Whether all of a skeleton's tensors share the memory of those that were taken apart."""
    tag, payload = skeleton
    if tag not in _SHARED_TAGS:
        return False
    if tag in "lu":
        return all(map(_is_shared, payload))
    if tag in "dom":
        pairs = payload[1] if tag == "m" else payload
        return all(_is_shared(part) for pair in pairs for part in pair)
    return True
