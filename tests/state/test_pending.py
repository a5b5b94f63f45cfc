"""Values that a backward pass will still go through are no state: no image is taken while a loop carries one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import florlog
from florlog.state.pending import Pending, awaits_gradient
from florlog.state.tree import flatten


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient * 2 + 0 * x


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.tanh().mean(),
        lambda x: torch.nn.functional.cross_entropy(x * x, torch.zeros(4, dtype=torch.long)) / 3,
        lambda x: torch.stack([x.exp().sum(), x.sin().sum()]).sum() + x.sum(),
        lambda x: Doubled.apply(x).sum(),
    ],
)
def test_a_computation_awaits_its_gradient_until_a_backward_pass_has_freed_it(compute: Any) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    loss = compute(x)
    assert awaits_gradient(loss.grad_fn)
    with pytest.raises(Pending, match="gradient is still to be computed"):
        flatten({"losses": [loss]}, "held")
    loss.backward(retain_graph=True)
    assert awaits_gradient(loss.grad_fn)
    loss.backward()
    assert not awaits_gradient(loss.grad_fn)
    flatten({"losses": [loss]}, "held")


def train(store: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with florlog.run("episodes", store=store, overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        for _ in run.loop("episode", range(3)):
            scores = []
            for _ in run.loop("step", range(4)):
                score = model(torch.randn(5, 2)).sigmoid().mean()
                scores.append(score)
            loss = torch.stack(scores).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
        run.log(last=loss.item())


def test_no_image_stands_where_a_loop_carries_a_computation(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"scores.*gradient is still to be computed"):
        train(tmp_path)
    with florlog.open(tmp_path) as log:
        (episodes,) = log.run().tree().root.loops
        assert sorted(episodes.images) == [0, 1, 2, 3]  # `loss` is carried there, and done with
        for node in episodes.nodes.values():
            (steps,) = node.loops
            assert set(steps.images) <= {0}
