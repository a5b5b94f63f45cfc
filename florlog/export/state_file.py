"""A state as a file that others read: safetensors, or torch's own format as ``weights_only=True`` reads it.

In a safetensors file the name of each tensor and array is the path that leads to it (`florlog.state.leaves`).  Other
values, such as a learning rate, are in the file's metadata: ``values`` is a JSON object from such names to values.
The metadata's ``florlog`` is a JSON object with the run, the iteration, the trust and, under ``left_out``, the names of
what the file does not contain.  The random generators' states are below ``/rng``; no tracked name starts with a slash.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from florlog.errors import FlorlogError
from florlog.program.extras import need
from florlog.redo.past_state import PastState
from florlog.state.leaves import named_leaves

_JSON_TYPES = (type(None), bool, int, float, str)
_LEFT_OUT: Any = object()


def write_state(state: PastState, about: dict[str, Any], path: Path) -> tuple[int, list[str]]:
    """Write a state in the format of the file's ending; the number of tensors, and the names of what is left out.

    ``about``: facts that the file keeps, in JSON's types (safetensors only).  Raises `FlorlogError` for an ending
    that names no format, and for a tensor that the format cannot store.
    """
    whole = {**state, "/rng": state.generators}
    return writer_of(path)(whole, about, path)


def writer_of(path: Path) -> Callable[[dict[str, Any], dict[str, Any], Path], tuple[int, list[str]]]:
    """The function that writes a file of that name.

    Raises `FlorlogError` if its ending names no format, a library is missing or there is no such directory.
    """
    if not path.absolute().parent.is_dir():
        raise FlorlogError(f"cannot write {path}: there is no directory {path.parent}")
    if path.suffix == ".safetensors":
        need("safetensors.torch", "export")
        return _write_safetensors
    if path.suffix in (".pt", ".pth"):
        return _write_torch
    raise FlorlogError(f"cannot tell the format of {path}: end its name in .safetensors, .pt or .pth")


def _write_safetensors(whole: dict[str, Any], about: dict[str, Any], path: Path) -> tuple[int, list[str]]:
    save = need("safetensors.torch", "export").save_file
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    left_out: list[str] = []
    memory: set[int] = set()
    for name, leaf in named_leaves(whole):
        while name in tensors or name in values:  # a key with a dot in it
            name += "'"
        held = _plain(leaf)
        if isinstance(held, torch.Tensor):
            if held.layout is not torch.strided:
                raise FlorlogError(
                    f"{name} is a tensor of layout {held.layout}, which safetensors does not have: write a .pt file"
                )
            held = held.contiguous()
            if held.untyped_storage().data_ptr() in memory:  # tied to another, which the format forbids
                held = held.clone()
            memory.add(held.untyped_storage().data_ptr())
            tensors[name] = held
        elif isinstance(held, _JSON_TYPES) or held in ([], {}, ()):
            values[name] = held
        else:
            left_out.append(name)
    metadata = {
        "format": "pt",
        "values": json.dumps(values),
        "florlog": json.dumps({**about, "left_out": left_out}),
    }
    try:
        _write_whole(path, lambda file: save(tensors, file, metadata=metadata))
    except (ValueError, KeyError, TypeError) as error:
        raise FlorlogError(f"safetensors cannot hold this state ({error}): write a .pt file") from None
    return len(tensors), left_out


def _write_torch(whole: dict[str, Any], about: dict[str, Any], path: Path) -> tuple[int, list[str]]:
    left_out: list[str] = []
    made = _loadable(whole, "", left_out)
    _write_whole(path, lambda file: torch.save(made, file))
    return sum(isinstance(leaf, torch.Tensor) for _, leaf in named_leaves(made)), left_out


def _loadable(tree: Any, name: str, left_out: list[str]) -> Any:
    """A tree in types that ``torch.load(..., weights_only=True)`` reads; other values are left out."""
    if isinstance(tree, dict):
        made: dict[Any, Any] = OrderedDict() if isinstance(tree, OrderedDict) else {}
        for key, item in tree.items():
            below = f"{name}.{key}" if name else str(key)
            if not isinstance(key, _JSON_TYPES):
                left_out.append(below)
            elif (held := _loadable(item, below, left_out)) is not _LEFT_OUT:
                made[key] = held
        return made
    if type(tree) in (list, tuple):
        items = [_loadable(item, f"{name}.{i}", left_out) for i, item in enumerate(tree)]
        return type(tree)(None if item is _LEFT_OUT else item for item in items)
    held = _plain(tree)
    if isinstance(held, (torch.Tensor, *_JSON_TYPES)):
        return held
    left_out.append(name)
    return _LEFT_OUT


def _plain(leaf: Any) -> Any:
    """A leaf as a tensor or a plain value where it can be one."""
    if isinstance(leaf, torch.Tensor):
        return leaf.detach()
    if isinstance(leaf, np.ndarray):
        try:
            return torch.from_numpy(np.array(leaf))
        except (TypeError, ValueError):  # text, dates, records
            return leaf
    return leaf.item() if isinstance(leaf, np.generic) else leaf


def _write_whole(path: Path, write: Callable[[str], object]) -> None:
    """Write a file so that it is there completely or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(str(part))
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter
        raise FlorlogError(f"cannot write {path}: {error}") from None
    finally:
        part.unlink(missing_ok=True)
