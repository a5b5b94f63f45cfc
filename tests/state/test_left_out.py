"""What stands in the place of a gradient that was left out: whatever reads it raises, whatever removes it does not."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from florlog.state.heap.capture import capture
from florlog.state.heap.compare import difference
from florlog.state.heap.image import flattened, graph_of
from florlog.state.heap.restore import restore
from florlog.state.left_out import (
    LeftOutError,
    LeftOutGradient,
    is_left_out,
    reads,
    take_out,
    without_gradients,
)
from florlog.state.tree import unflatten


def model_without() -> tuple[nn.Linear, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = LeftOutGradient(parameter)
    return model, torch.optim.Adam(model.parameters())


READING: dict[str, Callable[[nn.Linear, torch.optim.Optimizer, Any], Any]] = {
    "step": lambda model, optimizer, gradient: optimizer.step(),
    "backward": lambda model, optimizer, gradient: model(torch.ones(2, 3)).sum().backward(),
    "zeroed": lambda model, optimizer, gradient: optimizer.zero_grad(set_to_none=False),
    "clip": lambda model, optimizer, gradient: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
    "norm": lambda model, optimizer, gradient: gradient.norm(),
    "foreach": lambda model, optimizer, gradient: torch._foreach_norm([gradient]),
    "operand": lambda model, optimizer, gradient: torch.ones(2, 3) + gradient,
    "copied from": lambda model, optimizer, gradient: torch.ones(2, 3).copy_(gradient),
    "out": lambda model, optimizer, gradient: torch.add(torch.ones(2, 3), 1.0, out=gradient),
    "item": lambda model, optimizer, gradient: gradient[0, 0].item(),
    "tolist": lambda model, optimizer, gradient: gradient.tolist(),
    "numpy": lambda model, optimizer, gradient: gradient.numpy(),
    "array": lambda model, optimizer, gradient: np.asarray(gradient),
    "data": lambda model, optimizer, gradient: gradient.data,
    "data_ptr": lambda model, optimizer, gradient: gradient.data_ptr(),
    "storage": lambda model, optimizer, gradient: gradient.untyped_storage(),
    "dlpack": lambda model, optimizer, gradient: torch.from_dlpack(gradient),
    "deepcopy": lambda model, optimizer, gradient: copy.deepcopy(gradient),
    "save": lambda model, optimizer, gradient: torch.save(gradient, io.BytesIO()),
    "repr": lambda model, optimizer, gradient: repr(gradient),
    "equal": lambda model, optimizer, gradient: torch.equal(gradient, gradient),
    "==": lambda model, optimizer, gradient: gradient == 0,
    "other dtype": lambda model, optimizer, gradient: model.double(),
    "set": lambda model, optimizer, gradient: setattr(gradient, "data", torch.ones(2, 3)),
    "attribute": lambda model, optimizer, gradient: setattr(gradient, "mark", 1),
    "iterated": lambda model, optimizer, gradient: list(gradient),
    "cat": lambda model, optimizer, gradient: torch.cat([p.grad.view(-1) for p in model.parameters()]),
    "shared": lambda model, optimizer, gradient: gradient.share_memory_(),
}  # fmt: skip


@pytest.mark.parametrize("name", READING)
def test_what_reads_it_raises_and_is_noted(name: str) -> None:
    model, optimizer = model_without()
    before = reads()
    with pytest.raises(Exception):  # noqa: B017, PT011 - of torch's own where it asks for the numbers in C
        READING[name](model, optimizer, model.weight.grad)
    assert reads() > before


@pytest.mark.parametrize(
    "remove",
    [
        lambda model, optimizer: optimizer.zero_grad(),
        lambda model, optimizer: model.zero_grad(),
        lambda model, optimizer: [setattr(p, "grad", None) for p in model.parameters()],
    ],
)
def test_what_removes_it_does_not_raise(remove: Callable[[Any, Any], object]) -> None:
    model, optimizer = model_without()
    before = reads()
    assert model.weight.grad is not None
    assert model.weight.grad.shape == (2, 3)
    assert model.weight.grad.dtype == torch.float32
    remove(model, optimizer)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert not is_left_out(model.weight.grad)
    assert reads() == before


def trained() -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model(torch.ones(4, 3)).sum().backward()
    return model


def test_a_graph_comes_back_without_the_gradient_and_equals_one_with_it() -> None:
    model, other = trained(), nn.Linear(3, 2)
    gradient = model.weight.grad
    graph = capture({"scope": {"model": model}}, gradients={id(gradient)})
    skeleton, tensors = flattened(graph, "heap")
    assert not any(tensor.data_ptr() == gradient.data_ptr() for _, tensor in tensors)  # type: ignore[union-attr]
    restore(graph_of(unflatten(skeleton, dict(tensors).__getitem__)), {"scope": {"model": other}})
    assert is_left_out(other.weight.grad)
    assert torch.equal(other.weight, model.weight)
    assert other.bias.grad is not None
    assert torch.equal(other.bias.grad, torch.full((2,), 4.0))
    whole, again = capture({"scope": {"model": model}}), capture({"scope": {"model": other}})
    assert difference(whole, again) == difference(again, whole) == ""
    with torch.no_grad():
        other.weight[0, 0] += 1
    assert difference(whole, capture({"scope": {"model": other}})) == "model._parameters['weight']"


def test_whoever_else_holds_the_gradient_keeps_its_numbers() -> None:
    model = trained()
    roots = {"scope": {"model": model, "held": [model.weight.grad]}}
    skeleton, tensors = flattened(capture(roots, gradients={id(model.weight.grad)}), "heap")
    other = trained()
    live = {"scope": {"model": other, "held": [torch.zeros(2, 3)]}}
    found = restore(graph_of(unflatten(skeleton, dict(tensors).__getitem__)), live)
    assert torch.equal(found["scope"]["held"][0], torch.full((2, 3), 4.0))
    assert is_left_out(other.weight.grad)


def test_a_shared_parameter_loses_its_gradient_in_each_module() -> None:
    model = trained()
    assert model.weight.grad is not None
    assert model.bias.grad is not None
    one = {"weight": model.weight.grad, "bias": model.bias.grad}
    two = {"tied": model.weight.grad, "gone": LeftOutGradient(model.weight)}
    removed, names = take_out({"one": one, "two": two}, {"one": ["weight", "missing"], "three": ["x"]})
    assert (list(one), list(two)) == (["bias"], [])
    assert names == {"one": ["weight"], "two": ["tied", "gone"]}
    assert len(removed) == 3


def test_states_are_compared_without_what_one_lacks() -> None:
    def module(gradients: int, training: bool) -> tuple[str, list[Any]]:
        return "d", [(("v", "grads"), ("v", gradients)), (("v", "training"), ("v", training))]

    differing = ["/left out", "model", "model.grads.weight", "model.state.weight", "optimizer"]
    lacking = {"model": ["weight"]}
    then, now = (lambda _: module(1, True)), (lambda _: module(2, True))
    assert without_gradients(differing, lacking, then, now) == ["model.state.weight", "optimizer"]
    now = lambda _: module(2, False)  # noqa: E731
    assert "model" in without_gradients(differing, lacking, then, now)


def test_the_error_says_what_was_read() -> None:
    model, _ = model_without()
    with pytest.raises(LeftOutError, match="a gradient is read that the image leaves out"):
        model.weight.grad.norm()  # type: ignore[union-attr]
