"""Gradients that an image leaves out, and what stands in their place once the image is restored.

`LeftOutGradient` has the shape, dtype and device of the gradient and none of its numbers.  ``zero_grad()`` and
``p.grad = None`` remove it like any other.  Whatever else is done with it raises `LeftOutError`, in Python
(``__getattribute__``) and in torch's own code (``__torch_dispatch__``: ``backward()`` adds to a gradient there).  A
program may catch that, so it is noted as well: `reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import torch

from florlog.errors import ImageError
from florlog.state.tree import Skeleton

_SHOWN = frozenset({
    "__class__", "__doc__", "__hash__", "__init__", "__torch_dispatch__", "__torch_function__", "device", "dim",
    "dtype", "element_size", "get_device", "grad_fn", "is_complex", "is_contiguous", "is_cpu", "is_cuda",
    "is_floating_point", "is_leaf", "is_sparse", "itemsize", "layout", "names", "nbytes", "ndim", "nelement", "numel",
    "requires_grad", "requires_grad_", "shape", "size", "stride",
})  # fmt: skip
"""Attributes that tell no number of a gradient."""
Gradients = Mapping[str, Sequence[str]]
"""Names of parameters whose gradients are left out, by the name under which their module is tracked."""
NO_GRADIENTS: Final[Gradients] = {}
LEFT_OUT = "/left out"
"""The name in an image of the gradients that it has left out."""
READ = "a gradient is read that the image leaves out, as it is computed anew before the next step"
"""Why an image cannot be used from which something reads a gradient that it has not."""
_reads = [0]


class LeftOutError(ImageError):
    """Something read a gradient that the restored image does not have."""


class LeftOutGradient(torch.Tensor):
    """Stands for the gradient of a parameter that an image has left out."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, parameter: torch.Tensor) -> LeftOutGradient:
        """In the place of the gradient of a ``parameter``, whose shape, dtype and device it has."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            parameter.shape,
            strides=parameter.stride(),
            dtype=parameter.dtype,
            device=parameter.device,
        )
        assert isinstance(made, LeftOutGradient)
        return made

    @classmethod
    def __torch_dispatch__(cls, *args: Any, **keywords: Any) -> NoReturn:
        """Raise `LeftOutError`: something computes with it."""
        raise _read()

    def __getattribute__(self, name: str) -> Any:
        if name in _SHOWN:
            return super().__getattribute__(name)
        raise _read()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise _read()


def _read() -> LeftOutError:
    _reads[0] += 1
    return LeftOutError(READ)


def reads() -> int:
    """How often something in this process has read a gradient that was left out."""
    return _reads[0]


def is_left_out(gradient: Any) -> bool:
    """Whether a parameter's ``grad`` stands for one that was left out."""
    return type(gradient) is LeftOutGradient


def take_out(
    held: Mapping[str, dict[str, torch.Tensor]], gradients: Gradients
) -> tuple[list[torch.Tensor], dict[str, list[str]]]:
    """Remove gradients from those ``held``, by module and parameter: the given ones, and those that are not there.

    Where modules share a parameter, its gradient is removed from each.  Gives what was removed, and its names.
    """
    wanted = {id(held[name].get(part)) for name, parts in gradients.items() if name in held for part in parts}
    removed: list[torch.Tensor] = []
    names: dict[str, list[str]] = {}
    for name, grads in held.items():
        names[name] = [part for part, grad in grads.items() if id(grad) in wanted or is_left_out(grad)]
        removed += [grads.pop(part) for part in names[name]]
    return removed, names


def without_gradients(
    differing: Iterable[str],
    lacking: Gradients,
    then: Callable[[str], Skeleton],
    now: Callable[[str], Skeleton],
) -> list[str]:
    """Of the names that differ between two states, those that do so also without the gradients that one is ``lacking``.

    ``then`` and ``now`` give the tree of a module in each, without its tensors.
    """
    return [
        name
        for name in differing
        if name != LEFT_OUT
        and not any(name.startswith(f"{module}.grads.") for module in lacking)
        and (name not in lacking or _rest(then(name)) != _rest(now(name)))
    ]


def _rest(module: Skeleton) -> Skeleton:
    """The tree of a module without its gradients."""
    kind, pairs = module
    return kind, [pair for pair in pairs if pair[0] != ("v", "grads")]
