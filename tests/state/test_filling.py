"""Objects of torch's own making get only their tensors' bytes from an image: in place, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as lrs

from florlog.images.imager import SavedState
from florlog.state.adapters import adapter
from florlog.state.filling import fill, lies_in_graph
from florlog.state.tensors import dense_part

from .memory import Memory, state_bits
from .test_objects import OPTIMIZERS, Net, train


class Plain(Net):
    """`Net` without state that is no attribute's tensor."""

    get_extra_state = nn.Module.get_extra_state
    set_extra_state = nn.Module.set_extra_state


def image_of(target: Any) -> SavedState:
    return Memory().image({"it": adapter("it", target).capture()})


def filled(target: Any, image: SavedState) -> bool:
    return fill(adapter("it", target), "it", image.encoded("it"), image.tensors)


def tensors_of(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(value) for held in optimizer.state.values() for value in held.values()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_differs_by_bytes_alone_is_as_it_was(name: str) -> None:
    torch.manual_seed(1)
    model = Plain()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3, torch.float32)
    targets = (model, optimizer)
    images, before = [image_of(it) for it in targets], [state_bits(it) for it in targets]
    held = tensors_of(optimizer)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]:
            assert tensor is not None
            dense_part(tensor).add_(1)
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.add_(1)
    assert [state_bits(it) for it in targets] != before
    assert all(lies_in_graph(it) and filled(it, image) for it, image in zip(targets, images, strict=True))
    assert [state_bits(it) for it in targets] == before
    assert tensors_of(optimizer) == held
    assert model.head.weight is model.embed.weight


CHANGES: dict[str, Callable[[nn.Module, torch.optim.Optimizer], object]] = {
    "frozen": lambda model, _: model.get_parameter("norm.weight").requires_grad_(False),
    "eval": lambda model, _: model.eval(),
    "no gradient": lambda model, _: setattr(model.get_parameter("norm.weight"), "grad", None),
    "untied": lambda model, _: model.get_submodule("head").register_parameter(
        "weight", nn.Parameter(torch.zeros(4, 4))
    ),
    "another shape": lambda model, _: model.get_submodule("norm").register_buffer("running_mean", torch.zeros(1)),
    "another dtype": lambda model, _: model.get_submodule("norm").register_buffer(
        "running_mean", torch.zeros(4, dtype=torch.float64)
    ),
    "another part": lambda model, _: model.add_module("more", nn.Linear(1, 1)),
    "another rate": lambda _, optimizer: optimizer.param_groups[0].update(lr=7.0),
    "no state": lambda _, optimizer: optimizer.state.clear(),
    "less state": lambda _, optimizer: next(iter(optimizer.state.values())).pop("exp_avg"),
    "another group": lambda _, optimizer: optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]}),
}  # fmt: skip


@given(st.sampled_from(sorted(CHANGES)))
def test_what_differs_otherwise_is_left_alone(change: str) -> None:
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 2, torch.float32)
    images = image_of(model), image_of(optimizer)
    CHANGES[change](model, optimizer)
    changed = state_bits(model), state_bits(optimizer)
    assert [filled(model, images[0]), filled(optimizer, images[1])].count(False) == 1
    if filled(model, images[0]):
        assert state_bits(optimizer) == changed[1]
    else:
        assert state_bits(model) == changed[0]


class Loads(nn.Linear):
    """It does more than torch does when its state is put back."""

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        return super().load_state_dict(*given, **named)


class Saves(torch.optim.SGD):
    """It gives more than torch does."""

    def state_dict(self) -> Any:
        return {**super().state_dict(), "more": 1}


def with_hook(module: nn.Module) -> nn.Module:
    module.register_load_state_dict_post_hook(lambda module, keys: None)
    return module


def with_method(module: nn.Module) -> nn.Module:
    module.load_state_dict = lambda *given, **named: None  # type: ignore[assignment]
    return module


OTHERS: dict[str, Callable[[], Any]] = {
    "extra state": Net,
    "load_state_dict": lambda: Loads(2, 2),
    "of a part": lambda: nn.Sequential(nn.ReLU(), Loads(2, 2)),
    "state_dict": lambda: Saves([nn.Parameter(torch.zeros(1))]),
    "a hook": lambda: with_hook(nn.Linear(2, 2)),
    "a method of its own": lambda: with_method(nn.Linear(2, 2)),
    "script": lambda: torch.jit.script(nn.Linear(2, 2)),
    "part in a script": lambda: nn.Sequential(torch.jit.script(nn.Linear(2, 2))),
    "quantized": lambda: torch.ao.nn.quantized.Linear(2, 2),
    "functions": lambda: lrs.LambdaLR(torch.optim.SGD(nn.Linear(1, 1).parameters()), lambda epoch: 1.0),
    "no object of torch's": lambda: [torch.zeros(1)],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_have_state_elsewhere_is_loaded(name: str) -> None:
    assert not lies_in_graph(OTHERS[name]())


def test_torch_s_own_are_filled() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.TransformerEncoderLayer(4, 2), nn.LSTM(2, 2), nn.Dropout())
    optimizer = torch.optim.AdamW(model.parameters())
    assert all(
        map(lies_in_graph, (model, optimizer, lrs.StepLR(optimizer, 2), lrs.OneCycleLR(optimizer, 1, 9)))
    )
